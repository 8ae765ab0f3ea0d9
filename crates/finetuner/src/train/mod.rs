//! The loop: evaluate, step, validate, save, stop, report.

mod batch;
mod callbacks;
mod measure;
mod recorder;
mod report;
mod state;
mod step;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::random::Key;
use engine::{Cpu, Device, Gradients};

use self::batch::{Batch, Batcher, check_kind};
use self::callbacks::{Best, Callbacks};
pub use self::measure::{Measurement, Target};
use self::recorder::Recorder;
pub use self::report::Report;
use self::report::{Compared, Memory, Timing, Training};
use self::state::{Kept, Progress, State};
use crate::artifact::{ArtifactWriter, Output, RunRecord};
use crate::data::{Dataset, Kind, Order, RetrievalSet, Sampler, hold_out, read, read_retrieval};
use crate::encoder::{EncoderOptions, ModelOptions, TextModel, source};
use crate::error::{Error, Result};
use crate::evaluate::K;
use crate::event::Sink;
use crate::objective::{self, Objective};
use crate::optim::{Optimizer, Schedule};
use crate::spec::RunSpec;
use crate::tokens::Prefetch;

/// Batches prepared ahead of the step.
const AHEAD: usize = 2;

/// A checkpoint is written after every epoch and, within a long one, this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The artifact and the report are in the output folder.
    Finished(Box<Report>),
    /// It was told to stop; a checkpoint is in the output folder.
    Stopped {
        /// Optimiser steps in the checkpoint.
        step: usize,
    },
}

/// Trains a model as `spec` says, telling `sink` everything; `stop` ends the run with a checkpoint after the current
/// step.
///
/// # Errors
/// Everything that [`crate::Error`] lists; nothing half-written stays in the output folder.
pub fn train(spec: &RunSpec, sink: &mut dyn Sink, stop: &AtomicBool) -> Result<Outcome> {
    spec.check()?;
    let pool = thread_pool(spec.threads)?;
    let run = || {
        let output = Output::claim(&output_folder(spec), spec.resume)?;
        let mut recorder = Recorder::open(&output, sink)?;
        let outcome = run(spec, &output, &mut recorder, stop);
        match &outcome {
            Err(error) => {
                recorder.warn(error.to_string())?;
                recorder.state("failed")?;
            }
            Ok(Outcome::Stopped { .. }) => recorder.state("stopped")?,
            Ok(Outcome::Finished(_)) => {}
        }
        outcome
    };
    pool.install(run)
}

/// A pool of `threads` workers, or of one per core.
///
/// # Errors
/// [`Error::Spec`] if the operating system refuses the threads.
pub fn thread_pool(threads: Option<usize>) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build();
    pool.map_err(|error| Error::spec("threads", error.to_string()))
}

/// The folder that a run writes: `output`, or `runs/<model>-<time>` as of now.
pub fn output_folder(spec: &RunSpec) -> PathBuf {
    spec.output.clone().unwrap_or_else(|| {
        let name = spec.model.trim_end_matches('/').rsplit('/').next().unwrap_or("model").to_owned();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        PathBuf::from("runs").join(format!("{name}-{}", now.map_or(0, |time| time.as_secs())))
    })
}

