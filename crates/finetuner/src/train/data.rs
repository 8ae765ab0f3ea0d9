//! The data of a run: what it learns from, what it is validated on, what it is measured on.

use std::path::Path;
use std::sync::Arc;

use super::advise;
use super::batch::{Batcher, check_data};
use super::budget::Budget;
use super::callbacks::{Callbacks, EvaluationCallback};
use super::guide::Guide;
use super::held_out::HeldOut;
use super::inspection::Inspection;
use super::measure::Target;
use super::recorder::Recorder;
use super::watch::Measure;
use crate::artifact::ModelFolder;
use crate::data::{
    Dataset, Example, Hierarchy, Kind, Modality, Order, Sampler, hold_out, read, read_retrieval_with, read_vector,
};
use crate::encoder::{Model, untrained};
use crate::error::{Error, Result, nearest};
use crate::objective::{self, Needs, Objective};
use crate::spec::{Options, RunSpec};

/// The data of a run.
pub(crate) struct Data {
    /// What it learns from: one data set, or one for each of `datasets`.
    pub(crate) sets: Vec<TrainingSet>,
    /// What is measured; the report's table is of the first.
    pub(crate) measures: Vec<Measure>,
}

/// A data set to learn from.
pub(crate) struct TrainingSet {
    /// The run's spec, with the data set's own fields and the loss that was decided on.
    pub(crate) spec: RunSpec,
    pub(crate) train: Dataset,
    pub(crate) validation: Option<Dataset>,
    /// Held-out data of another kind, which has no validation loss.
    measured: Option<Dataset>,
}

impl TrainingSet {
    fn read(spec: RunSpec, inspection: &mut Inspection<'_>, recorder: &mut Recorder<'_>) -> Result<Self> {
        let kind = spec.kind.as_deref().map(str::parse::<Kind>).transpose()?;
        let mut train = inspection.look(read(&spec.train_data, kind)?, recorder)?;
        recorder.info(train.decision.clone())?;
        let (mut validation, mut measured) = (None, None);
        if let Some(path) = &spec.eval_data {
            let mut dataset = inspection.look(read(path, held_out_kind(kind, &train))?, recorder)?;
            dataset.relabel(&train.label_names);
            recorder.info(dataset.decision.clone())?;
            let held_out = if dataset.kind == train.kind { &mut validation } else { &mut measured };
            *held_out = Some(dataset);
        } else if spec.val_split > 0.0 {
            let (rest, held_out) = hold_out(&train, spec.val_split, spec.seed)?;
            let (held, all) = (held_out.examples.len(), train.examples.len());
            recorder.info(format!("held out {held} of {all} examples for validation"))?;
            (train, validation) = (rest, Some(held_out));
        }
        let spec = decided_loss(spec, train.kind, recorder)?;
        Ok(TrainingSet { spec, train, validation, measured })
    }

    /// What is held out of it, for a validation loss or only to be measured.
    pub(crate) fn held_out(&self) -> Option<&Dataset> {
        self.validation.as_ref().or(self.measured.as_ref())
    }

    /// What it is learnt by.
    ///
    /// # Errors
    /// [`Error::Spec`] for a loss that does not exist, or that cannot learn from the data.
    pub(crate) fn objective(&self) -> Result<Objective> {
        let spec = &self.spec;
        let objective = Objective::new(&spec.loss, &spec.loss_options, spec.miner.as_deref(), &spec.miner_options)?;
        check_data(&spec.loss, objective.needs(), &self.train)?;
        Ok(objective)
    }
}

/// The kind to read held-out data as: that of the training data. Items alone say nothing of what matches, so data of any
/// kind may measure what they taught.
pub(super) fn held_out_kind(asked: Option<Kind>, train: &Dataset) -> Option<Kind> {
    asked.or(Some(train.kind)).filter(|kind| !matches!(kind, Kind::Single | Kind::LabelledPairs))
}

