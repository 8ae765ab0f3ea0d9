//! Penalties on embeddings or on the vectors that a loss learns, beside the loss.

use std::sync::Arc;

use engine::function::{Measure, MeasureKind, Similarity, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Distance, Reducer};
use crate::error::{Error, Result, nearest};

/// A penalty on the rows of a matrix `[rows, dimension]`: the embeddings of a batch, or the vectors that a loss learns.
/// Written as a name, or as an object such as `{"name": "LpRegularizer", "power": 2}`.
///
/// Every loss takes `embedding_regularizer` (default none) and its factor `embedding_reg_weight` (default 1); losses that
/// learn vectors take `weight_regularizer` and `weight_reg_weight` as well. The option `reducer` says how the penalties of
/// the rows become one number.
///
/// Use it to keep embeddings or class vectors short, centred, apart, or of one length.
///
/// | name | penalty | options |
/// |---|---|---|
/// | `LpRegularizer` | norm_p(x)^power of each row | `p` (2; above 0, or `inf`), `power` (1; above 0), `reducer` (`mean`) |
/// | `ZeroMeanRegularizer` | abs(sum of the elements) of each row | `reducer` (`mean`) |
/// | `CenterInvariantRegularizer` | (norm(x)^2 - mean norm^2)^2 / 4 of each row (Wu et al. 2017) | `distance` (the p of an unnormalised `l2` is that of the norm), `reducer` (`mean`) |
/// | `RegularFaceRegularizer` | the largest similarity of each row with another (Zhao et al. 2019) | `distance` (`cosine`; any similarity), `reducer` (`mean`) |
/// | `SparseCentersRegularizer` | sqrt(2 - 2 cos) of each pair of a class's rows (Qian et al. 2019) | `centers_per_class`, `num_classes` (of the data), `reducer` (`divisor`: their sum by twice their number) |
///
/// Reference: `regularizers` of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Regularizer {
    /// `LpRegularizer`
    Lp {
        /// Above 0, or infinite.
        p: f64,
        /// Above 0.
        power: f64,
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
        /// Of the norm.
        p: f64,
        /// Over the rows.
        reducer: Reducer,
    },
    /// `RegularFaceRegularizer`
    RegularFace {
        /// A similarity.
        distance: Distance,
        /// Over the rows.
        reducer: Reducer,
    },
    /// `SparseCentersRegularizer`
    SparseCenters {
        /// More than 1.
        centers_per_class: usize,
        /// Checked where given.
        num_classes: Option<usize>,
        /// Over the pairs.
        reducer: Reducer,
    },
}

impl Regularizer {
    /// The penalty on `x [rows, dimension]`, one number.
    ///
    /// # Errors
    /// [`Error::Spec`] when the rows are not what the options say.
    pub fn penalty(&self, tape: &mut Tape<'_>, x: &Var) -> Result<Var> {
        let (values, reducer) = match self {
            Regularizer::Lp { p, power, reducer } => (norms(tape, x, *p, *power)?, reducer),
            Regularizer::ZeroMean { reducer } => {
                let sums = tape.row_sums(x, None)?;
                (tape.unary(Unary::Abs, &sums)?, reducer)
            }
            Regularizer::CenterInvariant { p, reducer } => (center_invariant(tape, x, *p)?, reducer),
            Regularizer::RegularFace { distance, reducer } => (nearest_other(tape, x, *distance)?, reducer),
            Regularizer::SparseCenters { centers_per_class, num_classes, reducer } => {
                (sparse_centers(tape, x, *centers_per_class, *num_classes)?, reducer)
            }
        };
        if *reducer == Reducer::Divisor {
            let sum = tape.sum(&values, None)?;
            return Ok(tape.affine(&sum, 0.5 / values.value().len().max(1) as f64, 0.0)?);
        }
        reducer.reduce(tape, &values, None)
    }
}

/// `norm_p(x)^power` of each row: its distance from nothing.
fn norms(tape: &mut Tape<'_>, x: &Var, p: f64, power: f64) -> Result<Var> {
    let nothing = tape.constant(Tensor::zeros(x.value().shape()));
    let measure = Measure { kind: MeasureKind::Lp { p }, normalize: None, power };
    Ok(tape.paired_similarities(Similarity::Measured(measure), x, &nothing)?)
}

fn center_invariant(tape: &mut Tape<'_>, x: &Var, p: f64) -> Result<Var> {
    let norms = norms(tape, x, p, 2.0)?;
    let mean = Reducer::Mean.reduce(tape, &norms, None)?;
    let apart = tape.subtract(&norms, &mean)?;
    let squares = tape.unary(Unary::Square, &apart)?;
    Ok(tape.affine(&squares, 0.25, 0.0)?)
}

