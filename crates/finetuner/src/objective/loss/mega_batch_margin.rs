use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::multiple_negatives_ranking::Places;
use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs};

/// Each anchor against its hardest negative in a large batch.
///
/// ```text
/// loss = mean over anchors of max(0, positive_margin - cos(a, p)) + max(0, max over negatives cos(a, n) - negative_margin)
/// ```
///
/// Negatives are all documents of the batch but those of the anchor's own label, given negatives included. The larger
/// the batch the harder the hardest; an anchor without any negative has the first term alone.
///
/// Use it for paraphrases with batches of thousands: only the hardest negative of each counts.
///
/// Reference: `MegaBatchMarginLoss` of sentence-transformers; Wieting, Gimpel 2018 (P18-1042).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MegaBatchMarginLoss {
    /// Positives are to be at least this similar. Default 0.8.
    pub positive_margin: f64,
    /// Negatives are to be at most this similar. Default 0.3.
    pub negative_margin: f64,
}

impl Default for MegaBatchMarginLoss {
    fn default() -> Self {
        MegaBatchMarginLoss { positive_margin: 0.8, negative_margin: 0.3 }
    }
}

impl Loss for MegaBatchMarginLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let places = Places::new(batch.layout)?;
        let queries = batch.column(tape, 0)?;
        let documents = tape.row_range(batch.embeddings, places.queries..batch.layout.rows())?;
        let cosines = Distance::Cosine.similarities(tape, &queries, &documents)?;
        let own = (0..places.queries as u32).map(|i| [i, i]).collect();
        let hardest: Vec<[u32; 2]> = (0..places.queries).filter_map(|i| hardest(&places, i, cosines.value())).collect();

        let positives = tape.gather(&cosines, own)?;
        let too_far = tape.affine(&positives, -1.0, self.positive_margin)?;
        let too_far = tape.unary(Unary::Relu, &too_far)?;
        let mut total = tape.sum(&too_far, None)?;
        if !hardest.is_empty() {
            let negatives = tape.gather(&cosines, hardest.into())?;
            let too_near = tape.affine(&negatives, 1.0, -self.negative_margin)?;
            let too_near = tape.unary(Unary::Relu, &too_near)?;
            let too_near = tape.sum(&too_near, None)?;
            total = tape.add(&total, &too_near)?;
        }
        Ok(tape.affine(&total, 1.0 / places.queries.max(1) as f64, 0.0)?)
    }
}

/// The place of the most similar document that does not match the query.
fn hardest(places: &Places<'_>, query: usize, cosines: &Tensor) -> Option<[u32; 2]> {
    let row = &cosines.data()[query * cosines.columns()..][..cosines.columns()];
    let negatives = (0..row.len()).filter(|&j| places.labels[places.queries + j] != places.labels[query]);
    // The first of equal ones.
    let found = negatives.reduce(|best, j| if row[j] > row[best] { j } else { best })?;
    Some([query as u32, found as u32])
}
