//! `mlp`: a perceptron over vectors that somebody computed, from random weights.
//!
//! ```text
//! x_i = activation(x_(i-1) W_i^T + b_i)        the last layer without the activation
//! ```

use engine::device::Activation;
use engine::{Packing, ParameterId, Tape, Tensor, Var};
use serde_json::{Value, json};

use super::config::Reader;
use super::source::MLP;
use super::weights::Loader;
use crate::artifact::{Layout, ModelFolder, Step};
use crate::error::{Error, Result, nearest};
use crate::spec::Options;

/// The options of `mlp`, as `model_options` takes them.
const OPTIONS: [&str; 5] = ["input_size", "hidden_sizes", "bias", "activation", "l2"];

/// The activations between layers.
const ACTIVATIONS: [(&str, Activation); 5] = [
    ("identity", Activation::Identity),
    ("relu", Activation::Relu),
    ("gelu", Activation::Gelu),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
];

/// Some vectors, packed.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorBatch {
    /// `[items, width]`
    pub values: Vec<f32>,
    /// Numbers of a vector.
    pub width: usize,
    /// The row of the whole batch each item belongs to: `[items]`.
    pub examples: Vec<u32>,
}

/// The shape of a perceptron.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PerceptronConfig {
    pub(crate) input: usize,
    hidden: Vec<usize>,
    bias: bool,
    activation: Activation,
}

/// Linear layers with an activation between them.
#[derive(Debug)]
pub struct Perceptron {
    pub(crate) config: PerceptronConfig,
    layers: Vec<(ParameterId, Option<ParameterId>)>,
}

