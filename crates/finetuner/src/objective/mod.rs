//! Embeddings to one number: distance, miner, loss, reducer.
//!
//! A loss is a struct in one file of [`loss`], whose fields are its options and whose forward code is written on the
//! tape; a miner the same in [`miner`]. One line in the table of their folder makes it known by name. Names, options
//! and defaults are those of pytorch-metric-learning and sentence-transformers, and values and gradients equal theirs.

mod anchor;
pub mod distance;
mod initial;
pub mod loss;
pub mod mined;
pub mod miner;
mod parameter;
pub mod reducer;
pub(crate) mod registry;
pub mod regularizer;

use engine::random::Key;
use engine::{Gradients, LeafGradients, ParameterId, Parameters, Tape, Tensor, Var};

pub use self::distance::Distance;
pub use self::initial::Initial;
use self::loss::{Batch, Loss};
pub use self::mined::{Masks, Mined};
use self::miner::Miner;
pub use self::parameter::{Keep, LossParameter, Role, Sizes};
pub use self::reducer::Reducer;
pub use self::regularizer::Regularizer;
use crate::error::{Error, Result};
use crate::spec::Options;

/// The rows of a batch of embeddings and what is known of them.
#[derive(Debug, Clone, Default)]
pub struct BatchLayout {
    /// Rows of each column, in order: all anchors, then all positives, then all first negatives … Row `i` of a column
    /// belongs to example `i`; a later column may be shorter. Labelled items are one column.
    pub columns: Vec<usize>,
    /// One per row: its class, or its component of the label graph.
    pub labels: Vec<u32>,
    /// One per example of scored pairs; as many for each example of scored triplets, one after the other.
    pub scores: Option<Vec<f32>>,
    /// The guide's embedding of every row, `[rows, its dimension]`, where the loss asks for a guide.
    pub guide: Option<Tensor>,
    /// Earlier layers of the model, whose embeddings stand beside those of the last one: see [`Objective::draw_layers`].
    pub layers: Vec<usize>,
}

impl BatchLayout {
    /// Labelled items, in one column.
    pub fn labelled(labels: &[u32]) -> Self {
        BatchLayout { columns: vec![labels.len()], labels: labels.to_vec(), ..Default::default() }
    }

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
    /// Labelled items, whose classes are known before the first step.
    Classes,
    /// Pairs scored 1 if they match and 0 if they do not.
    BinaryScores,
    /// Pairs with a score each, of which only the order counts: equal scores teach nothing. Triplets serve too, their
    /// positives scored 1 and their negatives 0.
    RankedScores,
    /// Anchors with their positives and at least one negative.
    Triplets,
    /// Triplets with a teacher's scores.
    TeacherScores,
    /// Texts, whatever is known of them: a guide says what to learn.
    Guide,
    /// Pairs with a class each, known before the first step.
    PairClasses,
    /// Texts of any kind of data.
    Any,
}

impl Needs {
    /// What serves two losses at once; `None` where nothing does.
    pub fn and(self, other: Needs) -> Option<Needs> {
        match (self, other) {
            (needs, other) if needs.serves(other) => Some(needs),
            (other, needs) if needs.serves(other) => Some(needs),
            (Needs::RankedScores, Needs::Labels | Needs::Pairs) => Some(Needs::Triplets),
            (Needs::Labels | Needs::Pairs, Needs::RankedScores) => Some(Needs::Triplets),
            _ => None,
        }
    }

    /// Whether all data of these needs serves others, too.
    fn serves(self, other: Needs) -> bool {
        use Needs::{
            Any, BinaryScores, Classes, Guide, Labels, PairClasses, Pairs, RankedScores, Scores, TeacherScores,
            Triplets,
        };
        match other {
            Any | Guide => true,
            _ if self == other => true,
            Labels => matches!(self, Classes | Pairs | Triplets | TeacherScores),
            Pairs => matches!(self, Triplets | TeacherScores),
            Triplets => self == TeacherScores,
            RankedScores => matches!(self, Scores | BinaryScores | Triplets | TeacherScores),
            Scores => self == BinaryScores,
            Classes | BinaryScores | TeacherScores | PairClasses => false,
        }
    }
}

