//! Values of a loss's tensors before the first step.

use serde::Deserialize;
use serde_json::Value;

use crate::error::nearest;

/// Values before the first step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// The same everywhere.
    Constant(f64),
    /// Normal numbers of mean 0.
    Normal {
        /// Standard deviation.
        deviation: f64,
    },
    /// Uniform in `(-bound, bound)`.
    Uniform {
        /// The largest absolute value.
        bound: f64,
    },
}

/// How the vectors `[count, dimension]` that a loss learns start, by `torch.nn.init`'s names and formulas. A name, or an
/// object such as `{"name": "kaiming_normal", "mode": "fan_out"}`; a final `_` may stay.
///
/// | name | values | options |
/// |---|---|---|
/// | `normal` | N(0, std^2) | `std` (1) |
/// | `uniform` | U(-bound, bound) | `bound` (1) |
/// | `xavier_normal`, `xavier_uniform` | deviation gain sqrt(2 / (count + dimension)) | `gain` (1) |
/// | `kaiming_normal`, `kaiming_uniform` | deviation sqrt(2 / (1 + a^2) / fan) | `a` (0), `mode` (`fan_in`: the dimension; `fan_out`: the count) |
///
/// A uniform distribution of some deviation ends at sqrt 3 times it. The option `weight_init_func` of losses that learn
/// vectors. Reference: `weight_init_func` of pytorch-metric-learning, whose softmax losses hold the vectors as columns and
/// so exchange `fan_in` and `fan_out`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum VectorInitial {
    Normal {
        #[serde(default = "one")]
        std: f64,
    },
    Uniform {
        #[serde(default = "one")]
        bound: f64,
    },
    XavierNormal {
        #[serde(default = "one")]
        gain: f64,
    },
    XavierUniform {
        #[serde(default = "one")]
        gain: f64,
    },
    KaimingNormal {
        #[serde(default)]
        a: f64,
        #[serde(default)]
        mode: Fan,
    },
    KaimingUniform {
        #[serde(default)]
        a: f64,
        #[serde(default)]
        mode: Fan,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fan {
    #[default]
    FanIn,
    FanOut,
}

fn one() -> f64 {
    1.0
}

const NAMES: [&str; 6] = ["normal", "uniform", "xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform"];

impl VectorInitial {
    pub(super) fn parse(value: Value) -> Result<Self, String> {
        let mut options = match value {
            Value::String(name) => serde_json::Map::from_iter([("name".to_owned(), Value::String(name))]),
            Value::Object(options) => options,
            other => return Err(format!("expected the name of an initialisation, got {other}")),
        };
        let Some(name) = options.get("name").and_then(Value::as_str).map(|name| name.trim_end_matches('_').to_owned())
        else {
            return Err("expected a `name`".to_owned());
        };
        if !NAMES.contains(&name.as_str()) {
            return Err(format!("unknown initialisation `{name}`{}", nearest(&name, NAMES)));
        }
        options.insert("name".to_owned(), name.into());
        serde_json::from_value(Value::Object(options)).map_err(|error| error.to_string())
    }

    /// For so many vectors of this dimension.
    pub(super) fn of(self, count: usize, dimension: usize) -> Initial {
        let xavier = |gain: f64| gain * (2.0 / (count + dimension).max(1) as f64).sqrt();
        let kaiming = |a: f64, mode: Fan| {
            let fan = if mode == Fan::FanIn { dimension } else { count };
            (2.0 / (1.0 + a * a) / fan.max(1) as f64).sqrt()
        };
        let uniform = |deviation: f64| Initial::Uniform { bound: 3f64.sqrt() * deviation };
        match self {
            VectorInitial::Normal { std } => Initial::Normal { deviation: std },
            VectorInitial::Uniform { bound } => Initial::Uniform { bound },
            VectorInitial::XavierNormal { gain } => Initial::Normal { deviation: xavier(gain) },
            VectorInitial::XavierUniform { gain } => uniform(xavier(gain)),
            VectorInitial::KaimingNormal { a, mode } => Initial::Normal { deviation: kaiming(a, mode) },
            VectorInitial::KaimingUniform { a, mode } => uniform(kaiming(a, mode)),
        }
    }
}