fn run(spec: &RunSpec, output: &Output, recorder: &mut Recorder<'_>, stop: &AtomicBool) -> Result<Outcome> {
    recorder.state("started")?;
    let device = Cpu;

    // What do we learn from, with what, towards what?
    let objective = Objective::new(&spec.loss, &spec.loss_options, spec.miner.as_deref(), &spec.miner_options)?;
    let callbacks = Callbacks::parse(&spec.callbacks)?;
    let data = Data::read(spec, &callbacks, recorder)?;
    check_kind(&spec.loss, objective.needs(), data.train.kind)?;
    let model_source = source::resolve(&spec.model)?;
    let mut model = TextModel::open(model_source.open()?, &model_options(spec)?)?;
    if let Some(what) = &spec.freeze {
        model.encoder.freeze(what)?;
    }
    recorder.info(format!(
        "model: `{}`, {} layers of {}, embeddings of {}, texts cut at {} tokens, on {}",
        spec.model,
        model.encoder.config().layers,
        model.encoder.config().hidden,
        model.encoder.dimension(),
        model.tokenizer.max_length(),
        device.name(),
    ))?;

    let batcher = Batcher::new(Arc::new(data.train), &model, spec.micro_batch_tokens);
    let order =
        Order::new(sampler(spec, &objective, batcher.dataset().kind), &batcher.labels(), spec.batch_size, spec.seed);
    if let Some(sentence) = order.adjusted() {
        recorder.warn(sentence)?;
    }
    let validation = match data.validation {
        Some(dataset) => validation_batches(spec, &objective, dataset, &model)?,
        None => Vec::new(),
    };
    let total_steps: usize = (0..spec.epochs as u64).map(|epoch| order.batches(epoch).len()).sum();
    if total_steps == 0 {
        let problem = format!("{} examples make no batch of {}", batcher.dataset().examples.len(), spec.batch_size);
        return Err(Error::spec("batch_size", problem));
    }
    let schedule = Schedule::new(spec.scheduler.as_deref(), &spec.scheduler_options, spec.warmup, total_steps)?;
    let mut optimizer = Optimizer::new(&spec.optimizer, &spec.optimizer_options, model.encoder.depths())?;
    let mut gradients = Gradients::new(&model.encoder.parameters);

    // The untouched model is measured first, also when a run goes on: the report compares with it.
    let mut watch = Watch { device: &device, target: data.target.as_ref(), seconds: 0.0 };
    let before = watch.measure(&model, "evaluate before", recorder)?;
    let mut state = State {
        progress: Progress::default(),
        best: best_monitor(spec, &callbacks, !validation.is_empty(), before.as_ref()).map(|best| (best, None)),
        early_stopping: callbacks.early_stopping(),
    };
    let needs_measuring = callbacks.monitors_metric() || state.best.as_ref().is_some_and(|(best, _)| best.is_metric());
    if spec.resume {
        state.restore(output.folder(), spec, &mut model.encoder.parameters, &mut optimizer)?;
        recorder.info(format!("resumed at step {} of {total_steps}", state.progress.step))?;
    } else {
        let loss = validation_loss(&model, &device, &objective, &validation)?;
        state.observe(&model, loss, before.as_ref(), recorder)?;
    }

    // Train.
    let seed = Key::new(spec.seed);
    let mut saved = Instant::now();
    let mut after = None;
    'epochs: for epoch in state.progress.epoch..spec.epochs {
        let remaining: Vec<_> = order.batches(epoch as u64).split_off(state.progress.batch);
        let worker = batcher.clone();
        let prepare = move |examples: Vec<u32>| worker.batch(&examples);
        for batch in Prefetch::new(remaining.into_iter().map(prepare), AHEAD) {
            let batch = batch?;
            let started = Instant::now();
            let step = state.progress.step;
            gradients.clear();
            let dropout = seed.part(step as u64);
            let loss = step::gradients(&model.encoder, &device, &objective, &batch, Some(dropout), &mut gradients)?;
            if !loss.is_finite() {
                let problem = format!("the loss became {loss} at step {}; use a smaller learning rate", step + 1);
                return Err(Error::Diverged(problem));
            }
            let rate = spec.learning_rate * schedule.factor(step, spec.learning_rate);
            let parameters = &mut model.encoder.parameters;
            optimizer.step(&device, parameters, &gradients, rate, spec.max_grad_norm)?;
            state.progress.count(&batch, loss, started.elapsed());
            recorder.metric("train_loss", step + 1, loss)?;
            recorder.metric("learning_rate", step + 1, rate)?;
            recorder.progress("train", step + 1, total_steps, Some(format!("loss {loss:.4}")));
            if stop.load(Ordering::Relaxed) {
                state.save(output.folder(), spec, &model.encoder.parameters, &optimizer)?;
                recorder.send(&crate::event::Event::Checkpoint { step: step + 1 })?;
                return Ok(Outcome::Stopped { step: step + 1 });
            }
            if saved.elapsed() > CHECKPOINT_EVERY {
                state.save(output.folder(), spec, &model.encoder.parameters, &optimizer)?;
                recorder.send(&crate::event::Event::Checkpoint { step: step + 1 })?;
                saved = Instant::now();
            }
        }

        // Look back at the epoch.
        state.progress.end_epoch();
        recorder.metric("epoch_loss", state.progress.step, state.progress.train_loss)?;
        let loss = validation_loss(&model, &device, &objective, &validation)?;
        let last = epoch + 1 == spec.epochs;
        after = match needs_measuring || last {
            true => watch.measure(&model, if last { "evaluate after" } else { "evaluate" }, recorder)?,
            false => None,
        };
        let go_on = state.observe(&model, loss, after.as_ref(), recorder)?;
        if !last {
            state.save(output.folder(), spec, &model.encoder.parameters, &optimizer)?;
            recorder.send(&crate::event::Event::Checkpoint { step: state.progress.step })?;
            saved = Instant::now();
        }
        if !go_on {
            recorder.info(format!("stopped early after epoch {}", epoch + 1))?;
            break 'epochs;
        }
    }
    drop((gradients, optimizer));

    // Keep the better weights and compare them with the untouched model.
    let mut kept_step = state.progress.step;
    if let Some((_, Some(kept))) =
        state.best.take().filter(|(_, kept)| kept.as_ref().is_some_and(|kept| kept.step != kept_step))
    {
        kept_step = kept.step;
        kept.put_back(&mut model.encoder.parameters);
        after = if kept_step == 0 { before.clone() } else { watch.measure(&model, "evaluate after", recorder)? };
        recorder.info(format!("kept the weights of step {kept_step}, which measured best"))?;
    }
    let compared = match (&data.target, &before, &after) {
        (Some(target), Some(before), Some(after)) => Compared::new(target, before, after)?,
        _ => Compared::nothing(),
    };
    state.progress.evaluate_seconds += watch.seconds;
    let report = Report {
        model: spec.model.clone(),
        data: batcher.dataset().decision.clone(),
        evaluated_on: data.target.as_ref().map(Target::description),
        metrics: compared.metrics,
        queries: compared.queries,
        correlation: compared.correlation,
        verdict: compared.verdict,
        conclusion: compared.conclusion,
        training: state.progress.training(kept_step),
        timing: state.progress.timing(),
        memory: Memory::measure(),
    };
    save(spec, output, &model, model_source.repository(), &report, recorder)?;
    Ok(Outcome::Finished(Box::new(report)))
}

