//! Rows of separated, quoted columns (RFC 4180), the delimiter found out from the text.
//!
//! A parser of our own, because the `csv` crate reads a broken quote without complaint: the rest of the file becomes
//! one text. On well-formed input both agree; a test says so.

use std::borrow::Cow;
use std::path::Path;

use super::collect::{Cell, Collector};
use super::columns::{self, Role};
use super::{Dataset, Kind};
use crate::error::{Error, Result};

/// What may stand between columns, by preference.
const DELIMITERS: [(char, &str); 4] = [(',', "comma"), ('\t', "tab"), (';', "semicolon"), ('|', "pipe")];

/// Rows looked at to find the delimiter and to tell scores from texts.
const SAMPLE: usize = 200;

/// One row: the line it starts on and its cells.
struct Record<'a> {
    line: u64,
    cells: Vec<Cow<'a, str>>,
}

/// The rows of a text, or the error of the first broken one.
struct Records<'a> {
    path: &'a Path,
    text: &'a str,
    delimiter: char,
    at: usize,
    line: u64,
}

impl<'a> Records<'a> {
    fn new(path: &'a Path, text: &'a str, delimiter: char) -> Records<'a> {
        Records { path, text, delimiter, at: 0, line: 1 }
    }

    fn record(&mut self) -> Result<Record<'a>> {
        let mut record = Record { line: self.line, cells: Vec::new() };
        loop {
            let cell = if self.text[self.at..].starts_with('"') { self.quoted()? } else { self.plain() };
            record.cells.push(cell);
            match self.text[self.at..].chars().next() {
                Some(next) if next == self.delimiter => self.at += 1,
                _ => break,
            }
        }
        let rest = &self.text[self.at..];
        let end = if rest.starts_with("\r\n") { 2 } else { rest.len().min(1) };
        self.at += end;
        self.line += 1;
        Ok(record)
    }

    fn plain(&mut self) -> Cow<'a, str> {
        let rest = &self.text[self.at..];
        let end = rest.find([self.delimiter, '\n']).unwrap_or(rest.len());
        let cell = &rest[..end];
        // A carriage return belongs to the end of the line, not to the last cell.
        let cell = if rest[end..].starts_with(self.delimiter) { cell } else { cell.strip_suffix('\r').unwrap_or(cell) };
        self.at += cell.len();
        if rest[cell.len()..] == *"\r" {
            self.at += 1;
        }
        Cow::Borrowed(cell)
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>> {
        let opened = self.line;
        let mut cell = Cow::Borrowed("");
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find('"') else {
                let problem = "a quote opens here and is never closed; close it, or write \"\" for a quote in a text";
                return Err(Error::data(self.path, opened, problem));
            };
            match &mut cell {
                Cow::Borrowed("") => cell = Cow::Borrowed(&rest[..end]),
                grown => grown.to_mut().push_str(&rest[..end]),
            }
            self.line += rest[..end].matches('\n').count() as u64;
            self.at += end + 1;
            let after = &rest[end + 1..];
            if after.starts_with('"') {
                cell.to_mut().push('"');
                self.at += 1;
            } else if matches!(after, "" | "\r")
                || after.starts_with([self.delimiter, '\n'])
                || after.starts_with("\r\n")
            {
                return Ok(cell);
            } else {
                let got: String = after.chars().take(20).take_while(|next| *next != '\n').collect();
                let problem = format!(
                    "a quoted text opens here and is followed by `{got}` on line {} instead of a delimiter; write \"\" \
                     for a quote in a text",
                    self.line
                );
                return Err(Error::data(self.path, opened, problem));
            }
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.text.len()).then(|| self.record())
    }
}

