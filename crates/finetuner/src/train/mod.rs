//! The loop: evaluate, step, validate, save, stop, report.

mod adapt;
mod advise;
mod batch;
mod budget;
mod callbacks;
mod canary;
mod check;
mod clock;
mod course;
mod data;
mod epochs;
mod estimate;
mod finish;
mod follow;
mod guide;
mod held_out;
mod inspection;
mod interpolate;
mod learner;
mod loggers;
mod measure;
mod names;
mod page;
mod prepare;
mod product_rate;
mod progress;
mod ranks;
mod recorder;
mod report;
mod rerank;
mod state;
mod step;
mod suggest;
mod survey;
mod trial;
mod views;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use engine::Device;
use sha2::{Digest, Sha256};

use self::advise::Part;
pub use self::advise::{Advice, Change, ShareResult};
use self::callbacks::Callbacks;
use self::canary::Canary;
pub use self::canary::Forgetting;
pub use self::check::{Check, check};
use self::clock::{Clock, taken};
pub use self::data::{read_target, read_vector_target};
use self::epochs::Epochs;
use self::finish::{Trained, finish};
use self::follow::follow;
pub use self::measure::{Measurement, Target};
pub use self::names::check_names;
pub use self::page::Cell;
use self::prepare::Prepared;
use self::progress::Progress;
use self::ranks::{Order, Ranks};
use self::recorder::Recorder;
pub use self::report::{Further, Report, Skipped};
use self::state::State;
pub use self::suggest::{Effort, Goal, ModelChoice, Suggestion};
pub use self::survey::{Row, Survey, survey};
pub use self::trial::{Found, Match, Sought, Trial};
use self::watch::{Due, best_monitor};
use crate::artifact::Output;
use crate::data::Modality;
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::mesh::{Mesh, Rendezvous, Share};
use crate::spec::RunSpec;

/// Batches prepared ahead of the step.
const AHEAD: usize = 2;

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
/// A device such as `cuda:0,1` makes a rank for each GPU. Every batch is shared among the ranks, and the model that comes of it is
/// the one that a single device would make of the whole batch, but for rounding.
///
/// # Errors
/// Everything that [`crate::Error`] lists; nothing half-written stays in the output folder.
pub fn train(spec: &RunSpec, sink: &mut dyn Sink, stop: &AtomicBool) -> Result<Outcome> {
    let spec = &checked(spec)?;
    on_devices(crate::device::open_all(&spec.device, &spec.precision, 0)?, spec, sink, stop)
}

