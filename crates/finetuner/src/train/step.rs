//! The gradients of one batch, whatever its size.
//!
//! A batch that fits one micro-batch (of two towers: one each) goes forward and backward once. A larger one goes through
//! the gradient cache (Gao et al. 2021, arXiv 2101.06983): embed every micro-batch without a tape, take the gradient of
//! the loss in each embedding over the whole batch, then run every micro-batch again with a tape and feed it its
//! embeddings' gradients. Dropout masks depend on step, example and position only, so both passes draw the same.

use engine::random::Key;
use engine::{Device, Gradients, ParameterId, Tape, Tensor};

use super::batch::Batch;
use crate::encoder::Encoder;
use crate::error::Result;
use crate::objective::{Objective, Remembered};

/// What a batch says beside the gradients of the model's weights.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) loss: f64,
    /// The gradients of the objective's own parameters.
    pub(crate) own: Gradients,
    /// What the objective will remember.
    pub(crate) remembered: Remembered,
    /// What each micro-batch says of the model's running statistics.
    pub(crate) observed: Vec<(ParameterId, Tensor)>,
    /// The same of the twin's.
    pub(crate) observed_by_twin: Vec<(ParameterId, Tensor)>,
}

/// What the rows of a batch go through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoders<'e> {
    pub(crate) model: &'e Encoder,
    /// A second copy of the model, for the first column of batches that say so.
    pub(crate) twin: Option<&'e Encoder>,
}

impl<'e> Encoders<'e> {
    /// The encoder of a batch's micro-batch that starts at this row, and its dropout: a twin draws other masks.
    fn of(self, batch: &Batch, row: usize, dropout: Option<Key>) -> (&'e Encoder, Option<Key>) {
        match self.twin.filter(|_| batch.goes_through_twin(row)) {
            Some(twin) => (twin, dropout.map(|key| key.part(u64::from_le_bytes(*b"twin\0\0\0\0")))),
            None => (self.model, dropout),
        }
    }
}

/// Adds the gradients of a batch to `gradients`, of the model and of its twin. With a key, dropout is on.
pub(crate) fn gradients(
    encoders: Encoders<'_>,
    device: &dyn Device,
    objective: &Objective,
    batch: &Batch,
    dropout: Option<Key>,
    (gradients, mut twin): (&mut Gradients, Option<&mut Gradients>),
) -> Result<Found> {
    let encoder = encoders.model;
    if one_pass(batch) {
        let mut tape = Tape::recording(device, &encoder.parameters);
        let parts = batch.micro_batches.iter();
        let parts = parts.map(|input| encoder.forward_layers(&mut tape, input, dropout, &batch.layout.layers));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let embeddings = match &parts[..] {
            [only] => only.clone(),
            parts => tape.stacked(&parts.iter().collect::<Vec<_>>())?,
        };
        drop(parts);
        let computed = objective.compute(&mut tape, &embeddings, &batch.layout)?;
        drop(embeddings);
        let observed = tape.take_observed();
        let mut leaves = tape.backward(&computed.loss, Tensor::scalar(1.0), gradients)?;
        // Read last: a device computes on meanwhile.
        let loss = f64::from(computed.loss.value().item());
        let own = computed.own_gradients(&mut leaves);
        return Ok(Found { loss, own, remembered: computed.into_remembered(), observed, observed_by_twin: Vec::new() });
    }

    let embeddings = embed(encoders, device, batch, dropout)?;
    let mut tape = Tape::recording(device, &encoder.parameters);
    let leaf = tape.leaf(embeddings);
    let computed = objective.compute(&mut tape, &leaf, &batch.layout)?;
    let mut leaves = tape.backward(&computed.loss, Tensor::scalar(1.0), gradients)?;
    let loss = f64::from(computed.loss.value().item());
    let upstream = leaves.take(&leaf);
    let own = computed.own_gradients(&mut leaves);
    let mut found =
        Found { loss, own, remembered: computed.into_remembered(), observed: Vec::new(), observed_by_twin: Vec::new() };
    let Some(upstream) = upstream else { return Ok(found) };

    let width = upstream.columns();
    let mut row = 0;
    for micro_batch in &batch.micro_batches {
        let rows = micro_batch.len();
        let part = upstream.data()[row * width..(row + rows) * width].to_vec();
        let (encoder, dropout) = encoders.of(batch, row, dropout);
        let gradients = match &mut twin {
            Some(twin) if batch.goes_through_twin(row) => &mut **twin,
            _ => &mut *gradients,
        };
        let start = row;
        row += rows;
        let mut tape = Tape::recording(device, &encoder.parameters);
        let embeddings = encoder.forward_layers(&mut tape, micro_batch, dropout, &batch.layout.layers)?;
        let observed = tape.take_observed();
        match batch.goes_through_twin(start) {
            true => found.observed_by_twin.extend(observed),
            false => found.observed.extend(observed),
        }
        tape.backward(&embeddings, Tensor::from_vec(part, &[rows, width])?, gradients)?;
    }
    Ok(found)
}

/// The loss of a batch without gradients and without dropout, but for views that only dropout makes different: they draw
/// the same masks every time.
pub(crate) fn loss(encoders: Encoders<'_>, device: &dyn Device, objective: &Objective, batch: &Batch) -> Result<f64> {
    let dropout = batch.views.then(|| Key::new(0));
    let embeddings = embed(encoders, device, batch, dropout)?;
    let mut tape = Tape::inference(device, &encoders.model.parameters);
    let embeddings = tape.constant(embeddings);
    let loss = objective.loss(&mut tape, &embeddings, &batch.layout)?;
    tape.read(&loss)?;
    Ok(f64::from(loss.value().item()))
}

/// Whether a batch goes forward and backward at once: it has one micro-batch for each tower.
fn one_pass(batch: &Batch) -> bool {
    let inputs = &batch.micro_batches;
    !batch.twin && (inputs.len() == 1 || inputs.len() == 2 && inputs[0].modality() != inputs[1].modality())
}

/// The embeddings of every row, nothing recorded.
fn embed(encoders: Encoders<'_>, device: &dyn Device, batch: &Batch, dropout: Option<Key>) -> Result<Tensor> {
    let mut embeddings = Vec::new();
    let mut row = 0;
    for micro_batch in &batch.micro_batches {
        let (encoder, dropout) = encoders.of(batch, row, dropout);
        row += micro_batch.len();
        let mut tape = Tape::inference(device, &encoder.parameters);
        let part = encoder.forward_layers(&mut tape, micro_batch, dropout, &batch.layout.layers)?;
        embeddings.extend_from_slice(tape.read(&part)?);
    }
    let rows = batch.layout.labels.len();
    let width = embeddings.len() / rows.max(1);
    Ok(Tensor::from_vec(embeddings, &[rows, width])?)
}
