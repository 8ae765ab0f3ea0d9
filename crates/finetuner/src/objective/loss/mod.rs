//! Losses. One file each: a struct whose fields are its options, and its forward code on the tape.

mod adaptive_layer;
mod angle;
mod angular;
mod barlow_twins;
mod batch_all_triplet;
mod batch_hard_triplet;
mod batch_semi_hard_triplet;
mod by_class;
mod centroid_triplet;
mod circle;
mod class;
mod clip;
mod contrastive;
mod contrastive_tension;
mod cosent;
mod cosine_similarity;
mod cross_batch_memory;
mod distill_kl_div;
mod dynamic_soft_margin;
mod easy_positive;
mod embed_distill;
mod fast_ap;
mod generalized_lifted_structure;
mod gist_embed;
mod global_orthogonal_regularization;
mod histogram;
mod inner;
mod instance;
mod intra_pair_variance;
mod lifted_structure;
mod margin;
mod margin_mse;
mod matryoshka;
mod mega_batch_margin;
mod multi_similarity;
mod multiple;
mod multiple_negatives_ranking;
mod n_pairs;
mod nca;
mod nt_xent;
mod pair_contrastive;
mod pnp;
mod ranked_list;
mod regularized;
mod row_blocks;
mod self_supervised;
mod siamese;
mod sig_lip;
mod softmax;
mod sup_con;
mod threshold_consistent_margin;
mod triplet;
mod triplet_margin;
mod tuples;
mod tuplet_margin;
mod vicreg;

use std::cell::RefCell;

use engine::random::Key;
use engine::{Tape, Tensor, Var};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::adaptive_layer::{AdaptiveLayerLoss, LayerWeighting};
pub use self::angle::AnglELoss;
pub use self::angular::AngularLoss;
pub use self::barlow_twins::BarlowTwinsLoss;
pub use self::batch_all_triplet::{BatchAllTripletLoss, FinetunerTripletLoss};
pub use self::batch_hard_triplet::{BatchHardSoftMarginTripletLoss, BatchHardTripletLoss};
pub use self::batch_semi_hard_triplet::BatchSemiHardTripletLoss;
pub use self::centroid_triplet::CentroidTripletLoss;
pub use self::circle::CircleLoss;
pub use self::class::{
    ArcFaceLoss, CosFaceLoss, LargeMarginSoftmaxLoss, ManifoldLoss, NormalizedSoftmaxLoss, Outliers, P2SGradLoss,
    ProxyAnchorLoss, ProxyNCALoss, SoftTripleLoss, SphereFaceLoss, SubCenterArcFaceLoss,
};
pub use self::clip::ClipLoss;
pub use self::contrastive::{ContrastiveLoss, SignalToNoiseRatioContrastiveLoss};
pub use self::contrastive_tension::{ContrastiveTensionLoss, ContrastiveTensionLossInBatchNegatives};
pub use self::cosent::CoSENTLoss;
pub use self::cosine_similarity::{CosineSimilarityLoss, LossFunction, ScoreTransformation};
pub use self::cross_batch_memory::CrossBatchMemory;
pub use self::distill_kl_div::DistillKLDivLoss;
pub use self::dynamic_soft_margin::DynamicSoftMarginLoss;
pub use self::easy_positive::{EPHN, EPSHN};
pub use self::embed_distill::{DistillMetric, EmbedDistillLoss, MSELoss};
pub use self::fast_ap::FastAPLoss;
pub use self::generalized_lifted_structure::GeneralizedLiftedStructureLoss;
pub use self::gist_embed::{GISTEmbedLoss, MarginStrategy};
pub use self::global_orthogonal_regularization::{Aggregation, GlobalOrthogonalRegularizationLoss};
pub use self::histogram::HistogramLoss;
pub use self::inner::{Inner, NamedLoss};
pub use self::instance::InstanceLoss;
pub use self::intra_pair_variance::IntraPairVarianceLoss;
pub use self::lifted_structure::LiftedStructureLoss;
pub use self::margin::MarginLoss;
pub use self::margin_mse::MarginMSELoss;
pub use self::matryoshka::{Dimensions, MatryoshkaLoss};
pub use self::mega_batch_margin::MegaBatchMarginLoss;
pub use self::multi_similarity::MultiSimilarityLoss;
pub use self::multiple::{MinerOptions, MultipleLosses, NamedLosses, NamedMiner};
pub use self::multiple_negatives_ranking::{
    Direction, Directions, HardnessMode, MultipleNegativesRankingLoss, PartitionMode,
};
pub use self::n_pairs::NPairsLoss;
pub use self::nca::NCALoss;
pub use self::nt_xent::{FinetunerNTXentLoss, NTXentLoss};
pub use self::pair_contrastive::{OnlineContrastiveLoss, PairContrastiveLoss};
pub use self::pnp::{PNPLoss, Variant};
pub use self::ranked_list::RankedListLoss;
pub use self::self_supervised::SelfSupervisedLoss;
pub use self::siamese::SiameseLoss;
pub use self::sig_lip::SigLipLoss;
pub use self::softmax::SoftmaxLoss;
pub use self::sup_con::SupConLoss;
pub use self::threshold_consistent_margin::ThresholdConsistentMarginLoss;
pub use self::triplet::TripletLoss;
pub use self::triplet_margin::{TripletMarginLoss, TripletsPerAnchor};
pub use self::tuplet_margin::TupletMarginLoss;
pub use self::vicreg::VICRegLoss;
use super::miner::{Miner, Seen};
use super::registry::{self, Entry};
use super::{BatchLayout, Distance, LossParameter, Masks, Mined, Needs, Reducer, Sampler, Sizes};
use crate::error::{Error, Result};
use crate::spec::Options;

