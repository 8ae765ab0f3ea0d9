//! What follows the transformer: pooling, then dense and normalise modules, as sentence-transformers writes them.
//!
//! `modules.json` lists the modules in order; each has its own folder and configuration. We read the keys of every
//! version and write the oldest ones, which every version of sentence-transformers and text-embeddings-inference loads.

use serde_json::{Value, json};

use super::files::{ModelFiles, join};
use crate::error::{Error, Result, nearest};
use crate::spec::Options;

/// How token embeddings become one embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PoolingMode {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The maximum of each component.
    Max,
    /// The last token's.
    Last,
    /// Generalised mean `(mean of max(x, eps)^p)^(1/p)`, whose power is learnt (Radenovic et al. 2018).
    /// sentence-transformers does not have it and says so on loading.
    Gem {
        /// The power; 1 is the mean, large ones approach the maximum. Default 3.
        p: f32,
        /// What smaller values are raised to. Default 1e-6.
        eps: f32,
    },
}

/// The activation after a dense module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// None.
    Identity,
    /// tanh
    Tanh,
    /// max(x, 0)
    Relu,
    /// x Φ(x), the exact one
    Gelu,
    /// 1 / (1 + exp(−x))
    Sigmoid,
}

/// A linear layer on the pooled embedding: `activation(x Wᵀ + b)`, `W: [out_features, in_features]`.
///
/// Its weights are `linear.weight` and `linear.bias` of the `model.safetensors` in its own folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
    /// Width of the input.
    pub in_features: usize,
    /// Width of the output.
    pub out_features: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// What follows.
    pub activation: Activation,
}

/// A module after pooling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A linear layer, and the folder it lies in (`2_Dense`).
    Dense(Dense, String),
    /// Division by the L2 norm.
    Normalise,
}

/// Everything after the transformer, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Tokens to one embedding.
    pub pooling: PoolingMode,
    /// What is done to that embedding.
    pub steps: Vec<Step>,
}

/// The flags of the pooling configuration, in the order of the modes.
const POOLING_FLAGS: [(&str, PoolingMode); 4] = [
    ("pooling_mode_cls_token", PoolingMode::Cls),
    ("pooling_mode_max_tokens", PoolingMode::Max),
    ("pooling_mode_mean_tokens", PoolingMode::Mean),
    ("pooling_mode_lasttoken", PoolingMode::Last),
];
const OTHER_POOLING_FLAGS: [&str; 2] = ["pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"];

const ACTIVATIONS: [(&str, Activation); 5] = [
    ("torch.nn.modules.linear.Identity", Activation::Identity),
    ("torch.nn.modules.activation.Tanh", Activation::Tanh),
    ("torch.nn.modules.activation.ReLU", Activation::Relu),
    ("torch.nn.modules.activation.GELU", Activation::Gelu),
    ("torch.nn.modules.activation.Sigmoid", Activation::Sigmoid),
];

impl PoolingMode {
    /// The names, as the `pooling` field takes them.
    pub const NAMES: [&str; 5] = ["mean", "cls", "max", "last", "gem"];

    /// GeM as its authors start it.
    pub const GEM: PoolingMode = PoolingMode::Gem { p: 3.0, eps: 1e-6 };

    /// The mode of a name; of `gem` [`PoolingMode::GEM`]. sentence-transformers' `lasttoken` and the original's `GeM` are
    /// understood.
    ///
    /// # Errors
    /// A sentence with the nearest name.
    pub fn from_name(name: &str) -> std::result::Result<Self, String> {
        match name {
            "mean" => Ok(PoolingMode::Mean),
            "cls" => Ok(PoolingMode::Cls),
            "max" => Ok(PoolingMode::Max),
            "last" | "lasttoken" => Ok(PoolingMode::Last),
            "gem" | "GeM" => Ok(Self::GEM),
            _ => Err(format!("unknown pooling `{name}`{}", nearest(name, Self::NAMES))),
        }
    }

    /// The same with options: `p` and `eps` of `gem`, both above 0.
    ///
    /// # Errors
    /// The name of the option, where it is one, and a sentence.
    pub fn with_options(self, options: &Options) -> std::result::Result<Self, (String, String)> {
        let mut mode = self;
        for (name, value) in options {
            let PoolingMode::Gem { p, eps } = &mut mode else {
                return Err((name.clone(), format!("`{}` pooling has no options", self.name())));
            };
            let option = match name.as_str() {
                "p" => p,
                "eps" => eps,
                _ => return Err((name.clone(), format!("unknown option{}", nearest(name, ["p", "eps"])))),
            };
            *option = match value.as_f64().map(|value| value as f32) {
                Some(value) if value > 0.0 && value.is_finite() => value,
                _ => return Err((name.clone(), format!("expected a number above 0, got {value}"))),
            };
        }
        Ok(mode)
    }

