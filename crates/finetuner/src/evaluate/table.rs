//! A [`Comparison`] as plain text for a terminal, less than 100 columns wide.

use std::fmt::Write;

use super::report::{Comparison, Example};
use super::{Interval, Metrics};

/// Width that no line exceeds.
const WIDTH: usize = 99;

impl Comparison {
    /// The table *pretrained | finetuned | delta* with 95 % intervals in brackets. Ends with a line break.
    pub fn table(&self) -> String {
        let metrics = &self.metrics;
        let mut table = format!("{:<13}  {:<23}  {:<23}  {}\n", "", "pretrained", "finetuned", "delta");
        for (name, key) in [
            ("mRR", "mrr"),
            ("Recall", "recall"),
            ("mAP", "map"),
            ("Precision", "precision"),
            ("Hit rate", "hit_rate"),
            ("nDCG", "ndcg"),
        ] {
            let index =
                Metrics::NAMES.iter().position(|name| *name == key).expect("a bug: the table asks for no metric");
            let cell = |means: &Metrics, intervals: &Metrics<Interval>| {
                let Interval { low, high } = intervals.values()[index];
                format!("{:.4} [{low:.4}, {high:.4}]", means.values()[index])
            };
            let Interval { low, high } = metrics.interval.values()[index];
            let line = format!(
                "{:<13}  {:<23}  {:<23}  {:+.4} [{low:+.4}, {high:+.4}]",
                format!("{name}@{}", metrics.k),
                cell(&metrics.pretrained, &metrics.pretrained_interval),
                cell(&metrics.finetuned, &metrics.finetuned_interval),
                metrics.delta.values()[index],
            );
            table.push_str(line.trim_end());
            table.push('\n');
        }
        let evaluated = self.queries.evaluated;
        let _ = writeln!(table, "Means over {evaluated} queries; in brackets 95 % bootstrap intervals.");
        if self.queries.without_relevant > 0 {
            let _ = writeln!(table, "{} more have no relevant document.", self.queries.without_relevant);
        }
        table
    }

    /// How many queries got better and worse, and examples of each. Ends with a line break.
    pub fn examples(&self) -> String {
        let changes = &self.queries;
        let mut text = format!(
            "{} queries got better, {} worse, {} stayed (by reciprocal rank, then average precision).\n",
            changes.improved, changes.worsened, changes.unchanged
        );
        for (title, examples) in [
            ("Better", &changes.examples.improved),
            ("Worse", &changes.examples.worsened),
            ("Unchanged", &changes.examples.unchanged),
        ] {
            if !examples.is_empty() {
                let _ = writeln!(text, "\n{title}:");
            }
            for example in examples {
                text.push_str(&self.example(example));
            }
        }
        text
    }

    fn example(&self, example: &Example) -> String {
        let rank = |rank: Option<usize>| rank.map_or(format!("beyond {}", self.metrics.k), |rank| rank.to_string());
        let first = |first: &Option<String>| first.clone().unwrap_or_else(|| "nothing".to_owned());
        let lines = [
            ("  ", format!("rank {} -> {}: {}", rank(example.rank_before), rank(example.rank_after), example.query)),
            ("      expected      ", example.expected.clone()),
            ("      first before  ", first(&example.first_before)),
            ("      first after   ", first(&example.first_after)),
        ];
        lines
            .iter()
            .fold(String::new(), |text, (label, line)| text + label + &clipped(line, WIDTH - label.len()) + "\n")
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}\n{}\n\n{}", self.table(), wrapped(&self.conclusion), self.examples())
    }
}

/// The text on lines of at most [`WIDTH`] characters, broken between words.
fn wrapped(text: &str) -> String {
    let (mut lines, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 {
            let separator = if width + 1 + length > WIDTH { '\n' } else { ' ' };
            lines.push(separator);
            width = if separator == '\n' { 0 } else { width + 1 };
        }
        lines.push_str(word);
        width += length;
    }
    lines
}

