//! A rank that follows another: it takes part in the steps of the loop of rank 0, and decides nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use engine::Device;
use engine::random::Key;

use super::AHEAD;
use super::batch::Batch;
use super::callbacks::Callbacks;
use super::prepare::Prepared;
use super::ranks::{Order, Ranks, Turn};
use super::recorder::Recorder;
use crate::artifact::Output;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::spec::RunSpec;
use crate::tokens::Prefetch;

/// Learns from and embeds whatever rank 0 orders, until that ends. It judges, saves and tells nothing: what it is asked to write
/// goes to a folder that is removed. A stop is passed on to rank 0.
///
/// # Errors
/// As a run's; rank 0 is told.
pub(super) fn follow(spec: &RunSpec, mut ranks: Ranks, device: &dyn Device, stop: &AtomicBool) -> Result<()> {
    let followed = learn(spec, &mut ranks, device, stop);
    ranks.end(&followed.as_ref().err().map_or("ended".into(), ToString::to_string));
    followed
}

fn learn(spec: &RunSpec, ranks: &mut Ranks, device: &dyn Device, stop: &AtomicBool) -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let output = Output::claim(folder.path(), false)?;
    let mut silent = |_: &Event| {};
    let mut recorder = Recorder::open(&output, &mut silent)?;
    let spec = &RunSpec { callbacks: Callbacks::without_loggers(&spec.callbacks), resume: false, ..spec.clone() };
    let prepared = Prepared::new(spec, (1.0, ranks.share()), &output, (device, stop), &mut recorder)?;
    let Prepared { spec, mut learner, course, schedule, guide, watch, .. } = prepared;
    ranks.begin(&mut learner, device, (&course, &watch, guide.as_ref()))?;

    let seed = Key::new(spec.seed);
    let columns = watch.columns();
    let mut ahead: Option<(Turn, Prefetch<Result<Batch>>)> = None;
    while let Some(order) = ranks.next()? {
        if stop.load(Ordering::Relaxed) {
            ranks.ask_to_stop();
        }
        match order {
            Order::TakeOver => ranks.take_over(&mut learner)?,
            Order::Embed(stretch) => drop(watch.embed_together(&learner.model, &columns, stretch, ranks)?),
            Order::Validate(first) => drop(watch.losses_together(&learner, first, ranks)?),
            Order::Learn(turn) => {
                // Batches are made in the order of the epoch, until rank 0 wants another one than the next.
                let mut batches = match ahead.take() {
                    Some((expected, batches)) if (expected.epoch, expected.batch) == (turn.epoch, turn.batch) => {
                        batches
                    }
                    _ => {
                        let left = course.batches(turn.epoch).into_iter().skip(turn.batch);
                        Prefetch::new(left.map(course.worker()), AHEAD)
                    }
                };
                let none = || Err(Error::rank(0, "orders a batch that there is none: a bug"));
                let batch = batches.next().unwrap_or_else(none);
                // The others are at their embeddings, where they hear of it.
                let mut batch = batch.or_else(|error| ranks.agree(Err(error)))?;
                let dropout = seed.part(turn.step as u64);
                learner.complete(&mut batch, guide.as_ref(), device, dropout, Some(&mut *ranks))?;
                match learner.step(device, &batch, dropout, (turn.step, &schedule), Some(&mut *ranks)) {
                    Ok(_) => ahead = Some((Turn { batch: turn.batch + 1, ..turn }, batches)),
                    // Rank 0 orders the batch once more, in smaller parts.
                    Err(Error::Engine(engine::Error::OutOfMemory { .. })) => drop(course.budget().shrink(&batch)),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}
