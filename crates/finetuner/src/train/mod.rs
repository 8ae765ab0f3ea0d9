//! The loop: evaluate, step, validate, save, stop, report.

mod adapt;
mod batch;
mod callbacks;
mod data;
mod guide;
mod learner;
mod measure;
mod progress;
mod recorder;
mod report;
mod state;
mod step;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::random::Key;
use engine::{Cpu, Device};

use self::batch::{Batcher, check_data};
use self::callbacks::Callbacks;
pub use self::data::read_target;
use self::data::{Data, check_views, decided_loss, training_order, validation_batches};
use self::guide::Guide;
use self::learner::Learner;
pub use self::measure::{Measurement, Target};
use self::progress::Progress;
use self::recorder::Recorder;
use self::report::Memory;
pub use self::report::Report;
use self::state::{Kept, State};
use self::watch::{Heard, Watch, best_monitor};
use crate::artifact::{AdapterRecord, ArtifactWriter, Output, RunRecord};
use crate::encoder::{EncoderOptions, ModelOptions, TextModel, source};
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::objective::{Objective, Sizes};
use crate::optim::Schedule;
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
    /// It was told to stop.
    Stopped {
        /// Optimiser steps in the checkpoint in the output folder; 0 before the first one, when there is none yet.
        step: usize,
    },
}