/// Matrices of `[rows, rows]` that a miner takes with its choice and the masks of the labels, about.
const MINED: usize = 6;

/// What a loss is computed from.
pub struct Batch<'b> {
    /// `[rows, dimension]`, as the model gives them.
    pub embeddings: &'b Var,
    /// What the rows are.
    pub layout: &'b BatchLayout,
    /// Chooses tuples, for losses that need labels.
    pub miner: Option<&'b dyn Miner>,
    /// What the loss learns or remembers, as [`Loss::parameters`] lists it.
    pub parameters: &'b [Var],
    /// What [`Loss::parameters`] was asked with.
    pub sizes: &'b Sizes,
    /// Earlier layers of the model, which [`Loss::draw_layers`] asked for, with the embeddings that they give.
    pub layers: &'b [(usize, Var)],
    /// What every row is compared with in place of the batch itself.
    pub reference: Option<&'b Reference>,
    memories: RefCell<Vec<(usize, Tensor)>>,
}

impl<'b> Batch<'b> {
    pub(super) fn new(
        embeddings: &'b Var,
        layout: &'b BatchLayout,
        miner: Option<&'b dyn Miner>,
        parameters: &'b [Var],
        sizes: &'b Sizes,
    ) -> Self {
        Batch {
            embeddings,
            layout,
            miner,
            parameters,
            sizes,
            layers: &[],
            reference: None,
            memories: RefCell::default(),
        }
    }

    /// One of the loss's own tensors.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when the objective was not prepared.
    pub fn parameter(&self, index: usize) -> Result<&'b Var> {
        self.parameters.get(index).ok_or_else(|| {
            let got = format!("{}; the objective was not prepared", self.parameters.len());
            engine::Error::shape("objective", format!("at least {} parameters of the loss", index + 1), got).into()
        })
    }

    /// Replaces a remembered tensor of the loss once the training step is done; never in validation. The last call of a
    /// step counts.
    pub fn remember(&self, index: usize, value: Tensor) {
        self.memories.borrow_mut().push((index, value));
    }

    pub(super) fn into_memories(self) -> Vec<(usize, Tensor)> {
        self.memories.into_inner()
    }

    /// The second side of every pair: the batch itself, or the rows of [`Batch::reference`].
    pub fn others(&self) -> &'b Var {
        self.reference.map_or(self.embeddings, |reference| &reference.embeddings)
    }

    /// The labels of [`Batch::others`].
    pub fn other_labels(&self) -> &'b [u32] {
        self.reference.map_or(&self.layout.labels, |reference| &reference.labels)
    }

    /// Which rows share a label with which of [`Batch::others`].
    pub fn masks(&self) -> Masks {
        match self.reference {
            None => Masks::new(&self.layout.labels),
            Some(reference) => Masks::between(&self.layout.labels, &reference.labels, &reference.own),
        }
    }

    /// What the miner chooses. `distances` from the rows to [`Batch::others`], measured by `distance`, smaller is closer,
    /// serve a miner that measures the same way.
    pub fn mined(&self, tape: &Tape<'_>, distance: Distance, distances: &Tensor, labels: &Masks) -> Mined {
        match self.miner {
            Some(miner) if miner.distance() == distance => miner.mine(&self.seen(distances, labels)),
            _ => self.mine(tape, labels),
        }
    }

    /// What the miner chooses by distances of its own.
    pub(super) fn mine(&self, tape: &Tape<'_>, labels: &Masks) -> Mined {
        let Some(miner) = self.miner else { return Mined::Everything };
        let (rows, others) = (self.embeddings.value(), self.others().value());
        miner.mine(&self.seen(&miner.distance().measure(tape.device(), rows, others), labels))
    }

    fn seen<'s>(&'s self, distances: &'s Tensor, labels: &'s Masks) -> Seen<'s> {
        let (rows, others) = (self.embeddings.value(), self.others().value());
        Seen { distances, labels, rows, others, columns: &self.layout.columns }
    }
}

