//! What a run leaves: the better weights, what they came to, the artifact.

use super::advise::{self, Advice, Part};
use super::canary::Canary;
use super::epochs::Looks;
use super::measure::{Measurement, Target};
use super::page::{Sample, page, samples};
use super::prepare::Prepared;
use super::product_rate::product_rate;
use super::recorder::Recorder;
use super::report::{Compared, Memory, Report, Training};
use super::state::{self, Kept, State};
use super::watch::{Due, Measured};
use super::{Ended, Scope};
use crate::artifact::{AdapterRecord, ArtifactWriter, Output, RunRecord, Step};
use crate::encoder::Model;
use crate::error::{Error, Result};
use crate::spec::RunSpec;
use crate::tokens::Tokenizer;

/// What was measured along the way.
pub(super) struct Trained {
    /// The untouched model.
    pub(super) before: Measured,
    pub(super) looks: Looks,
    pub(super) canary: Option<Canary>,
}

/// Keeps the better weights, compares them with the untouched model, reports and saves.
pub(super) fn finish(
    prepared: Prepared<'_>,
    trained: Trained,
    mut state: State,
    scope: Scope<'_>,
    output: &Output,
    recorder: &mut Recorder<'_>,
) -> Result<Ended> {
    let Prepared { spec, mut learner, course, mut watch, interpolation, adapter, repository, skipped, .. } = prepared;
    let (spec, device) = (&spec, watch.device);
    let Trained { before, looks: Looks { mut after, halfway }, canary } = trained;
    learner.free_gradients();

    // What the data is worth is told by the end of training, whatever is kept.
    let mut part = None;
    if spec.advise {
        let end = match watch.measure(&learner.model, ("evaluate after", Due::All), None, recorder) {
            Err(Error::Stopped) => return state.stop(output, spec, &learner, recorder),
            measured => advise::retrieval(measured?.first().and_then(Option::as_ref))?,
        };
        part = Some(Part { share: scope.share, examples: course.examples(), end });
    }

    // Keep the better weights, or mix them, and compare them with the untouched model.
    let trained = Kept::of(&learner.model.encoder.parameters, state.progress.step);
    let mut kept_step = trained.step;
    if let Some((_, Some(kept))) = &state.best
        && kept.step != trained.step
    {
        kept_step = kept.step;
        kept.clone().put_back(&mut learner.model.encoder.parameters);
        after = if kept_step == 0 { before.clone() } else { Measured::new() };
        recorder.info(format!("keeping the weights of step {kept_step}, which measured best"))?;
    }
    let finished = (|| {
        let mut alpha = None;
        if let Some(interpolation) = &interpolation {
            alpha = Some(interpolation.run(&mut learner, &mut watch, recorder)?);
            after = Measured::new();
        }
        if after.len() != before.len() || after.iter().any(Option::is_none) {
            after = watch.measure(&learner.model, ("evaluate after", Due::All), None, recorder)?;
        }
        Ok(alpha)
    })();
    let alpha = match finished {
        Err(Error::Stopped) => {
            trained.put_back(&mut learner.model.encoder.parameters);
            return state.stop(output, spec, &learner, recorder);
        }
        finished => finished?,
    };
    let samples = match (watch.measures.first().map(|measure| &measure.target), before.first(), after.first()) {
        (
            Some(Target::Retrieval(set)),
            Some(Some(Measurement::Retrieval(before))),
            Some(Some(Measurement::Retrieval(after))),
        ) => {
            let sources = learner.model.preprocessor.pictures().ok().map(|pictures| pictures.sources());
            samples(set, (before, after), sources)
        }
        _ => Vec::new(),
    };
    let mut compared = watch.compare(&before, &after)?.into_iter();
    let first = compared.next().unwrap_or_else(Compared::nothing);
    let further = watch.measures.iter().skip(1).zip(compared);
    let further = further.map(|(measure, compared)| compared.further(&measure.prefix, measure.target.description()));
    let forgetting = canary.map(|canary| canary.compare(&learner.model, device)).transpose()?;
    if let Some(forgetting) = forgetting.as_ref().filter(|forgetting| forgetting.forgot) {
        recorder.warn(forgetting.conclusion.clone())?;
    }
    state.progress.evaluate_seconds += watch.seconds;
    let mut parts = scope.parts.to_vec();
    parts.extend(part.clone().filter(|_| !parts.is_empty()));
    let halfway =
        halfway.as_ref().map(|halfway| advise::retrieval(Some(halfway))).filter(|_| spec.advise).transpose()?;
    // What the product takes is none of the run's.
    let memory = Memory::measure(device);
    let product = product_rate(device)?;
    let report = Report {
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
        skipped,
        training: Training { alpha, ..state.progress.training(if alpha == Some(0.0) { 0 } else { kept_step }) },
        timing: state.progress.timing(product),
        memory,
    };
    if adapter.is_none() {
        learner.model.encoder.merge_lora();
    }
    save(spec, output, &learner.model, (repository.as_deref(), adapter.as_ref()), (&report, &samples), recorder)?;
    Ok(Ended::Finished(Box::new(report), part))
}

/// `texts`, `pictures`, or both.
fn reads(model: &Model) -> String {
    let nouns = model.encoder.towers().iter().map(|tower| format!("{}s", tower.modality().noun()));
    nouns.collect::<Vec<_>>().join(" and ")
}

/// Writes the artifact: the model, its card, the report and the events.
fn save(
    spec: &RunSpec,
    output: &Output,
    model: &Model,
    (repository, adapter): (Option<&str>, Option<&AdapterRecord>),
    (report, samples): (&Report, &[Sample]),
    recorder: &mut Recorder<'_>,
) -> Result<()> {
    let spec_json = serde_json::to_value(spec).unwrap_or_default();
    let report_json = serde_json::to_value(report).unwrap_or_default();
    let mut writer = ArtifactWriter::new(output)?;
    model.save(&mut writer, adapter)?;
    writer.json("report.json", &report_json)?;
    let layout = model.encoder.layout(model.encoder.main_tower());
    let record = RunRecord {
        name: output.folder().file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned()),
        base_model: spec.model.clone(),
        base_model_id: repository.map(str::to_owned),
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
