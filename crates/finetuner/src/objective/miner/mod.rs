//! Miners: which of a batch's pairs or triplets the loss sees. One file each.

mod already_packaged;
mod angular;
mod batch_easy_hard;
mod batch_hard;
mod distance_weighted;
mod finetuner;
mod hdc;
mod multi_similarity;
mod pair_margin;
mod pairs;
mod triplet_margin;
mod uniform_histogram;

use engine::random::Key;
use engine::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::already_packaged::EmbeddingsAlreadyPackagedAsTriplets;
pub use self::angular::AngularMiner;
pub use self::batch_easy_hard::{BatchEasyHardMiner, Strategy};
pub use self::batch_hard::BatchHardMiner;
pub use self::distance_weighted::DistanceWeightedMiner;
pub use self::finetuner::{SiameseEasyHardMiner, SiameseMiner, TripletEasyHardMiner, TripletMiner};
pub use self::hdc::HDCMiner;
pub use self::multi_similarity::MultiSimilarityMiner;
pub use self::pair_margin::PairMarginMiner;
pub use self::triplet_margin::{TripletMarginMiner, TypeOfTriplets};
pub use self::uniform_histogram::UniformHistogramMiner;
use super::registry::{self, Entry};
use super::{Distance, Masks, Mined};
use crate::error::Result;
use crate::spec::Options;

/// What a miner chooses from: rows, and the others that may stand in the second place of a pair, which are the rows
/// themselves unless said.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// `[rows, others]` by [`Miner::distance`]; smaller is closer.
    pub distances: &'a Tensor,
    /// Which pairs share a label.
    pub labels: &'a Masks,
    /// `[rows, dimension]`
    pub rows: &'a Tensor,
    /// `[others, dimension]`
    pub others: &'a Tensor,
    /// Rows of each column of the batch, as in [`BatchLayout`](super::BatchLayout).
    pub columns: &'a [usize],
}

impl Seen<'_> {
    /// The random numbers of these rows: a function of them, so that a repeated step repeats its draws.
    pub fn key(&self) -> Key {
        key_of(self.rows)
    }
}

/// The random numbers of a batch of embeddings.
pub(super) fn key_of(embeddings: &Tensor) -> Key {
    embeddings.data().iter().fold(Key::new(0), |key, x| key.part(u64::from(x.to_bits())))
}

/// Chooses tuples by distance and label, without gradient.
pub trait Miner: std::fmt::Debug + Send + Sync {
    /// How it measures.
    fn distance(&self) -> Distance;

    /// The tuples of a batch.
    fn mine(&self, seen: &Seen<'_>) -> Mined;

    /// Whether it always gives [`Mined::Interval`], whatever other rows there are. Default: it does not.
    fn chooses_by_margin(&self) -> bool {
        false
    }

    /// Builds what the options name, such as a miner before this one. Default: nothing.
    ///
    /// # Errors
    /// [`crate::Error::Spec`] as [`new`].
    fn complete(&mut self) -> Result<()> {
        Ok(())
    }

    /// What is wrong in the options together, as option and sentence.
    fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl dyn Miner + '_ {
    /// The tuples of these embeddings `[rows, dimension]`.
    pub fn mine_embeddings(&self, device: &dyn Device, embeddings: &Tensor, labels: &Masks) -> Mined {
        let distances = self.distance().measure(device, embeddings, embeddings);
        let columns = &[embeddings.rows()];
        self.mine(&Seen { distances: &distances, labels, rows: embeddings, others: embeddings, columns })
    }
}

const MINERS: &[Entry<dyn Miner>] = &[
    entry::<TripletMarginMiner>("TripletMarginMiner"),
    entry::<BatchHardMiner>("BatchHardMiner"),
    entry::<BatchEasyHardMiner>("BatchEasyHardMiner"),
    entry::<MultiSimilarityMiner>("MultiSimilarityMiner"),
    entry::<PairMarginMiner>("PairMarginMiner"),
    entry::<HDCMiner>("HDCMiner"),
    entry::<AngularMiner>("AngularMiner"),
    entry::<DistanceWeightedMiner>("DistanceWeightedMiner"),
    entry::<UniformHistogramMiner>("UniformHistogramMiner"),
    entry::<EmbeddingsAlreadyPackagedAsTriplets>("EmbeddingsAlreadyPackagedAsTriplets"),
    entry::<SiameseMiner>("SiameseMiner"),
    entry::<SiameseEasyHardMiner>("SiameseEasyHardMiner"),
    entry::<TripletMiner>("TripletMiner"),
    entry::<TripletEasyHardMiner>("TripletEasyHardMiner"),
];

const BASE: &str = "is a base class of pytorch-metric-learning: it mines nothing by itself";
const SESSION: &str = "mines within the groups of an anchor and its matches; data of triplets does the same with \
                       `EmbeddingsAlreadyPackagedAsTriplets`";
const REFUSED: &[(&str, &str)] = &[
    ("BaseMiner", BASE),
    ("BaseTupleMiner", BASE),
    ("BaseSubsetBatchMiner", BASE),
    ("MaximumLossMiner", "tries random parts of a batch and keeps the worst; pytorch-metric-learning dropped it, too"),
    ("SiameseSessionMiner", SESSION),
    ("TripletSessionMiner", SESSION),
];

const fn entry<T>(name: &'static str) -> Entry<dyn Miner>
where
    T: Miner + Serialize + DeserializeOwned + Default + 'static,
{
    Entry {
        name,
        aliases: &[],
        build: |options| {
            let mut miner: T = registry::parse("miner_options", options)?;
            registry::checked("miner_options", miner.problems())?;
            miner.complete()?;
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
