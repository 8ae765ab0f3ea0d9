//! How long texts are, and what is cut.

use serde_json::json;

use super::{Dataset, Finding, ItemId, Modality, Place, SHOWN, Severity, first_rows};

/// Above this share of cut texts the finding is a warning.
const MUCH: f64 = 0.05;

/// Token counts of training texts before any is cut, special tokens included.
#[derive(Debug, Clone, PartialEq)]
pub struct Lengths {
    /// Tokens a text is cut to.
    pub limit: usize,
    /// Items and their tokens: all of them, or a sample.
    pub tokens: Vec<(ItemId, usize)>,
}

/// The distribution as a note, or as a warning if more than 5 % of the texts are cut.
pub(super) fn find(dataset: &Dataset, lengths: &Lengths) -> Finding {
    let limit = lengths.limit;
    let mut sorted: Vec<usize> = lengths.tokens.iter().map(|(_, tokens)| *tokens).collect();
    sorted.sort_unstable();
    let quantile = |share: f64| sorted.get(((sorted.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(0);
    let cut: Vec<ItemId> = lengths.tokens.iter().filter(|(_, tokens)| *tokens > limit).map(|(text, _)| *text).collect();
    let share = cut.len() as f64 / sorted.len().max(1) as f64;
    let all = match dataset.items.ids(Modality::Text).count() {
        all if all == sorted.len() => format!("{all} texts"),
        all => format!("a sample of {} of {all} texts", sorted.len()),
    };
    let (median, most, longest) = (quantile(0.5), quantile(0.95), quantile(1.0));
    let spread = format!("median {median}, 95 % at most {most}, longest {longest}");
    let details = json!({"limit": limit, "texts": sorted.len(), "cut": cut.len(), "median": median, "p95": most,
                         "longest": longest, "histogram": histogram(&sorted)});
    let mut finding = if share > MUCH {
        Finding::new(
            "truncation",
            Severity::Warning,
            cut.len(),
            format!("{:.0} % of the texts are cut at {limit} tokens: {spread}, over {all}", 100.0 * share),
            "What stands behind the limit is never seen; raise `max_length` if the model allows it, or split long texts.",
        )
    } else {
        let lost = if cut.is_empty() { "none is cut".into() } else { format!("{} are cut", cut.len()) };
        Finding::new(
            "length",
            Severity::Note,
            cut.len(),
            format!("tokens a text: {spread}, over {all}; {lost} at {limit}"),
            "Cost grows with the longest texts of a batch; `max_length` cuts them.",
        )
    };
    let shown = &cut[..cut.len().min(SHOWN)];
    let rows = first_rows(dataset, shown);
    finding.examples = rows.into_iter().zip(shown).map(|(row, text)| Place::of(dataset, row, *text, "")).collect();
    finding.details = Some(details);
    finding
}

/// `[at most, texts]` in doubling steps.
fn histogram(sorted: &[usize]) -> Vec<[usize; 2]> {
    let mut steps = Vec::new();
    let (mut upper, mut before) = (8, 0);
    while before < sorted.len() {
        let below = sorted.partition_point(|tokens| *tokens <= upper);
        steps.push([upper, below - before]);
        (upper, before) = (2 * upper, below);
    }
    steps
}
