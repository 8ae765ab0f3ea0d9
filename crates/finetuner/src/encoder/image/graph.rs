//! A network as a list of operations, such as a converted TensorFlow Lite model: batch norm is folded into the filters.
//!
//! Its `config.json`:
//! ```text
//! {"architecture": "graph", "input": {"size": 224, …},
//!  "ops": [{"op": "CONV_2D", "in": [0, …], "out": [56], "stride": 2, "padding": "SAME", "act": 3, "param": "000.conv_2d"}, …]}
//! ```
//! Tensors go by number: the first of `in` is the map, of `ADD` the first two are. 0 are the pixels. `act` is 0 for none, 1 for
//! ReLU, 3 for ReLU6. `param` is where `.weight` `[out, in, height, width]` (depthwise `[channels, 1, height, width]`) and
//! `.bias` lie. The features are the map that the first `AVERAGE_POOL_2D` reads; the classifier after it is left out.

use std::collections::BTreeMap;

use engine::Tape;
use engine::device::Activation;
use serde_json::Value;

use super::convolution::{Border, Convolution, Features, Filters};
use crate::encoder::weights::Loader;
use crate::error::{Error, Result, nearest};

/// A network as it stands in the configuration.
#[derive(Debug, Clone)]
pub(crate) struct GraphConfig {
    model: String,
    config: Value,
}

impl GraphConfig {
    /// # Errors
    /// [`Error::Model`] where there are no operations.
    pub(crate) fn read(model: &str, config: &Value) -> Result<Self> {
        match config["ops"].is_array() {
            true => Ok(GraphConfig { model: model.into(), config: config.clone() }),
            false => Err(Error::model(model, "a graph's config.json needs a list of `ops`")),
        }
    }
}

/// The parameters of such a network, and what is done with them.
#[derive(Debug)]
pub(crate) struct Graph {
    operations: Vec<Operation>,
    /// The tensor that holds the features.
    last: u64,
    width: usize,
}

#[derive(Debug)]
struct Operation {
    kind: Kind,
    inputs: Vec<u64>,
    output: u64,
    activation: Activation,
}

#[derive(Debug)]
enum Kind {
    Convolution(Convolution),
    Add,
}

impl Graph {
    pub(crate) fn load(config: &GraphConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let mut widths = BTreeMap::from([(0, 3)]);
        let mut operations = Vec::new();
        let ops = config.config["ops"].as_array().into_iter().flatten();
        for (number, op) in ops.enumerate() {
            let refuse = |problem: String| Error::model(&config.model, format!("operation {number} {problem}"));
            let tensors =
                |key: &str| op[key].as_array().into_iter().flatten().filter_map(Value::as_u64).collect::<Vec<_>>();
            let (inputs, outputs) = (tensors("in"), tensors("out"));
            let width = |at: usize| {
                let width = inputs.get(at).and_then(|input| widths.get(input)).copied();
                width.ok_or_else(|| refuse(format!("reads what no operation before it gives: {}", op["in"])))
            };
            let &[output] = &outputs[..] else {
                return Err(refuse(format!("gives {}, expected one tensor", op["out"])));
            };
            let activation = match op["act"].as_u64().unwrap_or(0) {
                0 => Activation::Identity,
                1 => Activation::Relu,
                3 => Activation::Relu6,
                other => return Err(refuse(format!("has act {other}, expected 0 (none), 1 (relu) or 3 (relu6)"))),
            };
            loader.at_depth(number + 1);
            let name = op["op"].as_str().unwrap_or_default();
            let (kind, outputs, inputs) = match name {
                "CONV_2D" | "DEPTHWISE_CONV_2D" => {
                    let channels = width(0)?;
                    let param = op["param"].as_str().unwrap_or_default();
                    let shape = loader.shape(&format!("{param}.weight")).unwrap_or_default();
                    let &[outputs, _, kernel, _] = &shape[..] else {
                        return Err(refuse(format!("has no filters `{param}.weight` in the checkpoint")));
                    };
                    let border = match op["padding"].as_str() {
                        Some("SAME") => Border::Same,
                        Some("VALID") => Border::Zeros(0),
                        _ => return Err(refuse(format!("has padding {}, expected SAME or VALID", op["padding"]))),
                    };
                    let stride = op["stride"].as_u64().filter(|stride| (1..=64).contains(stride));
                    let stride = stride.ok_or_else(|| refuse(format!("has stride {}", op["stride"])))? as usize;
                    let groups = if name == "CONV_2D" { 1 } else { channels };
                    let filters = Filters { inputs: channels, outputs, kernel, stride, border, groups };
                    (Kind::Convolution(Convolution::load(loader, param, filters, true)?), outputs, inputs[..1].to_vec())
                }
                "ADD" if width(0)? == width(1)? => (Kind::Add, width(0)?, inputs[..2].to_vec()),
                "ADD" => return Err(refuse("adds maps of different channels".into())),
                "AVERAGE_POOL_2D" => {
                    let (last, width) = (inputs[..1].first().copied().unwrap_or(0), width(0)?);
                    return Ok(Graph { operations, last, width });
                }
                other => {
                    let known = ["CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "AVERAGE_POOL_2D"];
                    return Err(refuse(format!("is `{other}`{}", nearest(other, known))));
                }
            };
            widths.insert(output, outputs);
            operations.push(Operation { kind, inputs, output, activation });
        }
        Err(Error::model(&config.model, "the graph has no AVERAGE_POOL_2D, so it has no features"))
    }

    pub(super) fn stages(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn forward(&self, tape: &mut Tape<'_>, pixels: &Features) -> Result<Features> {
        let missing = || Error::model("the graph", "an operation reads what is not there");
        // How often each map is still read: the last reader drops it.
        let mut readers = BTreeMap::new();
        for &input in self.operations.iter().flat_map(|operation| &operation.inputs).chain([&self.last]) {
            *readers.entry(input).or_insert(0usize) += 1;
        }
        let mut maps = BTreeMap::from([(0, pixels.clone())]);
        let mut read = |maps: &mut BTreeMap<u64, Features>, input: u64| {
            let left = readers.entry(input).or_insert(1);
            *left = left.saturating_sub(1);
            if *left == 0 { maps.remove(&input) } else { maps.get(&input).cloned() }.ok_or_else(missing)
        };
        for operation in &self.operations {
            let x = read(&mut maps, operation.inputs[0])?;
            let mut y = match &operation.kind {
                Kind::Convolution(convolution) => convolution.forward(tape, &x)?,
                Kind::Add => {
                    let other = read(&mut maps, operation.inputs[1])?;
                    Features { x: tape.add(&x.x, &other.x)?, map: x.map }
                }
            };
            if operation.activation != Activation::Identity {
                y.x = tape.activation(operation.activation, &y.x)?;
            }
            maps.insert(operation.output, y);
        }
        read(&mut maps, self.last)
    }
}
