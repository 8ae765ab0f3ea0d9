//! How far apart two embeddings are.

use engine::function::{Similarity, Unary};
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
/// | `l2` | `LpDistance` | ‖x̂ - ŵ‖; options `normalize_embeddings` (true), `power` (1 or 2) |
/// | `l2_squared` | | ‖x̂ - ŵ‖² |
/// | `euclidean`, `sqeuclidean` | `euclidean_sim` | ‖x - w‖, ‖x - w‖² |
/// | `dot` | `dot_score` | x · w; option `normalize_embeddings` (false) |
/// | `DotProductSimilarity` | | x̂ · ŵ, as pytorch-metric-learning has it; option `normalize_embeddings` (true) |
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
}

const NAMES: [&str; 11] = [
    "cosine",
    "l2",
    "l2_squared",
    "euclidean",
    "sqeuclidean",
    "dot",
    "CosineSimilarity",
    "LpDistance",
    "DotProductSimilarity",
    "cos_sim",
    "dot_score",
];

impl Distance {
    /// pytorch-metric-learning's default, `LpDistance`: between normalised vectors.
    pub const L2: Distance = Distance::Euclidean { normalize: true, squared: false };

    /// Whether larger values are closer.
    pub fn inverted(self) -> bool {
        matches!(self, Distance::Cosine | Distance::Dot)
    }

    fn similarity(self) -> Similarity {
        match self {
            Distance::Cosine => Similarity::Dot { normalize: true },
            Distance::Dot => Similarity::Dot { normalize: false },
            Distance::Euclidean { normalize, squared } => Similarity::Euclidean { normalize, squared },
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
        let distance = match name {
            "cosine" | "CosineSimilarity" | "cos" | "cos_sim" | "pairwise_cos_sim" => Distance::Cosine,
            "dot" | "dot_score" if flag("normalize_embeddings", false)? => Distance::Cosine,
            "DotProductSimilarity" if flag("normalize_embeddings", true)? => Distance::Cosine,
            "dot" | "dot_score" | "DotProductSimilarity" => Distance::Dot,
            "l2" | "LpDistance" => {
                let normalize = flag("normalize_embeddings", true)?;
                match options.remove("p").map(|p| p.as_f64()) {
                    None | Some(Some(2.0)) => {}
                    _ => return Err("`p`: expected 2".to_owned()),
                }
                match options.remove("power").map(|power| power.as_f64()) {
                    None | Some(Some(1.0)) => Distance::Euclidean { normalize, squared: false },
                    Some(Some(2.0)) => Distance::Euclidean { normalize, squared: true },
                    _ => return Err("`power`: expected 1 or 2".to_owned()),
                }
            }
            "l2_squared" => Distance::Euclidean { normalize: true, squared: true },
            "euclidean" | "euclidean_sim" => Distance::Euclidean { normalize: false, squared: false },
            "sqeuclidean" => Distance::Euclidean { normalize: false, squared: true },
            other => return Err(format!("unknown distance `{other}`{}", nearest(other, NAMES))),
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
        }
    }
}
