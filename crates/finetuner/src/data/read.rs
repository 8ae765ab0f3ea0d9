//! From a path to examples: CSV, JSONL, Parquet, lines of text, or one split of a BEIR folder.

use std::path::Path;

use super::address::Address;
use super::collect::{Cell, Collector};
use super::columns::{Columns, Role};
use super::{Dataset, Kind, beir, csv, folder, jsonl, npy, parquet, shards};
use crate::error::{Error, Result};

/// Reads examples.
///
/// - `.csv`, `.tsv` and files of unknown ending: columns separated by comma, tab, semicolon or pipe (found out from
///   the text), quoted where needed, with or without a header.
/// - `.jsonl`, `.ndjson`, `.json`: an object, an array of texts or a text a line, or one array of objects.
/// - `.parquet`: flat columns of texts and numbers and lists of numbers, by name as in a CSV header; uncompressed or with
///   Snappy.
/// - `.npy`: an array of NumPy, float32 or float64, each row a vector alone.
/// - `.txt`: one text a line, unless another kind than `single` is asked for.
/// - a folder, or `DIR:split`: BEIR; each query with every document judged relevant.
/// - a folder of pictures: `FOLDER/CLASS/…/picture.jpg` is labelled, pictures in the folder itself are single.
/// - `.tar`, or a folder of such: webdataset's layout, `key.jpg` beside `key.txt` (a caption), `key.cls` or `key.json`.
///
/// Pictures may stand wherever a text may: a column whose first value is the name of a picture file (or a URL of one) holds
/// pictures, and so does a column `image picture photo img`, or `file path url …` above such names. Files are looked for in the
/// folder of the data file and may not leave it. An `image` beside `text caption query` is a pair of both; several captions
/// of a picture are all its matches.
///
/// So may vectors, all of one length: an array of numbers in JSONL, a list of numbers in Parquet, `[0.5, -1]` in a CSV, or
/// `vectors.npy:7`, the row 7 (the first is 0) of an array beside the data file. A column `vector embedding` holds them;
/// beside a text or a picture it is looked at only by [`Dataset::into_vectors`].
///
/// The kind is `kind` where given, else it is taken from the names in the header (or the keys of the first object),
/// else from the number of columns; [`Dataset::decision`] says how it was decided. Items lose the white space around
/// them. Columns of other names are told after a colon, `FILE:anchor=name,positive=description`; then no other is looked at.
/// Names (in any case): `anchor query question sentence1 text1`, `positive document answer sentence2 text2`,
/// `negative negative1 …`, `text item sentence`, `label category class`, `score similarity`, `id`, `title`.
///
/// A teacher's scores stand beside triplets (`scored_triplets`): `score` or `margin`, one for each negative, is the
/// positive's score minus the negative's; one more than there are negatives (`score1 score2 …`, or a list `scores` or
/// `label` in JSONL) are the scores themselves, the positive's first. `pos_scores` and `neg_scores` are read as
/// FlagEmbedding writes them. Without a header: `anchor, positive, negative …, score …`.
///
/// # Errors
/// With file and line (Parquet: row): bad UTF-8, a broken quote, a wrong number of columns, an empty text or label, a score that is
/// not a finite number. With the file: it is missing or empty, its kind cannot be decided, it has one class only.
pub fn read(path: &Path, kind: Option<Kind>) -> Result<Dataset> {
    inspect(path, kind)?.without_empty_rows()
}

