//! What a run leaves: the better weights, what they came to, the artifact.

use super::advise::{self, Advice, Part};
use super::canary::Canary;
use super::epochs::Looks;
use super::measure::{Measurement, Target};
use super::page::{Sample, page, samples};
use super::prepare::Prepared;
use super::product_rate::product_rate;
use super::progress::Progress;
use super::recorder::Recorder;
use super::report::{Compared, Memory, Report, Training};
use super::state::{self, Kept, State};
use super::watch::{Due, Measured};
use super::{Ended, Scope};
use crate::artifact::{ArtifactWriter, Output, RunRecord, Step};
use crate::encoder::Model;
use crate::error::{Error, Result};
use crate::tokens::Tokenizer;

/// What was measured along the way.
pub(super) struct Trained {
    /// The untouched model.
    pub(super) before: Measured,
    pub(super) looks: Looks,
    pub(super) canary: Option<Canary>,
}

/// Which weights a run ends with.
struct Chosen {
    /// The step they are from.
    step: usize,
    /// How much of them is tuned, where they are a mixture with the untouched ones.
    alpha: Option<f64>,
    /// What they measure.
    after: Measured,
    /// What the last ones came to, where advice is asked for.
    part: Option<Part>,
}

/// Keeps the better weights, compares them with the untouched model, reports and saves.
pub(super) fn finish(
    mut prepared: Prepared<'_>,
    mut trained: Trained,
    mut state: State,
    scope: Scope<'_>,
    output: &Output,
    recorder: &mut Recorder<'_>,
) -> Result<Ended> {
    prepared.learner.free_gradients();
    let last = Kept::of(&prepared.learner.model.encoder.parameters, state.progress.step);
    let chosen = match choose(&mut prepared, &mut trained, &state, scope.share, recorder) {
        Err(Error::Stopped) => {
            last.put_back(&mut prepared.learner.model.encoder.parameters);
            return state.stop(output, &prepared.spec, &prepared.learner, recorder);
        }
        chosen => chosen?,
    };
    let samples = changed(&prepared, &trained.before, &chosen.after);
    let report = report(&mut prepared, trained, &chosen, (&mut state.progress, scope.parts), recorder)?;
    save(&mut prepared, output, (&report, &samples), recorder)?;
    Ok(Ended::Finished(Box::new(report), chosen.part))
}

/// Puts the better weights into the model, or mixes them, and measures what has not been measured of them.
///
/// # Errors
/// [`Error::Stopped`] if the run was told to stop, with whatever weights.
fn choose(
    prepared: &mut Prepared<'_>,
    trained: &mut Trained,
    state: &State,
    share: f64,
    recorder: &mut Recorder<'_>,
) -> Result<Chosen> {
    let Prepared { spec, learner, course, watch, interpolation, .. } = prepared;
    let all = ("evaluate after", Due::All);
    // What the data is worth is told by the end of training, whatever is kept.
    let mut part = None;
    if spec.advise {
        let end = watch.measure(&learner.model, all, None, recorder)?;
        let end = advise::retrieval(end.first().and_then(Option::as_ref))?;
        part = Some(Part { share, examples: course.examples(), end });
    }
    let (mut step, mut after) = (state.progress.step, std::mem::take(&mut trained.looks.after));
    if let Some((_, Some(kept))) = &state.best
        && kept.step != step
    {
        step = kept.step;
        kept.clone().put_back(&mut learner.model.encoder.parameters);
        after = if step == 0 { trained.before.clone() } else { Measured::new() };
        recorder.info(format!("keeping the weights of step {step}, which measured best"))?;
    }
    let mut alpha = None;
    if let Some(interpolation) = interpolation {
        alpha = Some(interpolation.run(learner, watch, recorder)?);
        after = Measured::new();
    }
    if after.len() != trained.before.len() || after.iter().any(Option::is_none) {
        after = watch.measure(&learner.model, all, None, recorder)?;
    }
    if alpha == Some(0.0) {
        step = 0;
    }
    Ok(Chosen { step, alpha, after, part })
}

/// Queries whose results changed most, for the page.
fn changed(prepared: &Prepared<'_>, before: &Measured, after: &Measured) -> Vec<Sample> {
    match (prepared.watch.measures.first().map(|measure| &measure.target), before.first(), after.first()) {
        (
            Some(Target::Retrieval(set)),
            Some(Some(Measurement::Retrieval(before))),
            Some(Some(Measurement::Retrieval(after))),
        ) => {
            let pictures = prepared.learner.model.preprocessor.pictures();
            samples(set, (before, after), pictures.ok().map(|pictures| pictures.sources()))
        }
        _ => Vec::new(),
    }
}