/// The similarity of each row with the other row that is nearest, chosen without gradient; nothing for a row alone.
fn nearest_other(tape: &mut Tape<'_>, x: &Var, distance: Distance) -> Result<Var> {
    let similarities = distance.similarities(tape, x, x)?;
    let columns = similarities.value().columns();
    let rows = similarities.value().data().chunks(columns.max(1)).enumerate();
    let nearest = |(row, values): (usize, &[f32])| {
        let others = (0..columns).filter(|&other| other != row);
        let best = others.reduce(|best, next| if values[next] > values[best] { next } else { best })?;
        Some([row as u32, best as u32])
    };
    let places: Arc<[[u32; 2]]> = rows.filter_map(nearest).collect();
    Ok(tape.gather(&similarities, places)?)
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
    let distances = tape.similarities(Distance::L2.similarity(), x, x)?;
    let end = |a: usize| (a / per_class + 1) * per_class;
    let pairs: Arc<[[u32; 2]]> = (0..rows).flat_map(|a| (a + 1..end(a)).map(move |b| [a as u32, b as u32])).collect();
    Ok(tape.gather(&distances, pairs)?)
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
        let reducer = |options: &mut serde_json::Map<String, Value>, default: Reducer| match options.remove("reducer") {
            None => Ok(default),
            Some(value) => match Reducer::try_from(value).map_err(|problem| format!("`reducer`: {problem}"))? {
                Reducer::Divisor if default != Reducer::Divisor => {
                    Err("`reducer`: `divisor` needs something to divide by, which only SparseCentersRegularizer has"
                        .to_owned())
                }
                reducer => Ok(reducer),
            },
        };
        let distance =
            |options: &mut serde_json::Map<String, Value>, default: Distance| match options.remove("distance") {
                None => Ok(default),
                Some(value) => Distance::try_from(value).map_err(|problem| format!("`distance`: {problem}")),
            };
        let regularizer = match name {
            "LpRegularizer" => {
                let mut above_0 = |key: &str, default: f64| match options.remove(key) {
                    None => Ok(default),
                    Some(Value::String(word)) if word == "inf" && key == "p" => Ok(f64::INFINITY),
                    Some(value) => match value.as_f64() {
                        Some(number) if number > 0.0 => Ok(number),
                        _ => Err(format!("`{key}`: expected a number above 0, got {value}")),
                    },
                };
                let (p, power) = (above_0("p", 2.0)?, above_0("power", 1.0)?);
                Regularizer::Lp { p, power, reducer: reducer(&mut options, Reducer::Mean)? }
            }
            "ZeroMeanRegularizer" => Regularizer::ZeroMean { reducer: reducer(&mut options, Reducer::Mean)? },
            "CenterInvariantRegularizer" => {
                let unnormalised = Distance::Euclidean { normalize: false, squared: false };
                let p = distance(&mut options, unnormalised)?.plain_norm().ok_or(
                    "`distance`: expected one of raw vectors, as in {\"name\": \"l2\", \"normalize_embeddings\": false}",
                )?;
                Regularizer::CenterInvariant { p, reducer: reducer(&mut options, Reducer::Mean)? }
            }
            "RegularFaceRegularizer" => {
                let distance = distance(&mut options, Distance::Cosine)?;
                if !distance.inverted() {
                    return Err("`distance`: expected a similarity, as in `cosine` or `dot`".to_owned());
                }
                Regularizer::RegularFace { distance, reducer: reducer(&mut options, Reducer::Mean)? }
            }
            "SparseCentersRegularizer" => {
                if distance(&mut options, Distance::Cosine)? != Distance::Cosine {
                    return Err("`distance`: SparseCentersRegularizer measures nothing but cosines".to_owned());
                }
                let reducer = reducer(&mut options, Reducer::Divisor)?;
                let mut count = |key: &str| match options.remove(key) {
                    None | Some(Value::Null) => Ok(None),
                    Some(value) => value
                        .as_u64()
                        .map(|count| Some(count as usize))
                        .ok_or_else(|| format!("`{key}`: expected a whole number, got {value}")),
                };
                let num_classes = count("num_classes")?;
                match count("centers_per_class")? {
                    Some(centers_per_class @ 2..) => {
                        Regularizer::SparseCenters { centers_per_class, num_classes, reducer }
                    }
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
        let p = |p: f64| if p.is_infinite() { json!("inf") } else { json!(p) };
        match regularizer {
            Regularizer::Lp { p: own, power, reducer } => {
                json!({"name": "LpRegularizer", "p": p(own), "power": power, "reducer": reducer})
            }
            Regularizer::ZeroMean { reducer } => json!({"name": "ZeroMeanRegularizer", "reducer": reducer}),
            Regularizer::CenterInvariant { p: own, reducer } => {
                let distance = json!({"name": "l2", "p": p(own), "normalize_embeddings": false});
                json!({"name": "CenterInvariantRegularizer", "distance": distance, "reducer": reducer})
            }
            Regularizer::RegularFace { distance, reducer } => {
                json!({"name": "RegularFaceRegularizer", "distance": distance, "reducer": reducer})
            }
            Regularizer::SparseCenters { centers_per_class, num_classes, reducer } => json!({
                "name": "SparseCentersRegularizer", "centers_per_class": centers_per_class, "num_classes": num_classes,
                "reducer": reducer
            }),
        }
    }
}
