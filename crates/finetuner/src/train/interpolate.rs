//! `WiSEFTCallback` and `keep = interpolate`: the trained weights mixed with the pretrained ones, once, after training
//! (Wortsman et al. 2022, arXiv 2109.01903).

use super::callbacks::{Alpha, Best, Callbacks};
use super::learner::Learner;
use super::recorder::Recorder;
use super::state::Kept;
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::spec::RunSpec;

/// The mixture that a run ends with.
#[derive(Debug)]
pub(crate) struct Interpolation {
    share: Share,
    /// The pretrained weights.
    start: Kept,
}

/// The share of the trained weights.
#[derive(Debug)]
enum Share {
    Fixed(f64),
    /// The one that this monitor finds best.
    Best(Best),
}

impl Interpolation {
    /// What the spec asks for; `None` where nothing is mixed. The learner must still be as it was opened.
    ///
    /// `auto` is decided by what `BestModelCheckpoint` monitors, else on the validation data: by the main metric where
    /// that is what the run measures, by the validation loss where the run measures something else. Without validation
    /// data the main metric of what the run measures decides, and a warning says so.
    ///
    /// # Errors
    /// [`Error::Spec`] where there is nothing to mix with, or nothing to decide by.
    pub(crate) fn plan(
        spec: &RunSpec,
        callbacks: &Callbacks,
        watch: &Watch<'_>,
        learner: &Learner,
        recorder: &mut Recorder<'_>,
    ) -> Result<Option<Self>> {
        let (field, alpha) = match (callbacks.interpolation(), spec.keep.as_deref()) {
            (Some(alpha), _) => ("callbacks", alpha),
            (None, Some("interpolate")) => ("keep", Alpha::Auto),
            (None, _) => return Ok(None),
        };
        if spec.init != "pretrained" {
            let problem = "mixes the trained weights with the pretrained ones, which `init` leaves out";
            return Err(Error::spec(field, problem));
        }
        let share = match alpha {
            Alpha::Fixed(alpha) => Share::Fixed(alpha),
            Alpha::Auto => {
                let others = spec.query_data.is_some() || callbacks.evaluations().next().is_some();
                let monitor = callbacks.best().or_else(|| match others && !watch.validation.is_empty() {
                    true => Some(Best::new("val_loss")),
                    false => watch.main_monitor(),
                });
                let problem = "picks its alpha on validation data; give `eval_data` or `val_split`";
                let monitor = monitor.ok_or_else(|| Error::spec(field, problem))?;
                if watch.validation.is_empty() {
                    recorder.warn(
                        "alpha is picked on the data that the report measures, which flatters it; give `eval_data` or \
                         `val_split` to pick it on other data",
                    )?;
                }
                Share::Best(monitor)
            }
        };
        Ok(Some(Interpolation { share, start: Kept::of(&learner.model.encoder.parameters, 0) }))
    }

    /// Mixes the model's weights, and gives the share of the trained ones. Of several equally good shares the smallest
    /// is taken, which forgets least.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was told to stop; the weights are some mixture then.
    pub(crate) fn run(&self, learner: &mut Learner, watch: &mut Watch<'_>, recorder: &mut Recorder<'_>) -> Result<f64> {
        let end = Kept::of(&learner.model.encoder.parameters, 0);
        let mix = |learner: &mut Learner, alpha| {
            learner.model.encoder.interpolate(&self.start.weights, &end.weights, alpha);
        };
        let (alpha, why) = match &self.share {
            Share::Fixed(alpha) => (*alpha, String::new()),
            Share::Best(monitor) => {
                let (mut best, mut chosen) = (monitor.clone(), 0.0);
                for tenths in 0..=10 {
                    let alpha = f64::from(tenths) / 10.0;
                    mix(learner, alpha);
                    if best.observe_named(&watch.look(learner, best.is_metric(), recorder)?) {
                        chosen = alpha;
                    }
                }
                let value = best.value().unwrap_or(f64::NAN);
                (chosen, format!(", which has the best {} of 0, 0.1 … 1 ({value:.4})", best.name()))
            }
        };
        mix(learner, alpha);
        recorder.info(format!(
            "mixed the weights: {alpha} of the trained ones and {:.1} of the pretrained ones{why}",
            1.0 - alpha
        ))?;
        Ok(alpha)
    }
}
