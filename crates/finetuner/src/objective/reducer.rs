//! Many losses to one.

use engine::function::{Binary, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Result, nearest};

/// How the losses of elements, pairs or triplets become one number. Written as a name, or as an object with options.
/// No losses, or none that count, give 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Reducer {
    /// `mean`, `MeanReducer`: the mean of all.
    Mean,
    /// `sum`, `SumReducer`: the sum of all.
    Sum,
    /// `avg_non_zero`, `AvgNonZeroReducer`: the mean of those greater than 0.
    AvgNonZero,
    /// `threshold`, `ThresholdReducer`: the mean of those with `low < loss < high`; one of the two is needed.
    Threshold {
        /// Lower bound, excluded.
        low: Option<f64>,
        /// Upper bound, excluded.
        high: Option<f64>,
    },
}

impl Reducer {
    /// Losses strictly between these count.
    pub(super) fn bounds(self) -> (f64, f64) {
        match self {
            Reducer::Mean | Reducer::Sum => (f64::NEG_INFINITY, f64::INFINITY),
            Reducer::AvgNonZero => (0.0, f64::INFINITY),
            Reducer::Threshold { low, high } => (low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY)),
        }
    }

    /// Reduces `values` of any shape; a weight says how often its value counts, 0 leaves it out.
    pub(super) fn reduce(self, tape: &mut Tape<'_>, values: &Var, weights: Option<&Tensor>) -> Result<Var> {
        let (low, high) = self.bounds();
        let counted = match self {
            Reducer::Mean | Reducer::Sum => Tensor::full(values.value().shape(), 1.0),
            _ => tape.device().unary(Unary::Within { low, high }, values.value()),
        };
        let weights = match weights {
            Some(weights) => tape.device().binary(Binary::Multiply, &counted, weights),
            None => counted,
        };
        let sums = tape.row_sums(values, Some(&weights))?;
        let weights = tape.constant(weights);
        let counts = tape.row_sums(&weights, None)?;
        self.finish(tape, &sums, &counts)
    }

    /// From sums and counts of losses within [`Reducer::bounds`], in any parts, to the reduced loss `[1]`.
    pub(super) fn finish(self, tape: &mut Tape<'_>, sums: &Var, counts: &Var) -> Result<Var> {
        let sum = tape.sum(sums, None)?;
        if self == Reducer::Sum {
            return Ok(sum);
        }
        let count = tape.sum(counts, None)?;
        let one = tape.constant(Tensor::scalar(1.0));
        let count = tape.binary(Binary::Maximum, &count, &one)?;
        Ok(tape.divide(&sum, &count)?)
    }
}

const NAMES: [&str; 8] =
    ["mean", "sum", "avg_non_zero", "threshold", "MeanReducer", "SumReducer", "AvgNonZeroReducer", "ThresholdReducer"];

impl TryFrom<Value> for Reducer {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        let mut options = match value {
            Value::String(name) => serde_json::Map::from_iter([("name".to_owned(), Value::String(name))]),
            Value::Object(options) => options,
            other => return Err(format!("expected the name of a reducer, got {other}")),
        };
        let name = options.remove("name");
        let Some(name) = name.as_ref().and_then(Value::as_str) else {
            return Err("expected a `name`".to_owned());
        };
        let mut bound = |key: &str| match options.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(format!("`{key}`: expected a number, got {value}")),
        };
        let reducer = match name {
            "mean" | "MeanReducer" => Reducer::Mean,
            "sum" | "SumReducer" => Reducer::Sum,
            "avg_non_zero" | "AvgNonZeroReducer" => Reducer::AvgNonZero,
            "threshold" | "ThresholdReducer" => match (bound("low")?, bound("high")?) {
                (None, None) => return Err("threshold needs `low`, `high` or both".to_owned()),
                (low, high) => Reducer::Threshold { low, high },
            },
            other => return Err(format!("unknown reducer `{other}`{}", nearest(other, NAMES))),
        };
        match options.keys().next() {
            Some(key) => Err(format!("reducer `{name}` has no option `{key}`")),
            None => Ok(reducer),
        }
    }
}

impl From<Reducer> for Value {
    fn from(reducer: Reducer) -> Value {
        match reducer {
            Reducer::Mean => json!("mean"),
            Reducer::Sum => json!("sum"),
            Reducer::AvgNonZero => json!("avg_non_zero"),
            Reducer::Threshold { low, high } => json!({"name": "threshold", "low": low, "high": high}),
        }
    }
}
