use std::ops::Range;

use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::row_blocks::row_blocks;
use super::{Batch, Loss};
use crate::error::{Error, Result, nearest};
use crate::objective::{BatchLayout, Distance, Needs, registry};

/// Each query's own positive against every other document of the batch (InfoNCE with in-batch negatives).
///
/// ```text
/// loss(i) = ln sum of e^(scale s) over the chosen directions - scale s(query_i, positive_i)
/// ```
///
/// Rows of the query's own label, other than its own positive, are no negatives: they stand in no denominator. With
/// all labels distinct it is the loss of sentence-transformers.
///
/// Use it for queries with their answers and no other labels: the first choice for search. Larger batches make it
/// better.
///
/// Reference: `MultipleNegativesRankingLoss` of sentence-transformers; Henderson et al. 2017 (1705.00652). With
/// `directions` of all four and `joint` it is GTE's loss (2308.03281), with `query_to_doc` and `doc_to_query` and
/// `per_direction` the symmetric one (2310.19923).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultipleNegativesRankingLoss {
    /// Factor on the similarities. Default 20.
    pub scale: Option<f64>,
    /// `1 / scale`, to be given in its place.
    pub temperature: Option<f64>,
    /// Default `cosine`.
    pub similarity_fct: Distance,
    /// A list of `query_to_doc` (always needed), `query_to_query`, `doc_to_query`, `doc_to_doc`, or their names joined
    /// by `+`. Default `query_to_doc`.
    pub directions: Directions,
    /// Default `joint`.
    pub partition_mode: PartitionMode,
    /// Which negatives weigh more the nearer they are. Default none.
    pub hardness_mode: Option<HardnessMode>,
    /// Added to a logit per unit of its similarity, without gradient, in `query_to_doc`, in all 80 at most. Default 0.
    pub hardness_strength: f64,
}

/// What is compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The query with every document.
    QueryToDoc,
    /// The query with the other queries.
    QueryToQuery,
    /// The positive with every query.
    DocToQuery,
    /// The positive with the documents of other queries.
    DocToDoc,
}

/// One or more directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Directions(pub Vec<Direction>);

impl TryFrom<Value> for Directions {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        const NAMES: [&str; 4] = ["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"];
        let names: Vec<Value> = match value {
            Value::String(names) => names.split('+').map(Value::from).collect(),
            Value::Array(names) => names,
            other => return Err(format!("expected a list of directions, got {other}")),
        };
        let read = |name: Value| {
            let known = nearest(name.as_str().unwrap_or_default(), NAMES);
            serde_json::from_value(name.clone()).map_err(|_| format!("unknown direction {name}{known}"))
        };
        names.into_iter().map(read).collect::<std::result::Result<_, _>>().map(Directions)
    }
}

/// How several directions are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionMode {
    /// One denominator over all of them.
    Joint,
    /// The mean of their losses; `query_to_query` and `doc_to_doc` lack the positive and are refused.
    PerDirection,
}

/// Which negatives are weighted by their similarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardnessMode {
    /// Documents of other queries.
    InBatchNegatives,
    /// The query's own given negatives.
    HardNegatives,
    /// Both.
    AllNegatives,
}

impl Default for MultipleNegativesRankingLoss {
    fn default() -> Self {
        MultipleNegativesRankingLoss {
            scale: None,
            temperature: None,
            similarity_fct: Distance::Cosine,
            directions: Directions(vec![Direction::QueryToDoc]),
            partition_mode: PartitionMode::Joint,
            hardness_mode: None,
            hardness_strength: 0.0,
        }
    }
}

impl Loss for MultipleNegativesRankingLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let scale = self.scale.or(self.temperature.map(|temperature| 1.0 / temperature)).unwrap_or(20.0);
        let places = Places::new(batch.layout)?;
        let count = places.queries;
        let width = self.directions.0.iter().map(|direction| places.others(*direction).len()).sum();
        let total = tape.sum_of_parts(&[batch.embeddings], row_blocks(count, width), |tape, inputs, rows| {
            let losses = self.losses(tape, &inputs[0], &places, &rows, scale)?;
            Ok::<_, Error>(tape.sum(&losses, None)?)
        })?;
        Ok(tape.affine(&total, 1.0 / count.max(1) as f64, 0.0)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems: Vec<_> = [("scale", self.scale), ("temperature", self.temperature)]
            .into_iter()
            .filter_map(|(key, value)| registry::positive(key, value?))
            .collect();
        if !self.hardness_strength.is_finite() || self.hardness_strength < 0.0 {
            let problem = format!("expected a number of at least 0, got {}", self.hardness_strength);
            problems.push(("hardness_strength", problem));
        }
        if self.scale.is_some() && self.temperature.is_some() {
            problems.push(("temperature", "is 1 / scale; give one of the two".to_owned()));
        }
        let directions = &self.directions.0;
        if !directions.contains(&Direction::QueryToDoc) {
            problems.push(("directions", "`query_to_doc` is always needed".to_owned()));
        }
        if (1..directions.len()).any(|i| directions[..i].contains(&directions[i])) {
            problems.push(("directions", "each direction at most once".to_owned()));
        }
        let lacking = [Direction::QueryToQuery, Direction::DocToDoc];
        if self.partition_mode == PartitionMode::PerDirection && lacking.iter().any(|d| directions.contains(d)) {
            let problem = "`per_direction` takes `query_to_doc` and `doc_to_query` only: the others lack the positive";
            problems.push(("partition_mode", problem.to_owned()));
        }
        problems
    }
}

