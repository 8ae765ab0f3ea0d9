//! Where a run is, and what it has seen.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::learner::Learnt;
use super::report::{Timing, Training};

/// Where a run is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Optimiser steps taken.
    pub(crate) step: usize,
    /// Epochs finished.
    pub(crate) epoch: usize,
    /// Batches of the current epoch that are done.
    pub(crate) batch: usize,
    /// The step of the last measurement between epochs.
    #[serde(default)]
    pub(crate) measured: usize,
    /// Why training was ended before its last epoch.
    #[serde(default)]
    pub(crate) ended: Option<String>,
    pub(crate) examples: usize,
    pub(crate) tokens: usize,
    pub(crate) truncated: usize,
    /// Sum of the current epoch's batch losses.
    pub(crate) loss_sum: f64,
    pub(crate) train_loss: f64,
    pub(crate) validation_loss: Option<f64>,
    pub(crate) train_seconds: f64,
    /// Counted operations of the model, of this rank.
    #[serde(default)]
    pub(crate) operations: u64,
    /// How often the device was asked how busy it is, and the sum of its answers.
    #[serde(default)]
    pub(crate) busy: (usize, f64),
    pub(crate) evaluate_seconds: f64,
}

impl Progress {
    /// Takes note of a step.
    pub(crate) fn count(&mut self, batch: &Batch, learnt: &Learnt, elapsed: Duration) {
        self.step += 1;
        self.batch += 1;
        self.examples += batch.examples;
        self.tokens += learnt.seen.tokens;
        self.truncated += learnt.seen.truncated;
        self.loss_sum += learnt.loss;
        self.train_seconds += elapsed.as_secs_f64();
        self.operations += learnt.operations;
    }

    /// Takes note of how busy the device was, where it says.
    pub(crate) fn look(&mut self, busy: Option<f64>) {
        if let Some(busy) = busy {
            self.busy = (self.busy.0 + 1, self.busy.1 + busy);
        }
    }

    /// Closes the epoch.
    pub(crate) fn end_epoch(&mut self) {
        self.train_loss = self.epoch_loss();
        self.epoch += 1;
        (self.batch, self.loss_sum) = (0, 0.0);
    }

    /// Ends training here, in the midst of an epoch or after one.
    pub(crate) fn end(&mut self, reason: String) {
        if self.batch > 0 {
            self.train_loss = self.epoch_loss();
        }
        self.ended = Some(reason);
    }

    /// Whether training was ended.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// The mean loss of the current epoch's batches.
    fn epoch_loss(&self) -> f64 {
        self.loss_sum / self.batch.max(1) as f64
    }

    pub(crate) fn training(&self, kept_step: usize) -> Training {
        Training {
            steps: self.step,
            epochs: self.epoch,
            examples: self.examples,
            tokens: self.tokens,
            truncated: self.truncated,
            train_loss: self.train_loss,
            validation_loss: self.validation_loss,
            kept_step,
            ended: self.ended.clone(),
            alpha: None,
        }
    }

    /// Where the operations of a second are known that a large product reaches on the device: their share, too.
    pub(crate) fn timing(&self, product: Option<f64>) -> Timing {
        let seconds = self.train_seconds.max(1e-9);
        let model = self.operations as f64 / seconds;
        Timing {
            train_seconds: self.train_seconds,
            evaluate_seconds: self.evaluate_seconds,
            examples_per_second: self.examples as f64 / seconds,
            tokens_per_second: self.tokens as f64 / seconds,
            model_flops_per_second: model,
            product_flops_per_second: product,
            model_flops_utilization: product.map(|product| model / product),
            device_busy: (self.busy.0 > 0).then(|| self.busy.1 / self.busy.0 as f64),
        }
    }
}
