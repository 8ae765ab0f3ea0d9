//! Penalties on embeddings or on the vectors that a loss learns, beside the loss.

use std::sync::Arc;

use engine::function::{Similarity, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Distance, Reducer};
use crate::error::{Error, Result, nearest};

/// A penalty on the rows of a matrix `[rows, dimension]`: the embeddings of a batch, or the vectors that a loss learns.
/// Written as a name, or as an object such as `{"name": "LpRegularizer", "power": 2}`.
///
/// Every loss takes `embedding_regularizer` (default none) and its factor `embedding_reg_weight` (default 1); losses that
/// learn vectors take `weight_regularizer` and `weight_reg_weight` as well. Except for the last one the option `reducer`
/// (default `mean`) says how the rows' penalties become one number.
///
/// | name | penalty | options |
/// |---|---|---|
/// | `LpRegularizer` | norm_p(x)^power of each row | `p` (2; 1 or 2), `power` (1; 1 or 2) |
/// | `ZeroMeanRegularizer` | abs(sum of the elements) of each row | |
/// | `CenterInvariantRegularizer` | (norm(x)^2 - mean norm^2)^2 / 4 of each row (Wu et al. 2017) | |
/// | `RegularFaceRegularizer` | the largest cosine of each row with another (Zhao et al. 2019) | |
/// | `SparseCentersRegularizer` | sum of sqrt(2 - 2 cos) over the pairs of a class's rows, by twice their number (Qian et al. 2019) | `centers_per_class`, `num_classes` (of the data) |
///
/// Reference: `regularizers` of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Regularizer {
    /// `LpRegularizer`
    Lp {
        /// 1 or 2.
        p: u32,
        /// 1 or 2.
        power: u32,
        /// Over the rows.
        reducer: Reducer,
    },
    /// `ZeroMeanRegularizer`
    ZeroMean {
        /// Over the rows.
        reducer: Reducer,
    },
    /// `CenterInvariantRegularizer`
    CenterInvariant {
        /// Over the rows.
        reducer: Reducer,
    },
    /// `RegularFaceRegularizer`
    RegularFace {
        /// Over the rows.
        reducer: Reducer,
    },
    /// `SparseCentersRegularizer`
    SparseCenters {
        /// More than 1.
        centers_per_class: usize,
        /// Checked where given.
        num_classes: Option<usize>,
    },
}

impl Regularizer {
    /// The penalty on `x [rows, dimension]`, one number.
    ///
    /// # Errors
    /// [`Error::Spec`] when the rows are not what the options say.
    pub fn penalty(&self, tape: &mut Tape<'_>, x: &Var) -> Result<Var> {
        let (values, reducer) = match self {
            Regularizer::Lp { p, power, reducer } => (lp(tape, x, *p, *power)?, reducer),
            Regularizer::ZeroMean { reducer } => {
                let sums = tape.row_sums(x, None)?;
                (tape.unary(Unary::Abs, &sums)?, reducer)
            }
            Regularizer::CenterInvariant { reducer } => (center_invariant(tape, x)?, reducer),
            Regularizer::RegularFace { reducer } => (nearest_other(tape, x)?, reducer),
            Regularizer::SparseCenters { centers_per_class, num_classes } => {
                return sparse_centers(tape, x, *centers_per_class, *num_classes);
            }
        };
        reducer.reduce(tape, &values, None)
    }
}

fn lp(tape: &mut Tape<'_>, x: &Var, p: u32, power: u32) -> Result<Var> {
    let elements = tape.unary(if p == 1 { Unary::Abs } else { Unary::Square }, x)?;
    let sums = tape.row_sums(&elements, None)?;
    Ok(match (p, power) {
        (1, 1) | (2, 2) => sums,
        (1, _) => tape.unary(Unary::Square, &sums)?,
        _ => tape.unary(Unary::Sqrt, &sums)?,
    })
}

fn center_invariant(tape: &mut Tape<'_>, x: &Var) -> Result<Var> {
    let norms = lp(tape, x, 2, 2)?;
    let mean = Reducer::Mean.reduce(tape, &norms, None)?;
    let apart = tape.subtract(&norms, &mean)?;
    let squares = tape.unary(Unary::Square, &apart)?;
    Ok(tape.affine(&squares, 0.25, 0.0)?)
}

/// The cosine of each row with the other row that is nearest, chosen without gradient; nothing for a row alone.
fn nearest_other(tape: &mut Tape<'_>, x: &Var) -> Result<Var> {
    let cosines = Distance::Cosine.similarities(tape, x, x)?;
    let columns = cosines.value().columns();
    let rows = cosines.value().data().chunks(columns.max(1)).enumerate();
    let nearest = |(row, values): (usize, &[f32])| {
        let others = (0..columns).filter(|&other| other != row);
        let best = others.reduce(|best, next| if values[next] > values[best] { next } else { best })?;
        Some([row as u32, best as u32])
    };
    let places: Arc<[[u32; 2]]> = rows.filter_map(nearest).collect();
    Ok(tape.gather(&cosines, places)?)
}

