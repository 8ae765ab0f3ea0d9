//! What computes: the processor, or a GPU.

use engine::cuda::{self, Precision};
use engine::{Cpu, Cuda, Device};

use crate::error::{Error, Result};
use crate::spec::DeviceChoice;

/// The compute capability from which on a GPU has 16-bit numbers of this kind.
const BF16_CAPABILITY: (u32, u32) = (8, 0);

/// Opens a device by the names of [`crate::spec::RunSpec`]'s fields: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU that
/// can be used, else the processor; and `f32`, `bf16` or `auto`, which is `bf16` on a GPU that has it.
///
/// # Errors
/// [`Error::Spec`] for another name, for `bf16` on the processor, and for a GPU that cannot be used, with the reason.
pub fn open(device: &str, precision: &str) -> Result<Box<dyn Device>> {
    let choice: DeviceChoice = device.parse().map_err(|problem: String| Error::spec("device", problem))?;
    let mut refused = None;
    let gpu = match choice {
        DeviceChoice::Processor => None,
        DeviceChoice::Auto => first_gpu(precision).map_err(|reason| refused = Some(reason)).ok(),
        DeviceChoice::Gpu(ordinal) => Some(gpu(ordinal, precision).map_err(|error| match error {
            Error::Engine(reason) => Error::spec("device", reason.to_string()),
            other => other,
        })?),
    };
    match (gpu, precision) {
        (Some(gpu), _) => Ok(Box::new(gpu)),
        (None, "f32" | "auto") => Ok(Box::new(Cpu)),
        (None, "bf16") => {
            let reason = refused.map_or(String::new(), |reason| format!(" ({reason})"));
            let advice = "take `f32`, or a `device` that has it";
            Err(Error::spec("precision", format!("`bf16` needs a GPU in this version{reason}; {advice}")))
        }
        (None, other) => Err(unknown(other)),
    }
}

/// The first GPU that can be used, or why the first cannot.
fn first_gpu(precision: &str) -> Result<Cuda> {
    let first = gpu(0, precision);
    let others = if first.is_ok() { 0 } else { cuda::found().map_or(0, |found| found.len()) };
    (1..others).find_map(|ordinal| gpu(ordinal, precision).ok()).map_or(first, Ok)
}

fn unknown(precision: &str) -> Error {
    Error::spec("precision", format!("expected `f32`, `bf16` or `auto`, got `{precision}`"))
}

fn gpu(ordinal: usize, precision: &str) -> Result<Cuda> {
    let precision = match precision {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "auto" => match cuda::found()?.get(ordinal) {
            Some(found) if found.capability >= BF16_CAPABILITY => Precision::Bf16,
            _ => Precision::F32,
        },
        other => return Err(unknown(other)),
    };
    Ok(Cuda::open(ordinal, precision)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there_and_has_no_short_numbers() {
        assert!(open("cpu", "auto").unwrap().name().starts_with("cpu"));
        let refused = |device, precision| open(device, precision).err().unwrap().to_string();
        assert!(refused("cpu", "bf16").contains("`bf16` needs a GPU"));
        assert!(refused("cpu", "f16").contains("expected `f32`, `bf16` or `auto`"));
        assert!(refused("gpu", "f32").contains("`gpu`"));
        assert!(refused("cuda:99", "f32").contains("cannot be used"));
    }
}
