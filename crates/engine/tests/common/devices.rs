//! The devices that a test runs on.

#![allow(clippy::print_stderr, reason = "why a device was left out")]

use std::sync::OnceLock;

use engine::cuda::{Cuda, Precision};
use engine::{Cpu, Device};

/// The first GPU, or the emulated one where there is none, or neither, with the reason printed.
pub(crate) fn gpu(precision: Precision) -> Option<Cuda> {
    let found = super::emulated::gpu_or_emulated();
    let opened = found.and_then(|()| Cuda::open(0, precision).map_err(|error| error.to_string()));
    opened.inspect_err(|reason| eprintln!("skipped on a GPU: {reason}")).ok()
}

/// The processor, and the first GPU where one opens. A run that limits the processor's instruction set is about that alone.
pub(crate) fn devices() -> Vec<&'static dyn Device> {
    static GPU: OnceLock<Option<Cuda>> = OnceLock::new();
    let open = || gpu(Precision::F32);
    let limited = std::env::var_os("FINETUNER_ISA").is_some();
    let gpu = if limited { None } else { GPU.get_or_init(open).as_ref() };
    std::iter::once(&Cpu::F32 as &dyn Device).chain(gpu.map(|gpu| gpu as &dyn Device)).collect()
}
