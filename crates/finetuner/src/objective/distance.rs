//! How far apart two embeddings are.

use engine::function::{Measure, MeasureKind, Similarity, Unary};
use engine::{Device, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Result, nearest};

/// A distance or a similarity: it owns normalisation and direction. Written as a name, or as an object such as
/// `{"name": "l2", "normalize_embeddings": true, "power": 2}`.
///
/// | name | also | value of embeddings x, w (x̂ = x / max(‖x‖, 1e-12)) |
/// |---|---|---|
/// | `cosine` | `CosineSimilarity`, `cos_sim` | x̂ · ŵ |
/// | `l2` | `LpDistance` | ‖x̂ - ŵ‖ₚ with option `p` (2; any number from 1, or `inf`), x̂ by the same norm |
/// | `l2_squared` | | ‖x̂ - ŵ‖² |
/// | `manhattan` | `manhattan_sim` | ‖x - w‖₁ |
/// | `euclidean`, `sqeuclidean` | `euclidean_sim` | ‖x - w‖, ‖x - w‖² |
/// | `dot` | `dot_score` | x · w |
/// | `DotProductSimilarity` | | x̂ · ŵ, as pytorch-metric-learning has it |
/// | `snr` | `SNRDistance` | Var(x̂ - ŵ) / Var(x̂), unbiased, over the dimensions |
///
/// Options: `normalize_embeddings` (`l2`, `snr` and `DotProductSimilarity`: true; `dot`: false); `power` (1), to which
/// the value is raised, a whole number for similarities, which may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Distance {
    /// The cosine; larger is closer.
    Cosine,
    /// The dot product of unnormalised vectors; larger is closer.
    Dot,
    /// The Euclidean distance; smaller is closer.
    Euclidean {
        /// Divide the vectors by their norm first.
        normalize: bool,
        /// The squared distance.
        squared: bool,
    },
    /// Any other; larger is closer where it measures a dot product.
    Measured(Measure),
}

const NAMES: [&str; 16] = [
    "cosine",
    "l2",
    "l2_squared",
    "euclidean",
    "sqeuclidean",
    "manhattan",
    "dot",
    "snr",
    "CosineSimilarity",
    "LpDistance",
    "DotProductSimilarity",
    "SNRDistance",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
];

impl Distance {
    /// pytorch-metric-learning's default, `LpDistance`: between normalised vectors.
    pub const L2: Distance = Distance::Euclidean { normalize: true, squared: false };

    /// The signal-to-noise ratio of normalised vectors.
    pub const SNR: Distance =
        Distance::Measured(Measure { kind: MeasureKind::SignalToNoise, normalize: Some(2.0), power: 1.0 });
    /// The square of [`Distance::L2`].
    pub const L2_SQUARED: Distance = Distance::Euclidean { normalize: true, squared: true };

    /// Whether larger values are closer.
    pub fn inverted(self) -> bool {
        matches!(self, Distance::Cosine | Distance::Dot | Distance::Measured(Measure { kind: MeasureKind::Dot, .. }))
    }

    /// Whether it is the Euclidean distance of normalised vectors, or a power of it, and which.
    pub(super) fn l2_power(self) -> Option<f64> {
        match self {
            Distance::Euclidean { normalize: true, squared } => Some(if squared { 2.0 } else { 1.0 }),
            Distance::Measured(Measure { kind: MeasureKind::Lp { p: 2.0 }, normalize: Some(2.0), power }) => {
                Some(power)
            }
            _ => None,
        }
    }

    /// The p where it is the distance of raw vectors by a norm.
    pub(super) fn plain_norm(self) -> Option<f64> {
        match self {
            Distance::Euclidean { normalize: false, squared: false } => Some(2.0),
            Distance::Measured(Measure { kind: MeasureKind::Lp { p }, normalize: None, power: 1.0 }) => Some(p),
            _ => None,
        }
    }

    pub(super) fn is_signal_to_noise(self) -> bool {
        matches!(self, Distance::Measured(Measure { kind: MeasureKind::SignalToNoise, .. }))
    }

    pub(super) fn similarity(self) -> Similarity {
        match self {
            Distance::Cosine => Similarity::Dot { normalize: true },
            Distance::Dot => Similarity::Dot { normalize: false },
            Distance::Euclidean { normalize, squared } => Similarity::Euclidean { normalize, squared },
            Distance::Measured(measure) => Similarity::Measured(measure),
        }
    }

    /// A margin given in the distance's own direction, for values where smaller is closer.
    pub(super) fn threshold(self, margin: f64) -> f64 {
        if self.inverted() { -margin } else { margin }
    }

    /// `[m, n]`, smaller is closer: similarities are negated.
    pub(super) fn distances(self, tape: &mut Tape<'_>, a: &Var, b: &Var) -> Result<Var> {
        let values = tape.similarities(self.similarity(), a, b)?;
        Ok(if self.inverted() { tape.affine(&values, -1.0, 0.0)? } else { values })
    }

