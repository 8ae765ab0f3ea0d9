//! What a run goes through: the batches of its data sets, epoch by epoch.

use std::sync::Arc;

use engine::Device;
use rayon::ThreadPool;
use sha2::{Digest, Sha256};

use super::batch::{Batch, Batcher};
use super::budget::Budget;
use super::thread_pool;
use crate::data::{ItemId, Mix, Order};
use crate::error::Result;
use crate::spec::RunSpec;

/// The data sets of a run, each in its own order.
#[derive(Debug)]
pub(crate) struct Course {
    sets: Vec<(Batcher, Order)>,
    mix: Mix,
    seed: u64,
    budget: Arc<Budget>,
    /// What makes the batches.
    threads: Arc<ThreadPool>,
}

/// A batch to be made: its data set, the places of its examples there, and the epoch.
pub(crate) type Planned = (usize, Vec<u32>, u64);

impl Course {
    /// A GPU wants its batches sooner than one thread makes them; beside the processor's own steps there is one.
    ///
    /// # Errors
    /// [`crate::Error::Spec`] if the operating system refuses the threads.
    pub(crate) fn new(
        spec: &RunSpec,
        device: &dyn Device,
        sets: Vec<(Batcher, Order)>,
        budget: Arc<Budget>,
    ) -> Result<Self> {
        let mix = if spec.dataset_sampler == "round_robin" { Mix::RoundRobin } else { Mix::Proportional };
        let threads = Arc::new(thread_pool(if device.memory().is_some() { spec.threads } else { Some(1) })?);
        Ok(Course { sets, mix, seed: spec.seed, budget, threads })
    }

    /// How many tokens its batches send through the encoder at once.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The batches of an epoch. A batch is of one data set.
    pub(crate) fn batches(&self, epoch: u64) -> Vec<Planned> {
        let own: Vec<Vec<Vec<u32>>> = self.sets.iter().map(|(_, order)| order.batches(epoch)).collect();
        let turns = self.mix.turns(&own.iter().map(Vec::len).collect::<Vec<_>>(), self.seed, epoch);
        let mut own: Vec<_> = own.into_iter().map(Vec::into_iter).collect();
        turns.into_iter().filter_map(|dataset| Some((dataset, own[dataset].next()?, epoch))).collect()
    }

    /// The optimiser steps of so many epochs.
    pub(crate) fn steps(&self, epochs: usize) -> usize {
        (0..epochs as u64).map(|epoch| self.batches(epoch).len()).sum()
    }

    /// The training examples.
    pub(crate) fn examples(&self) -> usize {
        self.sets.iter().map(|(batcher, _)| batcher.dataset().examples.len()).sum()
    }

    /// What was read, and in which order it comes: the same on all ranks.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (batcher, _) in &self.sets {
            let dataset = batcher.dataset();
            (0..dataset.items.len() as u32).for_each(|item| {
                hash.update(dataset.items.get(ItemId(item)));
                hash.update([0]);
            });
            hash.update(format!("{:?}", dataset.examples));
        }
        hash.update(format!("{:?}", self.batches(0)));
        hash.finalize().into()
    }

    /// Makes batches, on threads of their own: those of the step may be waiting for the batch.
    pub(crate) fn worker(&self) -> impl Fn(Planned) -> Result<Batch> + Send + 'static {
        let batchers: Vec<Batcher> = self.sets.iter().map(|(batcher, _)| batcher.clone()).collect();
        let threads = self.threads.clone();
        move |(dataset, examples, epoch)| {
            let batch = threads.install(|| batchers[dataset].batch(&examples, Some(epoch)))?;
            Ok(Batch { dataset, ..batch })
        }
    }

    /// The training data as it was understood.
    pub(crate) fn description(&self) -> String {
        let own: Vec<&str> = self.sets.iter().map(|(batcher, _)| batcher.dataset().decision.as_str()).collect();
        own.join("; ")
    }
}
