//! Many losses to one.

use std::collections::BTreeMap;
use std::ops::Range;

use engine::function::{Binary, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result, nearest};

/// How the losses of elements, pairs or triplets become one number. Written as a name, or as an object with options,
/// such as `{"name": "threshold", "low": 0.1}`. No losses, or none that count, give 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// `divisor`, `DivisorReducer`: the sum, divided by what the loss says; for losses that say it.
    Divisor,
    /// `class_weighted`, `ClassWeightedReducer`: the mean of all, each first multiplied by the weight of its anchor's
    /// class.
    ClassWeighted {
        /// One per class, in the order in which the classes first appear in the training data.
        weights: Vec<f64>,
    },
    /// `per_anchor`, `PerAnchorReducer`: losses of pairs are averaged for each anchor first (0 for an anchor without
    /// pairs); not for losses of triplets.
    PerAnchor {
        /// For the anchors' means. Default `mean`.
        reducer: Box<Reducer>,
    },
    /// `multiple`, `MultipleReducers`: one for each named part of a loss, which are added.
    Multiple {
        /// By the part's name, such as `pos_loss` and `neg_loss`; a loss without parts is called `loss`.
        reducers: BTreeMap<String, Reducer>,
        /// For all other parts. Default `mean`.
        default_reducer: Box<Reducer>,
    },
}

/// What each loss belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// An anchor.
    Elements,
    /// An anchor and one of its positives or negatives.
    Pairs,
    /// An anchor, a positive and a negative.
    Triplets,
}

const ALL: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

impl Reducer {
    /// The reducer of a named part of a loss.
    pub(super) fn part(&self, name: &str) -> &Reducer {
        match self {
            Reducer::Multiple { reducers, default_reducer } => reducers.get(name).unwrap_or(default_reducer),
            _ => self,
        }
    }

    /// Losses strictly between these count.
    pub(super) fn bounds(&self, of: Of) -> (f64, f64) {
        match self.part("loss") {
            Reducer::AvgNonZero => (0.0, f64::INFINITY),
            Reducer::Threshold { low, high } => (low.unwrap_or(ALL.0), high.unwrap_or(ALL.1)),
            Reducer::PerAnchor { reducer } if of == Of::Elements => reducer.bounds(of),
            _ => ALL,
        }
    }

    /// Reduces `values`, one per anchor `[rows]` or one per pair `[rows, others]`; a weight says how often its value
    /// counts, 0 leaves it out.
    pub(super) fn reduce(&self, tape: &mut Tape<'_>, values: &Var, weights: Option<&Tensor>) -> Result<Var> {
        let of = if values.value().shape().len() == 1 { Of::Elements } else { Of::Pairs };
        self.reduce_labelled(tape, values, weights, of, &[])
    }

    /// The same, where the labels of the rows' anchors are known.
    pub(super) fn reduce_labelled(
        &self,
        tape: &mut Tape<'_>,
        values: &Var,
        weights: Option<&Tensor>,
        of: Of,
        labels: &[u32],
    ) -> Result<Var> {
        let (sums, counts) = self.row_sums(tape, values, weights, of)?;
        self.of_rows(tape, &sums, &counts, of, labels)
    }

    /// Each row's sum of the values within [`Reducer::bounds`], and their number, `[rows]` each.
    pub(super) fn row_sums(
        &self,
        tape: &mut Tape<'_>,
        values: &Var,
        weights: Option<&Tensor>,
        of: Of,
    ) -> Result<(Var, Var)> {
        let (low, high) = self.bounds(of);
        let counted = match (low, high) == ALL {
            true => Tensor::full(values.value().shape(), 1.0),
            false => tape.device().unary(Unary::Within { low, high }, values.value()),
        };
        let mut counted = match weights {
            Some(weights) => tape.device().binary(Binary::Multiply, &counted, weights),
            None => counted,
        };
        let mut values = values.clone();
        if values.value().shape().len() == 1 {
            values = tape.reshape(&values, &[values.value().len(), 1])?;
            counted = counted.reshaped(values.value().shape())?;
        }
        let sums = tape.row_sums(&values, Some(&counted))?;
        let counted = tape.constant(counted);
        let counts = tape.row_sums(&counted, None)?;
        Ok((sums, counts))
    }

