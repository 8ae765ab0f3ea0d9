//! Tar shards in the layout of webdataset: the files of an example follow each other and share their name up to the first dot.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::collect::{Cell, Collector};
use super::columns::Role;
use super::{Dataset, Kind, ShardEntry, ShardIndex, is_picture};
use crate::error::{Error, Result};

/// Bytes that a text beside a picture may have.
const TEXT: u64 = 1 << 20;

/// A part of an example: its column and what stands in it.
type Part = (Role, String, String);

/// Reads `key.jpg` with `key.txt` (a caption), `key.cls` (a class) or `key.json` (with the keys of a JSONL row). Pictures stay in
/// the shards; texts are kept.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`] with the shard.
pub(super) fn read(path: &Path, asked: Option<Kind>) -> Result<Dataset> {
    let shards = shards(path)?;
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let mut collector: Option<Collector<'_>> = None;
    let mut number = 0;
    for shard in &shards {
        let index = ShardIndex::open(shard)?;
        let mut file = File::open(shard).map_err(Error::io("read", shard))?;
        let name = shard.strip_prefix(folder).unwrap_or(shard).display().to_string();
        for example in index.entries().chunk_by(|one, next| key(&one.name).0 == key(&next.name).0) {
            number += 1;
            let mut parts: Vec<Part> = Vec::new();
            for entry in example {
                self::parts(shard, &name, entry, &mut file, &mut parts)?;
            }
            if !parts.iter().any(|(role, ..)| *role == Role::Image) {
                continue;
            }
            let roles: Vec<Role> = parts.iter().map(|(role, ..)| *role).collect();
            let kind = asked.or(super::columns::kind_of(&roles)).unwrap_or(Kind::Single);
            let cells = parts.iter().map(|(role, column, value)| Cell { role: *role, column, value });
            let collector = collector.get_or_insert_with(|| Collector::beside(path, folder, kind));
            collector.push(number, &cells.collect::<Vec<_>>())?;
        }
    }
    let why = if asked.is_some() { "kind as asked for" } else { "kind from the first example" };
    match collector {
        Some(collector) => collector.finish(&format!("{why}; {} tar shards", shards.len())),
        None => Err(Error::data(
            path,
            None,
            "holds no pictures: expected `key.jpg` beside `key.txt`, `key.json` or `key.cls`",
        )),
    }
}

/// The tar files of a folder in the order of their names, or the one file.
fn shards(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io("read", path))? {
        let shard = entry.map_err(Error::io("read", path))?.path();
        if shard.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar")) {
            shards.push(shard);
        }
    }
    shards.sort();
    Ok(shards)
}

/// A name up to the first dot after its folder, and what follows.
fn key(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(dot) => (&name[..file + dot], &name[file + dot + 1..]),
        None => (name, ""),
    }
}

fn parts(shard: &Path, name: &str, entry: &ShardEntry, file: &mut File, parts: &mut Vec<Part>) -> Result<()> {
    let wrong = |problem: String| Error::data(shard, None, format!("`{}`: {problem}", entry.name));
    if is_picture(&entry.name) {
        // Of several pictures of an example (`key.jpg`, `key.seg.png`) the first is taken.
        if !parts.iter().any(|(role, ..)| *role == Role::Image) {
            parts.push((Role::Image, "picture".to_owned(), format!("{name}!/{}", entry.name)));
        }
        return Ok(());
    }
    let column = key(&entry.name).1.to_lowercase();
    if !matches!(column.as_str(), "txt" | "caption" | "cls" | "json") {
        return Ok(());
    }
    if entry.bytes > TEXT {
        return Err(wrong(format!("expected at most {TEXT} bytes of text, got {}", entry.bytes)));
    }
    let mut bytes = vec![0; entry.bytes as usize];
    file.seek(SeekFrom::Start(entry.offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(Error::io("read", shard))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("expected UTF-8".into()))?;
    match column.as_str() {
        "cls" => parts.push((Role::Label, column, text)),
        "json" => {
            let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            for (key, value) in value.as_object().into_iter().flatten() {
                let Some(role @ (Role::Text | Role::Label | Role::Score | Role::Anchor)) = Role::of(key) else {
                    continue;
                };
                let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                for value in values {
                    let value = match value {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        _ => continue,
                    };
                    parts.push((role, key.clone(), value));
                }
            }
        }
        _ => parts.push((Role::Text, column, text)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Example, LabelGraph, Modality, read as read_any};
    use super::*;

    fn shard(folder: &Path, name: &str, files: &[(&str, &str)]) {
        let mut shard = tar::Builder::new(File::create(folder.join(name)).unwrap());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            shard.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        shard.finish().unwrap();
    }

    #[test]
    fn captions_and_classes_stand_beside_their_pictures() {
        let folder = tempfile::tempdir().unwrap();
        shard(
            folder.path(),
            "1.tar",
            &[("k/2.jpg", "c"), ("k/2.json", r#"{"captions": ["two", "zwei"], "width": 3}"#)],
        );
        shard(folder.path(), "0.tar", &[("k/0.v1.txt", "x"), ("k/1.jpg", "abc"), ("k/1.txt", "one"), ("readme", "")]);
        let data = read_any(folder.path(), None).unwrap();
        assert_eq!((data.kind, data.examples.len()), (Kind::Pairs, 3));
        let pictures: Vec<&str> = data.items.ids(Modality::Image).map(|id| data.items.get(id)).collect();
        let at = |inside: &str| folder.path().join(inside).display().to_string();
        assert_eq!(pictures, [at("0.tar!/k/1.jpg"), at("1.tar!/k/2.jpg")]);
        let graph = LabelGraph::from_dataset(&data);
        let label = |text: &str| graph.label(data.items.find(text).unwrap());
        assert!(label("two") == label("zwei") && label("one") != label("two"));
        let classes = tempfile::tempdir().unwrap();
        shard(classes.path(), "a.tar", &[("1.cls", "7"), ("1.jpg", ""), ("2.jpg", ""), ("2.cls", "8\n")]);
        let data = read_any(&classes.path().join("a.tar"), None).unwrap();
        assert_eq!((data.kind, &data.label_names[..]), (Kind::Labelled, &["7".to_owned(), "8".to_owned()][..]));
        assert!(matches!(data.examples[1], Example::Labelled { label: 1, .. }));
    }

    #[test]
    fn shards_without_pictures_or_that_break_off_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        shard(folder.path(), "a.tar", &[("1.txt", "text")]);
        let path = folder.path().join("a.tar");
        assert!(read_any(&path, None).unwrap_err().to_string().contains("holds no pictures"));
        shard(folder.path(), "a.tar", &[("1.jpg", &"x".repeat(5000)), ("1.cls", "1")]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..2000]).unwrap();
        let error = read_any(&path, None).unwrap_err().to_string();
        assert!(error.contains("a.tar"), "{error}");
    }
}