/// Reads examples from the text of a CSV file.
pub(super) fn read(path: &Path, text: &str, kind: Option<Kind>) -> Result<Dataset> {
    let (delimiter, delimiter_name) = sniff(path, text);
    let Some(first) = Records::new(path, text, delimiter).next().transpose()? else {
        return Err(Error::data(path, None, "holds no examples: the file is empty"));
    };
    let count = first.cells.len();
    let named: Vec<Option<Role>> = first.cells.iter().map(|cell| Role::of(cell)).collect();
    let known: Vec<Role> = named.iter().flatten().copied().collect();
    let header = columns::kind_of(&known).filter(|_| first.cells.iter().all(|cell| looks_like_name(cell)));

    let (kind, roles, why) = match (kind, header) {
        (kind, Some(by_name)) => {
            refuse_twins(path, &first, &named)?;
            let why =
                if kind.is_some() { "kind as asked for, columns from the header" } else { "kind from the header" };
            (kind.unwrap_or(by_name), named, format!("{why} ({})", first.cells.join(", ")))
        }
        (Some(kind), None) => {
            (kind, by_place(path, &first, kind)?, format!("kind as asked for, {}", no_header(&first)))
        }
        (None, None) => {
            let third_is_number = count == 3 && mostly_numbers(path, text, delimiter);
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
            (kind, by_place(path, &first, kind)?, format!("{why}, {}", no_header(&first)))
        }
    };

    let names: Vec<String> = match header {
        Some(_) => first.cells.iter().map(|cell| cell.trim().to_owned()).collect(),
        None => (1..=count).map(|column| column.to_string()).collect(),
    };
    let mut collector = Collector::new(path, kind);
    for record in Records::new(path, text, delimiter).skip(usize::from(header.is_some())) {
        let record = record?;
        if record.cells.len() != count {
            if record.cells.len() == 1 && record.cells[0].trim().is_empty() {
                continue; // a blank line between rows
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
        let counts: Vec<usize> =
            Records::new(path, text, delimiter).take(SAMPLE).map_while(Result::ok).map(|row| row.cells.len()).collect();
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
fn mostly_numbers(path: &Path, text: &str, delimiter: char) -> bool {
    let third: Vec<bool> = Records::new(path, text, delimiter)
        .take(SAMPLE)
        .map_while(Result::ok)
        .filter_map(|row| Some(row.cells.get(2)?.trim().parse::<f32>().is_ok()))
        .collect();
    third.iter().filter(|number| **number).count() * 2 > third.len()
}

fn by_place(path: &Path, first: &Record<'_>, kind: Kind) -> Result<Vec<Option<Role>>> {
    let count = first.cells.len();
    let roles = columns::by_place(kind, count).ok_or_else(|| {
        let expected = match kind {
            Kind::Single => "1 column",
            Kind::Pairs | Kind::Labelled => "2 columns",
            Kind::Scored => "3 columns",
            Kind::Triplets => "3 columns or more",
        };
        let problem = format!("expected {expected} for {kind}, got {count}; {}", columns::ADVICE);
        Error::data(path, first.line, problem)
    })?;
    Ok(roles.into_iter().map(Some).collect())
}

fn refuse_twins(path: &Path, header: &Record<'_>, named: &[Option<Role>]) -> Result<()> {
    for (at, role) in named.iter().enumerate() {
        if let Some(role) = role.filter(|role| *role != Role::Negative)
            && let Some(before) = named[..at].iter().position(|earlier| *earlier == Some(role))
        {
            let (first, second) = (&header.cells[before], &header.cells[at]);
            let problem = format!("columns `{first}` and `{second}` both mean `{}`; rename one", role.name());
            return Err(Error::data(path, header.line, problem));
        }
    }
    Ok(())
}

/// Whether a cell could be a column's name: short, one line, no sentence.
fn looks_like_name(cell: &str) -> bool {
    cell.len() <= 40 && !cell.contains(['\n', '.', '?', '!', ','])
}

fn no_header(first: &Record<'_>) -> String {
    format!("no header of known names: the first row is {}", start(first))
}

/// The first cells of a row, shortened, for messages.
fn start(record: &Record<'_>) -> String {
    let shorten = |cell: &Cow<'_, str>| match cell.char_indices().nth(24) {
        Some((end, _)) => format!("`{}…`", &cell[..end]),
        None => format!("`{cell}`"),
    };
    record.cells.iter().take(6).map(shorten).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