impl PerceptronConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Model`] for a size that is no positive integer, or an unknown activation.
    pub(crate) fn read(model: &str, config: &Value) -> Result<Self> {
        let sizes = config["hidden_sizes"].as_array().filter(|sizes| !sizes.is_empty());
        let sizes = sizes.ok_or_else(|| Error::model(model, "has no `hidden_sizes` in config.json"))?;
        let size = |size: &Value| Reader { model, config: &json!({"hidden_sizes": size}) }.count("hidden_sizes");
        let name = config["activation"].as_str().unwrap_or(ACTIVATIONS[0].0);
        Ok(PerceptronConfig {
            input: Reader { model, config }.count("input_size")?,
            hidden: sizes.iter().map(size).collect::<Result<_>>()?,
            bias: config["bias"].as_bool().unwrap_or(true),
            activation: activation(name).map_err(|problem| Error::model(model, problem))?,
        })
    }

    /// Width of what the last layer gives.
    pub(crate) fn width(&self) -> usize {
        self.hidden.last().copied().unwrap_or(self.input)
    }

    /// Number of layers.
    pub(crate) fn layers(&self) -> usize {
        self.hidden.len()
    }

    /// Numbers that a training pass holds of each vector.
    pub(crate) fn held(&self) -> usize {
        self.input + 2 * self.hidden.iter().sum::<usize>()
    }
}

impl Perceptron {
    pub(crate) fn load(config: PerceptronConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let mut inputs = config.input;
        let mut layers = Vec::new();
        for (layer, &outputs) in config.hidden.iter().enumerate() {
            loader.at_depth(layer + 1);
            // So that numbers keep their size from layer to layer; half of them are lost to a ReLU before.
            let gain: f32 = if layer > 0 && config.activation == Activation::Relu { 2.0 } else { 1.0 };
            let weight = loader.with_deviation((gain / inputs as f32).sqrt(), |loader| {
                loader.matrix(&[format!("layers.{layer}.weight")], outputs, inputs)
            })?;
            let bias = match config.bias {
                true => Some(loader.vector(&[format!("layers.{layer}.bias")], outputs, 0.0)?),
                false => None,
            };
            layers.push((weight, bias));
            inputs = outputs;
        }
        Ok(Perceptron { config, layers })
    }

    /// Rows `[items, width]`, one an item.
    pub(crate) fn forward(&self, tape: &mut Tape<'_>, batch: &VectorBatch) -> Result<(Var, Packing)> {
        let rows = batch.examples.len();
        let input = Tensor::from_vec(batch.values.clone(), &[rows, batch.width])?;
        let mut x = tape.constant(input);
        for (layer, (weight, bias)) in self.layers.iter().enumerate() {
            let (weight, bias) = (tape.parameter(*weight), bias.map(|bias| tape.parameter(bias)));
            x = tape.linear(&x, &weight, bias.as_ref())?;
            if layer + 1 < self.layers.len() && self.config.activation != Activation::Identity {
                x = tape.activation(self.config.activation, &x)?;
            }
        }
        let offsets: Vec<u32> = (0..=rows as u32).collect();
        Ok((x, Packing::new(&offsets, &batch.examples)))
    }
}

/// A perceptron that nobody has trained, for vectors of so many numbers.
///
/// # Errors
/// [`Error::Spec`] for an unknown option, one out of range, or an `input_size` that is not the data's.
pub(crate) fn untrained(options: &Options, width: usize) -> Result<ModelFolder> {
    let refuse = |option: &str, problem: String| Error::spec(format!("model_options.{option}"), problem);
    if let Some(option) = options.keys().find(|option| !OPTIONS.contains(&option.as_str())) {
        return Err(refuse(option, format!("unknown option{}", nearest(option, OPTIONS))));
    }
    let size = |option: &str, value: &Value| match value.as_u64() {
        Some(size) if (1..=1 << 24).contains(&size) => Ok(size),
        _ => Err(refuse(option, format!("expected whole numbers above 0, got {value}"))),
    };
    let flag = |option: &str, default: bool| match options.get(option) {
        None => Ok(default),
        Some(value) => {
            value.as_bool().ok_or_else(|| refuse(option, format!("expected `true` or `false`, got {value}")))
        }
    };
    if let Some(value) = options.get("input_size")
        && size("input_size", value)? != width as u64
    {
        return Err(refuse("input_size", format!("is {value}, but the data holds vectors of {width} numbers")));
    }
    let hidden = match options.get("hidden_sizes") {
        None => vec![width as u64],
        Some(Value::Array(sizes)) if !sizes.is_empty() => {
            sizes.iter().map(|own| size("hidden_sizes", own)).collect::<Result<_>>()?
        }
        Some(one) => vec![size("hidden_sizes", one)?],
    };
    let activation_name = match options.get("activation") {
        None | Some(Value::Null) => ACTIVATIONS[0].0,
        Some(value) => {
            let name = value.as_str().ok_or_else(|| refuse("activation", format!("expected a name, got {value}")))?;
            activation(name).map_err(|problem| refuse("activation", problem))?;
            name
        }
    };
    let config = json!({
        "model_type": MLP,
        "input_size": width,
        "hidden_sizes": hidden,
        "bias": flag("bias", true)?,
        "activation": activation_name,
    });
    let steps = if flag("l2", false)? { vec![Step::Normalise] } else { Vec::new() };
    Ok(ModelFolder::untrained(MLP, config, Layout { steps, ..Layout::mean() }))
}

fn activation(name: &str) -> std::result::Result<Activation, String> {
    let known = ACTIVATIONS.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation);
    known.ok_or_else(|| format!("`activation` is `{name}`{}", nearest(name, ACTIVATIONS.map(|(name, _)| name))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse_options;

    fn made(options: &str) -> Result<Value> {
        untrained(&parse_options(options).unwrap(), 8).map(|folder| folder.config)
    }

    #[test]
    fn options_make_a_shape_and_the_data_says_what_goes_in() {
        let config = made("hidden_sizes=[16,4],bias=false,activation=relu").unwrap();
        let read = PerceptronConfig::read("mlp", &config).unwrap();
        let expected = PerceptronConfig { input: 8, hidden: vec![16, 4], bias: false, activation: Activation::Relu };
        assert_eq!((read.width(), read.layers()), (4, 2));
        assert_eq!(read, expected);
        assert_eq!(PerceptronConfig::read("mlp", &made("").unwrap()).unwrap().hidden, [8]);
        assert_eq!(made("hidden_sizes=3,input_size=8").unwrap()["hidden_sizes"], json!([3]));
        let l2 = untrained(&parse_options("l2=true").unwrap(), 8).unwrap();
        assert_eq!(l2.layout.steps, [Step::Normalise]);
    }

    #[test]
    fn wrong_options_are_named() {
        for (options, expected) in [
            ("hidden_size=3", "`model_options.hidden_size`: unknown option, did you mean `hidden_sizes`"),
            ("hidden_sizes=[4,0]", "`model_options.hidden_sizes`: expected whole numbers above 0, got 0"),
            ("hidden_sizes=[]", "`model_options.hidden_sizes`: expected whole numbers above 0, got []"),
            ("input_size=9", "`model_options.input_size`: is 9, but the data holds vectors of 8 numbers"),
            ("activation=rule", "`model_options.activation`: `activation` is `rule`, did you mean `relu`"),
            ("bias=1", "`model_options.bias`: expected `true` or `false`, got 1"),
        ] {
            let error = made(options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