/// The order of examples that `sampler = auto` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// Several items of each of some classes in every batch.
    Class,
    /// Shuffled.
    Random,
}

/// A loss with its options and, perhaps, a miner with its own; and what the loss learns and remembers.
#[derive(Debug)]
pub struct Objective {
    loss: Box<dyn Loss>,
    miner: Option<Box<dyn Miner>>,
    sizes: Sizes,
    parameters: Parameters,
    /// The id and the role of each parameter.
    roles: Vec<(ParameterId, Role)>,
}

/// The loss of a batch, still on its tape.
#[derive(Debug)]
pub struct Computed {
    /// `[1]`
    pub loss: Var,
    leaves: Vec<Var>,
    remembered: Remembered,
}

/// What a loss will remember of a batch, once a step has been taken: [`Objective::remember`].
#[derive(Debug, Default)]
pub struct Remembered(Vec<(usize, Tensor)>);

impl Computed {
    /// The gradients of the objective's own parameters, after [`Tape::backward`].
    pub fn own_gradients(&self, leaves: &mut LeafGradients) -> Gradients {
        self.leaves.iter().map(|leaf| leaves.take(leaf)).collect()
    }

    /// What the loss will remember.
    pub fn into_remembered(self) -> Remembered {
        self.remembered
    }
}