/// What the run came to.
fn report(
    prepared: &mut Prepared<'_>,
    trained: Trained,
    chosen: &Chosen,
    (progress, parts): (&mut Progress, &[Part]),
    recorder: &mut Recorder<'_>,
) -> Result<Report> {
    let Prepared { spec, learner, course, watch, skipped, .. } = prepared;
    let mut compared = watch.compare(&trained.before, &chosen.after)?.into_iter();
    let first = compared.next().unwrap_or_else(Compared::nothing);
    let further = watch.measures.iter().skip(1).zip(compared);
    let further = further.map(|(measure, compared)| compared.further(&measure.prefix, measure.target.description()));
    let forgetting = trained.canary.map(|canary| canary.compare(&learner.model, watch.device)).transpose()?;
    if let Some(forgetting) = forgetting.as_ref().filter(|forgetting| forgetting.forgot) {
        recorder.warn(forgetting.conclusion.clone())?;
    }
    let mut parts = parts.to_vec();
    parts.extend(chosen.part.clone().filter(|_| !parts.is_empty()));
    let halfway = trained.looks.halfway.filter(|_| spec.advise);
    let halfway = halfway.as_ref().map(|halfway| advise::retrieval(Some(halfway))).transpose()?;
    progress.evaluate_seconds += watch.seconds;
    // What the product takes is none of the run's.
    let memory = Memory::measure(watch.device);
    let product = product_rate(watch.device)?;
    Ok(Report {
        model: spec.model.clone(),
        data: course.description(),
        evaluated_on: watch.measures.first().map(|measure| measure.target.description()),
        metrics: first.metrics,
        queries: first.queries,
        correlation: first.correlation,
        verdict: first.verdict,
        conclusion: first.conclusion,
        further: further.collect(),
        forgetting,
        advice: (parts.len() > 1).then(|| Advice::new(&parts, halfway.as_ref())),
        skipped: skipped.take(),
        training: Training { alpha: chosen.alpha, ..progress.training(chosen.step) },
        timing: progress.timing(product),
        memory,
    })
}

/// `texts`, `pictures`, or both.
fn reads(model: &Model) -> String {
    let nouns = model.encoder.towers().iter().map(|tower| format!("{}s", tower.modality().noun()));
    nouns.collect::<Vec<_>>().join(" and ")
}

/// Writes the artifact: the model, its card, the report and the events.
fn save(
    prepared: &mut Prepared<'_>,
    output: &Output,
    (report, samples): (&Report, &[Sample]),
    recorder: &mut Recorder<'_>,
) -> Result<()> {
    if prepared.adapter.is_none() {
        prepared.learner.model.encoder.merge_lora();
    }
    let Prepared { spec, learner, adapter, repository, .. } = &*prepared;
    let model = &learner.model;
    let spec_json = serde_json::to_value(spec).unwrap_or_default();
    let report_json = serde_json::to_value(report).unwrap_or_default();
    let mut writer = ArtifactWriter::new(output)?;
    model.save(&mut writer, adapter.as_ref())?;
    writer.json("report.json", &report_json)?;
    let layout = model.encoder.layout(model.encoder.main_tower());
    let record = RunRecord {
        name: output.folder().file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned()),
        base_model: spec.model.clone(),
        base_model_id: repository.clone(),
        base_licence: None,
        dimension: model.encoder.dimension(),
        reads: reads(model),
        max_length: model.preprocessor.tokenizer().ok().map(Tokenizer::max_length),
        pooling: layout.pooling,
        normalised: layout.steps.contains(&Step::Normalise),
        data: vec![report.data.clone()],
        spec: spec_json.clone(),
        report: report_json,
        versions: vec![("finetuner".into(), env!("CARGO_PKG_VERSION").into())],
    };
    writer.bytes("README.md", record.card().as_bytes())?;
    recorder.state("finished")?;
    let events = recorder.contents()?;
    writer.bytes("report.html", page(report, spec, &events, samples).as_bytes())?;
    if !samples.is_empty() {
        writer.json("samples.json", &serde_json::to_value(samples).unwrap_or_default())?;
    }
    writer.bytes("events.jsonl", &events)?;
    writer.finish(&spec_json, Default::default())?;
    let checkpoint = output.folder().join(state::FILE);
    if checkpoint.exists() {
        std::fs::remove_file(&checkpoint).map_err(Error::io("remove", &checkpoint))?;
    }
    Ok(())
}
