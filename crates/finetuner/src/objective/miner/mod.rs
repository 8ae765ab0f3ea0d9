//! Miners: which of a batch's pairs or triplets the loss sees. One file each.

mod batch_easy_hard;
mod batch_hard;
mod triplet_margin;

use engine::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::batch_easy_hard::{BatchEasyHardMiner, Strategy};
pub use self::batch_hard::BatchHardMiner;
pub use self::triplet_margin::{TripletMarginMiner, TypeOfTriplets};
use super::registry::{self, Entry};
use super::{Distance, Masks, Mined};
use crate::error::Result;
use crate::spec::Options;

/// Chooses tuples by distance and label, without gradient.
pub trait Miner: std::fmt::Debug + Send + Sync {
    /// How it measures.
    fn distance(&self) -> Distance;

    /// The tuples of a batch: `distances [rows, rows]` by [`Miner::distance`], smaller is closer.
    fn mine(&self, distances: &Tensor, labels: &Masks) -> Mined;

    /// What is wrong in the options together, as option and sentence.
    fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl dyn Miner + '_ {
    /// The tuples of these embeddings `[rows, dimension]`.
    pub fn mine_embeddings(&self, device: &dyn Device, embeddings: &Tensor, labels: &Masks) -> Mined {
        self.mine_between(device, embeddings, embeddings, labels)
    }

    /// The tuples of these rows `[rows, dimension]`, whose second sides are among `others [references, dimension]`.
    pub fn mine_between(&self, device: &dyn Device, rows: &Tensor, others: &Tensor, labels: &Masks) -> Mined {
        self.mine(&self.distance().measure(device, rows, others), labels)
    }
}

const MINERS: &[Entry<dyn Miner>] = &[
    entry::<TripletMarginMiner>("TripletMarginMiner"),
    entry::<BatchHardMiner>("BatchHardMiner"),
    entry::<BatchEasyHardMiner>("BatchEasyHardMiner"),
];

const BASE: &str = "is a base class of pytorch-metric-learning: it mines nothing by itself";
const REFUSED: &[(&str, &str)] = &[("BaseMiner", BASE), ("BaseTupleMiner", BASE), ("BaseSubsetBatchMiner", BASE)];

const fn entry<T>(name: &'static str) -> Entry<dyn Miner>
where
    T: Miner + Serialize + DeserializeOwned + Default + 'static,
{
    Entry {
        name,
        aliases: &[],
        build: |options| {
            let miner: T = registry::parse("miner_options", options)?;
            registry::checked("miner_options", miner.problems())?;
            Ok(Box::new(miner))
        },
    }
}

/// The miner of this name.
///
/// # Errors
/// [`crate::Error::Spec`] for an unknown name or option.
pub fn new(name: &str, options: &Options) -> Result<Box<dyn Miner>> {
    registry::build("miner", MINERS, REFUSED, name, options)
}

/// All known names.
pub fn names() -> Vec<&'static str> {
    MINERS.iter().map(|entry| entry.name).collect()
}
