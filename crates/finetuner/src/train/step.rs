//! The gradients of one batch, whatever its size.
//!
//! A batch that fits one micro-batch (of two towers: one each) goes forward and backward once. A larger one goes through
//! the gradient cache (Gao et al. 2021, arXiv 2101.06983): embed every micro-batch without a tape, take the gradient of
//! the loss in each embedding over the whole batch, then run every micro-batch again with a tape and feed it its
//! embeddings' gradients. Dropout masks depend on step, example and position only, so both passes draw the same.
//!
//! Several ranks share a batch in the same way: each embeds its own rows, all have the embeddings of all, so that every example
//! is a negative of every other, and take the same loss; each goes back through its own rows, and the gradients are summed.

use engine::random::Key;
use engine::{Device, Gradients, LeafGradients, ParameterId, Tape, Tensor, Var};

use super::batch::Batch;
use super::ranks::{Ranks, Seen};
use crate::encoder::{Encoder, Input};
use crate::error::Result;
use crate::objective::{Computed, Objective, Remembered};

/// What a batch says beside the gradients of the model's weights.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) loss: f64,
    /// By all ranks together.
    pub(crate) seen: Seen,
    /// Counted operations of this rank's model: [`Tape::operations`].
    pub(crate) operations: u64,
    /// The gradients of the objective's own parameters.
    pub(crate) own: Gradients,
    /// What the objective will remember.
    pub(crate) remembered: Remembered,
    /// What each micro-batch says of the model's running statistics.
    pub(crate) observed: Vec<(ParameterId, Tensor)>,
    /// The same of the twin's.
    pub(crate) observed_by_twin: Vec<(ParameterId, Tensor)>,
}

impl Found {
    /// What the objective says, after the gradients: the loss is read last, because a device computes on meanwhile.
    fn by_objective(computed: Computed, mut leaves: LeafGradients, seen: Seen) -> Self {
        Found {
            own: computed.own_gradients(&mut leaves),
            loss: f64::from(computed.loss.value().item()),
            remembered: computed.into_remembered(),
            seen,
            operations: 0,
            observed: Vec::new(),
            observed_by_twin: Vec::new(),
        }
    }
}

/// What the rows of a batch go through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoders<'e> {
    pub(crate) model: &'e Encoder,
    /// A second copy of the model, for the first column of batches that say so.
    pub(crate) twin: Option<&'e Encoder>,
}

impl<'e> Encoders<'e> {
    /// The encoder of a micro-batch, and its dropout: a twin draws other masks.
    fn of(self, batch: &Batch, input: &Input, dropout: Option<Key>) -> (&'e Encoder, Option<Key>) {
        match self.twin.filter(|_| batch.goes_through_twin(input)) {
            Some(twin) => (twin, dropout.map(|key| key.part(u64::from_le_bytes(*b"twin\0\0\0\0")))),
            None => (self.model, dropout),
        }
    }
}

/// Adds the gradients of a batch to `gradients`, of the model and of its twin. With a key, dropout is on. Where `ranks` share the
/// batch, all of them have the same gradients afterwards.
pub(crate) fn gradients(
    encoders: Encoders<'_>,
    device: &dyn Device,
    objective: &Objective,
    batch: &Batch,
    dropout: Option<Key>,
    (gradients, mut twin): (&mut Gradients, Option<&mut Gradients>),
    mut ranks: Option<&mut Ranks>,
) -> Result<Found> {
    let encoder = encoders.model;
    if one_pass(batch) && ranks.is_none() {
        let (mut tape, embeddings) = record(encoder, device, batch, dropout)?;
        let operations = tape.operations();
        let computed = objective.compute(&mut tape, &embeddings, &batch.layout)?;
        drop(embeddings);
        let observed = tape.take_observed();
        let leaves = tape.backward(&computed.loss, Tensor::scalar(1.0), gradients)?;
        return Ok(Found { operations, observed, ..Found::by_objective(computed, leaves, Seen::of(batch)) });
    }

    // A rank's share that goes forward and backward at once is embedded once, too.
    let mut recorded = None;
    let embedded = match one_pass(batch) {
        true => record(encoder, device, batch, dropout).and_then(|(tape, embeddings)| {
            let values = tape.read(&embeddings)?.to_vec();
            recorded = Some((tape, embeddings));
            Ok(values)
        }),
        false => embed(encoders, device, batch, dropout),
    };
    let joined = match &mut ranks {
        Some(ranks) => ranks.join(embedded, batch)?,
        None => (embedded?, Seen::of(batch)),
    };
    let leads = ranks.as_ref().is_none_or(|ranks| ranks.leads());
    let learnt =
        of_embeddings(encoder, device, objective, batch, joined, gradients).and_then(|(mut found, upstream)| {
            // What the loss says of the model's weights themselves is the same on all ranks: it counts once.
            if !leads {
                gradients.clear();
            }
            if let Some(upstream) = upstream {
                let twin = twin.as_deref_mut();
                of_weights(encoders, device, (batch, dropout, recorded), &upstream, (gradients, twin), &mut found)?;
            }
            Ok(found)
        });
    let Some(ranks) = ranks else { return learnt };
    // Wherever a rank failed since the last exchange, the others wait here for it.
    let mut found = ranks.agree(learnt.and_then(|found| device.check().map(|()| found).map_err(Into::into)))?;
    ranks.sum(device, &encoder.parameters, gradients)?;
    found.observed = ranks.observed(&encoder.parameters, found.observed)?;
    if let (Some(encoder), Some(gradients)) = (encoders.twin, twin) {
        ranks.sum(device, &encoder.parameters, gradients)?;
        found.observed_by_twin = ranks.observed(&encoder.parameters, found.observed_by_twin)?;
    }
    Ok(found)
}

