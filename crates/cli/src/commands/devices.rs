//! `finetuner devices`: what there is to compute on.

use std::fmt::Write;

use anyhow::Result;
use engine::cuda::{self, Cuda, Precision};
use engine::{Cpu, Device};
use serde_json::{Value, json};

use crate::terminal;

/// List what there is to compute on, and why something cannot be used
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One GPU, and why it cannot be used, if so.
struct Gpu {
    found: cuda::Found,
    free_bytes: Option<u64>,
    problem: Option<String>,
}

impl Gpu {
    fn open(found: cuda::Found) -> Self {
        match Cuda::open(found.ordinal, Precision::F32) {
            Ok(gpu) => Gpu { free_bytes: gpu.memory().map(|memory| memory.free_bytes), problem: None, found },
            Err(error) => Gpu { found, free_bytes: None, problem: Some(error.to_string()) },
        }
    }
}

/// Lists devices.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let processor = Cpu::F32.name();
    let (gpus, problem) = match cuda::found() {
        Ok(found) if found.is_empty() => (Vec::new(), Some("the driver finds no GPU".to_owned())),
        Ok(found) => (found.into_iter().map(Gpu::open).collect(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    if arguments.json {
        let cuda: Vec<Value> = gpus.iter().map(of_gpu).collect();
        let all = json!({"cpu": {"name": processor, "bf16": engine::has_bf16()}, "cuda": cuda, "problem": problem});
        return terminal::print(&(serde_json::to_string_pretty(&all)? + "\n"));
    }
    let bf16 = if engine::has_bf16() { "has bf16 products" } else { "no AVX-512 BF16, `--precision bf16` takes f32" };
    let mut text = format!("cpu      {processor}; {bf16}\n");
    for Gpu { found, free_bytes, problem } in &gpus {
        let ((major, minor), (driver, update)) = (found.capability, found.driver);
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let free = free_bytes.map_or(String::new(), |free| format!("{:.1} GB free of ", gigabytes(free)));
        let _ = write!(
            text,
            "cuda:{:<3} {}, compute capability {major}.{minor}, {free}{:.1} GB, driver for CUDA {driver}.{update}",
            found.ordinal,
            found.name,
            gigabytes(found.total_bytes),
        );
        let _ = writeln!(text, "{}", problem.as_ref().map_or(String::new(), |problem| format!("; {problem}")));
    }
    if let Some(problem) = problem {
        let _ = writeln!(text, "cuda     none: {problem}");
    }
    terminal::print(&text)
}

fn of_gpu(gpu: &Gpu) -> Value {
    let Gpu { found, free_bytes, problem } = gpu;
    json!({
        "ordinal": found.ordinal,
        "name": found.name,
        "capability": [found.capability.0, found.capability.1],
        "total_bytes": found.total_bytes,
        "free_bytes": free_bytes,
        "driver": [found.driver.0, found.driver.1],
        "problem": problem,
    })
}
