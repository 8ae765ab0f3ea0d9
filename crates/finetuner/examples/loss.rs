//! Time and memory of one loss and its gradient.
//!
//! ```text
//! cargo run --release -p finetuner --example loss -- NAME BATCH [OPTIONS] [MINER] [MINER_OPTIONS]
//! cargo run --release -p finetuner --example loss -- MultiSimilarityLoss 4096 alpha=2 MultiSimilarityMiner
//! ```
//!
//! Embeddings are random, of dimension 384, in classes of 4 items; losses of pairs see two columns of them. The peak is that
//! of the process above what it held before (Linux only).

use std::time::Instant;

use engine::random::Key;
use engine::{Cpu, Gradients, Parameters, Tape, Tensor};
use finetuner::objective::{BatchLayout, Needs, Objective, Sizes};
use finetuner::spec::parse_options;

const DIMENSION: usize = 384;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize| arguments.get(place).map(String::as_str).filter(|text| !text.is_empty());
    let (Some(loss), Some(batch)) = (argument(0), argument(1)) else {
        return Err("expected the name of a loss and the size of a batch".into());
    };
    let batch: usize = batch.parse()?;
    let options = |place: usize| parse_options(argument(place).unwrap_or_default());
    let mut objective = Objective::new(loss, &options(2)?, argument(3), &options(4)?)?;
    objective.prepare(Sizes { dimension: DIMENSION, classes: batch.div_ceil(4), layers: 0 }, 1)?;

    let sided = matches!(objective.needs(), Needs::Pairs | Needs::Scores | Needs::RankedScores);
    let columns = if sided { vec![batch / 2, batch / 2] } else { vec![batch] };
    let rows: usize = columns.iter().sum();
    let label = |row: usize| if sided { row % (batch / 2) } else { row / 4 } as u32;
    let scores = matches!(objective.needs(), Needs::Scores | Needs::RankedScores);
    let layout = BatchLayout {
        labels: (0..rows).map(label).collect(),
        scores: scores.then(|| (0..batch / 2).map(|pair| (pair % 5) as f32 / 4.0).collect()),
        columns,
        ..Default::default()
    };
    let key = Key::new(7);
    let numbers = (0..rows * DIMENSION).map(|place| {
        let class = key.part(u64::from(label(place / DIMENSION))).normal((place % DIMENSION) as u64);
        (class + key.normal(place as u64)) as f32
    });
    let embeddings = Tensor::from_vec(numbers.collect(), &[rows, DIMENSION])?;

    // The peak from here on.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = kilobytes("VmRSS:");
    let parameters = Parameters::default();
    let started = Instant::now();
    let mut tape = Tape::recording(&Cpu::F32, &parameters);
    let leaf = tape.leaf(embeddings);
    let computed = objective.compute(&mut tape, &leaf, &layout)?;
    let value = computed.loss.value().item();
    tape.backward(&computed.loss, Tensor::scalar(1.0), &mut Gradients::new(&parameters))?;
    let seconds = started.elapsed().as_secs_f64();
    let above = kilobytes("VmHWM:").saturating_sub(before) as f64 / 1000.0;
    let said = format!("{loss}, {rows} rows: loss {value}, {seconds:.2} s, {above:.0} MB\n");
    std::io::Write::write_all(&mut std::io::stdout(), said.as_bytes())?;
    Ok(())
}

/// A number of the process's status; 0 where there is none.
fn kilobytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