/// The loss over the embeddings of a whole batch, and its gradient in each of them, if it has one; what it says of the weights
/// directly (a regulariser) is in `gradients`.
fn of_embeddings(
    encoder: &Encoder,
    device: &dyn Device,
    objective: &Objective,
    batch: &Batch,
    (embeddings, seen): (Vec<f32>, Seen),
    gradients: &mut Gradients,
) -> Result<(Found, Option<Tensor>)> {
    let mut tape = Tape::recording(device, &encoder.parameters);
    let leaf = tape.leaf(by_row(embeddings, batch)?);
    let computed = objective.compute(&mut tape, &leaf, &batch.layout)?;
    let mut leaves = tape.backward(&computed.loss, Tensor::scalar(1.0), gradients)?;
    let upstream = leaves.take(&leaf);
    Ok((Found::by_objective(computed, leaves, seen), upstream))
}

/// Adds the gradients of the weights, given those of the embeddings: from the tape that recorded them, else micro-batch after
/// micro-batch once more.
fn of_weights(
    encoders: Encoders<'_>,
    device: &dyn Device,
    (batch, dropout, recorded): (&Batch, Option<Key>, Option<(Tape<'_>, Var)>),
    upstream: &Tensor,
    (gradients, mut twin): (&mut Gradients, Option<&mut Gradients>),
    found: &mut Found,
) -> Result<()> {
    let upstream_of = |inputs: &[Input]| {
        let width = upstream.columns();
        let rows = inputs.iter().flat_map(Input::examples).map(|&row| row as usize);
        let part: Vec<f32> = rows.flat_map(|row| &upstream.data()[row * width..][..width]).copied().collect();
        Tensor::from_vec(part, &[inputs.iter().map(Input::len).sum(), width])
    };
    if let Some((mut tape, embeddings)) = recorded {
        (found.observed, found.operations) = (tape.take_observed(), tape.operations());
        tape.backward(&embeddings, upstream_of(&batch.micro_batches)?, gradients)?;
        return Ok(());
    }
    for input in &batch.micro_batches {
        let (encoder, dropout) = encoders.of(batch, input, dropout);
        let (gradients, observed) = match &mut twin {
            Some(twin) if batch.goes_through_twin(input) => (&mut **twin, &mut found.observed_by_twin),
            _ => (&mut *gradients, &mut found.observed),
        };
        let mut tape = Tape::recording(device, &encoder.parameters);
        let embeddings = encoder.forward_layers(&mut tape, input, dropout, &batch.layout.layers)?;
        observed.extend(tape.take_observed());
        found.operations += tape.operations();
        tape.backward(&embeddings, upstream_of(std::slice::from_ref(input))?, gradients)?;
    }
    Ok(())
}

/// The loss of a batch without gradients and without dropout, but for views that only dropout makes different: they draw
/// the same masks every time.
pub(crate) fn loss(encoders: Encoders<'_>, device: &dyn Device, objective: &Objective, batch: &Batch) -> Result<f64> {
    let dropout = batch.views.then(|| Key::new(0));
    let embeddings = by_row(embed(encoders, device, batch, dropout)?, batch)?;
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

/// The embeddings of a batch that goes forward and backward at once, recorded.
fn record<'e>(
    encoder: &'e Encoder,
    device: &'e dyn Device,
    batch: &Batch,
    dropout: Option<Key>,
) -> Result<(Tape<'e>, Var)> {
    let mut tape = Tape::recording(device, &encoder.parameters);
    let parts = batch.micro_batches.iter();
    let parts = parts.map(|input| encoder.forward_layers(&mut tape, input, dropout, &batch.layout.layers));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let embeddings = match &parts[..] {
        [only] => only.clone(),
        parts => tape.stacked(&parts.iter().collect::<Vec<_>>())?,
    };
    Ok((tape, embeddings))
}

/// The embeddings of every row that the batch has inputs of, one after the other, nothing recorded.
fn embed(encoders: Encoders<'_>, device: &dyn Device, batch: &Batch, dropout: Option<Key>) -> Result<Vec<f32>> {
    let mut embeddings = Vec::new();
    for input in &batch.micro_batches {
        let (encoder, dropout) = encoders.of(batch, input, dropout);
        let mut tape = Tape::inference(device, &encoder.parameters);
        let part = encoder.forward_layers(&mut tape, input, dropout, &batch.layout.layers)?;
        embeddings.extend_from_slice(tape.read(&part)?);
    }
    Ok(embeddings)
}

/// The embeddings of all rows of a batch as a matrix.
fn by_row(embeddings: Vec<f32>, batch: &Batch) -> Result<Tensor> {
    let rows = batch.layout.labels.len();
    let width = embeddings.len() / rows.max(1);
    Ok(Tensor::from_vec(embeddings, &[rows, width])?)
}
