//! The devices that a test runs on.

#![allow(clippy::print_stderr, reason = "why a device was left out")]

use std::sync::OnceLock;

use engine::cuda::{Cuda, Precision};
use engine::{Cpu, Device};

/// The processor, and the first GPU where one opens. A run that limits the processor's instruction set is about that alone.
pub(crate) fn devices() -> Vec<&'static dyn Device> {
    static GPU: OnceLock<Option<Cuda>> = OnceLock::new();
    let open = || {
        let gpu = Cuda::open(0, Precision::F32);
        gpu.inspect_err(|reason| eprintln!("skipped on a GPU: {reason}")).ok()
    };
    let limited = std::env::var_os("FINETUNER_ISA").is_some();
    let gpu = if limited { None } else { GPU.get_or_init(open).as_ref() };
    std::iter::once(&Cpu as &dyn Device).chain(gpu.map(|gpu| gpu as &dyn Device)).collect()
}
