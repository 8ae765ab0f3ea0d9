//! The `device` field.

use std::str::FromStr;

/// What a run or a command asks to compute on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// `auto`: the first GPU that can be used, else the processor.
    Auto,
    /// `cpu`
    Processor,
    /// `cuda`: the first GPU; of several processes on a machine each its own.
    AnyGpu,
    /// `cuda:1` for the second GPU, `cuda:0,1` for both at once.
    Gpus(Vec<usize>),
    /// `cuda:all`
    AllGpus,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(DeviceChoice::Auto),
            "cpu" => return Ok(DeviceChoice::Processor),
            "cuda" => return Ok(DeviceChoice::AnyGpu),
            "cuda:all" => return Ok(DeviceChoice::AllGpus),
            _ => {}
        }
        let Some(numbers) = text.strip_prefix("cuda:") else {
            return Err(format!(
                "`{text}` is not known; expected `cpu`, `cuda`, `cuda:N`, `cuda:N,M`, `cuda:all` or `auto`"
            ));
        };
        let mut gpus = Vec::new();
        for number in numbers.split(',') {
            let Ok(ordinal) = number.trim().parse() else {
                return Err(format!("expected numbers of GPUs, as in `cuda:0` or `cuda:0,1`, got `{text}`"));
            };
            if gpus.contains(&ordinal) {
                return Err(format!("`{text}` names GPU {ordinal} twice; each computes once"));
            }
            gpus.push(ordinal);
        }
        Ok(DeviceChoice::Gpus(gpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_torch_names_them() {
        let read = |text: &str| text.parse::<DeviceChoice>();
        assert_eq!(read("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(read("cpu"), Ok(DeviceChoice::Processor));
        assert_eq!(read("cuda"), Ok(DeviceChoice::AnyGpu));
        assert_eq!(read("cuda:3"), Ok(DeviceChoice::Gpus(vec![3])));
        assert_eq!(read("cuda:0,2"), Ok(DeviceChoice::Gpus(vec![0, 2])));
        assert_eq!(read("cuda:all"), Ok(DeviceChoice::AllGpus));
        assert!(read("cuda:1,1").unwrap_err().contains("GPU 1 twice"));
        assert!(read("cuda:x").unwrap_err().contains("numbers of GPUs"));
        assert!(read("cuda:").unwrap_err().contains("numbers of GPUs"));
        assert!(read("gpu").unwrap_err().contains("`gpu` is not known"));
    }
}