/// The same as one of several processes, which share every batch; `None` for any but the first, which alone measures, tells and
/// writes.
///
/// # Errors
/// As [`train`]; [`Error::Rank`] where another one is not there, fails or is lost.
pub fn train_together(
    rendezvous: &Rendezvous,
    spec: &RunSpec,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<Option<Outcome>> {
    let spec = &checked(spec)?;
    check_ranks(spec)?;
    let mut devices = crate::device::open_all(&spec.device, &spec.precision, rendezvous.local().rank)?;
    let device = devices.swap_remove(0);
    if !devices.is_empty() {
        let problem = format!("expected one for each of the processes that `WORLD_SIZE` counts, got `{}`", spec.device);
        return Err(Error::spec("device", problem));
    }
    let settings = format!("{} {}", env!("CARGO_PKG_VERSION"), state::fixed_fields(spec));
    let ranks = Ranks::new(rendezvous.meet(Sha256::digest(settings).into())?);
    let pool = shared_pool(spec.threads, rendezvous.local().size)?;
    pool.install(|| match ranks.leads() {
        true => lead(spec, Some(ranks), &*device, sink, stop).map(Some),
        false => follow(spec, ranks, &*device, stop).map(|()| None),
    })
}

/// The same on these devices, one or more: a rank for each, in a thread of its own.
///
/// # Errors
/// As [`train`].
pub fn train_on(
    devices: Vec<Box<dyn Device>>,
    spec: &RunSpec,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<Outcome> {
    on_devices(devices, &checked(spec)?, sink, stop)
}

/// What is asked for, its preset filled in, where it makes sense.
fn checked(spec: &RunSpec) -> Result<RunSpec> {
    let spec = spec.with_preset()?;
    spec.check()?;
    Ok(spec)
}

fn on_devices(
    devices: Vec<Box<dyn Device>>,
    spec: &RunSpec,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let pools = devices.iter().map(|_| shared_pool(spec.threads, devices.len())).collect::<Result<Vec<_>>>()?;
    let mut ranks: Vec<_> = devices.iter().zip(pools).collect();
    let (first, pool) = match ranks.len() {
        0 => return Err(Error::spec("device", "expected one or more, got none")),
        1 => return ranks[0].1.install(|| lead(spec, None, &**ranks[0].0, sink, stop)),
        _ => ranks.remove(0),
    };
    check_ranks(spec)?;
    let mut meshes = Mesh::of_threads(devices.len())?.into_iter().map(Ranks::new);
    let leader = meshes.next();
    std::thread::scope(|scope| {
        let followers = meshes
            .zip(&ranks)
            .map(|(mesh, (device, pool))| scope.spawn(move || pool.install(|| follow(spec, mesh, &***device, stop))));
        let followers: Vec<_> = followers.collect();
        let led = pool.install(|| lead(spec, leader, &**first, sink, stop));
        let followed = followers.into_iter().map(|follower| match follower.join() {
            Ok(followed) => followed,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let failures: Vec<Error> = followed.filter_map(std::result::Result::err).collect();
        // Another rank's failure as it was, rather than what the leader was told of it.
        match led {
            Err(Error::Rank { rank, problem }) => {
                let own = failures.into_iter().find(|error| !matches!(error, Error::Rank { .. }));
                Err(own.unwrap_or(Error::Rank { rank, problem }))
            }
            led => led,
        }
    })
}

/// What several ranks cannot do yet.
fn check_ranks(spec: &RunSpec) -> Result<()> {
    match spec.advise {
        true => Err(Error::spec(
            "advise",
            "trains on parts of the data first, which one device does; give one, or leave it out",
        )),
        false => Ok(()),
    }
}

/// A pool of this rank's part of the threads of a machine.
fn shared_pool(threads: Option<usize>, ranks: usize) -> Result<rayon::ThreadPool> {
    let all = threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    thread_pool(if ranks > 1 { all.map(|all| (all / ranks).max(1)) } else { threads })
}

/// A whole run, alone or as the first of several ranks.
fn lead(
    spec: &RunSpec,
    mut ranks: Option<Ranks>,
    device: &dyn Device,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let outcome = recorded(spec, ranks.as_mut(), device, sink, stop);
    if let Some(ranks) = &mut ranks {
        ranks.end(&outcome.as_ref().err().map_or("the run has ended".into(), ToString::to_string));
    }
    outcome
}

/// The same, with its state on record.
fn recorded(
    spec: &RunSpec,
    ranks: Option<&mut Ranks>,
    device: &dyn Device,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let output = Output::claim(&output_folder(spec), spec.resume)?;
    let mut recorder = Recorder::open(&output, sink)?;
    let outcome = match advised(spec, (device, ranks), &output, &mut recorder, stop) {
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

/// The run, after runs on shares of its data where advice is asked for.
fn advised(
    spec: &RunSpec,
    (device, ranks): (&dyn Device, Option<&mut Ranks>),
    output: &Output,
    recorder: &mut Recorder<'_>,
    stop: &AtomicBool,
) -> Result<Outcome> {
    recorder.state("started")?;
    spec.preset_sentences().into_iter().try_for_each(|sentence| recorder.info(sentence))?;
    let mut parts = Vec::new();
    for share in advise::SHARES.into_iter().filter(|_| spec.advise) {
        recorder.info(format!("advice: a run on {:.0} % of the training data", 100.0 * share))?;
        let scratch = output.scratch()?;
        let part = RunSpec {
            output: Some(scratch.path().to_owned()),
            callbacks: Callbacks::without_loggers(&spec.callbacks),
            resume: false,
            canary: false,
            ..spec.clone()
        };
        let claimed = Output::claim(scratch.path(), false)?;
        let mut silent = |_: &Event| {};
        let mut unheard = Recorder::open(&claimed, &mut silent)?;
        match run(&part, Scope { share, parts: &[] }, (device, None), &claimed, &mut unheard, stop)? {
            Ended::Finished(_, part) => parts.extend(part),
            Ended::Stopped { .. } => return Err(Error::Stopped),
        }
    }
    match run(spec, Scope { share: 1.0, parts: &parts }, (device, ranks), output, recorder, stop)? {
        Ended::Finished(report, _) => Ok(Outcome::Finished(report)),
        Ended::Stopped { step } => Ok(Outcome::Stopped { step }),
    }
}

/// How much of the training data a run sees, and what runs on less of it came to.
#[derive(Clone, Copy)]
struct Scope<'a> {
    share: f64,
    parts: &'a [Part],
}

/// How one run ended; a part where advice is asked for.
enum Ended {
    Finished(Box<Report>, Option<Part>),
    Stopped { step: usize },
}

/// One run: measure, train, measure again, save.
fn run(
    spec: &RunSpec,
    scope: Scope<'_>,
    (device, mut ranks): (&dyn Device, Option<&mut Ranks>),
    output: &Output,
    recorder: &mut Recorder<'_>,
    stop: &AtomicBool,
) -> Result<Ended> {
    let clock = Clock::start(spec)?;

    // What learns, from what, towards what?
    let rank = ranks.as_deref().map_or(Share::WHOLE, Ranks::share);
    let mut prepared = Prepared::new(spec, (scope.share, rank), output, (device, stop), recorder)?;
    let Prepared { spec, callbacks, learner, course, total_steps, guide, watch, .. } = &mut prepared;
    let (spec, total_steps) = (&*spec, *total_steps);

    // All ranks have read the same and begin with the same weights.
    if let Some(ranks) = ranks.as_deref_mut() {
        let remark = ranks.begin(learner, device, (course, watch, guide.as_ref()))?;
        recorder.info(format!("{} ranks share every batch", rank.size))?;
        remark.map(|remark| recorder.warn(remark)).transpose()?;
    }

    // The untouched model is measured first, also when a run goes on: the report compares with it.
    let before = watch.measure(&learner.model, ("evaluate before", Due::All), ranks.as_deref_mut(), recorder)?;
    if spec.advise {
        advise::retrieval(before.first().and_then(Option::as_ref))?;
    }
    let measurement = watch.seconds;
    let reads_texts = learner.model.encoder.tower(Modality::Text).is_ok();
    let canary = (spec.canary && reads_texts && spec.init != "random")
        .then(|| Canary::new(&learner.model, device))
        .transpose()?;
    let mut state = State {
        progress: Progress::default(),
        best: best_monitor(spec, callbacks, watch).map(|best| (best, None)),
        early_stopping: callbacks.early_stopping(),
    };
    if spec.resume {
        state.restore(output.folder(), spec, learner)?;
        if let Some(ranks) = ranks.as_deref_mut() {
            ranks.order(Order::TakeOver)?;
            ranks.take_over(learner)?;
        }
        recorder.info(format!("resumed at step {} of {total_steps}", state.progress.step))?;
    } else {
        let loss = watch.validation_loss(learner, ranks.as_deref_mut())?;
        watch.tell(&mut state, &learner.model, (loss, &before), false, recorder)?;
    }
    let left = total_steps - state.progress.step.min(total_steps);
    let estimated = estimate::estimate(spec, device, (learner, course), left)?;
    estimated.map(|sentence| recorder.info(sentence)).transpose()?;

    // Train.
    let mut epochs = Epochs {
        clock: clock.leaving(taken(&state.progress), measurement),
        prepared: &mut prepared,
        state: &mut state,
        ranks: ranks.as_deref_mut(),
        output,
        recorder,
        saved: Instant::now(),
        looked: Instant::now(),
    };
    let looks = match epochs.run() {
        Err(Error::Stopped) => return state.stop(output, &prepared.spec, &prepared.learner, recorder),
        looks => looks?,
    };
    if let Some(ranks) = ranks {
        ranks.end("the last step is taken");
    }
    if state.progress.busy.0 == 0 {
        state.progress.look(device.busy());
    }
    finish(prepared, Trained { before, looks, canary }, state, scope, output, recorder)
}