/// Rows that stand in the second place of every pair, in place of the batch's own: a memory of batches, or another view.
#[derive(Debug, Clone)]
pub struct Reference {
    /// `[references, dimension]`
    pub embeddings: Var,
    /// One per reference.
    pub labels: Vec<u32>,
    /// For each row of the batch the reference that is itself, with which it makes no pair; empty if none is.
    pub own: Vec<u32>,
}

/// A loss with its options.
pub trait Loss: std::fmt::Debug + Send + Sync {
    /// The kind of data that it takes.
    fn needs(&self) -> Needs;

    /// Whether it compares with a guide's embeddings.
    fn needs_guide(&self) -> bool {
        false
    }

    /// Whether the first column goes through a second copy of the model, which learns beside it. Default: it does not.
    fn needs_twin(&self) -> bool {
        false
    }

    /// The earlier layers of the model whose embeddings it wants for a batch, a function of `key`: see [`Batch::layers`].
    /// Layer 0 is what stands before the first layer; the last one is none of them. Default: none.
    fn draw_layers(&self, _sizes: &Sizes, _key: Key) -> Vec<usize> {
        Vec::new()
    }

    /// The loss of a batch, `[1]`.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when the batch is not what it needs.
    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var>;

    /// Builds what the options name, such as a loss within this one. Default: nothing.
    ///
    /// # Errors
    /// [`crate::Error::Spec`] as [`new`].
    fn complete(&mut self) -> Result<()> {
        Ok(())
    }

    /// What `sampler = auto` means for it. Default: the class sampler where items of a class are compared.
    fn sampler(&self) -> Sampler {
        match self.needs() {
            Needs::Labels | Needs::Classes => Sampler::Class,
            _ => Sampler::Random,
        }
    }

    /// The tensors that it learns or remembers; [`Batch::parameters`] has them in this order. Default: none.
    ///
    /// # Errors
    /// [`crate::Error::Spec`] when the options contradict the sizes.
    fn parameters(&self, _sizes: &Sizes) -> Result<Vec<LossParameter>> {
        Ok(Vec::new())
    }

    /// Whether it learns from the tuples that a miner chooses, or by weights from them. Default: if it needs labels.
    fn mines(&self) -> bool {
        matches!(self.needs(), Needs::Labels | Needs::Classes)
    }

    /// How many matrices of `[rows, rows]` a step holds at once with what this miner chooses, about: what an estimate of memory
    /// needs to know. Default: none without one, such a matrix is computed a block of rows at a time.
    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        miner.map_or(0, |_| MINED)
    }

    /// What is wrong in the options together, as option and sentence.
    fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

