//! Views of items alone: a text under two dropout masks, a picture in two random parts.

use super::data::Data;
use super::recorder::Recorder;
use crate::data::{Dataset, Kind, Modality};
use crate::encoder::Model;
use crate::error::{Error, Result, nearest};
use crate::objective::{Needs, Objective};
use crate::pixels::Augmentation;
use crate::spec::RunSpec;

/// The names of `augment`.
const NAMES: [&str; 4] = ["auto", "none", "simclr", "supervised"];

/// Lets the model draw random views of the training pictures, as `augment` says. `auto`: of pictures alone SimCLR's (Chen et
/// al. 2020), else none.
///
/// # Errors
/// [`Error::Spec`] for another name, or where there are no pictures.
pub(super) fn augment(spec: &RunSpec, data: &Data, model: &mut Model, recorder: &mut Recorder<'_>) -> Result<()> {
    let pictures: Vec<&Dataset> =
        data.sets.iter().map(|set| &set.train).filter(|train| train.items.has(Modality::Image)).collect();
    let alone = pictures.iter().any(|train| train.kind == Kind::Single);
    let augmentation = match spec.augment.as_str() {
        "auto" if alone => Augmentation::default(),
        "auto" | "none" => return Ok(()),
        "simclr" => Augmentation::default(),
        "supervised" => Augmentation::supervised(),
        other => return Err(Error::spec("augment", format!("unknown `{other}`{}", nearest(other, NAMES)))),
    };
    if pictures.is_empty() {
        return Err(Error::spec("augment", "the training data holds no pictures; leave it out"));
    }
    recorder.info("training pictures are seen in random views")?;
    model.preprocessor.augment(augmentation)
}

/// Refuses views that would all be the same.
///
/// # Errors
/// [`Error::Spec`] for texts alone and a model without dropout, or pictures alone without random views.
pub(super) fn check(spec: &RunSpec, objective: &Objective, dataset: &Dataset, model: &Model) -> Result<()> {
    if dataset.kind != Kind::Single || objective.needs() == Needs::Guide || objective.needs_twin() {
        return Ok(());
    }
    if dataset.items.has(Modality::Text) && model.encoder.tower(Modality::Text)?.backbone().dropout() == 0.0 {
        let problem = format!(
            "texts alone are learnt from two dropout views of each, but `{}` has no dropout, so that the views would be \
             the same; set `hidden_dropout_prob` in its config.json, as to 0.1",
            spec.model
        );
        return Err(Error::spec("model", problem));
    }
    if dataset.items.has(Modality::Vector) {
        let problem = "vectors alone have no views to learn from; give pairs, triplets or labels";
        return Err(Error::spec("train_data", problem));
    }
    if dataset.items.has(Modality::Image) && model.preprocessor.pictures()?.augmentation().is_none() {
        let problem = "pictures alone are learnt from two random views of each; take `auto` or `simclr`";
        return Err(Error::spec("augment", problem));
    }
    Ok(())
}
