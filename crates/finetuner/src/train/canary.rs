//! Whether training made the model forget: general sentences that have nothing to do with the training data.
//!
//! `canary.tsv` was written for this program: 64 rows of a sentence, another wording of it, and a sentence with its
//! words but another meaning. Each sentence searches the other wordings and the other rows' lookalikes (127 texts) for
//! its own other wording. Its own lookalike is left out: most models put it first, whether they forget or not.

use engine::Device;
use serde::{Deserialize, Serialize};

use super::measure::{Measurement, Target};
use crate::data::RetrievalSet;
use crate::encoder::Model;
use crate::error::Result;
use crate::evaluate::{Bootstrap, Evaluation, Interval, K, Similarity};

const SENTENCES: &str = include_str!("canary.tsv");

/// The general sentences before and after training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forgetting {
    /// mRR@20 of the untouched model.
    pub pretrained: f64,
    /// mRR@20 of the trained model.
    pub finetuned: f64,
    /// `finetuned - pretrained`.
    pub delta: f64,
    /// The 95 % bootstrap interval of `delta` over the sentences.
    pub interval: Interval,
    /// Whether the interval lies below 0.
    pub forgot: bool,
    /// The same as a sentence.
    pub conclusion: String,
}

/// The general sentences, and how the untouched model does on them.
pub(crate) struct Canary {
    target: Target,
    before: Evaluation,
}

impl Canary {
    /// Measures the untouched model.
    pub(crate) fn new(model: &Model, device: &dyn Device) -> Result<Self> {
        let target = Target::Retrieval(sentences());
        let before = measure(&target, model, device)?;
        Ok(Canary { target, before })
    }

    /// Measures the trained model.
    pub(crate) fn compare(&self, model: &Model, device: &dyn Device) -> Result<Forgetting> {
        Ok(Forgetting::new(&self.before, &measure(&self.target, model, device)?))
    }
}

impl Forgetting {
    fn new(before: &Evaluation, after: &Evaluation) -> Self {
        let ranks =
            |evaluation: &Evaluation| evaluation.queries.iter().map(|query| query.metrics.mrr).collect::<Vec<_>>();
        let interval = Bootstrap::default().paired_difference(&ranks(before), &ranks(after));
        let (pretrained, finetuned) = (before.summary().metrics.mrr, after.summary().metrics.mrr);
        let Interval { low, high } = interval;
        let forgot = high < 0.0;
        let numbers = format!(
            "mRR@{K} on {} general sentences went from {pretrained:.4} to {finetuned:.4} (95 % interval of the change \
             {low:+.4} to {high:+.4})",
            before.queries.len()
        );
        let conclusion = if forgot {
            format!(
                "The model has FORGOTTEN some of what it knew: {numbers}; fewer epochs, a smaller learning rate or frozen \
                 layers lose less."
            )
        } else {
            format!("General knowledge kept: {numbers}.")
        };
        Forgetting { pretrained, finetuned, delta: finetuned - pretrained, interval, forgot, conclusion }
    }
}

fn measure(target: &Target, model: &Model, device: &dyn Device) -> Result<Evaluation> {
    match target.measure(model, device, Similarity::Cosine, K, |_| Ok(()))? {
        Measurement::Retrieval(evaluation) => Ok(evaluation),
        Measurement::Scored(_) => unreachable!("sentences are searched (bug)"),
    }
}

/// The sentences search their other wordings (first) and the sentences that share their words (second).
fn sentences() -> RetrievalSet {
    let rows: Vec<Vec<&str>> = SENTENCES.lines().map(|line| line.split('\t').collect()).collect();
    let column = |column: usize| rows.iter().map(move |row| row[column].to_owned());
    RetrievalSet {
        queries: column(0).collect(),
        documents: column(1).chain(column(2)).collect(),
        exclude: Some((0..rows.len() as u32).map(|row| Some(rows.len() as u32 + row)).collect()),
        relevant: (0..rows.len() as u32).map(|row| vec![(row, 1.0)]).collect(),
        ..RetrievalSet::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Hit;

    #[test]
    fn the_sentences_are_whole_and_distinct() {
        let set = sentences();
        assert_eq!((set.queries.len(), set.documents.len()), (64, 128));
        let mut all: Vec<&String> = set.queries.iter().chain(&set.documents).collect();
        assert!(all.iter().all(|text| text.len() > 15 && text.trim() == text.as_str()));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 192);
    }

    #[test]
    fn a_drop_beyond_its_interval_is_told_and_a_small_one_is_not() {
        let relevant = vec![vec![(0, 1.0)]; 64];
        let evaluation = |lost: usize| {
            let hits: Vec<Vec<Hit>> =
                (0..64).map(|query| vec![Hit { document: u32::from(query < lost), score: 1.0 }]).collect();
            Evaluation::new(&hits, &relevant, K).unwrap()
        };
        let whole = evaluation(0);
        let forgot = Forgetting::new(&whole, &evaluation(16));
        assert!(forgot.forgot && forgot.conclusion.contains("FORGOTTEN") && (forgot.delta + 0.25).abs() < 1e-12);
        let kept = Forgetting::new(&whole, &evaluation(1));
        assert!(!kept.forgot && kept.conclusion.starts_with("General knowledge kept"), "{kept:?}");
    }
}