/// Trains a model as `spec` says, telling `sink` everything; `stop` ends the run with a checkpoint after the current
/// step, or within a measurement.
///
/// # Errors
/// Everything that [`crate::Error`] lists; nothing half-written stays in the output folder.
pub fn train(spec: &RunSpec, sink: &mut dyn Sink, stop: &AtomicBool) -> Result<Outcome> {
    spec.check()?;
    let pool = thread_pool(spec.threads)?;
    let run = || {
        let output = Output::claim(&output_folder(spec), spec.resume)?;
        let mut recorder = Recorder::open(&output, sink)?;
        let outcome = match run(spec, &output, &mut recorder, stop) {
            // Before the first step there is nothing to save; a run that goes on has the checkpoint it had.
            Err(Error::Stopped) => Ok(Outcome::Stopped { step: State::stored_step(output.folder())? }),
            outcome => outcome,
        };
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
    let callbacks = Callbacks::parse(&spec.callbacks, &spec.model)?;
    let data = Data::read(spec, &callbacks, recorder)?;
    let spec = &decided_loss(spec, data.train.kind, recorder)?;
    let mut objective = Objective::new(&spec.loss, &spec.loss_options, spec.miner.as_deref(), &spec.miner_options)?;
    check_data(&spec.loss, objective.needs(), &data.train)?;
    let model_source = source::resolve(&spec.model)?;
    let mut model = TextModel::open(model_source.open()?, &model_options(spec)?)?;
    let adapter = adapt::adapt(spec, &model_source, &mut model, recorder)?;
    check_views(spec, &objective, data.train.kind, &model)?;
    let guide = Guide::open(spec, &objective)?;
    objective.prepare(Sizes { dimension: model.encoder.dimension(), classes: data.train.classes() }, spec.seed)?;
    recorder.info(format!(
        "model: `{}`, {} layers of {}, embeddings of {}, texts cut at {} tokens, on {}",
        spec.model,
        model.encoder.config().layers,
        model.encoder.config().hidden,
        model.encoder.dimension(),
        model.tokenizer.max_length(),
        device.name(),
    ))?;

    let batcher = Batcher::new(Arc::new(data.train), objective.needs(), &model, spec.micro_batch_tokens);
    let batcher = batcher.guided_by(guide.as_ref());
    let order = training_order(spec, &objective, &batcher, recorder)?;
    let total_steps: usize = (0..spec.epochs as u64).map(|epoch| order.batches(epoch).len()).sum();
    let schedule = Schedule::new(spec.scheduler.as_deref(), &spec.scheduler_options, spec.warmup, total_steps)?;
    let mut validation = match data.validation {
        Some(dataset) => validation_batches(spec, &objective, dataset, (&model, guide.as_ref()), recorder)?,
        None => Vec::new(),
    };
    if let Some(guide) = &guide {
        validation.iter_mut().try_for_each(|batch| guide.embed(&device, batch))?;
    }
    let mut learner = Learner::new(spec, model, objective)?;
    let evaluation = callbacks.evaluation().cloned().unwrap_or_default();
    let mut watch = Watch {
        device: &device,
        stop,
        target: data.target,
        validation,
        prefix: evaluation.prefix(&spec.model).unwrap_or_default(),
        evaluation,
        seconds: 0.0,
    };

    // The untouched model is measured first, also when a run goes on: the report compares with it.
    let before = watch.measure(&learner.model, "evaluate before", recorder)?;
    let best = best_monitor(spec, &callbacks, !watch.validation.is_empty(), before.as_ref());
    let mut state = State {
        progress: Progress::default(),
        best: best.map(|best| (best, None)),
        early_stopping: callbacks.early_stopping(),
    };
    let by_interval = watch.evaluation.steps_per_interval.is_some();
    let by_epoch =
        !by_interval && (callbacks.monitors_metric() || state.best.as_ref().is_some_and(|(best, _)| best.is_metric()));
    if spec.resume {
        state.restore(output.folder(), spec, &mut learner)?;
        recorder.info(format!("resumed at step {} of {total_steps}", state.progress.step))?;
    } else {
        let loss = watch.validation_loss(&learner)?;
        watch.tell(&mut state, &learner.model, (loss, before.as_ref()), Heard::All, recorder)?;
    }

    // Train.
    let seed = Key::new(spec.seed);
    let mut saved = Instant::now();
    let mut after = None;
    'epochs: while state.progress.epoch < spec.epochs && !state.progress.over {
        let epoch = state.progress.epoch;
        let remaining: Vec<_> = order.batches(epoch as u64).split_off(state.progress.batch);
        let worker = batcher.clone();
        let prepare = move |examples: Vec<u32>| worker.batch(&examples);
        for batch in Prefetch::new(remaining.into_iter().map(prepare), AHEAD) {
            let mut batch = batch?;
            if watch.is_due(&state) {
                after = match watch.measure(&learner.model, "evaluate", recorder) {
                    Err(Error::Stopped) => {
                        return state.stop(output, spec, &learner, recorder);
                    }
                    measured => measured?,
                };
                state.progress.measured = state.progress.step;
                if !watch.tell(&mut state, &learner.model, (None, after.as_ref()), Heard::Metrics, recorder)? {
                    state.progress.end();
                    recorder.info(format!("stopped early after step {}", state.progress.step))?;
                    break 'epochs;
                }
            }

            let started = Instant::now();
            let step = state.progress.step;
            let dropout = seed.part(step as u64);
            if let Some(guide) = &guide {
                guide.embed(&device, &mut batch)?;
            }
            let (loss, rate) = learner.step(&device, &batch, dropout, (step, &schedule))?;
            state.progress.count(&batch, loss, started.elapsed());
            recorder.metric("train_loss", step + 1, loss)?;
            recorder.metric("learning_rate", step + 1, rate)?;
            recorder.progress("train", step + 1, total_steps, Some(format!("loss {loss:.4}")));
            if stop.load(Ordering::Relaxed) {
                return state.stop(output, spec, &learner, recorder);
            }
            if saved.elapsed() > CHECKPOINT_EVERY {
                state.checkpoint(output, spec, &learner, recorder)?;
                saved = Instant::now();
            }
        }

        // Look back at the epoch. A checkpoint of a run that is stopped here is one of the epoch's last step.
        let last = epoch + 1 == spec.epochs;
        let phase = if last { "evaluate after" } else { "evaluate" };
        let looked = watch.validation_loss(&learner).and_then(|loss| {
            let measured = if by_epoch || last { watch.measure(&learner.model, phase, recorder)? } else { None };
            Ok((loss, measured))
        });
        let loss = match looked {
            Err(Error::Stopped) => {
                return state.stop(output, spec, &learner, recorder);
            }
            looked => {
                let (loss, measured) = looked?;
                after = measured;
                loss
            }
        };
        state.progress.end_epoch();
        recorder.metric("epoch_loss", state.progress.step, state.progress.train_loss)?;
        let heard = if by_interval && !last { Heard::Losses } else { Heard::All };
        if !watch.tell(&mut state, &learner.model, (loss, after.as_ref()), heard, recorder)? {
            recorder.info(format!("stopped early after epoch {}", epoch + 1))?;
            state.progress.end();
        }
        if !last {
            state.checkpoint(output, spec, &learner, recorder)?;
            saved = Instant::now();
        }
    }
    learner.free_gradients();

    // Keep the better weights and compare them with the untouched model.
    let trained = Kept::of(&learner.model.encoder.parameters, state.progress.step);
    let mut kept_step = trained.step;
    if let Some((_, Some(kept))) = &state.best
        && kept.step != trained.step
    {
        kept_step = kept.step;
        kept.clone().put_back(&mut learner.model.encoder.parameters);
        after = if kept_step == 0 { before.clone() } else { None };
        recorder.info(format!("keeping the weights of step {kept_step}, which measured best"))?;
    }
    if after.is_none() {
        after = match watch.measure(&learner.model, "evaluate after", recorder) {
            Err(Error::Stopped) => {
                trained.put_back(&mut learner.model.encoder.parameters);
                return state.stop(output, spec, &learner, recorder);
            }
            measured => measured?,
        };
    }
    let compared = watch.compare(before.as_ref(), after.as_ref())?;
    state.progress.evaluate_seconds += watch.seconds;
    let report = Report {
        model: spec.model.clone(),
        data: batcher.dataset().decision.clone(),
        evaluated_on: watch.target.as_ref().map(Target::description),
        metrics: compared.metrics,
        queries: compared.queries,
        correlation: compared.correlation,
        verdict: compared.verdict,
        conclusion: compared.conclusion,
        training: state.progress.training(kept_step),
        timing: state.progress.timing(),
        memory: Memory::measure(),
    };
    if adapter.is_none() {
        learner.model.encoder.merge_lora();
    }
    save(spec, output, &learner.model, (model_source.repository(), adapter.as_ref()), &report, recorder)?;
    Ok(Outcome::Finished(Box::new(report)))
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

/// Writes the artifact: the model, its card, the report and the events.
fn save(
    spec: &RunSpec,
    output: &Output,
    model: &TextModel,
    (repository, adapter): (Option<&str>, Option<&AdapterRecord>),
    report: &Report,
    recorder: &mut Recorder<'_>,
) -> Result<()> {
    let spec_json = serde_json::to_value(spec).unwrap_or_default();
    let report_json = serde_json::to_value(report).unwrap_or_default();
    let mut writer = ArtifactWriter::new(output)?;
    model.save(&mut writer, adapter)?;
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
