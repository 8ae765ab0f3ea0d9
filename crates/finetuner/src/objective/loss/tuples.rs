//! What a batch holds column by column: pairs, triplets, scores, and a guide's embeddings.

use engine::{Tape, Tensor, Var};

use super::Batch;
use crate::error::Result;

impl Batch<'_> {
    /// The rows of a column.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when the batch has fewer columns.
    pub fn column(&self, tape: &mut Tape<'_>, column: usize) -> Result<Var> {
        let columns = &self.layout.columns;
        if column >= columns.len() {
            let expected = format!("at least {} columns", column + 1);
            return Err(engine::Error::shape("objective", expected, columns.len().to_string()).into());
        }
        let start: usize = columns[..column].iter().sum();
        Ok(tape.row_range(self.embeddings, start..start + columns[column])?)
    }

    /// The guide's embedding of every row.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when there is none, or not one for each row.
    pub fn guide(&self) -> Result<&'_ Tensor> {
        let rows = self.layout.rows();
        self.layout.guide.as_ref().filter(|guide| guide.rows() == rows).ok_or_else(|| {
            let got = self.layout.guide.as_ref().map_or("none".to_owned(), |guide| format!("{:?}", guide.shape()));
            engine::Error::shape("objective", format!("a guide's embeddings of {rows} rows"), got).into()
        })
    }

    /// Every anchor and positive with each of the anchor's own negatives: three matrices of one row a triplet, first
    /// those of the first negatives, then those of the second ones …
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when the batch has no column of negatives.
    pub fn triplets(&self, tape: &mut Tape<'_>) -> Result<(Var, Var, Var)> {
        let (anchors, positives) = (self.column(tape, 0)?, self.column(tape, 1)?);
        let (mut repeated_anchors, mut repeated_positives, mut negatives) = (Vec::new(), Vec::new(), Vec::new());
        for column in 2..self.layout.columns.len().max(3) {
            let own = self.column(tape, column)?;
            let rows = own.value().rows();
            repeated_anchors.push(tape.row_range(&anchors, 0..rows)?);
            repeated_positives.push(tape.row_range(&positives, 0..rows)?);
            negatives.push(own);
        }
        let mut stack = |parts: &[Var]| tape.stacked(&parts.iter().collect::<Vec<_>>());
        Ok((stack(&repeated_anchors)?, stack(&repeated_positives)?, stack(&negatives)?))
    }

    /// The teacher's scores of the positive and of each negative, `[examples, 1 + negatives]`; margins become scores
    /// beside a positive of score 0.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when the scores are neither as many as the documents nor as the negatives.
    pub fn teacher_scores(&self) -> Result<Tensor> {
        let columns = &self.layout.columns;
        let examples = columns.first().copied().unwrap_or(0);
        let negatives = columns.len().saturating_sub(2);
        let scores = self.layout.scores.as_deref().unwrap_or_default();
        let full = columns.iter().all(|rows| *rows == examples);
        if full && negatives > 0 && scores.len() == examples * (negatives + 1) {
            return Ok(Tensor::from_vec(scores.to_vec(), &[examples, negatives + 1])?);
        }
        if full && negatives > 0 && scores.len() == examples * negatives {
            let with_positive =
                |margins: &[f32]| [0.0].into_iter().chain(margins.iter().map(|m| -m)).collect::<Vec<_>>();
            let scores = scores.chunks_exact(negatives).flat_map(with_positive).collect();
            return Ok(Tensor::from_vec(scores, &[examples, negatives + 1])?);
        }
        let expected = "full columns of anchors, positives and negatives, and a score of each document or negative";
        let got = format!("columns of {columns:?} rows and {} scores", scores.len());
        Err(engine::Error::shape("objective", expected, got).into())
    }

    /// Pairs to put in the order of their scores: scored pairs as they are, or every anchor with its positive, scored 1,
    /// and with each of its negatives, scored 0.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when the columns or the scores are missing or of different lengths.
    pub fn ranked_pairs(&self, tape: &mut Tape<'_>) -> Result<(Var, Var, Vec<f32>)> {
        let columns = &self.layout.columns;
        if columns.len() == 2 {
            let (first, second, scores) = self.scored_pairs(tape)?;
            return Ok((first, second, scores.to_vec()));
        }
        let anchors = self.column(tape, 0)?;
        let count = anchors.value().rows();
        let mut parts = Vec::new();
        for &rows in &columns[1..] {
            parts.push(tape.row_range(&anchors, 0..rows)?);
        }
        let first = tape.stacked(&parts.iter().collect::<Vec<_>>())?;
        let second = tape.row_range(self.embeddings, count..self.layout.rows())?;
        let scores = (0..second.value().rows()).map(|row| if row < columns[1] { 1.0 } else { 0.0 }).collect();
        Ok((first, second, scores))
    }

    /// The two columns of scored pairs and their scores.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when the columns or the scores are missing or of different lengths.
    pub fn scored_pairs(&self, tape: &mut Tape<'_>) -> Result<(Var, Var, &[f32])> {
        let (first, second) = (self.column(tape, 0)?, self.column(tape, 1)?);
        let scores = self.layout.scores.as_deref().unwrap_or_default();
        if scores.len() != first.value().rows() {
            let expected = format!("{} scores, one per pair", first.value().rows());
            return Err(engine::Error::shape("objective", expected, scores.len().to_string()).into());
        }
        Ok((first, second, scores))
    }
}