    /// From each anchor's sum of the losses within [`Reducer::bounds`] and their number `[rows]` to one number.
    pub(super) fn of_rows(&self, tape: &mut Tape<'_>, sums: &Var, counts: &Var, of: Of, labels: &[u32]) -> Result<Var> {
        match self.part("loss") {
            Reducer::ClassWeighted { weights } => {
                let weights: Option<Vec<f32>> =
                    labels.iter().map(|label| Some(*weights.get(*label as usize)? as f32)).collect();
                let weights = weights.filter(|weights| weights.len() == sums.value().len()).ok_or_else(|| {
                    refused("class_weighted", "a weight for every class, and a loss whose parts have a class each")
                })?;
                let weights = Tensor::from_vec(weights, sums.value().shape())?;
                let sum = tape.sum(sums, Some(&weights))?;
                divided(tape, &sum, counts)
            }
            Reducer::PerAnchor { reducer } => match of {
                Of::Elements => reducer.of_rows(tape, sums, counts, of, labels),
                Of::Pairs => {
                    let one = tape.constant(Tensor::scalar(1.0));
                    let counts = tape.binary(Binary::Maximum, counts, &one)?;
                    let means = tape.divide(sums, &counts)?;
                    reducer.reduce_labelled(tape, &means, None, Of::Elements, labels)
                }
                Of::Triplets => Err(refused("per_anchor", "a loss of anchors or pairs, not of triplets")),
            },
            Reducer::Divisor => Err(refused("divisor", "a loss that gives a divisor, such as MarginLoss")),
            Reducer::Sum => Ok(tape.sum(sums, None)?),
            _ => {
                let sum = tape.sum(sums, None)?;
                divided(tape, &sum, counts)
            }
        }
    }

