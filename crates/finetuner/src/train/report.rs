//! `report.json` and what the terminal shows of it.

use std::cmp::Ordering;
use std::fmt::Write;

use engine::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::advise::Advice;
use super::canary::Forgetting;
use super::measure::{Measurement, Target};
use crate::data::lint::Place;
use crate::error::Result;
use crate::evaluate::{Bootstrap, Changes, Columns, Comparison, Verdict};

/// What a run did and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The model the run started from.
    pub model: String,
    /// The training data as it was understood.
    pub data: String,
    /// What was measured before and after; `None` without held-out data.
    pub evaluated_on: Option<String>,
    /// Pretrained, finetuned, delta and intervals of every retrieval metric.
    pub metrics: Option<Columns>,
    /// Queries that got better and worse, with examples.
    pub queries: Option<Changes>,
    /// Correlations before and after, for scored pairs.
    pub correlation: Option<BeforeAfter>,
    /// Whether the model got better.
    pub verdict: Option<Verdict>,
    /// The same as a sentence.
    pub conclusion: String,
    /// What was measured beside, by further `EvaluationCallback`s.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Further>,
    /// Whether more labels or more time would pay, where `advise` asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
    /// General sentences before and after; `None` where `canary` is off or the model began with random weights.
    #[serde(default)]
    pub forgetting: Option<Forgetting>,
    /// Pictures that could not be used, where `skip_bad` left them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
    /// What training did.
    pub training: Training,
    /// How long it took.
    pub timing: Timing,
    /// How much memory it took.
    pub memory: Memory,
}

/// What a further `EvaluationCallback` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Further {
    /// Its caption.
    pub name: String,
    /// What was measured.
    pub evaluated_on: String,
    /// As in the report itself.
    pub metrics: Option<Columns>,
    /// As in the report itself.
    pub queries: Option<Changes>,
    /// As in the report itself.
    pub verdict: Option<Verdict>,
    /// As in the report itself.
    pub conclusion: String,
}

/// Pictures that cannot be used, left out with their rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// How many pictures.
    pub pictures: usize,
    /// How many rows of all files.
    pub rows: usize,
    /// The first 20: the file and line, the picture, why.
    pub examples: Vec<Place>,
}

/// A measurement of both models.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// The untouched model.
    pub pretrained: Value,
    /// The trained model.
    pub finetuned: Value,
}

/// What training did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Training {
    /// Optimiser steps taken.
    pub steps: usize,
    /// Epochs finished.
    pub epochs: usize,
    /// Examples seen.
    pub examples: usize,
    /// Tokens seen.
    pub tokens: usize,
    /// Training texts that were cut at the length limit.
    pub truncated: usize,
    /// Mean training loss of the last epoch.
    pub train_loss: f64,
    /// Validation loss after the last epoch.
    pub validation_loss: Option<f64>,
    /// The step whose weights were kept; 0 is the pretrained model.
    pub kept_step: usize,
    /// Why training ended before its last epoch, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// The share of the trained weights, where they were mixed with the pretrained ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
}

/// How long it took.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Timing {
    /// All optimiser steps.
    pub train_seconds: f64,
    /// All measurements.
    pub evaluate_seconds: f64,
    /// Training examples per second.
    pub examples_per_second: f64,
    /// Training tokens per second.
    pub tokens_per_second: f64,
    /// Additions and multiplications of the model's matrix products and convolutions a second, forward and backward, as they
    /// are counted: what is computed a second time, dropout, norms, the loss and the optimiser are none of them. Of several
    /// ranks that of the first.
    #[serde(default)]
    pub model_flops_per_second: f64,
    /// What a large product of matrices reaches on the same device in the same precision, measured after training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_flops_per_second: Option<f64>,
    /// The share of the one in the other: how well training used the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_flops_utilization: Option<f64>,
    /// The share of the training time in which the GPU computed, as its driver sees it (NVML, twice a second); of several that
    /// of the first. `None` on the processor, and where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_busy: Option<f64>,
}

/// How much memory it took.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Memory {
    /// The most the process held at once, as the operating system counts; `None` where it does not say.
    pub peak_bytes: Option<u64>,
    /// The most bytes of a GPU's memory that tensors had at once; `None` on the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_peak_bytes: Option<u64>,
}