/// The data of a run.
struct Data {
    train: Dataset,
    validation: Option<Dataset>,
    target: Option<Target>,
}

impl Data {
    fn read(spec: &RunSpec, callbacks: &Callbacks, recorder: &mut Recorder<'_>) -> Result<Self> {
        let kind = spec.kind.as_deref().map(str::parse::<Kind>).transpose()?;
        let mut train = read(&spec.train_data, kind)?;
        recorder.info(train.decision.clone())?;
        let mut validation = None;
        if let Some(path) = &spec.eval_data {
            let dataset = read(path, kind.or(Some(train.kind)))?;
            recorder.info(dataset.decision.clone())?;
            validation = Some(dataset);
        } else if spec.val_split > 0.0 {
            let (rest, held_out) = hold_out(&train, spec.val_split, spec.seed)?;
            recorder.info(format!(
                "held out {} of {} examples for validation",
                held_out.examples.len(),
                train.examples.len()
            ))?;
            (train, validation) = (rest, Some(held_out));
        }
        let retrieval = |query: &PathBuf, index: Option<&PathBuf>| -> Result<Target> {
            Ok(Target::Retrieval(read_retrieval(query, index.map(PathBuf::as_path), kind)?))
        };
        let target = match (&spec.query_data, callbacks.evaluation_data(), &validation) {
            (Some(queries), _, _) => Some(retrieval(queries, spec.index_data.as_ref())?),
            (None, Some((queries, index)), _) => Some(retrieval(queries, index)?),
            (None, None, Some(dataset)) => Target::of(dataset)?,
            (None, None, None) => None,
        };
        if let Some(target) = &target {
            recorder.info(format!("measured on: {}", target.description()))?;
        }
        Ok(Data { train, validation, target })
    }
}