    /// The same where `sums_of` gives the sums and numbers of a block of rows at a time, so that no block outlives the next. A
    /// reducer that looks at rows or classes takes a single block only.
    pub(super) fn of_blocks(
        &self,
        tape: &mut Tape<'_>,
        inputs: &[&Var],
        (blocks, of, labels): (Vec<Range<usize>>, Of, &[u32]),
        mut sums_of: impl FnMut(&mut Tape<'_>, &[Var], Range<usize>) -> Result<(Var, Var)>,
    ) -> Result<Var> {
        if let [all] = &blocks[..] {
            let inputs: Vec<Var> = inputs.iter().map(|&input| input.clone()).collect();
            let (sums, counts) = sums_of(tape, &inputs, all.clone())?;
            return self.of_rows(tape, &sums, &counts, of, labels);
        }
        let mut count = 0.0;
        let sum = tape.sum_of_parts(inputs, blocks, |tape, inputs, rows| {
            let (sums, counts) = sums_of(tape, inputs, rows)?;
            count += tape.read(&counts)?.iter().map(|&count| f64::from(count)).sum::<f64>();
            Ok::<_, Error>(tape.sum(&sums, None)?)
        })?;
        let count = tape.constant(Tensor::scalar(count as f32));
        self.of_rows(tape, &sum, &count, of, &[])
    }

    /// What is wrong with it for a loss of triplets.
    pub(super) fn triplet_problems(&self) -> Vec<(&'static str, String)> {
        let per_anchor = matches!(self.part("loss"), Reducer::PerAnchor { .. });
        let problem = "`per_anchor` averages pairs: it needs a loss of pairs, not of triplets";
        per_anchor.then(|| ("reducer", problem.to_owned())).into_iter().collect()
    }

    /// Whether it takes nothing but the sum of all losses that count, and their number.
    pub(super) fn adds_up(&self) -> bool {
        let reducer = self.part("loss");
        matches!(reducer, Reducer::Mean | Reducer::Sum | Reducer::AvgNonZero | Reducer::Threshold { .. })
    }

    /// Whether a pair that takes part several times counts as often; [`Reducer::PerAnchor`] asks for it once.
    pub(super) fn counts_repetitions(&self) -> bool {
        !matches!(self.part("loss"), Reducer::PerAnchor { .. })
    }

    /// Whether the sum is to be divided by what the loss says.
    pub(super) fn divides(&self) -> bool {
        *self.part("loss") == Reducer::Divisor
    }
}

fn refused(name: &str, needed: &str) -> Error {
    Error::spec("loss_options.reducer", format!("`{name}` needs {needed}"))
}

/// The sum of a mean; 0 of nothing.
pub(super) fn divided(tape: &mut Tape<'_>, sum: &Var, counts: &Var) -> Result<Var> {
    let count = tape.sum(counts, None)?;
    let least = if count.value().item() > 0.0 { f32::MIN_POSITIVE } else { 1.0 };
    let least = tape.constant(Tensor::scalar(least));
    let count = tape.binary(Binary::Maximum, &count, &least)?;
    Ok(tape.divide(sum, &count)?)
}

const NAMES: [&str; 16] = [
    "mean",
    "sum",
    "avg_non_zero",
    "threshold",
    "divisor",
    "class_weighted",
    "per_anchor",
    "multiple",
    "MeanReducer",
    "SumReducer",
    "AvgNonZeroReducer",
    "ThresholdReducer",
    "DivisorReducer",
    "ClassWeightedReducer",
    "PerAnchorReducer",
    "MultipleReducers",
];

/// A reducer under a key, `mean` without it.
fn inner(options: &mut Map<String, Value>, key: &str) -> std::result::Result<Box<Reducer>, String> {
    match options.remove(key) {
        None | Some(Value::Null) => Ok(Box::new(Reducer::Mean)),
        Some(value) => Reducer::try_from(value).map(Box::new).map_err(|problem| format!("`{key}`: {problem}")),
    }
}

impl TryFrom<Value> for Reducer {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        let mut options = match value {
            Value::String(name) => Map::from_iter([("name".to_owned(), Value::String(name))]),
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
            "divisor" | "DivisorReducer" => Reducer::Divisor,
            "threshold" | "ThresholdReducer" => match (bound("low")?, bound("high")?) {
                (None, None) => return Err("threshold needs `low`, `high` or both".to_owned()),
                (low, high) => Reducer::Threshold { low, high },
            },
            "class_weighted" | "ClassWeightedReducer" => {
                let weights = options.remove("weights").unwrap_or_default();
                match serde_json::from_value::<Vec<f64>>(weights) {
                    Ok(weights) if !weights.is_empty() => Reducer::ClassWeighted { weights },
                    _ => return Err("class_weighted needs `weights`, a list of one number per class".to_owned()),
                }
            }
            "per_anchor" | "PerAnchorReducer" => Reducer::PerAnchor { reducer: inner(&mut options, "reducer")? },
            "multiple" | "MultipleReducers" => {
                let Some(Value::Object(parts)) = options.remove("reducers") else {
                    return Err("multiple needs `reducers`, an object from a part's name to its reducer".to_owned());
                };
                let parts = parts.into_iter().map(|(part, value)| Ok((part, Reducer::try_from(value)?)));
                let reducers = parts.collect::<std::result::Result<_, String>>()?;
                Reducer::Multiple { reducers, default_reducer: inner(&mut options, "default_reducer")? }
            }
            "DoNothingReducer" => {
                return Err("`DoNothingReducer` leaves many losses, and training needs one number".to_owned());
            }
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
            Reducer::Divisor => json!("divisor"),
            Reducer::ClassWeighted { weights } => json!({"name": "class_weighted", "weights": weights}),
            Reducer::PerAnchor { reducer } => json!({"name": "per_anchor", "reducer": *reducer}),
            Reducer::Multiple { reducers, default_reducer } => {
                json!({"name": "multiple", "reducers": reducers, "default_reducer": *default_reducer})
            }
        }
    }
}
