use std::path::Path;

use super::super::csv;
use super::*;

fn data(rows: &str) -> Dataset {
    csv::read(Path::new("train.csv"), rows, None, &Default::default()).unwrap()
}

fn findings(rows: &str) -> Vec<Finding> {
    let train = data(rows);
    Subject { train: &train, evaluation: None, queries: &[], index: None, lengths: None }.findings()
}

/// The rules that found something, with their counts.
fn rules(findings: &[Finding]) -> Vec<(&str, usize)> {
    findings.iter().map(|finding| (finding.rule.as_str(), finding.count)).collect()
}

fn lines(finding: &Finding) -> Vec<u64> {
    finding.examples.iter().map(|place| place.line).collect()
}

#[test]
fn clean_data_has_no_findings() {
    assert_eq!(findings("text,label\na b,x\nc d,x\ne f,y\ng h,y\n"), []);
    assert_eq!(findings("anchor,positive\na b,c d\ne f,g h\n"), []);
    assert_eq!(findings("a b,c d,0.5\ne f,g h,1.5\n"), []);
}

#[test]
fn repeated_rows_are_found_with_the_lines_of_the_file() {
    let found = findings("anchor,positive\na b,c\n\"x\ny\",z\na b,c\nA b!,c.\nx y,w\na b,c\n");
    assert_eq!(rules(&found), [("duplicates", 2), ("near_duplicates", 1)]);
    assert_eq!(lines(&found[0]), [5, 8]);
    assert_eq!((found[0].examples[0].note.as_str(), lines(&found[1])), ("first on line 2", vec![6]));
}

#[test]
fn a_score_may_stand_in_either_order_and_differ_a_little() {
    let found = findings("a,b,0\nc,d,5\ne,f,3\nF,E,3.4\ng,h,1\nh,g,4\n");
    assert_eq!(rules(&found), [("contradictions", 1)]);
    assert_eq!(found[0].examples[0].note, "4, but 1 on line 5");
}

#[test]
fn a_text_under_two_labels_is_counted_once() {
    let found = findings("text,label\na b,x\nc,x\nA B,y\nd,y\na b.,z\nf,z\ng,z\n");
    assert_eq!(rules(&found), [("contradictions", 1)]);
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!((lines(&found[0]), found[0].examples[0].note.as_str()), (vec![4], "`y`, but `x` on line 2"));
}

#[test]
fn a_negative_that_other_rows_call_a_match_is_a_contradiction() {
    let found = findings("anchor,positive,negative\na,b,c\na,d,b\ne,f,g\nh,i,I!\n");
    assert_eq!(rules(&found), [("contradictions", 2)]);
    assert_eq!(lines(&found[0]), [3, 5]);
}

#[test]
fn small_and_similar_classes_are_found() {
    let found = findings("text,label\na,x\nb,x\nc,Lone\nd,X\ne,X\nf,lone-2\nf!,lone-2\n");
    assert_eq!(rules(&found), [("single_item_classes", 2), ("similar_labels", 1), ("near_duplicates", 1)]);
    assert_eq!(lines(&found[0]), [4, 7]);
    assert_eq!(found[1].examples[0].note, "`X`, elsewhere `x`");
}

#[test]
fn empty_rows_are_errors_and_wordless_texts_warnings() {
    let found = findings("text,label\na,x\n,x\nb,y\n?!,y\nc,x\nd,\n");
    assert_eq!(rules(&found), [("empty", 2), ("wordless", 1)]);
    assert_eq!((lines(&found[0]), lines(&found[1])), (vec![3, 7], vec![5]));
    assert_eq!(found[0].severity, Severity::Error);
    let error = data("text,label\na,x\n,x\nb,y\n").without_empty_rows().unwrap_err().to_string();
    assert_eq!(error, "train.csv:3: expected a text in column `text`, got none");
}

