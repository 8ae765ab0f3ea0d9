//! Times one optimiser step: forward, loss, backward, AdamW. The peer is `benchmarks/peers/step.py`.
//!
//! ```text
//! cargo run --release --example step -- bert-base|minilm-l6|multilingual-minilm|clip-base-32 [threads=2] [steps=10]
//!     [tokens=64|16] [texts=16|64] [device=cpu] [precision=auto]
//! ```
//! Prints one JSON line. Weights are random, dropout is on, texts all have equally many tokens; the loss is that of
//! in-batch negatives between the first and the second half of the batch. CLIP has a picture of 224 x 224 for each text, and its
//! own loss. A step ends when its loss is known and the device has been asked for its update.

use std::time::Instant;

use engine::random::Key;
use engine::{Gradients, Tape, Tensor};
use finetuner::artifact::ModelFolder;
use finetuner::encoder::{Encoder, EncoderOptions, Input};
use finetuner::objective::{BatchLayout, Objective, Sizes};
use finetuner::optim::Optimizer;
use finetuner::pixels::PixelBatch;
use finetuner::tokens::PackedBatch;
use serde_json::json;

const WARM_UP: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let shape = arguments.first().map_or("minilm-l6", String::as_str);
    let given = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(&format!("{name}=")));
    let option = |name: &str, default: usize| given(name).map_or(Ok(default), str::parse);
    let bert = |words: u32, hidden: u32, layers: u32| {
        json!({
            "model_type": "bert", "vocab_size": words, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": 12, "intermediate_size": 4 * hidden, "max_position_embeddings": 512,
            "type_vocab_size": 2, "hidden_act": "gelu",
        })
    };
    // Its end of a text is what it pools.
    const END: u32 = 49_407;
    let clip = json!({
        "model_type": "clip", "projection_dim": 512,
        "text_config": {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "intermediate_size": 2048,
                        "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "eos_token_id": END},
        "vision_config": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
                          "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu"},
    });
    let (config, loss, tokens, texts) = match shape {
        "bert-base" => (bert(30_522, 768, 12), "MultipleNegativesRankingLoss", 64, 16),
        "minilm-l6" => (bert(30_522, 384, 6), "MultipleNegativesRankingLoss", 64, 64),
        "multilingual-minilm" => (bert(250_037, 384, 12), "MultipleNegativesRankingLoss", 16, 64),
        "clip-base-32" => (clip, "ClipLoss", 16, 64),
        other => return Err(format!("expected one of the shapes in this program's head, got `{other}`").into()),
    };
    let (steps, tokens, texts) =
        (option("steps", 10)?, option("tokens", tokens)? as u32, option("texts", texts)? as u32);
    let device = finetuner::device::open(given("device").unwrap_or("cpu"), given("precision").unwrap_or("auto"))?;
    let pool = finetuner::train::thread_pool(Some(option("threads", 2)?))?;

    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config.json"), config.to_string())?;
    let options = EncoderOptions { random: true, ..Default::default() };
    let mut encoder = Encoder::open(&ModelFolder::open(folder.path())?, &options)?;
    let mut objective = Objective::new(loss, &Default::default(), None, &Default::default())?;
    objective.prepare(Sizes { dimension: encoder.dimension(), classes: 0, layers: 0 }, 1)?;
    let mut optimizer = Optimizer::new("AdamW", &Default::default(), encoder.depths())?;
    let mut gradients = Gradients::new(&encoder.parameters);

    let key = Key::new(1);
    let clip = shape == "clip-base-32";
    let id = |place: u32| match clip && place % tokens == tokens - 1 {
        true => END,
        false => 1000 + (key.bits(u64::from(place)) % 29_000) as u32,
    };
    let mut inputs = vec![Input::Tokens(PackedBatch {
        ids: (0..texts * tokens).map(id).collect(),
        type_ids: None,
        positions: (0..texts).flat_map(|_| 0..tokens).collect(),
        offsets: (0..=texts).map(|text| text * tokens).collect(),
        examples: (0..texts).collect(),
    })];
    if clip {
        inputs.push(Input::Pixels(PixelBatch {
            values: (0..u64::from(texts) * 224 * 224 * 3).map(|place| key.part(1).normal(place) as f32).collect(),
            height: 224,
            width: 224,
            examples: (texts..2 * texts).collect(),
        }));
    }
    let pairs = if clip { texts } else { texts / 2 };
    let layout = BatchLayout {
        columns: vec![pairs as usize; 2],
        labels: (0..pairs).chain(0..pairs).collect(),
        ..Default::default()
    };
    let mut seconds = pool.install(|| -> finetuner::Result<Vec<f64>> {
        let mut seconds = Vec::new();
        for step in 0..WARM_UP + steps {
            let started = Instant::now();
            gradients.clear();
            let mut tape = Tape::recording(&*device, &encoder.parameters);
            let mut forward = |input: &Input| encoder.forward(&mut tape, input, Some(key.part(step as u64)));
            let parts = inputs.iter().map(&mut forward).collect::<finetuner::Result<Vec<_>>>()?;
            let embeddings = tape.stacked(&parts.iter().collect::<Vec<_>>())?;
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
