//! What a run goes through: the batches of its data sets, epoch by epoch.

use std::sync::Arc;

use super::batch::{Batch, Batcher};
use super::budget::Budget;
use crate::data::{Mix, Order};
use crate::error::Result;
use crate::spec::RunSpec;

/// The data sets of a run, each in its own order.
#[derive(Debug)]
pub(crate) struct Course {
    sets: Vec<(Batcher, Order)>,
    mix: Mix,
    seed: u64,
    budget: Arc<Budget>,
}

/// A batch to be made: its data set, the places of its examples there, and the epoch.
pub(crate) type Planned = (usize, Vec<u32>, u64);

impl Course {
    pub(crate) fn new(spec: &RunSpec, sets: Vec<(Batcher, Order)>, budget: Arc<Budget>) -> Self {
        let mix = if spec.dataset_sampler == "round_robin" { Mix::RoundRobin } else { Mix::Proportional };
        Course { sets, mix, seed: spec.seed, budget }
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

    /// Makes batches, on another thread.
    pub(crate) fn worker(&self) -> impl Fn(Planned) -> Result<Batch> + Send + 'static {
        let batchers: Vec<Batcher> = self.sets.iter().map(|(batcher, _)| batcher.clone()).collect();
        move |(dataset, examples, epoch)| Ok(Batch { dataset, ..batchers[dataset].batch(&examples, Some(epoch))? })
    }

    /// The training data as it was understood.
    pub(crate) fn description(&self) -> String {
        let own: Vec<&str> = self.sets.iter().map(|(batcher, _)| batcher.dataset().decision.as_str()).collect();
        own.join("; ")
    }
}
