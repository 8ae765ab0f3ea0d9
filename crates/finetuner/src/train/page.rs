//! `report.html`: what a run did and what came of it, on one page that needs nothing from elsewhere.

mod chart;
mod samples;

use std::collections::BTreeMap;
use std::fmt::Write;

use self::chart::{Series, chart};
pub use self::samples::Cell;
pub(super) use self::samples::{Sample, samples};
use super::report::Report;
use crate::artifact::event_log::LoggedEvent;
use crate::evaluate::{Columns, Interval, Metrics};
use crate::event::Event;
use crate::spec::RunSpec;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --good: #1a7f37; --bad: #b42318; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; } th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } td small { opacity: .7; }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: 1rem 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
.sample { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: 1rem 0; }
.hits { display: flex; flex-wrap: wrap; gap: .5rem; margin: .3rem 0; padding: 0; list-style: none; }
.hits li { border: 2px solid var(--line); border-radius: .4rem; padding: .3rem .5rem; max-width: 16rem; font-size: .85rem; overflow-wrap: anywhere; }
.hits li.right { border-color: var(--good); } img { display: block; max-width: 6rem; max-height: 6rem; }
pre { background: var(--soft); padding: 1rem; overflow-x: auto; border-radius: .5rem; }
";

/// The page. `events` is the contents of `events.jsonl`.
pub(super) fn page(report: &Report, spec: &RunSpec, events: &[u8], samples: &[Sample]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
         <title>Fine-tuning {model}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Fine-tuning <code>{model}</code></h1>\n<p>{}</p>\n<p>{}</p>\n",
        escaped(&report.conclusion),
        escaped(&report.data),
        model = escaped(&report.model),
    );
    if let Some(metrics) = &report.metrics {
        let on = report.evaluated_on.as_deref().unwrap_or_default();
        let _ = write!(page, "<h2>Before and after</h2>\n<p>{}</p>\n{}", escaped(on), table(metrics));
    }
    for further in &report.further {
        let _ = write!(page, "<h2>{}</h2>\n<p>{}</p>\n", escaped(&further.name), escaped(&further.evaluated_on));
        page += &further.metrics.as_ref().map(table).unwrap_or_default();
        let _ = writeln!(page, "<p>{}</p>", escaped(&further.conclusion));
    }
    for (name, value) in [
        ("Forgetting", report.forgetting.as_ref().map(|forgetting| forgetting.conclusion.clone())),
        ("Skipped", report.skipped.as_ref().map(|own| format!("{} rows with {} pictures", own.rows, own.pictures))),
        ("Training", report.training.ended.clone()),
    ] {
        if let Some(value) = value {
            let _ = writeln!(page, "<p>{name}: {}</p>", escaped(&value));
        }
    }
    page += &curves(events);
    if !samples.is_empty() {
        page += "<h2>Queries</h2>\n<p>What stood first before and after; framed in green is what is relevant.</p>\n";
        samples.iter().for_each(|sample| page += &sample.html());
    }
    let spec = serde_json::to_string_pretty(spec).unwrap_or_default();
    let (training, timing) = (&report.training, &report.timing);
    let _ = write!(
        page,
        "<h2>The run</h2>\n<p>{} steps, {} epochs, {} examples in {:.1} s; measured in {:.1} s.</p>\n\
         <details><summary>Every field</summary><pre>{}</pre></details>\n</body>\n</html>\n",
        training.steps,
        training.epochs,
        training.examples,
        timing.train_seconds,
        timing.evaluate_seconds,
        escaped(&spec),
    );
    page
}

/// *pretrained | finetuned | delta* with 95 % intervals.
fn table(metrics: &Columns) -> String {
    let mut table = "<table>\n<tr><th></th><th>pretrained</th><th>finetuned</th><th>delta</th></tr>\n".to_owned();
    for (place, name) in Metrics::<f64>::NAMES.iter().enumerate() {
        let cell = |means: &Metrics, intervals: &Metrics<Interval>| {
            let Interval { low, high } = intervals.values()[place];
            format!("<td>{:.4} <small>{low:.4} to {high:.4}</small></td>", means.values()[place])
        };
        let Interval { low, high } = metrics.interval.values()[place];
        let class = match () {
            () if low > 0.0 => "good",
            () if high < 0.0 => "bad",
            () => "",
        };
        let _ = writeln!(
            table,
            "<tr><td>{name}</td>{}{}<td class=\"{class}\">{:+.4} <small>{low:+.4} to {high:+.4}</small></td></tr>",
            cell(&metrics.pretrained, &metrics.pretrained_interval),
            cell(&metrics.finetuned, &metrics.finetuned_interval),
            metrics.delta.values()[place],
        );
    }
    format!("{table}</table>\n<p><small>At {}; intervals of 95 % over the queries.</small></p>\n", metrics.k)
}

/// Losses, metrics and the learning rate over the steps. Of a step that a resumed run took again the last value counts.
fn curves(events: &[u8]) -> String {
    let mut values: BTreeMap<String, BTreeMap<usize, f64>> = BTreeMap::new();
    for line in events.split(|byte| *byte == b'\n') {
        if let Ok(LoggedEvent { event: Event::Metric { name, step, value }, .. }) = serde_json::from_slice(line) {
            values.entry(name).or_default().insert(step, value);
        }
    }
    let of = |chosen: &dyn Fn(&str) -> bool| -> Vec<Series> {
        let chosen = values.iter().filter(|(name, _)| chosen(name));
        chosen.map(|(name, points)| Series::new(name, points)).collect()
    };
    let loss = |name: &str| name.ends_with("_loss");
    let metric = |name: &str| {
        ["mrr", "recall", "ndcg", "map", "spearman", "pearson"]
            .iter()
            .any(|own| name == *own || name.ends_with(&format!("_{own}")))
    };
    let rate = |name: &str| name == "learning_rate";
    let charts = [("Loss", of(&loss)), ("Metrics", of(&metric)), ("Learning rate", of(&rate))];
    let charts: String = charts.iter().map(|(title, series)| chart(title, series)).collect();
    if charts.is_empty() { charts } else { format!("<h2>Curves</h2>\n{charts}") }
}

/// A text that is only a text, in elements and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            letter if letter.is_control() && !letter.is_whitespace() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_become_part_of_the_page() {
        assert_eq!(
            escaped("<b a=\"x\">Tom & 'Jerry'\u{0}</b>"),
            "&lt;b a=&quot;x&quot;&gt;Tom &amp; &#39;Jerry&#39;&lt;/b&gt;"
        );
    }

    #[test]
    fn curves_are_drawn_of_what_was_said_last_at_each_step() {
        let line = |name: &str, step: usize, value: f64| {
            let event = Event::Metric { name: name.into(), step, value };
            serde_json::to_string(&LoggedEvent { sequence: 0, time: String::new(), event }).unwrap() + "\n"
        };
        let events =
            line("train_loss", 1, 5.0) + &line("train_loss", 1, 2.0) + &line("train_loss", 2, 1.0) + "broken\n";
        let drawn = curves(events.as_bytes());
        assert!(drawn.contains("step 1: 2.0000") && !drawn.contains("5.0000"), "{drawn}");
        assert!(drawn.contains("Loss") && !drawn.contains("Metrics"));
        assert_eq!(curves(b""), "");
        assert!(curves(line("mrr", 0, 0.5).as_bytes()).contains("Metrics"), "one point alone");
    }
}
