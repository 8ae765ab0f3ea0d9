//! Everything that a run needs before its first step.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::Device;
use engine::random::Key;

use super::batch::Batcher;
use super::budget::Budget;
use super::callbacks::Callbacks;
use super::course::Course;
use super::data::{Data, TrainingSet, training_order, validation_batches};
use super::guide::Guide;
use super::held_out::HeldOut;
use super::inspection::Inspection;
use super::interpolate::Interpolation;
use super::learner::Learner;
use super::loggers::Loggers;
use super::recorder::Recorder;
use super::report::Skipped;
use super::watch::Watch;
use super::{adapt, check, views};
use crate::artifact::{AdapterRecord, Output, PoolingMode};
use crate::data::Order;
use crate::encoder::source::{self, ModelSource};
use crate::encoder::{EncoderOptions, Model, ModelOptions};
use crate::error::{Error, Result};
use crate::mesh::Share;
use crate::objective::{Objective, Sizes};
use crate::optim::Schedule;
use crate::pixels::Sources;
use crate::spec::RunSpec;

/// What learns, from what, towards what, and who looks on.
pub(crate) struct Prepared<'a> {
    /// Of a single data set everything that was decided is in it.
    pub(crate) spec: RunSpec,
    pub(crate) callbacks: Callbacks,
    pub(crate) learner: Learner,
    pub(crate) course: Course,
    pub(crate) total_steps: usize,
    pub(crate) schedule: Schedule,
    pub(crate) guide: Option<Guide>,
    pub(crate) watch: Watch<'a>,
    pub(crate) interpolation: Option<Interpolation>,
    /// What the adapter's configuration will say, where the artifact is to hold adapters alone.
    pub(crate) adapter: Option<AdapterRecord>,
    /// Where on the hub the model comes from.
    pub(crate) repository: Option<String>,
    /// Of the data, for the sake of pictures that cannot be used.
    pub(crate) skipped: Option<Skipped>,
}

impl<'a> Prepared<'a> {
    /// Reads data and model, and checks that one can be learnt from with the other. `share` is how much of the training
    /// data is taken; of each batch `rank`'s part is prepared.
    pub(crate) fn new(
        spec: &RunSpec,
        (share, rank): (f64, Share),
        output: &Output,
        (device, stop): (&'a dyn Device, &'a AtomicBool),
        recorder: &mut Recorder<'_>,
    ) -> Result<Self> {
        let callbacks = Callbacks::parse(&spec.callbacks, &spec.model)?;
        recorder.attach(Loggers::open(&callbacks.loggers(), spec, output)?);
        let mut inspection = Inspection::new(spec, stop)?;
        let mut data = Data::read(spec, &callbacks, &mut inspection, recorder)?;
        if share < 1.0 {
            data = data.share(share, spec.seed)?;
        }
        let mut objectives = data.sets.iter().map(TrainingSet::objective).collect::<Result<Vec<_>>>()?;
        let spec = match &data.sets[..] {
            [only] => only.spec.clone(),
            _ => spec.clone(),
        };
        let source = source::resolve(&spec.model)?;
        let mut folder = match source {
            ModelSource::Mlp => data.perceptron(&spec.model_options)?,
            _ => source.open()?,
        };
        if let Some(pictures) = &spec.image_model {
            folder = folder.with_pictures(source::resolve(pictures)?.open()?);
        }
        let options = model_options(&spec, inspection.sources.clone())?;
        let mut open = || {
            let mut model = Model::open(folder.clone(), &options)?;
            let adapter = adapt::adapt(&spec, &source, &mut model, recorder)?;
            Ok::<_, Error>((model, adapter))
        };
        let (mut model, adapter) = open()?;
        let twin =
            objectives.iter().any(Objective::needs_twin).then(|| open().map(|(twin, _)| twin.encoder)).transpose()?;
        let asking = data.sets.iter().zip(&objectives).find(|(_, objective)| objective.needs_guide());
        let guide = Guide::open(spec.guide.as_deref(), asking.map(|(set, _)| set.spec.loss.as_str()))?;
        views::augment(&spec, &data, &mut model, recorder)?;
        for (set, objective) in data.sets.iter().zip(&mut objectives) {
            views::check(&set.spec, objective, &set.train, &model)?;
            let sizes = Sizes {
                dimension: model.encoder.dimension(),
                classes: set.train.classes(),
                layers: model.encoder.main_tower().backbone().earlier_layers(),
            };
            objective.prepare(sizes, spec.seed)?;
        }
        recorder.info(format!("model: `{}`, {}, on {}", spec.model, model.description(), device.name()))?;
        if let Some(remark) = crate::device::remark(device, &spec.precision) {
            recorder.warn(remark)?;
        }
        check::tell(&spec, &data, (&model, &inspection.pictures), recorder)?;

        let budget = Arc::new(Budget::new(&spec, &model.encoder, device));
        let encoding = (&model, &budget, guide.as_ref());
        let (sets, mut validation) = batches(&spec, data.sets, &objectives, encoding, rank, recorder)?;
        if let Some(guide) = &guide {
            validation.iter_mut().try_for_each(|held_out| guide.embed(device, &mut held_out.batch, None))?;
        }
        let course = Course::new(&spec, device, sets, budget)?;
        let total_steps = course.steps(spec.epochs);
        let schedule = Schedule::new(spec.scheduler.as_deref(), &spec.scheduler_options, spec.warmup, total_steps)?;
        let learner = Learner::new(&spec, model, twin, objectives)?;
        let watch = Watch { device, stop, measures: data.measures, validation: Arc::new(validation), seconds: 0.0 };
        let interpolation = Interpolation::plan(&spec, &callbacks, &watch, &learner, recorder)?;
        let repository = source.repository().map(str::to_owned);
        Ok(Prepared {
            spec,
            callbacks,
            learner,
            course,
            total_steps,
            schedule,
            guide,
            watch,
            interpolation,
            adapter,
            repository,
            skipped: inspection.skipped(),
        })
    }
}