impl Data {
    /// Reads what the spec names, telling how it was understood.
    pub(crate) fn read(
        spec: &RunSpec,
        callbacks: &Callbacks,
        inspection: &mut Inspection<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<Self> {
        let sets = spec.parts()?.into_iter().map(|spec| TrainingSet::read(spec, inspection, recorder));
        let sets = sets.collect::<Result<Vec<_>>>()?;
        let held_out = sets.iter().filter_map(TrainingSet::held_out);
        let measures = measures(spec, callbacks, held_out, (inspection, recorder))?;
        for measure in &measures {
            recorder.info(format!("measured on: {}", measure.target.description()))?;
        }
        Ok(Data { sets, measures })
    }

    /// A perceptron for the vectors that it holds.
    ///
    /// # Errors
    /// [`Error::Spec`] where it holds none, and for wrong options.
    pub(crate) fn perceptron(&self, options: &Options) -> Result<ModelFolder> {
        let sets = self.sets.iter().map(|set| &set.train.items);
        let first = sets.flat_map(|items| items.ids(Modality::Vector).map(|id| items.get(id))).next();
        let width = first.and_then(read_vector).map(|vector| vector.len()).ok_or_else(|| {
            let problem = "`mlp` reads vectors, and the training data holds none: a column `vector` or `embedding`, as \
                           `finetuner encode` writes it";
            Error::spec("model", problem)
        })?;
        untrained(options, width)
    }

    /// With a share of every data set to learn from.
    ///
    /// # Errors
    /// As [`advise::take`].
    pub(crate) fn share(mut self, share: f64, seed: u64) -> Result<Self> {
        let take = |set: TrainingSet| Ok(TrainingSet { train: advise::take(set.train, share, seed)?, ..set });
        self.sets = self.sets.into_iter().map(take).collect::<Result<_>>()?;
        Ok(self)
    }
}

/// What is measured: `query_data`, else what the callbacks name, else the first held-out set that can be.
fn measures<'a>(
    spec: &RunSpec,
    callbacks: &Callbacks,
    held_out: impl Iterator<Item = &'a Dataset>,
    (inspection, recorder): (&mut Inspection<'_>, &mut Recorder<'_>),
) -> Result<Vec<Measure>> {
    let kind = spec.kind.as_deref().map(str::parse::<Kind>).transpose()?;
    let plain = |target| Measure { target, options: EvaluationCallback::default(), prefix: String::new() };
    if let Some(queries) = &spec.query_data {
        if callbacks.evaluations().next().is_some() {
            let problem = "`query_data` of the run and `EvaluationCallback` both say what to measure; leave one out";
            return Err(Error::spec("callbacks", problem));
        }
        let look = |dataset| inspection.look(dataset, recorder);
        let set = read_retrieval_with(queries, spec.index_data.as_deref(), kind, look)?;
        return Ok(vec![plain(Target::Retrieval(set))]);
    }
    let mut measures = Vec::new();
    for options in callbacks.evaluations() {
        if let Some(sentence) = options.without_effect() {
            recorder.info(sentence)?;
        }
        let look = |dataset| inspection.look(dataset, recorder);
        let mut set = read_retrieval_with(&options.query_data, options.index_data.as_deref(), kind, look)?;
        options.check(&set)?;
        if !options.exclude_self {
            set = set.include_self();
        }
        if let Some(count) = options.query_sample_size {
            set = set.sample(count, spec.seed);
        }
        let prefix = options.prefix(&spec.model).unwrap_or_default();
        measures.push(Measure { target: Target::Retrieval(set), options: options.clone(), prefix });
    }
    if measures.is_empty() {
        let target = held_out.filter_map(|dataset| Target::of(dataset).transpose()).next().transpose()?;
        measures.extend(target.map(plain));
    }
    Ok(measures)
}