/// The text on one line, cut to `width` characters.
fn clipped(text: &str, width: usize) -> String {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.retain(|character| !character.is_control());
    match words.char_indices().nth(width) {
        Some(_) => words.chars().take(width - 1).chain(['…']).collect(),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::EXAMPLES;
    use super::super::{Bootstrap, Evaluation, Hit, Verdict};
    use super::*;

    /// 40 queries with one relevant document each, found at the given rank (0: not at all) before and after.
    fn comparison(ranks: impl Fn(usize) -> (usize, usize), count: usize) -> Comparison {
        let relevant: Vec<Vec<(u32, f32)>> = (0..count).map(|query| vec![(query as u32, 1.0)]).collect();
        let hits = |rank: usize, query: usize| -> Vec<Hit> {
            let document = |position: usize| if position + 1 == rank { query } else { 1000 + position };
            (0..20).map(|position| Hit { document: document(position) as u32, score: -(position as f32) }).collect()
        };
        let before: Vec<_> = (0..count).map(|query| hits(ranks(query).0, query)).collect();
        let after: Vec<_> = (0..count).map(|query| hits(ranks(query).1, query)).collect();
        let queries: Vec<String> = (0..count).map(|query| format!("query {query}")).collect();
        let documents: Vec<String> =
            (0..1020).map(|document| format!("document {document}\n{}", "word ".repeat(40))).collect();
        let evaluation = |hits: &[Vec<Hit>]| Evaluation::new(hits, &relevant, 20).unwrap();
        Comparison::new(&evaluation(&before), &evaluation(&after), &queries, &documents, Bootstrap::default(), EXAMPLES)
            .unwrap()
    }

    #[test]
    fn a_clear_gain_is_called_better_and_examples_show_the_largest_changes_first() {
        let comparison = comparison(
            |query| match query {
                0..20 => (query + 2, 1),
                20..23 => (1, 2),
                _ => (query % 4, query % 4),
            },
            40,
        );
        assert_eq!(comparison.verdict, Verdict::Improved);
        assert!(comparison.conclusion.contains("is better: mRR@20"));
        let queries = &comparison.queries;
        assert_eq!((queries.improved, queries.worsened, queries.unchanged, queries.evaluated), (20, 3, 17, 40));
        let improved: Vec<_> = queries
            .examples
            .improved
            .iter()
            .map(|example| (&example.query[..], example.rank_before, example.rank_after))
            .collect();
        assert_eq!(
            improved,
            [("query 19", None, Some(1)), ("query 18", Some(20), Some(1)), ("query 17", Some(19), Some(1))]
        );
        let worsened = &queries.examples.worsened[0];
        assert_eq!((worsened.rank_before, worsened.rank_after), (Some(1), Some(2)));
        assert!(worsened.first_before.as_ref().unwrap().starts_with("document 20"));
        assert!(worsened.first_after.as_ref().unwrap().starts_with("document 1000"));
        assert_eq!(queries.examples.unchanged[0].rank_after, None);
        assert!(comparison.metrics.interval.mrr.low > 0.0);
        assert!(
            (comparison.metrics.delta.mrr - comparison.metrics.finetuned.mrr + comparison.metrics.pretrained.mrr).abs()
                < 1e-15
        );
    }

    #[test]
    fn the_verdict_says_plainly_when_a_model_is_worse_or_no_different() {
        assert_eq!(comparison(|_| (1, 3), 40).verdict, Verdict::Worse);
        let same = comparison(|query| (query % 5, query % 5), 40);
        assert_eq!(same.verdict, Verdict::NoMeasurableDifference);
        assert!(same.conclusion.contains("which holds 0"));
        let swapped = comparison(|query| if query % 2 == 0 { (1, 2) } else { (2, 1) }, 40);
        assert_eq!(swapped.verdict, Verdict::NoMeasurableDifference);
        assert_eq!((swapped.queries.improved, swapped.queries.worsened), (20, 20));
        let few = comparison(|_| (5, 1), 9);
        assert_eq!(few.verdict, Verdict::NoMeasurableDifference);
        assert!(few.conclusion.contains("too few"));
    }

    #[test]
    fn the_text_is_aligned_and_fits_a_terminal_of_100_columns() {
        let comparison = comparison(|query| (query % 21, 1), 40);
        let table = comparison.table();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("mRR@20 "), "{table}");
        assert_eq!(lines[0].find("finetuned").unwrap(), lines[1].match_indices('[').nth(1).unwrap().0 - 7, "{table}");
        assert_eq!(lines[0].find("delta").unwrap(), lines[6].find('+').unwrap(), "{table}");
        let text = comparison.to_string();
        assert!(text.lines().all(|line| line.chars().count() < 100 && line == line.trim_end()), "{text}");
        assert!(text.contains("…") && text.contains("beyond 20 -> 1"), "{text}");
    }

    #[test]
    fn the_report_keeps_the_documented_shape_and_reads_back() {
        let comparison = comparison(|query| (query % 7, 1), 40);
        let json = serde_json::to_value(&comparison).unwrap();
        for pointer in [
            "/metrics/k",
            "/metrics/pretrained/mrr",
            "/metrics/finetuned/ndcg_at_10",
            "/metrics/delta/map",
            "/metrics/interval/mrr/1",
            "/metrics/original/delta/average_precision",
            "/queries/improved",
            "/queries/worsened",
            "/queries/unchanged",
            "/queries/examples/improved/0/first_after",
        ] {
            assert!(json.pointer(pointer).is_some(), "{pointer}");
        }
        assert_eq!(json["verdict"], "improved");
        let again: Comparison = serde_json::from_str(&serde_json::to_string(&comparison).unwrap()).unwrap();
        assert_eq!(again.queries, comparison.queries);
    }

    #[test]
    fn evaluations_of_different_queries_are_not_compared() {
        let evaluation = |relevant: &[Vec<(u32, f32)>], k| Evaluation::new(&[vec![], vec![]], relevant, k).unwrap();
        let before = evaluation(&[vec![(0, 1.0)], vec![]], 20);
        for after in [evaluation(&[vec![], vec![(0, 1.0)]], 20), evaluation(&[vec![(0, 1.0)], vec![]], 10)] {
            assert!(Comparison::new(&before, &after, &["a", "b"], &["c"], Bootstrap::default(), EXAMPLES).is_err());
        }
        let problem =
            Comparison::new(&before, &before, &["a", "b"], &[""; 0], Bootstrap::default(), EXAMPLES).unwrap_err();
        assert!(problem.to_string().contains("document 0 has no text"));
    }
}