    /// `[m, n]`, larger is closer: distances are negated.
    pub(super) fn similarities(self, tape: &mut Tape<'_>, a: &Var, b: &Var) -> Result<Var> {
        let values = tape.similarities(self.similarity(), a, b)?;
        Ok(if self.inverted() { values } else { tape.affine(&values, -1.0, 0.0)? })
    }

    /// `[m]` of row `i` with row `i`, larger is closer.
    pub(super) fn paired(self, tape: &mut Tape<'_>, a: &Var, b: &Var) -> Result<Var> {
        let values = tape.paired_similarities(self.similarity(), a, b)?;
        Ok(if self.inverted() { values } else { tape.affine(&values, -1.0, 0.0)? })
    }

    /// [`Distance::distances`] without gradient.
    pub(super) fn measure(self, device: &dyn Device, a: &Tensor, b: &Tensor) -> Tensor {
        let values = device.similarities(self.similarity(), a, b);
        if self.inverted() { device.unary(Unary::Affine { scale: -1.0, shift: 0.0 }, &values) } else { values }
    }
}

impl TryFrom<Value> for Distance {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        let mut options = match value {
            Value::String(name) => serde_json::Map::from_iter([("name".to_owned(), Value::String(name))]),
            Value::Object(options) => options,
            other => return Err(format!("expected the name of a distance, got {other}")),
        };
        let name = options.remove("name");
        let Some(name) = name.as_ref().and_then(Value::as_str) else {
            return Err("expected a `name`".to_owned());
        };
        let mut flag = |key: &str, default: bool| match options.remove(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(value),
            Some(other) => Err(format!("`{key}`: expected true or false, got {other}")),
        };
        let (kind, normalize) = match name {
            "cosine" | "CosineSimilarity" | "cos" | "cos_sim" | "pairwise_cos_sim" => (MeasureKind::Dot, true),
            "dot" | "dot_score" => (MeasureKind::Dot, flag("normalize_embeddings", false)?),
            "DotProductSimilarity" => (MeasureKind::Dot, flag("normalize_embeddings", true)?),
            "l2" | "LpDistance" => (MeasureKind::Lp { p: 2.0 }, flag("normalize_embeddings", true)?),
            "l2_squared" => (MeasureKind::Lp { p: 2.0 }, true),
            "euclidean" | "euclidean_sim" | "sqeuclidean" => (MeasureKind::Lp { p: 2.0 }, false),
            "manhattan" | "manhattan_sim" => (MeasureKind::Lp { p: 1.0 }, false),
            "snr" | "SNRDistance" => (MeasureKind::SignalToNoise, flag("normalize_embeddings", true)?),
            other => return Err(format!("unknown distance `{other}`{}", nearest(other, NAMES))),
        };
        let mut number = |key: &str, default: f64| match options.remove(key) {
            None => Ok(default),
            Some(Value::String(word)) if word == "inf" && key == "p" => Ok(f64::INFINITY),
            Some(value) => value.as_f64().ok_or(format!("`{key}`: expected a number, got {value}")),
        };
        let p = if matches!(name, "l2" | "LpDistance") { number("p", 2.0)? } else { 2.0 };
        if p < 1.0 {
            return Err(format!("`p`: expected a number of at least 1, or \"inf\", got {p}"));
        }
        let kind = if p == 2.0 { kind } else { MeasureKind::Lp { p } };
        let power = match name {
            "l2_squared" | "sqeuclidean" => 2.0,
            _ => number("power", 1.0)?,
        };
        let whole = kind != MeasureKind::Dot || power.fract() == 0.0;
        if !(power.is_finite() && power > 0.0 && whole) {
            let expected = if whole { "a number greater than 0" } else { "a whole number, as values may be negative" };
            return Err(format!("`power`: expected {expected}, got {power}"));
        }
        let distance = match (kind, power) {
            (MeasureKind::Dot, 1.0) if normalize => Distance::Cosine,
            (MeasureKind::Dot, 1.0) => Distance::Dot,
            (MeasureKind::Lp { p: 2.0 }, 1.0) => Distance::Euclidean { normalize, squared: false },
            (MeasureKind::Lp { p: 2.0 }, 2.0) => Distance::Euclidean { normalize, squared: true },
            _ => Distance::Measured(Measure { kind, normalize: normalize.then_some(p), power }),
        };
        match options.keys().next() {
            Some(key) => Err(format!("distance `{name}` has no option `{key}`")),
            None => Ok(distance),
        }
    }
}

impl From<Distance> for Value {
    fn from(distance: Distance) -> Value {
        match distance {
            Distance::Cosine => json!("cosine"),
            Distance::Dot => json!("dot"),
            Distance::Euclidean { normalize, squared } => {
                json!({"name": "l2", "normalize_embeddings": normalize, "power": if squared { 2 } else { 1 }})
            }
            Distance::Measured(Measure { kind, normalize, power }) => {
                let mut value = json!({"normalize_embeddings": normalize.is_some(), "power": power});
                value["name"] = match kind {
                    MeasureKind::SignalToNoise => json!("snr"),
                    MeasureKind::Lp { p } => {
                        value["p"] = if p.is_infinite() { json!("inf") } else { json!(p) };
                        json!("l2")
                    }
                    _ => json!("dot"),
                };
                value
            }
        }
    }
}
