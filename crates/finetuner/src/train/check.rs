//! The data of a run looked over before it costs anything: `finetuner check`, and the first thing a run does.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::data::{Data, TrainingSet, held_out_kind};
use super::inspection;
use super::measure::Target;
use super::recorder::Recorder;
use crate::data::lint::{self, Finding, Lengths, Severity, Subject, sample};
use crate::data::{Dataset, Kind, Modality, Pictures, hold_out, inspect, read_retrieval_with};
use crate::encoder::Model;
use crate::encoder::source::{self, ModelSource};
use crate::error::{Error, Result};
use crate::pixels::{Depth, scan};
use crate::spec::RunSpec;
use crate::tokens::Tokenizer;

/// Texts whose tokens are counted.
const COUNTED: usize = 2000;

/// What was found in the data of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// How each part was understood.
    pub data: Vec<String>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Check {
    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Looks over the data that a spec names, as a run would read it, but for rows without a text: they are found, not
/// refused. Texts are measured with the tokenizer of the spec's model; its weights are not read.
///
/// # Errors
/// What keeps the data from being read at all; [`Error::Model`] without a tokenizer for its texts.
pub fn check(spec: &RunSpec) -> Result<Check> {
    let kind = spec.kind.as_deref().map(str::parse::<Kind>).transpose()?;
    let sets = spec.parts()?;
    let index_data = spec.index_data.as_deref();
    let (mut pictures, sources) = (Pictures::default(), inspection::sources(spec)?);
    let mut look = |dataset: &Dataset| {
        scan(&mut pictures, &dataset.items, (&sources, Depth::Whole), |_, _| Ok(()))?;
        Ok::<_, Error>(lint::broken_pictures(&pictures, dataset))
    };
    let learnt = |path: &Path| sets.iter().any(|set| set.train_data == path);
    let (mut data, mut findings) = (Vec::new(), Vec::new());
    let queries = spec.query_data.as_ref().map(|path| {
        read_retrieval_with(path, index_data, kind, |dataset| {
            findings.extend(look(&dataset)?.filter(|_| !learnt(&dataset.path)));
            Ok(dataset)
        })
    });
    let queries = queries.transpose()?;
    let index = index_data.filter(|path| !learnt(path)).map(|path| inspect(path, None)).transpose()?;
    let source = source::resolve(&spec.model)?;
    let model = if source == ModelSource::Mlp { None } else { Some(source.open()?) }; // it has no tokenizer
    let mut tokenizer = None; // pictures need none
    let mut pictured = Vec::new();

    for set in &sets {
        let kind = set.kind.as_deref().map(str::parse::<Kind>).transpose()?;
        let mut train = inspect(&set.train_data, kind)?;
        data.push(train.decision.clone());
        let asked = held_out_kind(kind, &train);
        let mut evaluation = set.eval_data.as_ref().map(|path| inspect(path, asked)).transpose()?;
        data.extend(evaluation.iter().map(|dataset| dataset.decision.clone()));
        if set.val_split > 0.0 && evaluation.is_none() {
            let empty = std::mem::take(&mut train.empty);
            let (rest, held_out) = hold_out(&train, set.val_split, set.seed)?;
            (train, evaluation) = (Dataset { empty, ..rest }, Some(held_out));
        }
        if let (None, Some(model), true) = (&tokenizer, &model, train.items.has(Modality::Text)) {
            let limit = spec.max_length.unwrap_or(model.max_length);
            let read = Tokenizer::from_bytes(&model.files.name(), &model.tokenizer()?, limit)?;
            tokenizer = Some(read.lowercase(model.lowercase));
        }
        let lengths = lengths(&train, tokenizer.as_ref())?;
        let subject = Subject {
            train: &train,
            evaluation: evaluation.as_ref(),
            queries: &queries.iter().collect::<Vec<_>>(),
            index: index.as_ref(),
            lengths: lengths.as_ref(),
        };
        findings.extend(subject.findings());
        look(&train)?;
        evaluation.as_ref().map(&mut look).transpose()?;
        pictured.push((train, evaluation));
    }
    for (train, evaluation) in &pictured {
        findings.extend(lint::pictures(&pictures, train, evaluation.as_ref()));
    }
    if spec.skip_bad {
        let broken = findings.iter_mut().filter(|finding: &&mut Finding| finding.rule == "broken_pictures");
        broken.for_each(|finding| finding.severity = Severity::Warning);
    }
    data.extend(queries.iter().map(|set| format!("measured on: {}", set.description)));
    findings.sort_by_key(|finding: &Finding| finding.severity);
    Ok(Check { data, findings })
}

/// Tokens of a sample of the texts; `None` where nothing counts them.
fn lengths(dataset: &Dataset, tokenizer: Option<&Tokenizer>) -> Result<Option<Lengths>> {
    let (ids, Some(tokenizer)) = (sample(dataset, COUNTED), tokenizer) else { return Ok(None) };
    if ids.is_empty() {
        return Ok(None);
    }
    let texts: Vec<&str> = ids.iter().map(|id| dataset.items.get(*id)).collect();
    let tokens = ids.into_iter().zip(tokenizer.lengths(&texts)?).collect();
    Ok(Some(Lengths { limit: tokenizer.max_length(), tokens }))
}

/// Looks over the data of a run and tells what was found: warnings one by one, notes by their number.
///
/// # Errors
/// [`Error::Spec`] for warnings where the spec is `strict`.
pub(super) fn tell(
    spec: &RunSpec,
    data: &Data,
    (model, pictures): (&Model, &Pictures),
    recorder: &mut Recorder<'_>,
) -> Result<()> {
    // Queries that were drawn from the evaluation data need not be looked at twice.
    let drawn = |path: &Path| data.sets.iter().filter_map(TrainingSet::held_out).any(|held_out| held_out.path == path);
    let sets = data.measures.iter().filter_map(|measure| match &measure.target {
        Target::Retrieval(set) if !drawn(&set.query_path) => Some(set),
        _ => None,
    });
    let queries: Vec<_> = sets.collect();
    let mut findings = Vec::new();
    for set in &data.sets {
        let texts = set.train.items.has(Modality::Text);
        let tokenizer = texts.then(|| model.preprocessor.tokenizer()).transpose()?;
        let lengths = lengths(&set.train, tokenizer)?;
        let evaluation = set.held_out();
        let subject =
            Subject { train: &set.train, evaluation, queries: &queries, index: None, lengths: lengths.as_ref() };
        findings.extend(subject.findings());
        findings.extend(lint::pictures(pictures, &set.train, evaluation));
    }
    let (notes, warnings): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.severity == Severity::Note);
    for finding in &warnings {
        recorder.warn(finding.text())?;
    }
    if !notes.is_empty() {
        let rules: Vec<&str> = notes.iter().map(|finding| finding.rule.as_str()).collect();
        recorder.info(format!("notes on the data: {}; `finetuner check` shows them", rules.join(", ")))?;
    }
    if spec.strict && !warnings.is_empty() {
        let rules: Vec<&str> = warnings.iter().map(|finding| finding.rule.as_str()).collect();
        let problem = format!("the data has {}; repair it, or run without `strict`", rules.join(", "));
        return Err(Error::spec("strict", problem));
    }
    Ok(())
}
