//! How many tokens go through the encoder at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use engine::Device;

use super::batch::Batch;
use crate::encoder::{Encoder, Input};
use crate::spec::RunSpec;

/// A batch of at most so many tokens goes forward and backward as a whole on the processor …
const WHOLE: usize = 16_384;
/// … and a larger one in parts of so many: smaller parts cost no time there, and their activations little memory.
const PART: usize = 4096;

/// The share of a GPU's free memory that activations may take; the rest is for gradients, moments and the objective.
const SHARE: f64 = 0.6;

/// The tokens of a micro-batch: those of a batch that is one, and of the parts that a larger batch is cut into. All batches
/// of a run are made by one, and later ones follow when it shrinks.
#[derive(Debug)]
pub(crate) struct Budget {
    whole: AtomicUsize,
    part: AtomicUsize,
}

impl Budget {
    /// What the spec says; else what suits the processor, or fills a GPU's memory.
    pub(crate) fn new(spec: &RunSpec, encoder: &Encoder, device: &dyn Device) -> Self {
        let (whole, part) = match (spec.micro_batch_tokens, device.memory()) {
            (Some(tokens), _) => (tokens, tokens),
            (None, None) => (WHOLE, PART),
            (None, Some(memory)) => {
                let tokens = SHARE * memory.free_bytes as f64 / encoder.activation_bytes(device, 1).max(1) as f64;
                let tokens = (tokens as usize).max(PART);
                (tokens, tokens)
            }
        };
        Budget { whole: whole.into(), part: part.into() }
    }

    /// The most tokens of a micro-batch of a batch of so many.
    pub(crate) fn of(&self, tokens: usize) -> usize {
        let whole = self.whole.load(Ordering::Relaxed);
        if tokens <= whole { whole } else { self.part.load(Ordering::Relaxed) }
    }

    /// Halves micro-batches after one of this batch did not fit; gives their tokens, or nothing where each is one item
    /// already.
    pub(crate) fn shrink(&self, batch: &Batch) -> Option<usize> {
        let largest = batch.micro_batches.iter().filter(|input| input.len() > 1).map(Input::tokens).max()?;
        let tokens = (largest / 2).max(1);
        self.whole.store(tokens, Ordering::Relaxed);
        self.part.fetch_min(tokens, Ordering::Relaxed);
        Some(tokens)
    }
}
