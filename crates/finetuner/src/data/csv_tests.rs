use super::super::random::Random;
use super::super::{Example, ItemId};
use super::*;

fn data(text: &str) -> Result<Dataset> {
    read(Path::new("rows.csv"), text, None, &Columns::Known)?.without_empty_rows()
}

fn texts(dataset: &Dataset) -> Vec<&str> {
    (0..dataset.items.len() as u32).map(|id| dataset.items.get(ItemId(id))).collect()
}

fn fails(text: &str, kind: Option<Kind>, expected: &str) {
    let data = read(Path::new("rows.csv"), text, kind, &Columns::Known).and_then(Dataset::without_empty_rows);
    let error = data.map(|data| data.decision).unwrap_err().to_string();
    assert!(error.contains(expected), "{text:?}: {error}");
}

#[test]
fn what_the_csv_crate_writes_is_read_back() {
    let pieces = ["a", "ü", ",", ";", "\"", "\n", "\r\n", " ", "", "long text"];
    for seed in 0..300 {
        let mut random = Random::new(seed, 0);
        let columns = 1 + random.below(4);
        let ending = if random.below(2) == 0 { ::csv::Terminator::CRLF } else { ::csv::Terminator::Any(b'\n') };
        let mut writer = ::csv::WriterBuilder::new().terminator(ending).from_writer(Vec::new());
        let mut written = Vec::new();
        for _ in 0..1 + random.below(5) {
            let cell =
                |random: &mut Random| (0..1 + random.below(4)).map(|_| pieces[random.below(pieces.len())]).collect();
            let mut cells: Vec<String> = (0..columns).map(|_| cell(&mut random)).collect();
            cells[0].push('x'); // the csv crate skips rows that are empty
            writer.write_record(&cells).unwrap();
            written.push(cells);
        }
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        check_quotes(Path::new("rows.csv"), &text, ',').unwrap();
        let read: Vec<Vec<String>> =
            Records::new(&text, ',').map(|record| record.cells.iter().map(str::to_owned).collect()).collect();
        assert_eq!(read, written, "{text:?}");
    }
}

#[test]
fn lines_are_counted_through_blank_lines_carriage_returns_and_quoted_breaks() {
    let text = "a,b\r\n\n\r\n\"c\r\nc\",d\n\n\ne,f";
    let lines: Vec<u64> = Records::new(text, ',').filter(|row| row.cells.len() == 2).map(|row| row.line).collect();
    assert_eq!(lines, [1, 4, 8]);
}

#[test]
fn any_text_is_read_or_refused_without_a_panic() {
    let pieces =
        ["a", "ü", ",", ";", "\t", "\"", "\"", "\n", "\r", " ", "NaN", "1", "text", "label", "anchor", "positive"];
    for seed in 0..5_000 {
        let mut random = Random::new(seed, 1);
        let text: String = (0..random.below(20)).map(|_| pieces[random.below(pieces.len())]).collect();
        let kinds = [None, Some(Kind::Pairs), Some(Kind::Triplets), Some(Kind::Labelled), Some(Kind::Single)];
        let kind = kinds[random.below(kinds.len())];
        if let Err(error) = read(Path::new("rows.csv"), &text, kind, &Columns::Known) {
            assert!(error.to_string().starts_with("rows.csv"), "{text:?}: {error}");
        }
    }
}

#[test]
fn every_delimiter_is_found() {
    for (delimiter, name) in DELIMITERS {
        let text = format!("anchor{delimiter}positive\n\"a, b; c\"{delimiter}d\ne{delimiter}\"f | g\th\"\n");
        let dataset = data(&text).unwrap();
        assert_eq!(texts(&dataset), ["a, b; c", "d", "e", "f | g\th"]);
        assert!(dataset.decision.ends_with(&format!("columns separated by {name}")), "{}", dataset.decision);
    }
}

#[test]
fn commas_inside_texts_do_not_hide_the_tab() {
    let dataset = data("one, two, three\tfour\nfive\tsix, seven\neight, nine\tten\n").unwrap();
    assert_eq!(dataset.kind, Kind::Pairs);
    assert_eq!(dataset.examples.len(), 3);
}

#[test]
fn the_header_decides_the_kind_and_the_order_of_columns() {
    let dataset = data("Label,id,Text\nx,1,a\ny,2,b\nx,3,c\n").unwrap();
    assert_eq!((dataset.kind, texts(&dataset)), (Kind::Labelled, vec!["a", "b", "c"]));
    assert_eq!(dataset.label_names, ["x", "y"]);
    assert_eq!(dataset.ids, ["1", "2", "3"]);
    assert_eq!(
        dataset.decision,
        "`rows.csv`: 3 examples read as labelled in 2 classes; kind from the header (Label, id, Text); columns separated \
         by comma"
    );
    let dataset = data("negative2,query,document,negative1\nn2,q,d,n1\n").unwrap();
    assert_eq!(dataset.kind, Kind::Triplets);
    let Example::Triplet { anchor, positive, negatives, .. } = &dataset.examples[0] else { panic!("{dataset:?}") };
    assert_eq!((dataset.items.get(*anchor), dataset.items.get(*positive), negatives.len()), ("q", "d", 2));
    let dataset = data("package,section,positive,anchor,more\np,s,d,q,m\n").unwrap();
    assert_eq!((dataset.kind, texts(&dataset)), (Kind::Pairs, vec!["q", "d"]));
}

