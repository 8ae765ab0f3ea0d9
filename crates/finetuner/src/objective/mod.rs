//! Embeddings to one number: distance, miner, loss, reducer.
//!
//! A loss is a struct in one file of [`loss`], whose fields are its options and whose forward code is written on the
//! tape; a miner the same in [`miner`]. One line in the table of their folder makes it known by name. Names, options
//! and defaults are those of pytorch-metric-learning and sentence-transformers, and values and gradients equal theirs.

pub mod distance;
pub mod loss;
pub mod mined;
pub mod miner;
pub mod reducer;
mod registry;

use engine::{Tape, Var};

pub use self::distance::Distance;
use self::loss::{Batch, Loss};
pub use self::mined::{Masks, Mined};
use self::miner::Miner;
pub use self::reducer::Reducer;
use crate::error::{Error, Result};
use crate::spec::Options;

/// The rows of a batch of embeddings and what is known of them.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchLayout {
    /// Rows of each column, in order: all anchors, then all positives, then all first negatives … Row `i` of a column
    /// belongs to example `i`; a later column may be shorter. Labelled items are one column.
    pub columns: Vec<usize>,
    /// One per row: its class, or its component of the label graph.
    pub labels: Vec<u32>,
    /// One per example of scored pairs.
    pub scores: Option<Vec<f32>>,
}

impl BatchLayout {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.columns.iter().sum()
    }
}

/// What an objective learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Every row with its label: classes, or pairs and triplets through their label graph.
    Labels,
    /// Anchors with their positives, and any number of negatives.
    Pairs,
    /// Pairs with a score each.
    Scores,
}

/// The order of examples that `sampler = auto` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// Several items of each of some classes in every batch.
    Class,
    /// Shuffled.
    Random,
}

/// A loss with its options and, perhaps, a miner with its own.
#[derive(Debug)]
pub struct Objective {
    loss: Box<dyn Loss>,
    miner: Option<Box<dyn Miner>>,
}

impl Objective {
    /// The objective of these names and options. [`loss::names`] and [`miner::names`] list the known names.
    ///
    /// # Errors
    /// [`Error::Spec`] for unknown names and options, naming the nearest known one, for values that an option does not
    /// take, and for a miner beside a loss that mines nothing.
    pub fn new(loss: &str, loss_options: &Options, miner: Option<&str>, miner_options: &Options) -> Result<Self> {
        let built = (loss::new(loss, loss_options), miner.map(|miner| miner::new(miner, miner_options)).transpose());
        let (built_loss, built_miner) = match built {
            (Ok(loss), Ok(miner)) => (loss, miner),
            (Err(Error::Spec { mut problems }), Err(Error::Spec { problems: more })) => {
                problems.extend(more);
                return Err(Error::Spec { problems });
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        if let (Some(name), true) = (miner, built_loss.needs() != Needs::Labels) {
            let problem = format!("`{name}` mines by label, which {loss} does not use; leave it out");
            return Err(Error::spec("miner", problem));
        }
        if miner.is_none() && !miner_options.is_empty() {
            return Err(Error::spec("miner_options", "given without a miner"));
        }
        Ok(Objective { loss: built_loss, miner: built_miner })
    }

    /// The kind of data that it takes.
    pub fn needs(&self) -> Needs {
        self.loss.needs()
    }

    /// What `sampler = auto` means for it.
    pub fn sampler(&self) -> Sampler {
        match self.needs() {
            Needs::Labels => Sampler::Class,
            Needs::Pairs | Needs::Scores => Sampler::Random,
        }
    }

    /// The loss of a batch. A batch without any valid pair or triplet gives 0 with zero gradient.
    ///
    /// # Shapes
    /// `embeddings [rows, dimension]`, as the model gives them; the result is `[1]`.
    ///
    /// # Errors
    /// [`Error::Engine`] when the layout does not fit the embeddings or what the loss needs.
    pub fn loss(&self, tape: &mut Tape<'_>, embeddings: &Var, layout: &BatchLayout) -> Result<Var> {
        let rows = embeddings.value().rows();
        if layout.rows() != rows || layout.labels.len() != rows {
            let got = format!(
                "{} rows in {} columns and {} labels",
                layout.rows(),
                layout.columns.len(),
                layout.labels.len()
            );
            return Err(engine::Error::shape("objective", format!("a layout of {rows} rows"), got).into());
        }
        self.loss.compute(tape, &Batch { embeddings, layout, miner: self.miner.as_deref() })
    }
}
