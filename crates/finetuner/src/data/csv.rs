//! Rows of separated, quoted columns (RFC 4180), the delimiter found out from the text.
//!
//! The `csv` crate parses. It reads a broken quote without complaint, the rest of the file becoming one text, so
//! [`check_quotes`] goes over the text before any row is kept.

use std::path::Path;

use ::csv::{ReaderBuilder, StringRecord, StringRecordsIntoIter, Terminator};

use super::collect::{Cell, Collector};
use super::columns::{self, Columns, Role};
use super::{Dataset, Kind};
use crate::error::{Error, Result};

/// What may stand between columns, by preference.
const DELIMITERS: [(char, &str); 4] = [(',', "comma"), ('\t', "tab"), (';', "semicolon"), ('|', "pipe")];

/// Rows looked at to find the delimiter and to tell scores from texts.
const SAMPLE: usize = 200;

/// One row: the line it starts on, the first of the blank lines before it, and its cells.
struct Record {
    line: u64,
    blank: Option<u64>,
    cells: StringRecord,
}

/// The rows of a text that are not blank.
struct Records<'a> {
    text: &'a str,
    rows: StringRecordsIntoIter<&'a [u8]>,
}

impl<'a> Records<'a> {
    fn new(text: &'a str, delimiter: char) -> Records<'a> {
        let mut reader = ReaderBuilder::new();
        // Ending rows at line feeds only keeps the crate's line numbers right where lines end in CR LF.
        reader.delimiter(delimiter as u8).terminator(Terminator::Any(b'\n')).has_headers(false).flexible(true);
        Records { text, rows: reader.from_reader(text.as_bytes()).into_records() }
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let position = self.rows.reader().position();
        let (line, at) = (position.line(), position.byte() as usize);
        let blank = self.text.as_bytes()[at..].iter().take_while(|byte| **byte == b'\n').count() as u64;
        let mut cells = self.rows.next()?.expect("rows of any length, cut at ASCII from valid UTF-8, or a bug");
        if let Some(last) = cells.iter().next_back().and_then(|cell| cell.strip_suffix('\r')).map(str::to_owned) {
            cells.truncate(cells.len() - 1);
            cells.push_field(&last);
        }
        Some(Record { line: line + blank, blank: (blank > 0).then_some(line), cells })
    }
}

/// Refuses a quote that is never closed, and text between a closing quote and the delimiter.
fn check_quotes(path: &Path, text: &str, delimiter: char) -> Result<()> {
    /// Where in a cell; with the line on which its quote opened.
    enum State {
        Start,
        Plain,
        Quoted(u64),
        Closed(u64),
    }
    let (mut state, mut line) = (State::Start, 1);
    for (at, next) in text.char_indices() {
        state = match (state, next) {
            (State::Start, '"') => State::Quoted(line),
            (State::Quoted(opened), '"') => State::Closed(opened),
            (State::Closed(opened), '"') => State::Quoted(opened),
            (State::Quoted(opened), _) => State::Quoted(opened),
            (_, '\n') => State::Start,
            (_, next) if next == delimiter => State::Start,
            (State::Closed(opened), '\r') if matches!(text[at + 1..].chars().next(), None | Some('\n')) => {
                State::Closed(opened)
            }
            (State::Closed(opened), _) => {
                let got: String = text[at..].chars().take(20).take_while(|next| *next != '\n').collect();
                let problem = format!(
                    "a quoted text opens here and is followed by `{got}` on line {line} instead of a delimiter; write \
                     \"\" for a quote in a text"
                );
                return Err(Error::data(path, opened, problem));
            }
            (State::Start | State::Plain, _) => State::Plain,
        };
        line += u64::from(next == '\n');
    }
    if let State::Quoted(opened) = state {
        let problem = "a quote opens here and is never closed; close it, or write \"\" for a quote in a text";
        return Err(Error::data(path, opened, problem));
    }
    Ok(())
}

/// Reads examples from the text of a CSV file.
pub(super) fn read(path: &Path, text: &str, kind: Option<Kind>, columns: &Columns) -> Result<Dataset> {
    let (delimiter, delimiter_name) = sniff(path, text);
    let Some(first) = Records::new(text, delimiter).next() else {
        return Err(Error::data(path, None, "holds no examples: the file is empty"));
    };
    let count = first.cells.len();
    let second = Records::new(text, delimiter).nth(1);
    let below = |at: usize| second.as_ref().and_then(|second| second.cells.get(at)).unwrap_or_default();
    let top: Vec<&str> = first.cells.iter().collect();
    let named: Vec<Option<Role>> = top.iter().enumerate().map(|(at, name)| columns.role(name, below(at))).collect();
    columns.check(path, first.line, &top)?;
    let known: Vec<Role> = named.iter().flatten().copied().collect();
    // A row with a known name in it is a header, and no data.
    let is_header = !known.is_empty() && (columns.told() || top.iter().copied().all(looks_like_name));
    let header = columns::kind_of(&known).filter(|_| is_header);
    if is_header && header.is_none() {
        let names = top.iter().zip(&named).filter(|(_, role)| role.is_some());
        let names = names.map(|(name, _)| format!("`{}`", name.trim())).collect::<Vec<_>>().join(", ");
        let problem = format!("cannot decide the kind by {names} alone: {}", columns::ADVICE);
        return Err(Error::data(path, first.line, problem));
    }

    let (kind, roles, why) = match (kind, header) {
        (kind, Some(by_name)) => {
            if let Some(problem) = columns::twins(&top, &named) {
                return Err(Error::data(path, first.line, problem));
            }
            let why =
                if kind.is_some() { "kind as asked for, columns from the header" } else { "kind from the header" };
            (kind.unwrap_or(by_name), named, format!("{why} ({})", top.join(", ")))
        }
        (Some(kind), None) => {
            let roles = by_place(path, &first, kind)?;
            let why = format!("kind as asked for, {}", no_header(path, &first, &roles));
            (kind, roles, why)
        }
        (None, None) => {
            let third_is_number = count == 3 && mostly_numbers(text, delimiter);
            let kind = columns::kind_by_count(count, third_is_number).ok_or_else(|| {
                let problem = format!(
                    "cannot decide the kind of {count} columns that start with {}: {}, or give the kind (`--kind`) \
                     and only its columns",
                    start(&first),
                    columns::ADVICE
                );
                Error::data(path, first.line, problem)
            })?;
            let why = match kind {
                Kind::Pairs => "two columns (if the second is a label, give the kind `labelled`)",
                Kind::Scored => "two texts and a number",
                Kind::Triplets => "three texts",
                _ => "one column",
            };
            let roles = by_place(path, &first, kind)?;
            let why = format!("{why}, {}", no_header(path, &first, &roles));
            (kind, roles, why)
        }
    };

    let names: Vec<String> = match header {
        Some(_) => top.iter().map(|cell| cell.trim().to_owned()).collect(),
        None => (1..=count).map(|column| column.to_string()).collect(),
    };
    check_quotes(path, text, delimiter)?;
    let mut collector = Collector::new(path, kind);
    for record in Records::new(text, delimiter).skip(usize::from(header.is_some())) {
        // Where rows have one column, a blank line is a row whose text is missing.
        if let (Some(line), 1, Some(role)) = (record.blank, count, roles[0]) {
            collector.push(line, &[Cell { role, column: &names[0], value: "" }])?;
        }
        if record.cells.len() != count {
            if record.cells.len() == 1 && record.cells[0].trim().is_empty() {
                continue; // a line of white space between rows
            }
            let problem = format!(
                "expected {count} columns as on line {}, got {}; quote texts that contain a {delimiter_name}",
                first.line,
                record.cells.len()
            );
            return Err(Error::data(path, record.line, problem));
        }
        let cells: Vec<Cell<'_>> = (0..count)
            .filter_map(|at| Some(Cell { role: roles[at]?, column: &names[at], value: &record.cells[at] }))
            .collect();
        collector.push(record.line, &cells)?;
    }
    let separated = if count > 1 { format!("; columns separated by {delimiter_name}") } else { String::new() };
    collector.finish(&format!("{why}{separated}"))
}

/// The delimiter under which most of the first rows have the first row's number of columns, at least two.
fn sniff(path: &Path, text: &str) -> (char, &'static str) {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv")) {
        return DELIMITERS[1];
    }
    let agreement = |delimiter: char| {
        let counts: Vec<usize> = Records::new(text, delimiter).take(SAMPLE).map(|row| row.cells.len()).collect();
        let first = counts.first().copied().filter(|count| *count > 1)?;
        let agreeing = counts.iter().filter(|count| **count == first).count();
        Some(agreeing as f64 / counts.len() as f64)
    };
    let mut best = (DELIMITERS[0], 0.0);
    for candidate in DELIMITERS {
        match agreement(candidate.0) {
            Some(share) if share > best.1 => best = (candidate, share),
            _ => {}
        }
    }
    best.0
}