#[test]
fn without_a_header_the_number_of_columns_decides() {
    let kind = |text| data(text).unwrap().kind;
    assert_eq!(kind("a\nb\n"), Kind::Single);
    assert_eq!(kind("a,b\nc,d\n"), Kind::Pairs);
    assert_eq!(kind("a,b,5.0\nc,d,0\n"), Kind::Scored);
    assert_eq!(kind("a,b,c\nd,e,f\n"), Kind::Triplets);
    let asked = |text, kind| read(Path::new("rows.csv"), text, Some(kind), &Columns::Known).unwrap();
    assert_eq!(asked("a,x\nb,y\n", Kind::Labelled).label_names, ["x", "y"]);
    assert_eq!(asked("a,b,c,d\ne,f,g,h\n", Kind::Triplets).examples.len(), 2);
}

#[test]
fn the_decision_shows_the_first_row_where_no_header_is_known() {
    let decision = data("left,right\na,b\n").unwrap().decision;
    let expected = "read as pairs; two columns (if the second is a label, give the kind `labelled`), no header of known names: \
                    the first row is `left`, `right` (were it a header: `rows.csv:anchor=left,positive=right`); columns separated by comma";
    assert!(decision.ends_with(expected), "{decision}");
    let decision = data("How are you?,Fine.\na,b\n").unwrap().decision;
    assert!(decision.ends_with("the first row is `How are you?`, `Fine.`; columns separated by comma"), "{decision}");
}

#[test]
fn equal_texts_are_kept_once_and_white_space_around_them_is_dropped() {
    let dataset = data("a, b \n b ,a\n").unwrap();
    assert_eq!(texts(&dataset), ["a", "b"]);
}

#[test]
fn blank_lines_between_rows_are_skipped() {
    assert_eq!(data("a,b\n\nc,d\n\r\n\n").unwrap().examples.len(), 2);
}

#[test]
fn a_wrong_number_of_columns_is_named_with_its_line() {
    let expected = "rows.csv:3: expected 2 columns as on line 1, got 3; quote texts that contain a comma";
    fails("anchor,positive\na,b\nc,d,e\n", None, expected);
    fails("anchor,positive\n\"a\nmore\",b\nc\n", None, "rows.csv:4: expected 2 columns as on line 1, got 1");
    fails("a,b\n", Some(Kind::Scored), "rows.csv:1: expected 3 columns for scored, got 2");
    fails("id,left,right\n1,a,b\n", None, "rows.csv:1: cannot decide the kind by `id` alone: name the columns");
    fails("what,Category\na,b\n", Some(Kind::Labelled), "rows.csv:1: cannot decide the kind by `Category` alone");
    fails("a,b,c,d\n", None, "rows.csv:1: cannot decide the kind of 4 columns that start with `a`, `b`, `c`, `d`");
}

#[test]
fn a_broken_quote_is_named_with_the_line_it_opens_on() {
    fails("a,b\n\"c,d\ne,f\n", None, "rows.csv:2: a quote opens here and is never closed");
    fails("a,b\n\"c\"x,d\n", None, "rows.csv:2: a quoted text opens here and is followed by `x,d` on line 2");
    fails("a,b\n\"c,d\n\"e\",f\n", None, "rows.csv:2: a quoted text opens here and is followed by `e\",f` on line 3");
    fails("\"a", None, "rows.csv:1: a quote opens here and is never closed");
}

#[test]
fn an_empty_text_or_label_is_named_with_its_line_and_column() {
    fails("anchor,document\na, \n", None, "rows.csv:2: expected a text in column `document`, got none");
    fails("a,b\n,d\n", None, "rows.csv:2: expected a text in column `1`, got none");
    fails("text,label\na,x\nb,\n", None, "rows.csv:3: expected a label in column `label`, got none");
    fails("text\na\n\nb\n", None, "rows.csv:3: expected a text in column `text`, got none");
}

#[test]
fn a_score_that_is_no_finite_number_is_named_with_its_line() {
    fails("a,b,0.5\nc,d,NaN\n", None, "rows.csv:2: expected a finite number in column `3`, got `NaN`");
    fails("text1,text2,score\na,b,inf\n", None, "rows.csv:2: expected a finite number in column `score`, got `inf`");
    fails("a,b,1\nc,d,2\ne,f,high\n", None, "rows.csv:3: expected a finite number in column `3`, got `high`");
    fails(
        "first,second,rating\nc,d,2\ne,f,3\n",
        None,
        "rows.csv:1: expected a finite number in column `3`, got `rating`",
    );
}

#[test]
fn one_class_only_is_refused() {
    fails("text,label\na,x\nb,x\n", None, "rows.csv: expected at least 2 classes, got only `x`");
}

#[test]
fn a_file_without_rows_is_refused() {
    fails("", None, "rows.csv: holds no examples: the file is empty");
    fails("text,label\n", None, "rows.csv: holds no examples");
}

#[test]
fn a_header_that_does_not_fit_the_kind_asked_for_is_refused() {
    fails("text,label\na,x\n", Some(Kind::Pairs), "rows.csv:2: pairs need `anchor`, got `text`, `label`");
    fails("query,question,answer\na,b,c\n", None, "rows.csv:1: columns `query` and `question` both mean `anchor`");
}