/// The order of the training examples.
///
/// # Errors
/// Where no batch of the run can teach anything: [`Error::Data`] for the data's sake, [`Error::Spec`] for the batch size's.
pub(crate) fn training_order(
    spec: &RunSpec,
    objective: &Objective,
    batcher: &Batcher,
    recorder: &mut Recorder<'_>,
) -> Result<Order> {
    let order = order(spec, objective, batcher)?;
    let mut epochs = (0..spec.epochs as u64).map(|epoch| order.batches(epoch));
    if !epochs.any(|batches| batches.iter().any(|batch| batcher.teaches(batch, objective.needs()))) {
        return Err(batcher.unusable(&spec.train_data, spec.batch_size, objective.needs()));
    }
    if let Some(sentence) = order.adjusted() {
        recorder.warn(sentence)?;
    }
    Ok(order)
}

/// The order that the sampler makes.
///
/// # Errors
/// [`Error::Spec`] for wrong options of it, and for classes without families.
fn order(spec: &RunSpec, objective: &Objective, batcher: &Batcher) -> Result<Order> {
    let labels = batcher.labels();
    if !["hierarchical", "HierarchicalSampler"].contains(&spec.sampler.as_str()) {
        let sampler = sampler(spec, objective, batcher.dataset().kind);
        return Ok(Order::new(sampler, &labels, || batcher.items(), spec.batch_size, spec.seed));
    }
    let mut options = spec.sampler_options.clone();
    let mut count = |key: &str, default: u64| match options.remove(key).map(|value| value.as_u64()) {
        None => Ok(default as usize),
        Some(Some(count @ 1..)) => Ok(count as usize),
        Some(_) => Err(Error::spec(format!("sampler_options.{key}"), "expected a whole number above 0")),
    };
    let hierarchy = Hierarchy {
        items_per_class: spec.num_items_per_class,
        families_per_batch: count("super_classes_per_batch", 2)?,
        batches_per_combination: count("batches_per_super_tuple", 4)?,
    };
    if let Some(key) = options.keys().next() {
        let known = nearest(key, ["super_classes_per_batch", "batches_per_super_tuple"]);
        return Err(Error::spec(format!("sampler_options.{key}"), format!("unknown option{known}")));
    }
    if batcher.dataset().kind != Kind::Labelled {
        let problem = format!("`hierarchical` needs labelled data, got {}", batcher.dataset().kind);
        return Err(Error::spec("sampler", problem));
    }
    let names = &batcher.dataset().label_names;
    let mut families: Vec<&str> = Vec::new();
    let mut places = Vec::new();
    for name in names {
        let family = name.split_once('/').map_or(name.as_str(), |(family, _)| family);
        places.push(families.iter().position(|known| *known == family).unwrap_or(families.len()) as u32);
        if places.last() == Some(&(families.len() as u32)) {
            families.push(family);
        }
    }
    if families.len() == names.len() || families.len() < hierarchy.families_per_batch {
        let problem = format!(
            "`hierarchical` needs classes in at least {} families, named as in `animal/cat`, got {} in {}",
            hierarchy.families_per_batch,
            names.len(),
            families.len()
        );
        return Err(Error::spec("sampler", problem));
    }
    let families: Vec<u32> = labels.iter().map(|label| places[*label as usize]).collect();
    Ok(Order::hierarchical(&labels, &families, hierarchy, spec.batch_size, spec.seed))
}

