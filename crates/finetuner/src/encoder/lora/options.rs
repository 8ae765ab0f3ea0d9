//! The options of `lora`.

use serde::Deserialize;

use crate::error::{Error, Result, nearest};
use crate::spec::Options;

/// How a model is adapted: the options of `lora`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraOptions {
    /// Rows of `A` and columns of `B`. Default 8.
    pub rank: usize,
    /// The numerator of the scale. Default 16.
    pub alpha: f64,
    /// Dropout of the input of `A` while training. Default 0.
    pub dropout: f32,
    /// Which linear layers. Default: those of query and value.
    pub targets: Targets,
    /// What the artifact holds. Default `merged`.
    pub save: Save,
}

/// Which linear layers of the transformer get an adapter.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(from = "TargetNames")]
pub enum Targets {
    /// Query and value, whatever their names.
    #[default]
    QueryAndValue,
    /// `all-linear`
    AllLinear,
    /// Layers whose name is, or ends after a dot in, one of these: `query`, `attention.output.dense`.
    Named(Vec<String>),
}

/// `query+value`, or a list of names.
#[derive(Deserialize)]
#[serde(untagged)]
enum TargetNames {
    Joined(String),
    List(Vec<String>),
}

impl From<TargetNames> for Targets {
    fn from(names: TargetNames) -> Self {
        let names = match names {
            TargetNames::Joined(text) => text.split('+').map(|name| name.trim().to_owned()).collect(),
            TargetNames::List(names) => names,
        };
        if names == ["all-linear"] { Targets::AllLinear } else { Targets::Named(names) }
    }
}

/// What the artifact of an adapted model holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Save {
    /// A whole model, the adapters added to its weights.
    #[default]
    Merged,
    /// The adapters alone, in the layout of the `peft` library, which names the model they belong to.
    Adapter,
}

impl Default for LoraOptions {
    fn default() -> Self {
        LoraOptions { rank: 8, alpha: 16.0, dropout: 0.0, targets: Targets::default(), save: Save::default() }
    }
}

impl LoraOptions {
    /// The names of the options.
    pub const NAMES: [&str; 5] = ["rank", "alpha", "dropout", "targets", "save"];

    /// Reads the field `lora`; `None` where it is empty.
    ///
    /// # Errors
    /// [`Error::Spec`] for an unknown option (with the nearest name), a value of another type or outside its range.
    pub fn read(options: &Options) -> Result<Option<Self>> {
        if options.is_empty() {
            return Ok(None);
        }
        let refuse = |problem: String| Err(Error::spec("lora", problem));
        if let Some(unknown) = options.keys().find(|name| !Self::NAMES.contains(&name.as_str())) {
            return refuse(format!("there is no option `{unknown}`{}", nearest(unknown, Self::NAMES)));
        }
        let read: Self = match serde_json::from_value(options.clone().into()) {
            Ok(read) => read,
            Err(error) => return refuse(error.to_string()),
        };
        if read.rank == 0 {
            return refuse("`rank`: expected 1 or more, got 0".into());
        }
        if !(read.alpha > 0.0 && read.alpha.is_finite()) {
            return refuse(format!("`alpha`: expected a number above 0, got {}", read.alpha));
        }
        if !(0.0..1.0).contains(&read.dropout) {
            return refuse(format!("`dropout`: expected a share of at least 0 and less than 1, got {}", read.dropout));
        }
        Ok(Some(read))
    }

    /// What the product of the two matrices is multiplied with.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse_options;

    #[test]
    fn options_are_read_with_their_defaults() {
        let read = |text: &str| LoraOptions::read(&parse_options(text).unwrap());
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("rank=8").unwrap(), Some(LoraOptions::default()));
        let all = read("rank=4,alpha=4,targets=query+key,dropout=0.1,save=adapter").unwrap().unwrap();
        let targets = Targets::Named(vec!["query".into(), "key".into()]);
        assert_eq!(all, LoraOptions { rank: 4, alpha: 4.0, dropout: 0.1, targets, save: Save::Adapter });
        assert_eq!(all.scale(), 1.0);
        assert_eq!(read("targets=all-linear").unwrap().unwrap().targets, Targets::AllLinear);
        assert_eq!(
            read("targets=[query,key]").unwrap().unwrap().targets,
            Targets::Named(vec!["query".into(), "key".into()])
        );
    }

    #[test]
    fn problems_name_the_option() {
        for (text, expected) in [
            ("rnk=8", "there is no option `rnk`, did you mean `rank`?"),
            ("rank=0", "`rank`: expected 1 or more"),
            ("alpha=0", "`alpha`: expected a number above 0"),
            ("dropout=1", "`dropout`: expected a share"),
            ("save=both", "unknown variant `both`, expected `merged` or `adapter`"),
        ] {
            let problem = LoraOptions::read(&parse_options(text).unwrap()).unwrap_err().to_string();
            assert!(problem.starts_with("`lora`: ") && problem.contains(expected), "{problem}");
        }
    }
}
