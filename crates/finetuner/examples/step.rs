//! Times one optimiser step: forward, loss, backward, AdamW. The peer is `benchmarks/peers/step.py`.
//!
//! ```text
//! cargo run --release --example step -- bert-base|minilm-l6 [threads=2] [steps=10] [tokens=64] [texts=16|64]
//!     [device=cpu] [precision=auto]
//! ```
//! Prints one JSON line. Weights are random, dropout is on, texts all have equally many tokens; the loss is that of
//! in-batch negatives between the first and the second half of the batch. A step ends when its loss is known and the
//! device has been asked for its update.

use std::time::Instant;

use engine::random::Key;
use engine::{Gradients, Tape, Tensor};
use finetuner::artifact::ModelFolder;
use finetuner::encoder::{Encoder, EncoderOptions, Input};
use finetuner::objective::{BatchLayout, Objective};
use finetuner::optim::Optimizer;
use finetuner::tokens::PackedBatch;
use serde_json::json;

const WARM_UP: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let shape = arguments.first().map_or("minilm-l6", String::as_str);
    let given = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(&format!("{name}=")));
    let option = |name: &str, default: usize| given(name).map_or(Ok(default), str::parse);
    let (hidden, layers, intermediate, texts) = match shape {
        "bert-base" => (768, 12, 3072, 16),
        "minilm-l6" => (384, 6, 1536, 64),
        other => return Err(format!("expected `bert-base` or `minilm-l6`, got `{other}`").into()),
    };
    let (steps, tokens, texts) = (option("steps", 10)?, option("tokens", 64)? as u32, option("texts", texts)? as u32);
    let device = finetuner::device::open(given("device").unwrap_or("cpu"), given("precision").unwrap_or("auto"))?;
    let pool = finetuner::train::thread_pool(Some(option("threads", 2)?))?;

    let folder = tempfile::tempdir()?;
    let config = json!({
        "model_type": "bert", "vocab_size": 30522, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": 12, "intermediate_size": intermediate, "max_position_embeddings": 512,
        "type_vocab_size": 2, "hidden_act": "gelu",
    });
    std::fs::write(folder.path().join("config.json"), config.to_string())?;
    let options = EncoderOptions { random: true, ..Default::default() };
    let mut encoder = Encoder::open(&ModelFolder::open(folder.path())?, &options)?;
    let objective = Objective::new("MultipleNegativesRankingLoss", &Default::default(), None, &Default::default())?;
    let mut optimizer = Optimizer::new("AdamW", &Default::default(), encoder.depths())?;
    let mut gradients = Gradients::new(&encoder.parameters);

    let key = Key::new(1);
    let batch = Input::Tokens(PackedBatch {
        ids: (0..texts * tokens).map(|i| 1000 + (key.bits(u64::from(i)) % 29_000) as u32).collect(),
        type_ids: None,
        positions: (0..texts).flat_map(|_| 0..tokens).collect(),
        offsets: (0..=texts).map(|text| text * tokens).collect(),
        examples: (0..texts).collect(),
    });
    let half = texts as usize / 2;
    let layout = BatchLayout {
        columns: vec![half, half],
        labels: (0..half as u32).chain(0..half as u32).collect(),
        ..Default::default()
    };
    let mut seconds = pool.install(|| -> finetuner::Result<Vec<f64>> {
        let mut seconds = Vec::new();
        for step in 0..WARM_UP + steps {
            let started = Instant::now();
            gradients.clear();
            let mut tape = Tape::recording(&*device, &encoder.parameters);
            let embeddings = encoder.forward(&mut tape, &batch, Some(key.part(step as u64)))?;
            let loss = objective.loss(&mut tape, &embeddings, &layout)?;
            tape.backward(&loss, Tensor::scalar(1.0), &mut gradients)?;
            loss.value().data();
            device.check()?;
            optimizer.step(&*device, &mut encoder.parameters, &gradients, 2e-5, 0.0)?;
            if step >= WARM_UP {
                seconds.push(started.elapsed().as_secs_f64());
            }
        }
        Ok(seconds)
    })?;
    seconds.sort_by(f64::total_cmp);
    let line = json!({
        "benchmark": "step", "shape": shape, "seconds_per_step": seconds[seconds.len() / 2], "fastest": seconds[0],
        "slowest": seconds[seconds.len() - 1], "device": pool.install(|| device.name()),
        "tokens": tokens, "texts": texts,
    });
    #[expect(clippy::print_stdout, reason = "the result of a benchmark program")]
    {
        println!("{line}");
    }
    Ok(())
}