/// The batches of every data set in the order of its sampler, and those held out.
type Batches = (Vec<(Batcher, Order)>, Vec<HeldOut>);

/// Makes the batches of all data sets.
fn batches(
    spec: &RunSpec,
    sets: Vec<TrainingSet>,
    objectives: &[Objective],
    (model, budget, guide): (&Model, &Arc<Budget>, Option<&Guide>),
    rank: Share,
    recorder: &mut Recorder<'_>,
) -> Result<Batches> {
    let (mut to_learn, mut held_out) = (Vec::new(), Vec::new());
    for (dataset, (set, objective)) in sets.into_iter().zip(objectives).enumerate() {
        let guide = guide.filter(|_| objective.needs_guide());
        let batcher = Batcher::new(Arc::new(set.train), objective, (model, budget), spec);
        let batcher = batcher.guided_by(guide).shared(rank);
        let order = training_order(&set.spec, objective, &batcher, recorder)?;
        to_learn.push((batcher, order));
        if let Some(validation) = set.validation {
            let batches = validation_batches(&set.spec, objective, validation, (model, budget, guide), recorder)?;
            held_out.extend(batches.into_iter().map(|mut held_out| {
                held_out.batch.dataset = dataset;
                held_out.batch.layout.layers = objective.draw_layers(Key::new(0));
                held_out
            }));
        }
    }
    Ok((to_learn, held_out))
}

pub(crate) fn model_options(spec: &RunSpec, sources: Sources) -> Result<ModelOptions> {
    let pooling = spec.pooling.as_deref().map(PoolingMode::from_name);
    let pooling = pooling.transpose().map_err(|problem| Error::spec("pooling", problem))?;
    let pooling = pooling.map(|pooling| pooling.with_options(&spec.pooling_options)).transpose();
    let pooling = pooling.map_err(|(option, problem)| Error::spec(format!("pooling_options.{option}"), problem))?;
    let encoder = EncoderOptions {
        pooling,
        output_dim: spec.output_dim,
        random: spec.init == "random",
        random_pictures: spec.init == "random:image",
        seed: spec.seed,
    };
    Ok(ModelOptions {
        encoder,
        max_length: spec.max_length,
        query_prompt: spec.query_prompt.clone(),
        document_prompt: spec.document_prompt.clone(),
        sources,
    })
}