fn sparse_centers(tape: &mut Tape<'_>, x: &Var, per_class: usize, num_classes: Option<usize>) -> Result<Var> {
    let rows = x.value().rows();
    let classes = rows / per_class.max(1);
    if classes * per_class != rows || num_classes.is_some_and(|given| given != classes) {
        let given = num_classes.map_or(String::new(), |classes| format!("{classes} classes of "));
        let problem =
            format!("SparseCentersRegularizer: expected {rows} rows, got {given}{per_class} centers_per_class");
        return Err(Error::spec("loss_options.weight_regularizer", problem));
    }
    // sqrt(2 - 2 cos) is the distance of the normalised rows.
    let distances = tape.similarities(Similarity::Euclidean { normalize: true, squared: false }, x, x)?;
    let mut pairs = Tensor::zeros(&[rows, rows]);
    for a in 0..rows {
        let end = (a / per_class + 1) * per_class;
        pairs.data_mut()[a * rows + a + 1..a * rows + end].fill(1.0);
    }
    let sum = tape.sum(&distances, Some(&pairs))?;
    let count = (classes * per_class * (per_class - 1) / 2).max(1);
    Ok(tape.affine(&sum, 0.5 / count as f64, 0.0)?)
}

const NAMES: [&str; 5] = [
    "LpRegularizer",
    "ZeroMeanRegularizer",
    "CenterInvariantRegularizer",
    "RegularFaceRegularizer",
    "SparseCentersRegularizer",
];

impl TryFrom<Value> for Regularizer {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        let mut options = match value {
            Value::String(name) => serde_json::Map::from_iter([("name".to_owned(), Value::String(name))]),
            Value::Object(options) => options,
            other => return Err(format!("expected the name of a regularizer, got {other}")),
        };
        let name = options.remove("name");
        let Some(name) = name.as_ref().and_then(Value::as_str) else {
            return Err("expected a `name`".to_owned());
        };
        let mut reducer = || match options.remove("reducer") {
            None => Ok(Reducer::Mean),
            Some(value) => Reducer::try_from(value).map_err(|problem| format!("`reducer`: {problem}")),
        };
        let regularizer = match name {
            "LpRegularizer" => {
                let reducer = reducer()?;
                let mut one_or_two = |key: &str, default: u32| match options.remove(key).map(|value| value.as_f64()) {
                    None => Ok(default),
                    Some(Some(1.0)) => Ok(1),
                    Some(Some(2.0)) => Ok(2),
                    Some(_) => Err(format!("`{key}`: expected 1 or 2")),
                };
                Regularizer::Lp { p: one_or_two("p", 2)?, power: one_or_two("power", 1)?, reducer }
            }
            "ZeroMeanRegularizer" => Regularizer::ZeroMean { reducer: reducer()? },
            "CenterInvariantRegularizer" => Regularizer::CenterInvariant { reducer: reducer()? },
            "RegularFaceRegularizer" => Regularizer::RegularFace { reducer: reducer()? },
            "SparseCentersRegularizer" => {
                let mut count = |key: &str| match options.remove(key) {
                    None | Some(Value::Null) => Ok(None),
                    Some(value) => value
                        .as_u64()
                        .map(|count| Some(count as usize))
                        .ok_or_else(|| format!("`{key}`: expected a whole number, got {value}")),
                };
                let num_classes = count("num_classes")?;
                match count("centers_per_class")? {
                    Some(centers_per_class @ 2..) => Regularizer::SparseCenters { centers_per_class, num_classes },
                    _ => return Err("SparseCentersRegularizer needs `centers_per_class`, 2 or more".to_owned()),
                }
            }
            other => return Err(format!("unknown regularizer `{other}`{}", nearest(other, NAMES))),
        };
        match options.keys().next() {
            Some(key) => Err(format!("regularizer `{name}` has no option `{key}`")),
            None => Ok(regularizer),
        }
    }
}

impl From<Regularizer> for Value {
    fn from(regularizer: Regularizer) -> Value {
        match regularizer {
            Regularizer::Lp { p, power, reducer } => {
                json!({"name": "LpRegularizer", "p": p, "power": power, "reducer": reducer})
            }
            Regularizer::ZeroMean { reducer } => json!({"name": "ZeroMeanRegularizer", "reducer": reducer}),
            Regularizer::CenterInvariant { reducer } => {
                json!({"name": "CenterInvariantRegularizer", "reducer": reducer})
            }
            Regularizer::RegularFace { reducer } => json!({"name": "RegularFaceRegularizer", "reducer": reducer}),
            Regularizer::SparseCenters { centers_per_class, num_classes } => json!({
                "name": "SparseCentersRegularizer", "centers_per_class": centers_per_class, "num_classes": num_classes
            }),
        }
    }
}