    /// The name, as [`PoolingMode::from_name`] takes it.
    pub fn name(&self) -> &'static str {
        match self {
            PoolingMode::Mean => "mean",
            PoolingMode::Cls => "cls",
            PoolingMode::Max => "max",
            PoolingMode::Last => "last",
            PoolingMode::Gem { .. } => "gem",
        }
    }

    fn read(config: &Value) -> std::result::Result<Self, String> {
        if config["include_prompt"] == false {
            return Err("leaves the prompt out of pooling (`include_prompt: false`), which is not supported".into());
        }
        if let Some(mode) = config.get("pooling_mode") {
            let names: Vec<&str> = match mode {
                Value::Array(modes) => modes.iter().filter_map(Value::as_str).collect(),
                mode => mode.as_str().into_iter().collect(),
            };
            return match names[..] {
                [name] => match name.strip_prefix("gem:").map(str::parse) {
                    Some(power) => Self::read_gem(power.ok(), &config["gem_eps"]),
                    None => Self::from_name(name),
                },
                _ => Err(format!("has pooling_mode {mode}, expected one of {}", Self::NAMES.join(", "))),
            };
        }
        if let Some(flag) = OTHER_POOLING_FLAGS.iter().find(|flag| config[**flag] == true) {
            return Err(format!("sets `{flag}`, supported are {}", Self::NAMES.join(", ")));
        }
        let set: Vec<_> = POOLING_FLAGS.iter().filter(|(flag, _)| config[*flag] == true).collect();
        match set[..] {
            [] => Ok(PoolingMode::Mean),
            [(_, mode)] => Ok(*mode),
            _ => Err("joins several pooling modes, which is not supported".into()),
        }
    }

    /// GeM with what was learnt; a power of 0 has no mean.
    fn read_gem(power: Option<f32>, eps: &Value) -> std::result::Result<Self, String> {
        let PoolingMode::Gem { eps: default, .. } = Self::GEM else { return Ok(Self::GEM) };
        let p = power.filter(|power| power.is_finite() && *power != 0.0);
        let p = p.ok_or("has a power of `gem` that is no number other than 0")?;
        let given = if eps.is_null() { Some(default) } else { eps.as_f64().map(|eps| eps as f32) };
        let eps = given.filter(|eps| *eps > 0.0 && eps.is_finite());
        Ok(PoolingMode::Gem { p, eps: eps.ok_or("has a `gem_eps` that is no number above 0")? })
    }

    fn write(&self, width: usize) -> Value {
        let mut config = json!({"word_embedding_dimension": width});
        if let PoolingMode::Gem { p, eps } = self {
            config["pooling_mode"] = format!("gem:{p}").into(); // in the name, so that others refuse it by name
            config["gem_eps"] = (*eps).into();
            return config;
        }
        for (flag, mode) in POOLING_FLAGS {
            config[flag] = (mode == *self).into();
        }
        for flag in OTHER_POOLING_FLAGS {
            config[flag] = false.into();
        }
        config["include_prompt"] = true.into();
        config
    }
}

impl Dense {
    fn read(config: &Value) -> std::result::Result<Self, String> {
        let width = |key: &str| match config[key].as_u64() {
            Some(width) if width > 0 => Ok(width as usize),
            _ => Err(format!("has {key} {}, expected a positive number", config[key])),
        };
        if config["use_residual"] == true {
            return Err("has a residual connection (`use_residual`), which is not supported".into());
        }
        for key in ["module_input_name", "module_output_name"] {
            if config[key].as_str().is_some_and(|name| name != "sentence_embedding") {
                return Err(format!("has {key} {}, expected \"sentence_embedding\"", config[key]));
            }
        }
        let activation = match config.get("activation_function").and_then(Value::as_str) {
            None => Activation::Tanh, // sentence-transformers' default
            Some(name) => {
                let class = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
                let known = ACTIVATIONS.iter().find(|(path, _)| class(path) == class(name));
                let names = || ACTIVATIONS.map(|(path, _)| class(path)).join(", ");
                known.ok_or_else(|| format!("has activation `{name}`, supported are {}", names()))?.1
            }
        };
        Ok(Dense {
            in_features: width("in_features")?,
            out_features: width("out_features")?,
            bias: config["bias"].as_bool().unwrap_or(true),
            activation,
        })
    }

    fn write(&self) -> Value {
        let activation = ACTIVATIONS.iter().find(|(_, known)| *known == self.activation).map(|(path, _)| *path);
        json!({
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "activation_function": activation,
        })
    }
}

impl Layout {
    /// Mean pooling and nothing else: what a folder without `modules.json` gets.
    pub fn mean() -> Self {
        Layout { pooling: PoolingMode::Mean, steps: Vec::new() }
    }