/// Measures the model, with progress and time.
struct Watch<'a> {
    device: &'a dyn Device,
    target: Option<&'a Target>,
    seconds: f64,
}

impl Watch<'_> {
    fn measure(&mut self, model: &TextModel, phase: &str, recorder: &mut Recorder<'_>) -> Result<Option<Measurement>> {
        let Some(target) = self.target else { return Ok(None) };
        let started = Instant::now();
        let total = target.texts();
        let measurement = target.measure(model, self.device, K, |done| recorder.progress(phase, done, total, None))?;
        self.seconds += started.elapsed().as_secs_f64();
        Ok(Some(measurement))
    }
}

impl State {
    /// Takes note of what was measured after an epoch (or before the first); `false` ends the run early.
    fn observe(
        &mut self,
        model: &TextModel,
        validation_loss: Option<f64>,
        measurement: Option<&Measurement>,
        recorder: &mut Recorder<'_>,
    ) -> Result<bool> {
        let step = self.progress.step;
        let mut values = measurement.map(Measurement::values).unwrap_or_default();
        if let Some(loss) = validation_loss {
            self.progress.validation_loss = Some(loss);
            values.push(("val_loss".into(), loss));
        }
        for (name, value) in &values {
            recorder.metric(name.clone(), step, *value)?;
        }
        if step > 0 {
            values.push(("train_loss".into(), self.progress.train_loss));
        }
        if let Some((best, kept)) = &mut self.best
            && best.observe_named(&values)?
        {
            *kept = Some(Kept::of(&model.encoder.parameters, step));
        }
        match &mut self.early_stopping {
            Some(early) if step > 0 => early.observe_named(&values),
            _ => Ok(true),
        }
    }
}

impl Progress {
    fn count(&mut self, batch: &Batch, loss: f64, elapsed: Duration) {
        self.step += 1;
        self.batch += 1;
        self.examples += batch.examples;
        self.tokens += batch.tokens;
        self.truncated += batch.truncated;
        self.loss_sum += loss;
        self.train_seconds += elapsed.as_secs_f64();
    }

    fn end_epoch(&mut self) {
        self.train_loss = self.loss_sum / self.batch.max(1) as f64;
        self.epoch += 1;
        (self.batch, self.loss_sum) = (0, 0.0);
    }

    fn training(&self, kept_step: usize) -> Training {
        Training {
            steps: self.step,
            epochs: self.epoch,
            examples: self.examples,
            tokens: self.tokens,
            truncated: self.truncated,
            train_loss: self.train_loss,
            validation_loss: self.validation_loss,
            kept_step,
        }
    }

    fn timing(&self) -> Timing {
        let seconds = self.train_seconds.max(1e-9);
        Timing {
            train_seconds: self.train_seconds,
            evaluate_seconds: self.evaluate_seconds,
            examples_per_second: self.examples as f64 / seconds,
            tokens_per_second: self.tokens as f64 / seconds,
        }
    }
}

fn model_options(spec: &RunSpec) -> Result<ModelOptions> {
    let pooling = spec.pooling.as_deref().map(crate::artifact::PoolingMode::from_name);
    let pooling = pooling.transpose().map_err(|problem| Error::spec("pooling", problem))?;
    let encoder =
        EncoderOptions { pooling, output_dim: spec.output_dim, random: spec.init == "random", seed: spec.seed };
    Ok(ModelOptions {
        encoder,
        max_length: spec.max_length,
        query_prompt: spec.query_prompt.clone(),
        document_prompt: spec.document_prompt.clone(),
    })
}

/// `auto` is the class sampler where a loss compares items of a class, and the data says which class each item is of;
/// pairs bring their positive along, so they are shuffled.
fn sampler(spec: &RunSpec, objective: &Objective, kind: Kind) -> Sampler {
    let classes = match spec.sampler.as_str() {
        "class" => true,
        "random" => false,
        _ => kind == Kind::Labelled && objective.sampler() == objective::Sampler::Class,
    };
    match classes {
        true => Sampler::Class { items_per_class: spec.num_items_per_class },
        false => Sampler::Random { drop_last: false },
    }
}

