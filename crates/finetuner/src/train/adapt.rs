//! Which weights learn: adapters beside frozen ones (`lora`), what `freeze` names, and whether anything is left.

use super::recorder::Recorder;
use crate::artifact::AdapterRecord;
use crate::encoder::source::ModelSource;
use crate::encoder::{LoraOptions, Model, Save};
use crate::error::{Error, Result};
use crate::spec::RunSpec;

/// Puts adapters beside the weights and freezes what is to stay. Gives what the adapter's configuration will say, where
/// the artifact is to hold the adapters alone.
///
/// # Errors
/// [`Error::Spec`] as [`LoraOptions::read`], [`crate::encoder::Encoder::add_lora`] and
/// [`crate::encoder::Encoder::freeze`]; and for adapters that nobody could put back on their base.
pub(crate) fn adapt(
    spec: &RunSpec,
    source: &ModelSource,
    model: &mut Model,
    recorder: &mut Recorder<'_>,
) -> Result<Option<AdapterRecord>> {
    let lora = LoraOptions::read(&spec.lora)?;
    if let Some(options) = &lora {
        model.encoder.add_lora(options, spec.seed)?;
    }
    if let Some(what) = &spec.freeze {
        model.encoder.freeze(what)?;
    }
    let Some(options) = lora else { return Ok(None) };
    let count = |trained: bool| -> usize {
        let parameters = model.encoder.parameters.iter().filter(|parameter| parameter.trainable || !trained);
        parameters.map(|parameter| parameter.value.len()).sum()
    };
    let (trained, all) = (count(true), count(false));
    recorder.info(format!(
        "LoRA of rank {} on `{}`: {trained} of {all} parameters learn ({:.2} %)",
        options.rank,
        model.encoder.adapted_modules().join("`, `"),
        100.0 * trained as f64 / all as f64,
    ))?;
    if options.save == Save::Merged {
        return Ok(None);
    }
    let refuse = |problem: &str| Err(Error::spec("lora", format!("`save=adapter`: {problem}")));
    if spec.init == "random" || model.folder.untrained {
        return refuse("the base's random weights would be lost; leave out `init`, or save the whole model");
    }
    if model.folder.pictures.is_some() {
        return refuse("a joined pair has two bases and a new projection; save the whole model");
    }
    if !model.folder.adapters.is_empty() {
        return refuse("the base is an adapter itself; save the whole model, or start from one");
    }
    let (base, revision) = match source {
        ModelSource::Hub { repository, commit, .. } => (repository.clone(), Some(commit.clone())),
        ModelSource::Mini | ModelSource::Mlp => (spec.model.clone(), None),
        ModelSource::Folder(folder) | ModelSource::Artifact(folder) => {
            let whole = std::fs::canonicalize(folder).map_err(Error::io("read", folder))?;
            (whole.display().to_string(), None)
        }
    };
    let LoraOptions { rank, alpha, dropout, .. } = options;
    Ok(Some(AdapterRecord { base, revision, rank, alpha, dropout, targets: model.encoder.adapted_modules() }))
}
