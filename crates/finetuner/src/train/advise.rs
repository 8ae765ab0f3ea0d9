//! `advise`: would more labels pay, or more time? The run is repeated on a quarter and on half of the training data, and
//! the three are compared on the same queries.

use serde::{Deserialize, Serialize};

use super::measure::Measurement;
use crate::data::{Dataset, hold_out};
use crate::error::{Error, Result};
use crate::evaluate::{Bootstrap, Evaluation, Interval};

/// What the report says of labels and time, drawn from the results of the parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// mRR after training on each share of the examples, the smallest first.
    pub shares: Vec<ShareResult>,
    /// What the second half of the labels brought: mRR of all of them less that of half of them.
    pub labels: Change,
    /// What the second half of the epochs brought; `None` for a run of one epoch.
    pub time: Option<Change>,
    /// What to do.
    pub conclusion: String,
}

/// A run on a share of the training data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareResult {
    /// Of the training examples, in (0, 1].
    pub share: f64,
    /// So many examples.
    pub examples: usize,
    /// mRR of the model after the last epoch.
    pub mrr: f64,
    /// Its 95 % interval.
    pub interval: Interval,
}

/// A difference in mRR.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The difference.
    pub mrr: f64,
    /// Its 95 % interval, paired over the queries.
    pub interval: Interval,
}

/// What a run on a share of the data came to.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) share: f64,
    pub(crate) examples: usize,
    pub(crate) end: Evaluation,
}

/// The shares that are tried before the whole.
pub(crate) const SHARES: [f64; 2] = [0.25, 0.5];

/// A share of a data set; the smaller is within the larger.
///
/// # Errors
/// [`Error::Spec`] where there are too few examples to take a share of.
pub(crate) fn take(dataset: Dataset, share: f64, seed: u64) -> Result<Dataset> {
    let mut rest = dataset;
    let mut left = 1.0;
    while left > share {
        let refuse = |error: Error| Error::spec("advise", format!("needs more training examples: {error}"));
        rest = hold_out(&rest, 0.5, seed).map_err(refuse)?.0;
        left /= 2.0;
    }
    Ok(rest)
}

/// What retrieval found of the first target.
///
/// # Errors
/// [`Error::Spec`] where something else is measured, or nothing.
pub(crate) fn retrieval(measured: Option<&Measurement>) -> Result<Evaluation> {
    match measured {
        Some(Measurement::Retrieval(evaluation)) => Ok(evaluation.clone()),
        _ => {
            let problem = "compares runs by retrieval; give `query_data`, or `eval_data` or `val_split` of pairs, \
                           triplets or labelled texts";
            Err(Error::spec("advise", problem))
        }
    }
}

impl Advice {
    /// Compares the runs on the shares, the whole one last, and the whole run halfway through its epochs with its end.
    ///
    /// More time pays where the second half of the epochs brought something: the interval lies above 0. More labels pay
    /// where the second half of the labels did. Where both did, time comes first, because a run that has not come to its
    /// end says little about labels.
    pub(crate) fn new(parts: &[Part], halfway: Option<&Evaluation>) -> Advice {
        let values = |evaluation: &Evaluation| -> Vec<f64> {
            evaluation.queries.iter().map(|query| query.metrics.mrr).collect()
        };
        let bootstrap = Bootstrap::default();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let shares = parts.iter().map(|part| {
            let values = values(&part.end);
            let (mrr, interval) = (mean(&values), bootstrap.mean(&values));
            ShareResult { share: part.share, examples: part.examples, mrr, interval }
        });
        let change = |before: &Evaluation, after: &Evaluation| {
            let (before, after) = (values(before), values(after));
            Change { mrr: mean(&after) - mean(&before), interval: bootstrap.paired_difference(&before, &after) }
        };
        let (half, whole) = (&parts[parts.len() - 2].end, &parts[parts.len() - 1].end);
        let labels = change(half, whole);
        let time = halfway.map(|halfway| change(halfway, whole));
        let conclusion = conclusion(&labels, time.as_ref());
        Advice { shares: shares.collect(), labels, time, conclusion }
    }