    /// Reads `modules.json` and what it points to; also gives the subfolder of the transformer, usually `""`.
    ///
    /// # Errors
    /// [`Error::Model`] for an unknown or unsupported module, naming the known ones.
    pub fn read(files: &ModelFiles) -> Result<(Self, String)> {
        let Some(modules) = files.json("modules.json")? else { return Ok((Self::mean(), String::new())) };
        let refuse = |problem: String| Error::model(files.name(), problem);
        let modules = modules.as_array().cloned().unwrap_or_default();
        let mut transformer = None;
        let mut pooling = None;
        let mut steps = Vec::new();
        for module in &modules {
            let (kind, path) =
                (module["type"].as_str().unwrap_or_default(), module["path"].as_str().unwrap_or_default());
            if !is_inside(path) {
                return Err(refuse(format!("`modules.json` points outside the model's folder: `{path}`")));
            }
            let config = || Ok::<_, Error>(files.json(&join(path, "config.json"))?.unwrap_or_else(|| json!({})));
            let within = |problem: String| refuse(format!("module `{path}` {problem}"));
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" if transformer.is_none() => transformer = Some(path.trim_end_matches('/').to_owned()),
                // A whole CLIP in one module; its towers pool in their own ways.
                "CLIPModel" if transformer.is_none() => {
                    transformer = Some(path.trim_end_matches('/').to_owned());
                    pooling = Some(PoolingMode::Cls);
                }
                "Pooling" if pooling.is_none() && transformer.is_some() => {
                    pooling = Some(PoolingMode::read(&config()?).map_err(within)?);
                }
                "Dense" if pooling.is_some() => {
                    steps.push(Step::Dense(Dense::read(&config()?).map_err(within)?, path.to_owned()));
                }
                "Normalize" if pooling.is_some() => steps.push(Step::Normalise),
                "Transformer" | "CLIPModel" | "Pooling" | "Dense" | "Normalize" => {
                    return Err(refuse(format!("module `{path}` ({kind}) is out of order in `modules.json`")));
                }
                _ => {
                    let problem = format!(
                        "unknown module type `{kind}`, known are Transformer, CLIPModel, Pooling, Dense, Normalize"
                    );
                    return Err(refuse(problem));
                }
            }
        }
        match (transformer, pooling) {
            (Some(transformer), Some(pooling)) => Ok((Layout { pooling, steps }, transformer)),
            _ => Err(refuse("`modules.json` must list a Transformer and a Pooling module".into())),
        }
    }

    /// `modules.json` of a whole CLIP: sentence-transformers has one module for it.
    pub fn of_clip() -> Value {
        json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.CLIPModel"}])
    }

    /// Whether `modules.json` names a pooling.
    ///
    /// # Errors
    /// As [`ModelFiles::json`].
    pub fn is_named(files: &ModelFiles) -> Result<bool> {
        let modules = files.json("modules.json")?.unwrap_or(Value::Null);
        let kinds = modules.as_array().into_iter().flatten().filter_map(|module| module["type"].as_str());
        Ok(kinds.into_iter().any(|kind| kind.ends_with(".Pooling")))
    }

    /// The files that describe this layout, for a transformer of this hidden width: names and contents.
    ///
    /// Dense modules come out under `2_Dense`, `3_Dense` …, as [`Layout::folder_of`] says.
    pub fn write(&self, width: usize) -> Vec<(String, Value)> {
        let module = |index: usize, path: String, class: &str| json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}")});
        let mut modules = vec![module(0, String::new(), "Transformer"), module(1, "1_Pooling".into(), "Pooling")];
        let mut files = vec![("1_Pooling/config.json".to_owned(), self.pooling.write(width))];
        for (position, step) in self.steps.iter().enumerate() {
            let folder = self.folder_of(position);
            if let Step::Dense(dense, _) = step {
                files.push((format!("{folder}/config.json"), dense.write()));
                modules.push(module(position + 2, folder, "Dense"));
            } else {
                modules.push(module(position + 2, folder, "Normalize"));
            }
        }
        files.insert(0, ("modules.json".into(), modules.into()));
        files
    }

    /// The folder in which the step at this position is written.
    pub fn folder_of(&self, position: usize) -> String {
        let class = if matches!(self.steps[position], Step::Dense(..)) { "Dense" } else { "Normalize" };
        format!("{}_{class}", position + 2)
    }

    /// The width of the final embedding, for a transformer of this hidden width.
    pub fn output_width(&self, width: usize) -> usize {
        let mut widths = self.steps.iter().rev().filter_map(|step| match step {
            Step::Dense(dense, _) => Some(dense.out_features),
            Step::Normalise => None,
        });
        widths.next().unwrap_or(width)
    }
}