const LOSSES: &[Entry<dyn Loss>] = &[
    entry::<TripletMarginLoss>("TripletMarginLoss", &[]),
    entry::<ContrastiveLoss>("ContrastiveLoss", &[]),
    entry::<MultiSimilarityLoss>("MultiSimilarityLoss", &[]),
    entry::<CircleLoss>("CircleLoss", &[]),
    entry::<GeneralizedLiftedStructureLoss>("GeneralizedLiftedStructureLoss", &[]),
    entry::<NCALoss>("NCALoss", &[]),
    entry::<TupletMarginLoss>("TupletMarginLoss", &[]),
    entry::<FastAPLoss>("FastAPLoss", &[]),
    entry::<RankedListLoss>("RankedListLoss", &[]),
    entry::<PNPLoss>("PNPLoss", &[]),
    entry::<InstanceLoss>("InstanceLoss", &[]),
    entry::<NPairsLoss>("NPairsLoss", &[]),
    entry::<ThresholdConsistentMarginLoss>("ThresholdConsistentMarginLoss", &[]),
    entry::<EPHN>("EPHN", &[]),
    entry::<EPSHN>("EPSHN", &[]),
    entry::<BatchHardTripletLoss>("BatchHardTripletLoss", &[]),
    entry::<BatchHardSoftMarginTripletLoss>("BatchHardSoftMarginTripletLoss", &[]),
    entry::<BatchSemiHardTripletLoss>("BatchSemiHardTripletLoss", &[]),
    entry::<AngularLoss>("AngularLoss", &[]),
    entry::<LiftedStructureLoss>("LiftedStructureLoss", &[]),
    entry::<IntraPairVarianceLoss>("IntraPairVarianceLoss", &[]),
    entry::<HistogramLoss>("HistogramLoss", &[]),
    entry::<MarginLoss>("MarginLoss", &[]),
    entry::<SignalToNoiseRatioContrastiveLoss>("SignalToNoiseRatioContrastiveLoss", &[]),
    entry::<CentroidTripletLoss>("CentroidTripletLoss", &[]),
    entry::<VICRegLoss>("VICRegLoss", &[]),
    entry::<BarlowTwinsLoss>("BarlowTwinsLoss", &["BarlowTwins"]),
    entry::<BatchAllTripletLoss>("BatchAllTripletLoss", &[]),
    entry::<SiameseLoss>("SiameseLoss", &[]),
    entry::<FinetunerTripletLoss>("finetuner.TripletLoss", &[]),
    entry::<FinetunerNTXentLoss>("finetuner.NTXentLoss", &[]),
    entry::<NTXentLoss>("NTXentLoss", &["NTXLoss"]),
    entry::<SupConLoss>("SupConLoss", &[]),
    entry::<MultipleNegativesRankingLoss>(
        "MultipleNegativesRankingLoss",
        &["CachedMultipleNegativesRankingLoss", "MNRL", "SimCSE"],
    ),
    entry::<CosineSimilarityLoss>("CosineSimilarityLoss", &[]),
    entry::<SoftmaxLoss>("SoftmaxLoss", &[]),
    entry::<CoSENTLoss>("CoSENTLoss", &[]),
    entry::<AnglELoss>("AnglELoss", &[]),
    entry::<TripletLoss>("TripletLoss", &[]),
    entry::<PairContrastiveLoss>("sentence_transformers.ContrastiveLoss", &[]),
    entry::<OnlineContrastiveLoss>("OnlineContrastiveLoss", &[]),
    entry::<MegaBatchMarginLoss>("MegaBatchMarginLoss", &[]),
    entry::<MarginMSELoss>("MarginMSELoss", &[]),
    entry::<DistillKLDivLoss>("DistillKLDivLoss", &[]),
    entry::<EmbedDistillLoss>("EmbedDistillLoss", &[]),
    entry::<MSELoss>("MSELoss", &[]),
    entry::<GISTEmbedLoss>("GISTEmbedLoss", &["CachedGISTEmbedLoss"]),
    Entry {
        name: "MultipleNegativesSymmetricRankingLoss",
        aliases: &["CachedMultipleNegativesSymmetricRankingLoss"],
        build: symmetric,
    },
    entry::<ArcFaceLoss>("ArcFaceLoss", &[]),
    entry::<CosFaceLoss>("CosFaceLoss", &[]),
    entry::<SphereFaceLoss>("SphereFaceLoss", &[]),
    entry::<LargeMarginSoftmaxLoss>("LargeMarginSoftmaxLoss", &[]),
    entry::<SubCenterArcFaceLoss>("SubCenterArcFaceLoss", &[]),
    entry::<NormalizedSoftmaxLoss>("NormalizedSoftmaxLoss", &[]),
    entry::<ProxyAnchorLoss>("ProxyAnchorLoss", &[]),
    entry::<ProxyNCALoss>("ProxyNCALoss", &[]),
    entry::<SoftTripleLoss>("SoftTripleLoss", &[]),
    entry::<P2SGradLoss>("P2SGradLoss", &[]),
    entry::<ManifoldLoss>("ManifoldLoss", &[]),
    entry::<DynamicSoftMarginLoss>("DynamicSoftMarginLoss", &[]),
    entry::<GlobalOrthogonalRegularizationLoss>("GlobalOrthogonalRegularizationLoss", &[]),
    entry::<SigLipLoss>("SigLipLoss", &[]),
    entry::<MultipleLosses>("MultipleLosses", &[]),
    entry::<CrossBatchMemory>("CrossBatchMemory", &[]),
    entry::<SelfSupervisedLoss>("SelfSupervisedLoss", &[]),
    entry::<MatryoshkaLoss>("MatryoshkaLoss", &[]),
    entry::<AdaptiveLayerLoss>("AdaptiveLayerLoss", &[]),
    Entry { name: "Matryoshka2dLoss", aliases: &[], build: two_dimensional },
    entry::<ClipLoss>("ClipLoss", &["CLIPLoss"]),
    entry::<ContrastiveTensionLoss>("ContrastiveTensionLoss", &[]),
    entry::<ContrastiveTensionLossInBatchNegatives>("ContrastiveTensionLossInBatchNegatives", &[]),
];

