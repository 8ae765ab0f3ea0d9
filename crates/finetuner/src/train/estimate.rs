//! What a run will take, told before its first step: tokens, time and memory.

use std::time::Instant;

use engine::{Device, Tape};

use super::course::Course;
use super::learner::Learner;
use crate::encoder::{Encoder, Tower};
use crate::error::Result;
use crate::spec::RunSpec;

/// Batches looked at for the tokens of a step, and the most examples of each.
const BATCHES: usize = 4;
const EXAMPLES: usize = 256;

/// Tokens of the pass that is timed.
const TIMED_TOKENS: usize = 1024;

/// A sentence on tokens, time and memory of the `steps` that are left, from a few of their batches and one timed forward
/// pass of about a thousand tokens.
///
/// A training pass takes about three forward passes, or two where most weights are frozen, and one more where the
/// gradient cache embeds first. Activations are those of the largest micro-batch; see [`Encoder::activation_bytes`]. Gradients and
/// moments are counted for every word, though on the processor those that no batch reads take no memory.
///
/// # Errors
/// As a forward pass of the model.
pub(crate) fn estimate(
    spec: &RunSpec,
    device: &dyn Device,
    (learner, course): (&Learner, &Course),
    steps: usize,
) -> Result<Option<String>> {
    let (mut tokens, mut rows, mut examples, mut whole) = (0, 0, 0, 0);
    let (batches, make) = (course.batches(0), course.worker());
    for (dataset, places, epoch) in batches.iter().take(BATCHES) {
        let batch = make((*dataset, places[..places.len().min(EXAMPLES)].to_vec(), *epoch))?;
        whole += places.len();
        tokens += batch.tokens;
        rows += batch.micro_batches.iter().map(crate::encoder::Input::len).sum::<usize>();
        examples += batch.examples;
    }
    let Some((dataset, first, epoch)) = batches.first().filter(|_| examples > 0 && tokens > 0) else { return Ok(None) };
    let per_step = |count: usize| count as f64 / examples as f64 * whole as f64 / batches.len().min(BATCHES) as f64;
    let (step_tokens, step_rows) = (per_step(tokens), per_step(rows));

    let encoder = &learner.model.encoder;
    let timed = (TIMED_TOKENS * examples / tokens).clamp(1, first.len());
    let timed = make((*dataset, first[..timed].to_vec(), *epoch))?;
    let pass = || -> Result<f64> {
        let started = Instant::now();
        for batch in &timed.micro_batches {
            encoder.forward(&mut Tape::inference(device, &encoder.parameters), batch, None)?;
        }
        device.wait();
        device.check()?;
        Ok(started.elapsed().as_secs_f64())
    };
    if device.memory().is_some() {
        // A GPU's first pass compiles its kernels.
        pass()?;
    }
    let forward = pass()? / timed.tokens.max(1) as f64;

    let sizes = |trained: bool| -> usize {
        let parameters = encoder.parameters.iter().filter(|parameter| parameter.trainable || !trained);
        parameters.map(|parameter| 4 * parameter.value.len()).sum()
    };
    let (weights, trained) = (sizes(false), sizes(true));
    let most = course.budget().of(step_tokens as usize);
    let cached = step_tokens > most as f64;
    let passes = if 2 * trained > weights { 3.0 } else { 2.0 } + f64::from(u8::from(cached));
    let seconds = forward * passes * step_tokens * steps as f64;
    let moments = trained * learner.moments();
    let activations = encoder.activation_bytes(device, (step_tokens as usize).min(most));
    let batch = learner.objective(*dataset).bytes(step_rows as usize, encoder.dimension());
    Ok(Some(format!(
        "a step sees about {step_tokens:.0} tokens of {} examples; {steps} steps take about {}; memory up to about {}: \
         weights {}, gradients {}, {} {}, activations {}",
        first.len(),
        span(seconds),
        bytes(weights + trained + moments + activations + batch),
        bytes(weights),
        bytes(trained),
        spec.optimizer,
        bytes(moments),
        bytes(activations + batch),
    )))
}

impl Encoder {
    /// Bytes that a training pass of so many tokens holds on a device, of the tower that holds most.
    pub(crate) fn activation_bytes(&self, device: &dyn Device, tokens: usize) -> usize {
        let trained = self.parameters.iter().zip(self.depths()).filter(|(parameter, _)| parameter.trainable);
        let lowest = trained.map(|(_, &depth)| depth).min();
        let held = |tower: &Tower| tower.held(lowest.unwrap_or(tower.backbone().layers() + 1));
        device.activation_bytes() * tokens * self.towers().iter().map(held).max().unwrap_or_default()
    }
}

/// `45 s`, `12 min`, `3.5 h`
pub(crate) fn span(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 99.5 => format!("{seconds:.0} s"),
        seconds if seconds < 5970.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

fn bytes(bytes: usize) -> String {
    match bytes as f64 / 1e6 {
        megabytes if megabytes < 999.5 => format!("{megabytes:.0} MB"),
        megabytes => format!("{:.1} GB", megabytes / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_rounded_for_people() {
        assert_eq!([0.4, 99.0, 100.0, 5400.0, 7200.0].map(span), ["0 s", "99 s", "2 min", "90 min", "2.0 h"]);
        assert_eq!([1, 91_000_000, 1_900_000_000].map(bytes), ["0 MB", "91 MB", "1.9 GB"]);
    }
}
