//! The `device` field.

use std::str::FromStr;

/// What a run or a command asks to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// `auto`: the first GPU that can be used, else the processor.
    Auto,
    /// `cpu`
    Processor,
    /// `cuda` for the first GPU, `cuda:1` for the second.
    Gpu(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(DeviceChoice::Auto),
            "cpu" => return Ok(DeviceChoice::Processor),
            "cuda" => return Ok(DeviceChoice::Gpu(0)),
            _ => {}
        }
        match text.strip_prefix("cuda:") {
            Some(number) => match number.parse() {
                Ok(ordinal) => Ok(DeviceChoice::Gpu(ordinal)),
                Err(_) if number == "all" || number.contains(',') => {
                    Err(format!("`{text}`: this version trains on one GPU; take one, as in `cuda:0`"))
                }
                Err(_) => Err(format!("expected the number of a GPU, as in `cuda:0`, got `{text}`")),
            },
            None => Err(format!("`{text}` is not known; expected `cpu`, `cuda`, `cuda:N` or `auto`")),
        }
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
        assert_eq!(read("cuda"), Ok(DeviceChoice::Gpu(0)));
        assert_eq!(read("cuda:3"), Ok(DeviceChoice::Gpu(3)));
        assert!(read("cuda:0,1").unwrap_err().contains("one GPU"));
        assert!(read("cuda:x").unwrap_err().contains("number of a GPU"));
        assert!(read("gpu").unwrap_err().contains("`gpu` is not known"));
    }
}
