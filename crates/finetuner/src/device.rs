//! What computes: the processor, or a GPU.

use engine::cuda::{self, Precision};
use engine::{Cpu, Cuda, Device};

use crate::error::{Error, Result};
use crate::spec::DeviceChoice;

/// The compute capability from which on a GPU has 16-bit numbers of this kind.
const BF16_CAPABILITY: (u32, u32) = (8, 0);

/// Opens a device by the names of [`crate::spec::RunSpec`]'s fields: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU that
/// can be used, else the processor; and `f32`, `bf16` or `auto`, which is `bf16` on a GPU that has it. A processor without
/// the instruction for it computes in f32 under `bf16`, too; [`remark`] says so.
///
/// # Errors
/// [`Error::Spec`] for another name, and for a GPU that cannot be used, with the reason.
pub fn open(device: &str, precision: &str) -> Result<Box<dyn Device>> {
    let devices = open_all(device, precision, 0)?;
    let count = devices.len();
    let only = devices.into_iter().next().filter(|_| count == 1);
    only.ok_or_else(|| {
        Error::spec(
            "device",
            format!("expected one GPU, got `{device}`, {count} of them; training alone takes several"),
        )
    })
}

/// The same, where one run may have several GPUs: `cuda:0,1` or `cuda:all`. Of several processes on one machine this is the one
/// of a number: `cuda` and `auto` are the GPU of that number to it.
///
/// # Errors
/// As [`open`].
pub fn open_all(device: &str, precision: &str, process: usize) -> Result<Vec<Box<dyn Device>>> {
    let choice: DeviceChoice = device.parse().map_err(|problem: String| Error::spec("device", problem))?;
    let unusable = |error| match error {
        Error::Engine(reason) => Error::spec("device", reason.to_string()),
        other => other,
    };
    let gpus = match choice {
        DeviceChoice::Processor => Vec::new(),
        DeviceChoice::Auto if process == 0 => first_gpu(precision).into_iter().collect(),
        DeviceChoice::Auto => gpu(process, precision).into_iter().collect(),
        DeviceChoice::AnyGpu => vec![gpu(process, precision).map_err(unusable)?],
        DeviceChoice::Gpus(ordinals) => {
            ordinals.into_iter().map(|ordinal| gpu(ordinal, precision)).collect::<Result<_>>().map_err(unusable)?
        }
        DeviceChoice::AllGpus => {
            let found = cuda::found().map_err(|error| unusable(error.into()))?;
            let gpus = (0..found.len()).map(|ordinal| gpu(ordinal, precision)).collect::<Result<Vec<_>>>();
            match gpus.map_err(unusable)? {
                none if none.is_empty() => {
                    return Err(Error::spec("device", "expected GPUs, and the driver knows none"));
                }
                gpus => gpus,
            }
        }
    };
    if gpus.is_empty() {
        return Ok(vec![processor(precision)?]);
    }
    Ok(gpus.into_iter().map(|gpu| Box::new(gpu) as Box<dyn Device>).collect())
}

fn processor(precision: &str) -> Result<Box<dyn Device>> {
    match precision {
        "f32" | "auto" => Ok(Box::new(Cpu::F32)),
        "bf16" if engine::has_bf16() => Ok(Box::new(Cpu::Bf16)),
        "bf16" => Ok(Box::new(Cpu::F32)),
        other => Err(unknown(other)),
    }
}

/// What to know of a device before trusting it: kernels that few have run yet, or a precision that it does not have.
pub fn remark(device: &dyn Device, precision: &str) -> Option<&'static str> {
    match (device.memory(), precision) {
        (Some(_), _) => Some(
            "GPUs are new: kernels and small runs were compared with the processor's on one H100; compare with `--device cpu`",
        ),
        (None, "bf16") if !engine::has_bf16() => {
            Some("this processor has no AVX-512 BF16: it computes in f32 though `precision` is `bf16`")
        }
        _ => None,
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
    fn the_processor_is_always_there_and_says_what_it_multiplies() {
        assert!(open("cpu", "auto").unwrap().name().starts_with("cpu"));
        let short = open("cpu", "bf16").unwrap();
        assert_eq!(short.name().contains("bf16 products"), engine::has_bf16());
        let says_f32 = remark(&*short, "bf16").map(|remark| remark.contains("in f32"));
        assert_eq!(says_f32, (!engine::has_bf16()).then_some(true));
        assert_eq!(remark(&*open("cpu", "auto").unwrap(), "auto"), None);
        let refused = |device, precision| open(device, precision).err().unwrap().to_string();
        assert!(refused("cpu", "f16").contains("expected `f32`, `bf16` or `auto`"));
        assert!(refused("gpu", "f32").contains("`gpu`"));
        assert!(refused("cuda:99", "f32").contains("cannot be used"));
    }
}
