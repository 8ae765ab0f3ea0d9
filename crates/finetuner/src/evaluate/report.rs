//! Before and after: the same queries searched with the pretrained and with the fine-tuned model.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Evaluation, Interval, Metrics, Original, PerQuery};
use crate::{Error, Result};

/// With fewer queries no interval is trusted and the verdict is always [`Verdict::NoMeasurableDifference`].
pub const FEWEST_QUERIES: usize = 10;

/// Queries shown of those that improved, worsened and stayed, unless told otherwise.
pub const EXAMPLES: usize = 3;

/// What fine-tuning changed; the `metrics`, `queries`, `verdict` and `conclusion` of `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The means of both models, their difference and how sure they are.
    pub metrics: Columns,
    /// What happened to single queries.
    pub queries: Changes,
    /// Whether the model got better.
    pub verdict: Verdict,
    /// The verdict as a sentence for people.
    pub conclusion: String,
}

/// The means of both models, with 95 % bootstrap intervals over the queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Columns {
    /// The number of hits that the metrics look at.
    pub k: usize,
    /// The untouched model.
    pub pretrained: Metrics,
    /// The trained model.
    pub finetuned: Metrics,
    /// `finetuned - pretrained`.
    pub delta: Metrics,
    /// Intervals of `delta`, both models measured on the same drawn queries.
    pub interval: Metrics<Interval>,
    /// Intervals of `pretrained`.
    pub pretrained_interval: Metrics<Interval>,
    /// Intervals of `finetuned`.
    pub finetuned_interval: Metrics<Interval>,
    /// The same in the original's definitions.
    pub original: OriginalColumns,
}

/// The means of both models in the original's definitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OriginalColumns {
    /// The untouched model.
    pub pretrained: Original,
    /// The trained model.
    pub finetuned: Original,
    /// `finetuned - pretrained`.
    pub delta: Original,
}

/// How many queries changed. A query improves if its reciprocal rank rises or, where that is equal, its average
/// precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// Queries that got better.
    pub improved: usize,
    /// Queries that got worse.
    pub worsened: usize,
    /// Queries with equal reciprocal rank and average precision.
    pub unchanged: usize,
    /// All queries that were measured.
    pub evaluated: usize,
    /// Queries left out because nothing is relevant to them.
    pub without_relevant: usize,
    /// Up to as many of each as asked for.
    pub examples: Examples,
}

/// Queries to look at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Examples {
    /// Those that gained most.
    pub improved: Vec<Example>,
    /// Those that lost most.
    pub worsened: Vec<Example>,
    /// Those that stayed, the worst of them first.
    pub unchanged: Vec<Example>,
}

/// One query before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The query's text.
    pub query: String,
    /// The text of the most relevant document.
    pub expected: String,
    /// Rank of the first relevant document before, none if it was not among the first `k`.
    pub rank_before: Option<usize>,
    /// And after.
    pub rank_after: Option<usize>,
    /// The text that stood first before.
    pub first_before: Option<String>,
    /// And after.
    pub first_after: Option<String>,
}

/// Whether the model got better, by the 95 % interval of the difference in mRR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval lies above 0.
    Improved,
    /// The interval lies below 0.
    Worse,
    /// The interval holds 0, or there are fewer than [`FEWEST_QUERIES`] queries.
    NoMeasurableDifference,
}

impl Comparison {
    /// Compares two evaluations of the same queries; `queries` and `documents` are the texts by row;
    /// `examples` queries are shown of those that improved, worsened and stayed.
    ///
    /// Fails where the evaluations are of different queries or `k`, or a text is missing.
    pub fn new<Q: AsRef<str>, D: AsRef<str>>(
        before: &Evaluation,
        after: &Evaluation,
        queries: &[Q],
        documents: &[D],
        bootstrap: Bootstrap,
        examples: usize,
    ) -> Result<Self> {
        let rows = |evaluation: &Evaluation| evaluation.queries.iter().map(|query| query.query).collect::<Vec<_>>();
        if (before.k, rows(before)) != (after.k, rows(after)) {
            let problem = "before and after were measured on different queries or at a different k";
            return Err(Error::Evaluation(problem.to_owned()));
        }
        let pairs: Vec<(&PerQuery, &PerQuery)> = before.queries.iter().zip(&after.queries).collect();
        let metrics = Columns::new(before, after, &pairs, bootstrap);
        let queries = Changes::new(&pairs, before.without_relevant, queries, documents, examples)?;
        let verdict = match metrics.interval.mrr {
            _ if pairs.len() < FEWEST_QUERIES => Verdict::NoMeasurableDifference,
            Interval { low, .. } if low > 0.0 => Verdict::Improved,
            Interval { high, .. } if high < 0.0 => Verdict::Worse,
            _ => Verdict::NoMeasurableDifference,
        };
        let conclusion = conclusion(verdict, &metrics, pairs.len());
        Ok(Comparison { metrics, queries, verdict, conclusion })
    }
}