impl MultipleNegativesRankingLoss {
    /// One for each of these queries.
    fn losses(
        &self,
        tape: &mut Tape<'_>,
        embeddings: &Var,
        places: &Places<'_>,
        queries: &Range<usize>,
        scale: f64,
    ) -> Result<Var> {
        let mut logits = Vec::new();
        for &direction in &self.directions.0 {
            let from = places.asking(direction, queries);
            let (from, to) = (tape.row_range(embeddings, from)?, tape.row_range(embeddings, places.others(direction))?);
            let similarities = self.similarity_fct.similarities(tape, &from, &to)?;
            let weights = self.weights(direction, places, queries.start, similarities.value())?;
            logits.push((similarities, weights));
        }
        match self.partition_mode {
            PartitionMode::Joint => {
                let values = tape.side_by_side(&logits.iter().map(|(values, _)| values).collect::<Vec<_>>())?;
                let weights: Vec<Var> = logits.into_iter().map(|(_, weights)| tape.constant(weights)).collect();
                let weights = tape.side_by_side(&weights.iter().collect::<Vec<_>>())?;
                // Of all directions, the own positive of `query_to_doc` is the target.
                let at = self.directions.0.iter().take_while(|&&direction| direction != Direction::QueryToDoc);
                let before: usize = at.map(|direction| places.others(*direction).len()).sum();
                let targets = own(before + queries.start, values.value().shape());
                Ok(tape.cross_entropy(&values, Some(weights.value()), &targets, scale)?)
            }
            PartitionMode::PerDirection => {
                let mut losses = Vec::new();
                for (values, weights) in &logits {
                    let targets = own(queries.start, values.value().shape());
                    losses.push(tape.cross_entropy(values, Some(weights), &targets, scale)?);
                }
                let mut total = losses[0].clone();
                for other in &losses[1..] {
                    total = tape.add(&total, other)?;
                }
                Ok(tape.affine(&total, 1.0 / losses.len() as f64, 0.0)?)
            }
        }
    }

    /// How often each similarity of the queries from the first on stands in the denominator: 0 or 1, more for hard
    /// negatives.
    fn weights(
        &self,
        direction: Direction,
        places: &Places<'_>,
        first: usize,
        similarities: &Tensor,
    ) -> Result<Tensor> {
        let (count, others) = (similarities.columns(), places.others(direction));
        let mut weights = vec![0.0; similarities.len()];
        for (at, weight) in weights.iter_mut().enumerate() {
            let (i, row) = (first + at / count, others.start + at % count);
            let (owner, positive) = places.owner[row];
            let same_label = places.labels[row] == places.labels[i];
            let stands = match direction {
                Direction::QueryToDoc => (owner == i && positive) || !same_label,
                Direction::DocToQuery => owner == i || !same_label,
                Direction::QueryToQuery | Direction::DocToDoc => owner != i && !same_label,
            };
            if stands {
                let hard = match self.hardness_mode {
                    None => false,
                    Some(HardnessMode::InBatchNegatives) => owner != i,
                    Some(HardnessMode::HardNegatives) => owner == i && !positive,
                    Some(HardnessMode::AllNegatives) => owner != i || !positive,
                };
                let hard = hard && direction == Direction::QueryToDoc;
                let penalty = if hard { self.hardness_strength * f64::from(similarities.data()[at]) } else { 0.0 };
                // Added to a logit it multiplies the exponential; f32 ends at e^88.
                *weight = penalty.min(80.0).exp() as f32;
            }
        }
        Ok(Tensor::from_vec(weights, similarities.shape())?)
    }
}

/// Which example each row belongs to.
pub(super) struct Places<'b> {
    pub(super) labels: &'b [u32],
    pub(super) queries: usize,
    /// Per row: its example, and whether it is the positive.
    owner: Vec<(usize, bool)>,
}

impl<'b> Places<'b> {
    pub(super) fn new(layout: &'b BatchLayout) -> Result<Self> {
        let columns = &layout.columns;
        let queries = columns.first().copied().unwrap_or(0);
        if columns.len() < 2 || columns[1] != queries || columns.iter().any(|&rows| rows > queries) {
            let expected = "as many positives as queries, and no more of any negative";
            return Err(engine::Error::shape("objective", expected, format!("columns of {columns:?} rows")).into());
        }
        let of_column = |(column, &rows): (usize, &usize)| (0..rows).map(move |i| (i, column == 1));
        let owner = columns.iter().enumerate().flat_map(of_column).collect();
        Ok(Places { labels: &layout.labels, queries, owner })
    }

    /// The rows that a direction compares for some queries: themselves, or their positives.
    fn asking(&self, direction: Direction, queries: &Range<usize>) -> Range<usize> {
        match direction {
            Direction::QueryToDoc | Direction::QueryToQuery => queries.clone(),
            Direction::DocToQuery | Direction::DocToDoc => self.queries + queries.start..self.queries + queries.end,
        }
    }

    /// The rows that a direction compares with.
    fn others(&self, direction: Direction) -> Range<usize> {
        match direction {
            Direction::QueryToDoc | Direction::DocToDoc => self.queries..self.owner.len(),
            Direction::QueryToQuery | Direction::DocToQuery => 0..self.queries,
        }
    }
}

/// 1 where row i meets the column `from` + i: its own match.
pub(super) fn own(from: usize, shape: &[usize]) -> Tensor {
    let mut targets = Tensor::zeros(shape);
    (0..shape[0]).for_each(|i| targets.data_mut()[i * shape[1] + from + i] = 1.0);
    targets
}