/// The monitor that `keep` and `BestModelCheckpoint` ask for. Without either, the best of what was measured is kept.
fn best_monitor(
    spec: &RunSpec,
    callbacks: &Callbacks,
    has_validation: bool,
    before: Option<&Measurement>,
) -> Option<Best> {
    if spec.keep.as_deref() == Some("last") {
        return None;
    }
    if let Some(best) = callbacks.best() {
        return Some(best);
    }
    match before {
        Some(measurement) => Some(Best::new(measurement.main().0)),
        None if has_validation => Some(Best::new("val_loss")),
        None => None,
    }
}

/// The validation set in batches that are the same every time.
fn validation_batches(
    spec: &RunSpec,
    objective: &Objective,
    dataset: Dataset,
    model: &TextModel,
) -> Result<Vec<Batch>> {
    check_kind(&spec.loss, objective.needs(), dataset.kind)?;
    let batcher = Batcher::new(Arc::new(dataset), model, spec.micro_batch_tokens);
    let sampler = sampler(spec, objective, batcher.dataset().kind);
    let order = Order::new(sampler, &batcher.labels(), spec.batch_size, spec.seed);
    order.batches(0).iter().map(|examples| batcher.batch(examples)).collect()
}

/// The mean loss over all validation examples, without dropout.
fn validation_loss(
    model: &TextModel,
    device: &dyn Device,
    objective: &Objective,
    batches: &[Batch],
) -> Result<Option<f64>> {
    let (mut sum, mut examples) = (0.0, 0);
    for batch in batches {
        sum += step::loss(&model.encoder, device, objective, batch)? * batch.examples as f64;
        examples += batch.examples;
    }
    Ok((examples > 0).then(|| sum / examples as f64))
}

/// Writes the artifact: the model, its card, the report and the events.
fn save(
    spec: &RunSpec,
    output: &Output,
    model: &TextModel,
    repository: Option<&str>,
    report: &Report,
    recorder: &mut Recorder<'_>,
) -> Result<()> {
    let spec_json = serde_json::to_value(spec).unwrap_or_default();
    let report_json = serde_json::to_value(report).unwrap_or_default();
    let mut writer = ArtifactWriter::new(output)?;
    model.save(&mut writer)?;
    writer.json("report.json", &report_json)?;
    let record = RunRecord {
        name: output.folder().file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned()),
        base_model: spec.model.clone(),
        base_model_id: repository.map(str::to_owned),
        base_licence: None,
        dimension: model.encoder.dimension(),
        max_length: model.tokenizer.max_length(),
        pooling: model.encoder.layout().pooling.name().to_owned(),
        normalised: model.encoder.layout().steps.contains(&crate::artifact::Step::Normalise),
        data: vec![report.data.clone()],
        spec: spec_json.clone(),
        report: report_json,
        versions: vec![("finetuner".into(), env!("CARGO_PKG_VERSION").into())],
    };
    writer.bytes("README.md", record.card().as_bytes())?;
    recorder.state("finished")?;
    writer.bytes("events.jsonl", &recorder.contents()?)?;
    writer.finish(&spec_json, Default::default())?;
    let checkpoint = output.folder().join(state::FILE);
    if checkpoint.exists() {
        std::fs::remove_file(&checkpoint).map_err(Error::io("remove", &checkpoint))?;
    }
    Ok(())
}

/// Reads what `evaluate` measures: retrieval data with an optional index, or scored pairs.
///
/// # Errors
/// As [`read`] and [`read_retrieval`].
pub fn read_target(data: &std::path::Path, index: Option<&std::path::Path>, kind: Option<Kind>) -> Result<Target> {
    if kind == Some(Kind::Scored) {
        return Ok(Target::Scored(read(data, kind)?));
    }
    let set: Result<RetrievalSet> = read_retrieval(data, index, kind);
    match (set, kind) {
        (Ok(set), _) => Ok(Target::Retrieval(set)),
        (Err(error), None) => match read(data, None) {
            Ok(dataset) if dataset.kind == Kind::Scored => Ok(Target::Scored(dataset)),
            _ => Err(error),
        },
        (Err(error), _) => Err(error),
    }
}