#[test]
fn an_anchor_may_be_its_own_positive_but_that_is_told() {
    assert_eq!(rules(&findings("anchor,positive\na b,A b\nc,d\n")), [("identical_pairs", 1)]);
}

#[test]
fn items_and_queries_that_were_trained_on_are_leaks_and_an_index_is_not() {
    let train = data("text,label\nhow are you,x\nb,x\nc,y\nd,y\n");
    let evaluation =
        csv::read(Path::new("eval.csv"), "text,label\nHow are you?,x\ne,x\nf,y\ng,y\n", None, &Default::default())
            .unwrap();
    let queries = RetrievalSet::from_labelled(&evaluation, Some(&train)).unwrap();
    let by_items = Subject { train: &train, evaluation: Some(&evaluation), queries: &[], index: None, lengths: None };
    let by_queries = Subject { evaluation: None, queries: &[&queries], ..by_items };
    for found in [by_items.findings(), by_queries.findings()] {
        assert_eq!(rules(&found), [("leakage", 1)]);
        let place = &found[0].examples[0];
        assert_eq!((place.path.as_str(), place.line, place.note.as_str()), ("eval.csv", 2, "also train.csv:2"));
    }
    let scored = data("a,b,1\nc,d,2\n");
    let again = csv::read(Path::new("eval.csv"), "b,A,1\na,d,2\n", None, &Default::default()).unwrap();
    let subject = Subject { train: &scored, evaluation: Some(&again), queries: &[], index: None, lengths: None };
    assert_eq!(rules(&subject.findings()), [("leakage", 1)]);
}

#[test]
fn many_cut_texts_are_a_warning_and_few_a_note() {
    let train = data(&(0..40).fold("text\n".to_owned(), |rows, number| format!("{rows}text {number}\n")));
    let finding = |limit: usize| {
        let tokens = (0..40).map(|id| (ItemId(id), id as usize + 1)).collect();
        length::find(&train, &Lengths { limit, tokens })
    };
    let note = finding(39);
    assert_eq!((note.rule.as_str(), note.severity, note.count, lines(&note)), ("length", Severity::Note, 1, vec![41]));
    let warning = finding(30);
    assert_eq!((warning.rule.as_str(), warning.severity, warning.count), ("truncation", Severity::Warning, 10));
    let details = warning.details.unwrap();
    assert_eq!(details["histogram"], serde_json::json!([[8, 8], [16, 8], [32, 16], [64, 8]]));
    assert_eq!((&details["median"], &details["p95"], &details["longest"]), (&20.into(), &38.into(), &40.into()));
}

#[test]
fn a_second_language_is_noted_and_one_is_not() {
    let english = "The government announced yesterday that the new railway line between the two cities would not be \
                   finished before the end of next year";
    let german = "Die Regierung teilte gestern mit dass die neue Bahnstrecke zwischen den beiden Städten nicht vor Ende \
                  des nächsten Jahres fertig werden wird";
    let rows = |german_rows: usize| {
        let rows = (0..20).map(|row| format!("{} {row}\n", if row < german_rows { german } else { english }));
        format!("text\n{}", rows.collect::<String>())
    };
    assert_eq!(findings(&rows(0)), []);
    let found = findings(&rows(5));
    assert_eq!(rules(&found), [("languages", 2)]);
    assert_eq!(found[0].message, "texts of 2 languages: English 75 %, German 25 %");
}

#[test]
fn a_hundred_thousand_rows_take_a_moment() {
    let rows = (0..100_000)
        .fold("text,label\n".to_owned(), |rows, row| rows + &format!("text number {row},class {}\n", row % 70));
    let train = data(&rows);
    let started = std::time::Instant::now();
    let found =
        Subject { train: &train, evaluation: Some(&train), queries: &[], index: None, lengths: None }.findings();
    assert_eq!(rules(&found), [("leakage", 100_000)]);
    eprintln!("{:.2} s", started.elapsed().as_secs_f64());
}