/// As [`read`], but rows that lack a text or a label are left out and listed in [`Dataset::empty`].
///
/// # Errors
/// As [`read`], but for empty texts and labels, unless no row is left.
pub fn inspect(path: &Path, kind: Option<Kind>) -> Result<Dataset> {
    let (path, columns) = match Address::of(path)? {
        Address::Beir { folder, split } => {
            if let Some(kind) = kind.filter(|kind| *kind != Kind::Pairs) {
                return Err(Error::data(folder, None, format!("a BEIR folder holds pairs, asked for {kind}")));
            }
            return beir::read_pairs(&folder, split.as_deref());
        }
        Address::Pictures(folder) => return folder::read(&folder, kind),
        Address::Shards(path) => return shards::read(&path, kind),
        Address::File { path, columns } => (path, columns),
    };
    let mut data = read_file(&path, kind, &Columns::parse(&path, columns.as_deref())?)?;
    if let Some(columns) = columns {
        data.decision += &format!("; as told: {columns}");
    }
    Ok(data)
}

fn read_file(path: &Path, kind: Option<Kind>, columns: &Columns) -> Result<Dataset> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_lowercase();
    match extension.as_str() {
        "parquet" => return parquet::read(path, kind, columns),
        "npy" if columns.told() => return Err(Error::data(path, None, "has no columns that could be told apart")),
        "npy" => return npy::read(path, kind),
        _ => {}
    }
    let text = read_text(path)?;
    match extension.as_str() {
        "txt" if !columns.told() && kind.is_none_or(|kind| kind == Kind::Single) => read_lines(path, &text),
        "jsonl" | "ndjson" | "json" => jsonl::read(path, &text, kind, columns),
        _ => csv::read(path, &text, kind, columns),
    }
}

/// The documents of the BEIR folder that the path names, empty ones left out; `None` where it names a file.
///
/// # Errors
/// [`Error::Data`] with the line, [`Error::Io`].
pub fn read_corpus(path: &Path) -> Result<Option<Vec<String>>> {
    let Address::Beir { folder, .. } = Address::of(path)? else { return Ok(None) };
    let mut documents = Vec::new();
    beir::for_each(&folder.join("corpus.jsonl"), |_, _, text| {
        documents.extend(Some(text).filter(|text| !text.is_empty()));
        Ok(())
    })?;
    Ok(Some(documents))
}

fn read_lines(path: &Path, text: &str) -> Result<Dataset> {
    let mut collector = Collector::new(path, Kind::Single);
    for (line, text) in (1..).zip(text.lines()) {
        collector.push(line, &[Cell { role: Role::Text, column: "1", value: text }])?;
    }
    collector.finish("one text a line")
}

/// How files begin that hold no UTF-8, what they hold, and what to do.
const OTHER_FORMS: [(&[u8], &str, &str); 7] = [
    (b"\xFF\xFE", "UTF-16", "save the file as UTF-8"),
    (b"\xFE\xFF", "UTF-16", "save the file as UTF-8"),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet", "unpack it, or export the table as CSV"),
    (b"\xD0\xCF\x11\xE0", "a spreadsheet", "export the table as CSV"),
    (b"\x1F\x8B", "a file packed by gzip", "unpack it"),
    (b"\x28\xB5\x2F\xFD", "a file packed by zstd", "unpack it"),
    (b"PAR1", "Parquet", "give the file a name that ends in `.parquet`"),
];

/// The text of a UTF-8 file, without its byte order mark.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let mut bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    if let Some((_, form, advice)) = OTHER_FORMS.iter().find(|(start, ..)| bytes.starts_with(start)) {
        return Err(Error::data(path, 1, format!("expected UTF-8, got {form}; {advice}")));
    }
    if bytes.starts_with("\u{FEFF}".as_bytes()) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).or_else(|error| utf8(path, error.as_bytes(), 1).map(str::to_owned))
}

/// Bytes that start on this line as text, or the line of the first bad byte.
pub(super) fn utf8<'a>(path: &Path, bytes: &'a [u8], line: u64) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        let line = line + good.iter().filter(|byte| **byte == b'\n').count() as u64;
        let problem = format!("expected UTF-8, got the byte 0x{:02X}; save the file as UTF-8", bytes[good.len()]);
        Error::data(path, line, problem)
    })
}

#[cfg(test)]
#[path = "read_tests.rs"]
pub(super) mod tests;
