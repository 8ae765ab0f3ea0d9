//! What counts as a hard negative.

use std::ops::Range;

use crate::error::{Error, Problem, Result};

/// Which of the candidates become negatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// The most similar.
    #[default]
    Top,
    /// Any, drawn from the seed.
    Random,
}

/// Options of [`super::mine`], with the names and defaults of `mine_hard_negatives` of sentence-transformers 6.2.
#[derive(Debug, Clone, PartialEq)]
pub struct MineOptions {
    /// Candidates passed over, the most similar first. Default 0.
    pub range_min: usize,
    /// Candidates looked at. Default `range_min + 10 num_negatives + p` with a margin or `max_score` (or a
    /// cross-encoder and `min_score`), else `range_min + num_negatives + p`; `p` is the most positives of a query.
    pub range_max: Option<usize>,
    /// Leave out candidates with a higher score. Default: none.
    pub max_score: Option<f32>,
    /// Leave out candidates with a lower score. Default: none.
    pub min_score: Option<f32>,
    /// Leave out candidates with `score + absolute_margin > lowest positive score`. Default: none.
    pub absolute_margin: Option<f32>,
    /// Leave out candidates with `score > p - relative_margin |p|`, `p` the lowest positive score. Default: none.
    pub relative_margin: Option<f32>,
    /// Negatives of a query. Default 3.
    pub num_negatives: usize,
    /// Which of the candidates. Default `Sampling::Top`.
    pub sampling: Sampling,
    /// Let documents that are known to match be found too, for rankings that a cross-encoder is tested on. Default
    /// false.
    pub include_positives: bool,
    /// What random sampling draws from. Default 42.
    pub seed: u64,
}

impl Default for MineOptions {
    fn default() -> Self {
        MineOptions {
            range_min: 0,
            range_max: None,
            max_score: None,
            min_score: None,
            absolute_margin: None,
            relative_margin: None,
            num_negatives: 3,
            sampling: Sampling::Top,
            include_positives: false,
            seed: 42,
        }
    }
}

impl MineOptions {
    /// # Errors
    /// [`Error::Spec`] with every problem.
    pub fn check(&self, cross_encoder: bool) -> Result<()> {
        let mut problems = Vec::new();
        let mut add = |field: &str, problem: String| problems.push(Problem { field: field.into(), problem });
        if self.num_negatives == 0 {
            add("num_negatives", "expected 1 or more, got 0".into());
        }
        for (field, value) in [
            ("max_score", self.max_score),
            ("min_score", self.min_score),
            ("absolute_margin", self.absolute_margin),
            ("relative_margin", self.relative_margin),
        ] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                add(field, format!("expected a finite number, got {value}"));
            }
        }
        if let (Some(least), Some(most)) = (self.min_score, self.max_score)
            && least > most
        {
            add("min_score", format!("is {least}, above `max_score`, which is {most}"));
        }
        if cross_encoder && !self.filters() && self.min_score.is_none() {
            let filters = "`absolute_margin`, `relative_margin`, `max_score` or `min_score`";
            add("cross_encoder", format!("rescores candidates for the filters, so it needs one of them: {filters}"));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Spec { problems }) }
    }

    /// Whether a filter may leave out many candidates.
    fn filters(&self) -> bool {
        self.absolute_margin.is_some() || self.relative_margin.is_some() || self.max_score.is_some()
    }

    /// The ranks that negatives are taken from.
    pub(super) fn range(&self, most_positives: usize, cross_encoder: bool) -> Result<Range<usize>> {
        let many = self.filters() || cross_encoder && self.min_score.is_some();
        let wanted = if many { 10 * self.num_negatives } else { self.num_negatives };
        let end = self.range_max.unwrap_or(self.range_min + wanted + most_positives);
        if end < self.range_min + self.num_negatives {
            let problem = format!(
                "is {end}, which leaves fewer than `num_negatives` ({}) candidates after `range_min` ({})",
                self.num_negatives, self.range_min
            );
            return Err(Error::spec("range_max", problem));
        }
        Ok(self.range_min..end)
    }
}