/// `MultipleNegativesRankingLoss` in both directions, unless the options say otherwise.
fn symmetric(options: &Options) -> Result<Box<dyn Loss>> {
    let mut options = options.clone();
    options.entry("directions").or_insert_with(|| "query_to_doc+doc_to_query".into());
    options.entry("partition_mode").or_insert_with(|| "per_direction".into());
    new("MultipleNegativesRankingLoss", &options)
}

/// Any loss at several widths of the embeddings of the last layer and of earlier ones: `AdaptiveLayerLoss` around
/// `MatryoshkaLoss`, whose options it takes, `n_dims_per_step` being 1 unless given.
///
/// Use it where both the layers of the model and the embeddings will be cut.
///
/// Reference: `Matryoshka2dLoss` of sentence-transformers; Li et al. 2024 (2402.14776).
fn two_dimensional(options: &Options) -> Result<Box<dyn Loss>> {
    const OF_WIDTHS: [&str; 5] = ["loss", "loss_options", "matryoshka_dims", "matryoshka_weights", "n_dims_per_step"];
    let (mut widths, mut layers): (Options, Options) =
        options.clone().into_iter().partition(|(key, _)| OF_WIDTHS.contains(&key.as_str()));
    widths.entry("n_dims_per_step").or_insert_with(|| 1.into());
    // Options of the widths are checked by the name that they were given by.
    new("MatryoshkaLoss", &widths)?;
    layers.insert("loss".to_owned(), "MatryoshkaLoss".into());
    layers.insert("loss_options".to_owned(), widths.into());
    new("AdaptiveLayerLoss", &layers)
}

const BASE: &str = "is a base class of pytorch-metric-learning: it computes nothing by itself";
const NO_DECODER: &str = "needs a decoder, which encoders have not; texts alone train with \
                          `MultipleNegativesRankingLoss` (SimCSE)";
const REFUSED: &[(&str, &str)] = &[
    ("BaseMetricLossFunction", BASE),
    ("GenericPairLoss", BASE),
    ("EmbeddingRegularizerMixin", BASE),
    ("WeightRegularizerMixin", BASE),
    ("DenoisingAutoEncoderLoss", NO_DECODER),
];

/// The losses that know a divisor.
const DIVIDING: [&str; 2] = ["MarginLoss", "ProxyAnchorLoss"];

const fn entry<T>(name: &'static str, aliases: &'static [&'static str]) -> Entry<dyn Loss>
where
    T: Loss + Serialize + DeserializeOwned + Default + 'static,
{
    Entry {
        name,
        aliases,
        build: |options| {
            let mut loss: T = registry::parse("loss_options", options)?;
            registry::checked("loss_options", loss.problems())?;
            loss.complete()?;
            Ok(Box::new(loss))
        },
    }
}

/// The loss of this name. Besides its own options every loss takes `embedding_regularizer`, `embedding_reg_weight`,
/// and, if it learns vectors, `weight_regularizer`, `weight_reg_weight` (see [`super::Regularizer`]) and
/// `weight_init_func`, how they start: `normal`, `uniform`, `xavier_normal`, `xavier_uniform`, `kaiming_normal` or
/// `kaiming_uniform`, as in `torch.nn.init`.
///
/// # Errors
/// [`crate::Error::Spec`] for an unknown name or option.
pub fn new(name: &str, options: &Options) -> Result<Box<dyn Loss>> {
    let reducer = options.get("reducer").cloned().map(Reducer::try_from);
    if reducer.is_some_and(|reducer| reducer.is_ok_and(|reducer| reducer.divides())) && !DIVIDING.contains(&name) {
        let problem = format!("`divisor` needs a loss that says what to divide by: {}", DIVIDING.join(", "));
        return Err(Error::spec("loss_options.reducer", problem));
    }
    let mut options = options.clone();
    let regularization = regularized::Regularization::take(&mut options)?;
    let loss = registry::build("loss", LOSSES, REFUSED, name, &options)?;
    regularization.over(name, loss)
}

/// All known names.
pub fn names() -> Vec<&'static str> {
    LOSSES.iter().map(|entry| entry.name).collect()
}