/// Whether more than half of the third cells are numbers; a few broken scores do not make texts of the others.
fn mostly_numbers(text: &str, delimiter: char) -> bool {
    let third: Vec<bool> = Records::new(text, delimiter)
        .take(SAMPLE)
        .filter_map(|row| Some(row.cells.get(2)?.trim().parse::<f32>().is_ok()))
        .collect();
    third.iter().filter(|number| **number).count() * 2 > third.len()
}

fn by_place(path: &Path, first: &Record, kind: Kind) -> Result<Vec<Option<Role>>> {
    let count = first.cells.len();
    let roles = columns::by_place(kind, count).ok_or_else(|| {
        let expected = match kind {
            Kind::Single => "1 column",
            Kind::Pairs | Kind::Labelled => "2 columns",
            Kind::Scored | Kind::LabelledPairs => "3 columns",
            Kind::Triplets => "3 columns or more",
            Kind::ScoredTriplets => "4 columns or more",
        };
        let problem = format!("expected {expected} for {kind}, got {count}; {}", columns::ADVICE);
        Error::data(path, first.line, problem)
    })?;
    Ok(roles.into_iter().map(Some).collect())
}

/// Whether a cell could be a column's name: short, one line, no sentence.
fn looks_like_name(cell: &str) -> bool {
    cell.len() <= 40 && !cell.contains(['\n', '.', '?', '!', ','])
}

/// That the first row was taken for data, and what to write where it is a header.
fn no_header(path: &Path, first: &Record, roles: &[Option<Role>]) -> String {
    let mut found = format!("no header of known names: the first row is {}", start(first));
    if first.cells.iter().all(|cell| looks_like_name(cell) && !cell.contains(['=', ':'])) {
        let told =
            roles.iter().flatten().zip(&first.cells).map(|(role, name)| format!("{}={}", role.name(), name.trim()));
        let file = path.file_name().unwrap_or_default().display();
        found += &format!(" (were it a header: `{file}:{}`)", told.collect::<Vec<_>>().join(","));
    }
    found
}

/// The first cells of a row, shortened, for messages.
fn start(record: &Record) -> String {
    let shorten = |cell: &str| match cell.char_indices().nth(24) {
        Some((end, _)) => format!("`{}…`", &cell[..end]),
        None => format!("`{cell}`"),
    };
    record.cells.iter().take(6).map(shorten).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