/// The validation set in batches that are the same every time.
pub(crate) fn validation_batches(
    spec: &RunSpec,
    objective: &Objective,
    mut dataset: Dataset,
    (model, budget, guide): (&Model, &Arc<Budget>, Option<&Guide>),
    recorder: &mut Recorder<'_>,
) -> Result<Vec<HeldOut>> {
    check_data(&spec.loss, objective.needs(), &dataset)?;
    if objective.needs() == Needs::Classes {
        let known = |example: &Example| match example {
            Example::Labelled { label, .. } => (*label as usize) < objective.sizes().classes,
            _ => true,
        };
        let all = dataset.examples.len();
        let places: Vec<u32> = (0..all as u32).filter(|&place| known(&dataset.examples[place as usize])).collect();
        if places.len() < all {
            recorder.warn(format!(
                "{} of {all} validation examples are of classes that the training data lacks; `{}` knows nothing of \
                 them, so they are left out of the validation loss",
                all - places.len(),
                spec.loss
            ))?;
            dataset = dataset.select(&places);
        }
    }
    let batcher = Batcher::new(Arc::new(dataset), objective, (model, budget), spec);
    let batcher = batcher.guided_by(guide);
    let order = order(spec, objective, &batcher)?;
    order.batches(0).into_iter().map(|examples| HeldOut::new(&batcher, examples)).collect()
}

/// `auto` is the class sampler where a loss compares items of a class, and the data says which class each item is of;
/// pairs bring their positive along, so they are shuffled.
fn sampler(spec: &RunSpec, objective: &Objective, kind: Kind) -> Sampler {
    let items_per_class = spec.num_items_per_class;
    match spec.sampler.as_str() {
        "class" | "ClassSampler" => Sampler::Class { items_per_class },
        "m_per_class" | "MPerClassSampler" => Sampler::MPerClass { items_per_class },
        "group_by_label" => Sampler::GroupByLabel,
        "no_duplicates" | "no_duplicates_hashed" => Sampler::NoDuplicates,
        "auto" if kind == Kind::Labelled && objective.sampler() == objective::Sampler::Class => {
            Sampler::Class { items_per_class }
        }
        _ => Sampler::Random { drop_last: false },
    }
}

/// The spec with the loss that `auto` stands for, and a sentence on what was decided.
fn decided_loss(mut spec: RunSpec, kind: Kind, recorder: &mut Recorder<'_>) -> Result<RunSpec> {
    if spec.loss == "auto" {
        let (loss, why) = match kind {
            Kind::Pairs | Kind::Triplets | Kind::Labelled => ("TripletMarginLoss", "what matches is known"),
            Kind::Scored => ("CoSENTLoss", "pairs have scores"),
            Kind::LabelledPairs => ("SoftmaxLoss", "pairs have classes"),
            Kind::ScoredTriplets => ("MarginMSELoss", "triplets have a teacher's scores"),
            Kind::Single => (
                "MultipleNegativesRankingLoss",
                "texts alone are learnt from two dropout views of each (SimCSE); the texts of a batch are each other's \
                 negatives",
            ),
        };
        spec.loss = loss.into();
        recorder.info(format!("loss: `{loss}`, as {why}"))?;
    }
    Ok(spec)
}

/// Reads what `evaluate` measures: retrieval data with an optional index, or scored pairs.
///
/// # Errors
/// As [`read`] and [`read_retrieval_with`].
pub fn read_target(data: &Path, index: Option<&Path>, kind: Option<Kind>) -> Result<Target> {
    read_target_with(data, index, kind, Ok)
}

/// The same for a model over vectors: those beside texts and pictures are taken.
///
/// # Errors
/// As [`read_target`] and [`Dataset::into_vectors`].
pub fn read_vector_target(data: &Path, index: Option<&Path>, kind: Option<Kind>) -> Result<Target> {
    read_target_with(data, index, kind, Dataset::into_vectors)
}

fn read_target_with(
    data: &Path,
    index: Option<&Path>,
    kind: Option<Kind>,
    look: fn(Dataset) -> Result<Dataset>,
) -> Result<Target> {
    if kind == Some(Kind::Scored) {
        return Ok(Target::Scored(read(data, kind)?));
    }
    match (read_retrieval_with(data, index, kind, look), kind) {
        (Ok(set), _) => Ok(Target::Retrieval(set)),
        (Err(error), None) => match read(data, None) {
            Ok(dataset) if dataset.kind == Kind::Scored => Ok(Target::Scored(dataset)),
            _ => Err(error),
        },
        (Err(error), _) => Err(error),
    }
}