impl Columns {
    fn new(before: &Evaluation, after: &Evaluation, pairs: &[(&PerQuery, &PerQuery)], bootstrap: Bootstrap) -> Self {
        const COUNT: usize = Metrics::COUNT;
        let row = |(before, after): &(&PerQuery, &PerQuery)| -> [f64; 3 * COUNT] {
            let columns = [before.metrics, after.metrics, Metrics::delta(&before.metrics, &after.metrics)];
            let columns = columns.map(|metrics| metrics.values());
            std::array::from_fn(|index| columns[index / COUNT][index % COUNT])
        };
        let intervals = bootstrap.means(&pairs.iter().map(row).collect::<Vec<_>>());
        let column = |number| Metrics::from_values(std::array::from_fn(|index| intervals[number * COUNT + index]));
        let (before, after) = (before.summary(), after.summary());
        Columns {
            k: before.k,
            pretrained: before.metrics,
            finetuned: after.metrics,
            delta: Metrics::delta(&before.metrics, &after.metrics),
            interval: column(2),
            pretrained_interval: column(0),
            finetuned_interval: column(1),
            original: OriginalColumns {
                pretrained: before.original,
                finetuned: after.original,
                delta: Original::delta(&before.original, &after.original),
            },
        }
    }
}

impl Changes {
    fn new<Q: AsRef<str>, D: AsRef<str>>(
        pairs: &[(&PerQuery, &PerQuery)],
        without_relevant: usize,
        queries: &[Q],
        documents: &[D],
        shown: usize,
    ) -> Result<Self> {
        // Gain in reciprocal rank, then in average precision.
        let gain = |(before, after): &(&PerQuery, &PerQuery)| {
            (after.metrics.mrr - before.metrics.mrr, after.metrics.map - before.metrics.map)
        };
        let ascending = |a: (f64, f64), b: (f64, f64)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1));
        let direction = |pair: &(&PerQuery, &PerQuery)| {
            let (rank, precision) = gain(pair);
            rank.partial_cmp(&0.0).filter(|order| order.is_ne()).or(precision.partial_cmp(&0.0))
        };
        let of = |wanted| -> Vec<_> { pairs.iter().filter(|pair| direction(pair) == Some(wanted)).collect() };
        let (mut improved, mut worsened) = (of(Ordering::Greater), of(Ordering::Less));
        let mut unchanged = of(Ordering::Equal);
        improved.sort_by(|a, b| ascending(gain(b), gain(a)));
        worsened.sort_by(|a, b| ascending(gain(a), gain(b)));
        unchanged.sort_by(|a, b| a.1.metrics.mrr.total_cmp(&b.1.metrics.mrr));

        let example = |(before, after): &(&PerQuery, &PerQuery)| -> Result<Example> {
            let document = |row: u32| text("document", documents, row as usize);
            Ok(Example {
                query: text("query", queries, before.query)?,
                expected: document(before.expected)?,
                rank_before: before.rank,
                rank_after: after.rank,
                first_before: before.first.map(document).transpose()?,
                first_after: after.first.map(document).transpose()?,
            })
        };
        let examples = |pairs: &[&(&PerQuery, &PerQuery)]| -> Result<Vec<Example>> {
            pairs.iter().take(shown).map(|pair| example(pair)).collect()
        };
        Ok(Changes {
            improved: improved.len(),
            worsened: worsened.len(),
            unchanged: unchanged.len(),
            evaluated: pairs.len(),
            without_relevant,
            examples: Examples {
                improved: examples(&improved)?,
                worsened: examples(&worsened)?,
                unchanged: examples(&unchanged)?,
            },
        })
    }
}

fn text<T: AsRef<str>>(name: &str, texts: &[T], row: usize) -> Result<String> {
    match texts.get(row) {
        Some(text) => Ok(text.as_ref().to_owned()),
        None => Err(Error::Evaluation(format!("{name} {row} has no text, only {} were given", texts.len()))),
    }
}

fn conclusion(verdict: Verdict, metrics: &Columns, queries: usize) -> String {
    let k = metrics.k;
    let Interval { low, high } = metrics.interval.mrr;
    let change = format!("mRR@{k} went from {:.4} to {:.4}", metrics.pretrained.mrr, metrics.finetuned.mrr);
    let interval = format!("the 95 % interval of the change is {low:+.4} to {high:+.4} over {queries} queries");
    match verdict {
        Verdict::Improved => format!("The fine-tuned model is better: {change}; {interval}."),
        Verdict::Worse => format!("The fine-tuned model is WORSE: {change}; {interval}."),
        Verdict::NoMeasurableDifference if queries < FEWEST_QUERIES => format!(
            "No measurable difference: {change}, but {queries} queries are too few to tell; \
             give at least {FEWEST_QUERIES}, better a few hundred."
        ),
        Verdict::NoMeasurableDifference => format!("No measurable difference: {change}; {interval}, which holds 0."),
    }
}