/// Whether a path of a model's file stays in the model's folder.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.starts_with('/') && !path.contains(['\\', ':']) && path.split('/').all(|part| part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, Value)]) -> (tempfile::TempDir, ModelFiles) {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        }
        let files = ModelFiles::from(folder.path());
        (folder, files)
    }

    fn full() -> Layout {
        let dense = Dense { in_features: 8, out_features: 4, bias: true, activation: Activation::Tanh };
        Layout { pooling: PoolingMode::Cls, steps: vec![Step::Dense(dense, "2_Dense".into()), Step::Normalise] }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let named = PoolingMode::NAMES.map(|name| PoolingMode::from_name(name).unwrap());
        for pooling in named.into_iter().chain([PoolingMode::Gem { p: 2.412_345_6, eps: 3e-5 }]) {
            let layout = Layout { pooling, ..full() };
            let written = layout.write(8);
            let files: Vec<_> = written.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            let (_folder, files) = folder(&files);
            assert_eq!(Layout::read(&files).unwrap(), (layout, String::new()));
        }
        assert_eq!((full().output_width(8), Layout::mean().output_width(8)), (4, 8));
    }

    #[test]
    fn old_and_new_pooling_keys_mean_the_same() {
        for (config, mode) in [
            (json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}), PoolingMode::Cls),
            (json!({"pooling_mode_lasttoken": true}), PoolingMode::Last),
            (json!({"pooling_mode": "lasttoken", "embedding_dimension": 8}), PoolingMode::Last),
            (json!({"pooling_mode": ["max"]}), PoolingMode::Max),
            (json!({"pooling_mode": "gem:2.5"}), PoolingMode::Gem { p: 2.5, eps: 1e-6 }),
            (json!({"pooling_mode": "gem"}), PoolingMode::GEM),
            (json!({}), PoolingMode::Mean),
        ] {
            assert_eq!(PoolingMode::read(&config).unwrap(), mode, "{config}");
        }
        for config in [
            json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}),
            json!({"pooling_mode_weightedmean_tokens": true}),
            json!({"pooling_mode": ["max", "mean"]}),
            json!({"pooling_mode": "men"}),
            json!({"pooling_mode": "gem:0"}),
            json!({"pooling_mode": "gem:NaN"}),
            json!({"pooling_mode": "gem:many"}),
            json!({"pooling_mode": "gem:3", "gem_eps": 0}),
            json!({"include_prompt": false}),
        ] {
            PoolingMode::read(&config).unwrap_err();
        }
    }

    #[test]
    fn only_gem_has_options_and_both_are_above_0() {
        let with = |mode: PoolingMode, options: Value| mode.with_options(options.as_object().unwrap());
        let both = with(PoolingMode::GEM, json!({"p": 2.4, "eps": 1e-5}));
        assert_eq!(both, Ok(PoolingMode::Gem { p: 2.4, eps: 1e-5 }));
        assert_eq!(with(PoolingMode::Mean, json!({})), Ok(PoolingMode::Mean));
        for (mode, options, field, expected) in [
            (PoolingMode::Mean, json!({"p": 2}), "p", "`mean` pooling has no options"),
            (PoolingMode::GEM, json!({"power": 2}), "power", "known are p, eps"),
            (PoolingMode::GEM, json!({"p": 0}), "p", "above 0, got 0"),
            (PoolingMode::GEM, json!({"eps": "small"}), "eps", "above 0, got \"small\""),
        ] {
            let (name, problem) = with(mode, options).unwrap_err();
            assert!(name == field && problem.contains(expected), "{name}: {problem}");
        }
    }

    #[test]
    fn a_folder_without_modules_gets_mean_pooling() {
        assert_eq!(Layout::read(&folder(&[]).1).unwrap(), (Layout::mean(), String::new()));
    }

    #[test]
    fn unknown_misplaced_and_escaping_modules_are_refused() {
        let module =
            |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
        for (modules, expected) in [
            (json!([module("Transformer", ""), module("LSTM", "1_LSTM")]), "known are Transformer, CLIPModel"),
            (json!([module("Pooling", ""), module("Transformer", "1")]), "out of order"),
            (json!([module("Transformer", "")]), "must list"),
            (json!([module("Transformer", "../other")]), "outside"),
            (json!({}), "must list"),
        ] {
            let error = Layout::read(&folder(&[("modules.json", modules)]).1).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_dense_module_with_unsupported_parts_is_refused() {
        let config =
            json!({"in_features": 8, "out_features": 4, "activation_function": "torch.nn.modules.activation.Mish"});
        assert!(Dense::read(&config).unwrap_err().contains("Mish"));
        assert!(Dense::read(&json!({"in_features": 8})).unwrap_err().contains("out_features"));
        assert!(Dense::read(&json!({"in_features": 8, "out_features": 4, "use_residual": true})).is_err());
    }
}