/// Bytes of the blocks of a matrix of similarities: as measured, `examples/loss.rs`.
const BLOCKS: usize = 80_000_000;

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
        if let (Some(name), false) = (miner, built_loss.mines()) {
            let problem = format!("{loss} uses no mined pairs or triplets, so `{name}` has no use; leave it out");
            return Err(Error::spec("miner", problem));
        }
        if miner.is_none() && !miner_options.is_empty() {
            return Err(Error::spec("miner_options", "given without a miner"));
        }
        Ok(Objective {
            loss: built_loss,
            miner: built_miner,
            sizes: Sizes::default(),
            parameters: Parameters::default(),
            roles: Vec::new(),
        })
    }

    /// Makes what the loss learns and remembers, as it is before the first step: a function of `sizes` and `seed`. A
    /// loss without parameters needs no preparation.
    ///
    /// # Errors
    /// [`Error::Spec`] when the options contradict the sizes.
    pub fn prepare(&mut self, sizes: Sizes, seed: u64) -> Result<()> {
        let key = Key::new(seed).part(u64::from_le_bytes(*b"loss\0\0\0\0"));
        self.sizes = sizes;
        self.parameters = Parameters::default();
        self.roles.clear();
        for (index, parameter) in self.loss.parameters(&sizes)?.into_iter().enumerate() {
            let value = parameter.draw(key.part(index as u64));
            let id = self.parameters.add(parameter.name, value);
            self.parameters.get_mut(id).trainable = parameter.role != Role::Remembered;
            self.roles.push((id, parameter.role));
        }
        Ok(())
    }

    /// What it was prepared for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// What the loss learns (trainable) and remembers, in the loss's order.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The same, for an optimiser, a checkpoint or a test to change.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// What each of [`Objective::parameters`] is for.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = Role> {
        self.roles.iter().map(|(_, role)| *role)
    }

    /// Whether the loss has parameters for an optimiser.
    pub fn learns(&self) -> bool {
        self.roles().any(|role| role != Role::Remembered)
    }

    /// Ends a training step: takes over what the loss remembers of its batch, and restores what always holds for
    /// learned tensors.
    pub fn remember(&mut self, remembered: Remembered) {
        for (index, tensor) in remembered.0 {
            self.parameters.get_mut(self.roles[index].0).value = tensor;
        }
        for (id, role) in &self.roles {
            if let Role::Learned { keep, .. } = role {
                keep.apply(&mut self.parameters.get_mut(*id).value);
            }
        }
    }

    /// The kind of data that it takes.
    pub fn needs(&self) -> Needs {
        self.loss.needs()
    }

    /// Whether it asks for a guide's embeddings.
    pub fn needs_guide(&self) -> bool {
        self.loss.needs_guide()
    }

    /// Whether the first column goes through a second copy of the model.
    pub fn needs_twin(&self) -> bool {
        self.loss.needs_twin()
    }

    /// The earlier layers of the model whose embeddings it wants of a batch, drawn by `key`: [`BatchLayout::layers`].
    pub fn draw_layers(&self, key: Key) -> Vec<usize> {
        self.loss.draw_layers(&self.sizes, key)
    }

    /// Bytes that a step holds for this many embeddings beside the encoder's, about.
    pub fn bytes(&self, rows: usize, dimension: usize) -> usize {
        // The embeddings, their gradient, and both in f64; the blocks of a matrix that is never whole.
        4 * rows * (self.loss.matrices(self.miner.as_deref()) * rows + 6 * dimension) + (20 * rows * rows).min(BLOCKS)
    }

    /// What `sampler = auto` means for it.
    pub fn sampler(&self) -> Sampler {
        self.loss.sampler()
    }

    /// The loss of a batch. A batch without any valid pair or triplet gives 0 with zero gradient.
    ///
    /// # Shapes
    /// `embeddings [rows, dimension]`, as the model gives them, and to their right those of the layers of the layout,
    /// `[rows, (1 + layers) dimension]`; the result is `[1]`.
    ///
    /// # Errors
    /// As [`Objective::compute`].
    pub fn loss(&self, tape: &mut Tape<'_>, embeddings: &Var, layout: &BatchLayout) -> Result<Var> {
        Ok(self.compute(tape, embeddings, layout)?.loss)
    }

    /// As [`Objective::loss`], with what a training step needs for the objective's own parameters.
    ///
    /// # Errors
    /// [`Error::Engine`] when the layout does not fit the embeddings or what the loss needs, or when the loss has
    /// parameters and [`Objective::prepare`] was not called.
    pub fn compute(&self, tape: &mut Tape<'_>, embeddings: &Var, layout: &BatchLayout) -> Result<Computed> {
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
        let var = |parameter: &engine::Parameter| match parameter.trainable {
            true => tape.leaf(parameter.value.clone()),
            false => tape.constant(parameter.value.clone()),
        };
        let leaves: Vec<Var> = self.parameters.iter().map(var).collect();
        let (last, layers) = by_layer(tape, embeddings, &layout.layers)?;
        let mut batch = Batch::new(&last, layout, self.miner.as_deref(), &leaves, &self.sizes);
        batch.layers = &layers;
        let loss = self.loss.compute(tape, &batch)?;
        let remembered = Remembered(batch.into_memories());
        Ok(Computed { loss, leaves, remembered })
    }
}

/// The embeddings of the last layer and of each earlier one.
fn by_layer(tape: &mut Tape<'_>, embeddings: &Var, layers: &[usize]) -> Result<(Var, Vec<(usize, Var)>)> {
    if layers.is_empty() {
        return Ok((embeddings.clone(), Vec::new()));
    }
    let columns = embeddings.value().columns();
    let width = columns / (1 + layers.len());
    if width * (1 + layers.len()) != columns {
        let expected = format!("embeddings of the last and of {} earlier layers", layers.len());
        return Err(engine::Error::shape("objective", expected, format!("{columns} columns")).into());
    }
    let mut part = |place: usize| tape.column_range(embeddings, place * width..(place + 1) * width);
    let last = part(0)?;
    let layers = layers.iter().zip(1..).map(|(layer, place)| Ok((*layer, part(place)?))).collect::<Result<_>>()?;
    Ok((last, layers))
}