    /// The table and the conclusion, for a terminal.
    pub fn text(&self) -> String {
        let row = |share: &ShareResult| {
            let Interval { low, high } = share.interval;
            format!(
                "{:>5.0} %  {:>9} examples   mRR {:.4}  ({low:.4} to {high:.4})\n",
                100.0 * share.share,
                share.examples,
                share.mrr
            )
        };
        let rows: String = self.shares.iter().map(row).collect();
        format!("Trained on a share of the data:\n{rows}{}\n", self.conclusion)
    }
}

fn conclusion(labels: &Change, time: Option<&Change>) -> String {
    let said = |change: &Change| {
        let Interval { low, high } = change.interval;
        format!("{:+.4} mRR, 95 % interval {low:+.4} to {high:+.4}", change.mrr)
    };
    let pays = |change: &Change| change.interval.low > 0.0;
    let by_time = match time {
        Some(time) if pays(time) => format!(
            "More time would pay: the second half of the epochs still brought something ({}). Train more epochs first; \
             what labels bring shows once that has come to its end. ",
            said(time)
        ),
        Some(time) => format!("More time would not pay: the second half of the epochs brought {}. ", said(time)),
        None => "Whether more time would pay shows in a run of 2 epochs or more. ".to_owned(),
    };
    let by_labels = match labels.interval {
        _ if pays(labels) => format!(
            "More labels would pay: the second half of them brought {}; twice as many may bring about as much again.",
            said(labels)
        ),
        Interval { high, .. } if high < 0.0 => format!(
            "More labels of this kind would not pay: the second half of them did harm ({}); look at their quality.",
            said(labels)
        ),
        _ => format!("More labels of this kind would hardly pay: the second half of them brought {}.", said(labels)),
    };
    by_time + &by_labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Hit;

    /// `found` of 40 queries have their document first, the others second.
    fn evaluation(found: u32) -> Evaluation {
        let relevant: Vec<Vec<(u32, f32)>> = (0..40).map(|_| vec![(0, 1.0)]).collect();
        let hit = |document, score| Hit { document, score };
        let hits: Vec<Vec<Hit>> = (0..40)
            .map(|query| if query < found { vec![hit(0, 1.0), hit(1, 0.5)] } else { vec![hit(1, 1.0), hit(0, 0.5)] })
            .collect();
        Evaluation::new(&hits, &relevant, 20).unwrap()
    }

    fn advice(found: [u32; 3], halfway: Option<u32>) -> Advice {
        let part = |share, found| Part { share, examples: (100.0 * share) as usize, end: evaluation(found) };
        let parts = [part(0.25, found[0]), part(0.5, found[1]), part(1.0, found[2])];
        Advice::new(&parts, halfway.map(evaluation).as_ref())
    }

    #[test]
    fn the_two_questions_are_answered_by_intervals() {
        let both = advice([0, 10, 30], Some(15));
        assert!(both.conclusion.starts_with("More time would pay"), "{}", both.conclusion);
        assert!(both.conclusion.contains("More labels would pay"), "{}", both.conclusion);
        assert_eq!(both.shares.iter().map(|share| share.mrr).collect::<Vec<_>>(), [0.5, 0.625, 0.875]);
        assert!((both.labels.mrr - 0.25).abs() < 1e-12 && both.labels.interval.low > 0.0);

        let neither = advice([10, 20, 20], Some(20));
        assert!(neither.conclusion.starts_with("More time would not pay"), "{}", neither.conclusion);
        assert!(neither.conclusion.contains("would hardly pay"), "{}", neither.conclusion);
        let harm = advice([10, 30, 10], None);
        assert!(harm.conclusion.contains("2 epochs or more") && harm.conclusion.contains("did harm"));
        assert!(both.text().contains("   25 %         25 examples   mRR 0.5000"), "{}", both.text());
    }
}