impl Memory {
    /// The process's own peak, and the device's.
    pub(crate) fn measure(device: &dyn Device) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        Memory {
            peak_bytes: kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).map(|kb| kb * 1024),
            device_peak_bytes: device.memory().map(|memory| memory.peak_bytes),
        }
    }
}

/// The part of a report that compares two measurements of one target.
pub(crate) struct Compared {
    pub(crate) metrics: Option<Columns>,
    pub(crate) queries: Option<Changes>,
    pub(crate) correlation: Option<BeforeAfter>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) conclusion: String,
}

impl Compared {
    pub(crate) fn new(target: &Target, before: &Measurement, after: &Measurement, examples: usize) -> Result<Self> {
        match (target, before, after) {
            (Target::Retrieval(set), Measurement::Retrieval(before), Measurement::Retrieval(after)) => {
                let comparison =
                    Comparison::new(before, after, &set.queries, &set.documents, Bootstrap::default(), examples)?;
                Ok(Compared {
                    metrics: Some(comparison.metrics),
                    queries: Some(comparison.queries),
                    correlation: None,
                    verdict: Some(comparison.verdict),
                    conclusion: comparison.conclusion,
                })
            }
            _ => {
                let ((name, old), (_, new)) = (before.main(), after.main());
                let conclusion = match old.total_cmp(&new) {
                    Ordering::Less => format!("The {name} correlation went from {old:.4} up to {new:.4}."),
                    Ordering::Equal => format!("The model did not improve: the {name} correlation stayed at {old:.4}."),
                    Ordering::Greater => {
                        format!(
                            "The model did NOT improve: the {name} correlation went from {old:.4} down to {new:.4}."
                        )
                    }
                };
                let correlation = BeforeAfter { pretrained: before.to_json(), finetuned: after.to_json() };
                Ok(Compared { metrics: None, queries: None, correlation: Some(correlation), verdict: None, conclusion })
            }
        }
    }

    /// As one of the further things that were measured.
    pub(crate) fn further(self, prefix: &str, evaluated_on: String) -> Further {
        let Compared { metrics, queries, verdict, conclusion, .. } = self;
        Further { name: prefix.trim_end_matches('_').to_owned(), evaluated_on, metrics, queries, verdict, conclusion }
    }

    pub(crate) fn nothing() -> Self {
        let conclusion = "Nothing was measured: give `eval_data`, `val_split` or `query_data` to see whether the \
                          model got better."
            .to_owned();
        Compared { metrics: None, queries: None, correlation: None, verdict: None, conclusion }
    }
}

impl Report {
    /// The comparison behind this report, if retrieval was measured.
    pub fn comparison(&self) -> Option<Comparison> {
        Some(Comparison {
            metrics: self.metrics.clone()?,
            queries: self.queries.clone()?,
            verdict: self.verdict?,
            conclusion: self.conclusion.clone(),
        })
    }

    /// The table, the examples and the conclusion, for a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match (self.comparison(), &self.correlation) {
            (Some(comparison), _) => {
                let _ = writeln!(text, "{}\n{}", comparison.table(), comparison.examples());
            }
            (None, Some(correlation)) => {
                for name in ["spearman", "pearson"] {
                    let (before, after) = (&correlation.pretrained[name], &correlation.finetuned[name]);
                    let _ = writeln!(text, "{name:<10} pretrained {before:.4}  finetuned {after:.4}");
                }
            }
            (None, None) => {}
        }
        let _ = writeln!(text, "{}", self.conclusion);
        if let Some(forgetting) = &self.forgetting {
            let _ = writeln!(text, "{}", forgetting.conclusion);
        }
        if self.training.kept_step == 0 && self.training.steps > 0 {
            let _ = writeln!(text, "No step of training measured better, so the model is the pretrained one.");
        }
        for further in &self.further {
            let _ = writeln!(text, "{}: {}", further.name, further.conclusion);
        }
        if let Some(Skipped { pictures, rows, .. }) = &self.skipped {
            let _ = writeln!(
                text,
                "Skipped {rows} rows with {pictures} pictures that cannot be used; `report.json` names them."
            );
        }
        if let Some(ended) = &self.training.ended {
            let _ = writeln!(text, "Training: {ended}.");
        }
        if let Some(advice) = &self.advice {
            let _ = write!(text, "\n{}", advice.text());
        }
        text
    }
}
