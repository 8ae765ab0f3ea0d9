//! A zip of data that somebody brought: unpacked without trust in anything that stands in it.
//!
//! What a zip may hold: a folder of pictures by class, pictures beside each other, tar shards, a BEIR folder, or one table
//! (CSV, JSONL, Parquet) with the pictures that it names. Only plain files come out of it, below a folder of its own.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use finetuner::error::{Error, Result};
use finetuner::spec::RunSpec;
use zip::{CompressionMethod, ZipArchive};

/// Entries of a zip.
const MOST_ENTRIES: u64 = 1_000_000;

/// Bytes that a zip may unpack to.
const MOST_BYTES: u64 = 100 << 30;

/// How many times its own size a zip may unpack to; a table of ordinary texts packs five to ten times.
const MOST_RATIO: u64 = 100;

/// What small zips may unpack to, however well they are packed.
const SMALL: u64 = 64 << 20;

/// Folders in each other.
const DEPTH: usize = 32;

/// Endings of tables.
const TABLES: [&str; 6] = ["csv", "tsv", "jsonl", "ndjson", "json", "parquet"];

/// Unpacks every zip that a spec names and names what was in it instead.
///
/// # Errors
/// As [`unpack`].
pub(crate) fn unpack_data(spec: &RunSpec) -> Result<RunSpec> {
    let mut spec = spec.clone();
    let is_zip = |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
    let one = |path: &mut PathBuf| {
        // `data.zip:test` is a split of what is in it.
        let split =
            path.to_str().and_then(|text| text.rsplit_once(':')).filter(|(archive, _)| is_zip(Path::new(archive)));
        if let Some((archive, split)) = split {
            *path = format!("{}:{split}", unpack(Path::new(archive))?.display()).into();
        } else if is_zip(path) {
            *path = unpack(path)?;
        }
        Ok::<_, Error>(())
    };
    one(&mut spec.train_data)?;
    for path in [&mut spec.eval_data, &mut spec.query_data, &mut spec.index_data].into_iter().flatten() {
        one(path)?;
    }
    for table in &mut spec.datasets {
        for (_, value) in table.iter_mut().filter(|(name, _)| name.ends_with("_data")) {
            if let Some(text) = value.as_str() {
                let mut path = PathBuf::from(text);
                one(&mut path)?;
                *value = path.display().to_string().into();
            }
        }
    }
    Ok(spec)
}

/// Unpacks a zip beside itself, whole or not at all, and gives the path of the data in it. One that was unpacked before stays
/// as it is.
///
/// # Errors
/// [`Error::Data`] with the entry that must not be in it, or with what keeps the rest from being data; [`Error::Io`].
pub(crate) fn unpack(archive: &Path) -> Result<PathBuf> {
    let to = archive.with_extension("");
    if !to.exists() {
        let part = archive.with_extension("part");
        if part.exists() {
            std::fs::remove_dir_all(&part).map_err(Error::io("remove", &part))?;
        }
        std::fs::create_dir_all(&part).map_err(Error::io("create", &part))?;
        extract(archive, &part)?;
        std::fs::rename(&part, &to).map_err(Error::io("rename", &part))?;
    }
    find(archive, &to)
}

fn extract(archive: &Path, to: &Path) -> Result<()> {
    let damaged = |error: zip::result::ZipError| Error::data(archive, None, format!("expected a zip: {error}"));
    let mut file = File::open(archive).map_err(Error::io("read", archive))?;
    let packed = file.metadata().map_err(Error::io("read", archive))?.len();
    let limit = packed.saturating_mul(MOST_RATIO).clamp(SMALL, MOST_BYTES);
    let declared = declared_entries(&mut file, packed).map_err(Error::io("read", archive))?;
    if declared.is_some_and(|entries| entries > MOST_ENTRIES) {
        let problem = format!("holds more than {MOST_ENTRIES} entries; make several of it");
        return Err(Error::data(archive, None, problem));
    }
    let mut entries = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    // They are found by their names, and of two with the same one is kept.
    if declared.is_some_and(|declared| declared != entries.len() as u64) {
        let problem = "holds two entries of the same name; give each file a name of its own";
        return Err(Error::data(archive, None, problem));
    }
    let mut names = HashSet::new();
    let mut unpacked = 0u64;
    for number in 0..entries.len() {
        // Whether it is encrypted is asked of what needs no password.
        let encrypted = entries.by_index_raw(number).map_err(damaged)?.encrypted();
        if encrypted {
            let problem = "holds encrypted entries; pack it without a password";
            return Err(Error::data(archive, None, problem));
        }
        let mut entry = entries.by_index(number).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        let refuse = |problem: &str| Error::data(archive, None, format!("entry `{}` {problem}", shown(&name)));
        check_name(&name).map_err(refuse)?;
        if entry.is_symlink() {
            return Err(refuse("is a link; pack the file itself"));
        }
        // 0o100000 and 0o040000 are files and folders, 0 is what says nothing.
        if entry.unix_mode().is_some_and(|mode| ![0, 0o100_000, 0o040_000].contains(&(mode & 0o170_000))) {
            return Err(refuse("is neither a file nor a folder"));
        }
        if !names.insert(name.trim_end_matches('/').to_lowercase()) {
            return Err(refuse("is there twice; give each file a name of its own"));
        }
        if entry.is_dir() || name.split('/').any(|part| part == "__MACOSX" || part.starts_with('.')) {
            continue; // folders come with their files, and hidden files are nobody's data
        }
        if ![CompressionMethod::Stored, CompressionMethod::Deflated].contains(&entry.compression()) {
            return Err(refuse("is packed in a way that few programs read; make an ordinary zip"));
        }
        let path = to.join(&name);
        let folder = path.parent().unwrap_or(to);
        std::fs::create_dir_all(folder).map_err(|_| refuse("lies below a file of the same name"))?;
        let mut out = File::create_new(&path).map_err(Error::io("create", &path))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = entry.read(&mut buffer).map_err(|error| refuse(&format!("is damaged: {error}")))?;
            if read == 0 {
                break;
            }
            // Counted as it comes: what the zip says of its sizes is only said.
            unpacked += read as u64;
            if unpacked > limit {
                let problem = format!(
                    "unpacks to more than {limit} bytes, which is not what {packed} bytes of pictures or texts do; bring the \
                     files in another way"
                );
                return Err(Error::data(archive, None, problem));
            }
            out.write_all(&buffer[..read]).map_err(Error::io("write", &path))?;
        }
    }
    Ok(())
}

/// How many entries the end of a zip says there are; `None` where it has no end.
fn declared_entries(file: &mut File, bytes: u64) -> std::io::Result<Option<u64>> {
    // 22 bytes and a comment of at most 64 KB, before it the record of large zips: 56 bytes and 20 that point to it.
    let tail = bytes.min(22 + (1 << 16) + 76);
    file.seek(SeekFrom::Start(bytes - tail))?;
    let mut end = vec![0; tail as usize];
    file.read_exact(&mut end)?;
    file.rewind()?;
    let find = |mark: &[u8]| end.windows(mark.len()).rposition(|window| window == mark);
    let number = |at: usize, length: usize| -> Option<u64> {
        let digits = end.get(at..at + length)?.iter().rev();
        Some(digits.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let Some(at) = find(b"PK\x05\x06") else { return Ok(None) };
    let small = number(at + 10, 2);
    match (small, find(b"PK\x06\x06")) {
        (Some(0xFFFF), Some(at)) => Ok(number(at + 32, 8)),
        _ => Ok(small),
    }
}

/// Only what names a file below the folder, in the same way everywhere.
fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    let path = name.strip_suffix('/').unwrap_or(name);
    if name.starts_with('/') {
        return Err("has an absolute path; pack it with relative ones");
    }
    if path.contains('\\') || path.contains(':') || path.chars().any(char::is_control) {
        return Err("has a colon, a backslash or a control character in its name; rename it");
    }
    if path.split('/').count() > DEPTH {
        return Err("lies too deep; expected at most 32 folders in each other");
    }
    if path.split('/').any(|part| part == "..") {
        return Err("leads out of the folder by `..`; pack it with plain paths");
    }
    if path.split('/').any(|part| part.is_empty() || part == "." || part.len() > 255) {
        return Err("has a part of its path that is empty, `.` or longer than 255 bytes; rename it");
    }
    Ok(())
}

/// A name as it can be shown on a terminal.
fn shown(name: &str) -> String {
    name.chars().take(200).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// What in the folder is the data: all of a BEIR folder, the one table, else the pictures.
fn find(archive: &Path, folder: &Path) -> Result<PathBuf> {
    let mut folder = folder.to_owned();
    for _ in 0..DEPTH {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(&folder)
            .map_err(Error::io("read", &folder))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        entries.sort();
        let ending = |path: &Path| path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let is_table =
            |path: &&PathBuf| path.is_file() && ending(path).is_some_and(|own| TABLES.contains(&own.as_str()));
        let tables: Vec<&PathBuf> = entries.iter().filter(is_table).collect();
        if ["corpus.jsonl", "queries.jsonl"].iter().all(|name| folder.join(name).is_file()) {
            return Ok(folder);
        }
        match (&tables[..], &entries[..]) {
            ([table], _) => return Ok((*table).clone()),
            ([], []) => return Err(Error::data(archive, None, "holds no files; pack pictures, or a table with them")),
            // A folder around everything is how most programs pack one.
            ([], [only]) if only.is_dir() => folder = only.clone(),
            ([], _) => return Ok(folder),
            (several, _) => {
                let names: Vec<_> = several.iter().filter_map(|path| path.file_name()?.to_str()).collect();
                let problem =
                    format!("holds several tables (`{}`), expected one; upload each by itself", names.join("`, `"));
                return Err(Error::data(archive, None, problem));
            }
        }
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// A zip of these entries; names as they are, so that they can be hostile.
    fn packed(folder: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("data.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for (name, body) in entries {
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            writer.start_file(*name, options).unwrap();
            writer.write_all(body).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn refusal(entries: &[(&str, &[u8])]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let problem = unpack(&packed(folder.path(), entries)).unwrap_err().to_string();
        assert!(!folder.path().join("data").exists());
        problem
    }

    #[test]
    fn the_data_is_found_wherever_the_folder_around_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let data = unpack(&packed(folder.path(), &[("a/1.png", b"x"), ("b/2.png", b"y"), ("__MACOSX/._1", b"z")]));
        let data = data.unwrap();
        assert_eq!(data, folder.path().join("data"));
        assert_eq!(std::fs::read(data.join("a/1.png")).unwrap(), b"x");
        assert!(!data.join("__MACOSX").exists());

        let folder = tempfile::tempdir().unwrap();
        let data = unpack(&packed(folder.path(), &[("all/of/a/1.png", b"x"), ("all/of/b/2.png", b"y")])).unwrap();
        assert_eq!(data, folder.path().join("data/all/of"));

        let folder = tempfile::tempdir().unwrap();
        let data = unpack(&packed(folder.path(), &[("mine/train.csv", b"x"), ("mine/pictures/2.png", b"y")])).unwrap();
        assert_eq!(data, folder.path().join("data/mine/train.csv"));

        let folder = tempfile::tempdir().unwrap();
        let beir: [(&str, &[u8]); 3] =
            [("a/corpus.jsonl", b"x"), ("a/queries.jsonl", b"y"), ("a/qrels/test.tsv", b"z")];
        assert_eq!(unpack(&packed(folder.path(), &beir)).unwrap(), folder.path().join("data/a"));
        let spec = RunSpec { train_data: folder.path().join("data.zip:test"), ..RunSpec::default() };
        assert_eq!(unpack_data(&spec).unwrap().train_data, folder.path().join("data/a:test"));
    }

    #[test]
    fn what_leads_out_is_refused() {
        for (name, expected) in [
            ("/etc/passwd", "absolute path"),
            ("../up.csv", "leads out of the folder"),
            ("a/../../up.csv", "leads out of the folder"),
            ("a\\..\\up.csv", "backslash"),
            ("C:/x.csv", "colon"),
            ("a/./b.csv", "empty, `.`"),
            ("a//b.csv", "empty, `.`"),
        ] {
            let problem = refusal(&[(name, b"x")]);
            assert!(problem.contains(expected) && problem.contains("data.zip"), "{name}: {problem}");
        }
    }

    #[test]
    fn names_that_meet_in_one_file_are_refused() {
        assert!(refusal(&[("a.csv", b"x"), ("A.csv", b"y")]).contains("is there twice"));
        // No writer of ours makes two of one name, so the second is renamed afterwards.
        let folder = tempfile::tempdir().unwrap();
        let path = packed(folder.path(), &[("a.csv", b"x"), ("b.csv", b"y")]);
        let mut bytes = std::fs::read(&path).unwrap();
        while let Some(at) = bytes.windows(5).position(|window| window == b"b.csv") {
            bytes[at] = b'a';
        }
        std::fs::write(&path, bytes).unwrap();
        assert!(unpack(&path).unwrap_err().to_string().contains("two entries of the same name"));
        assert!(refusal(&[("a", b"x"), ("a/b.csv", b"y")]).contains("below a file"));
        let several = unpack(&packed(folder.path(), &[("c.csv", b"x"), ("d.csv", b"y")])).unwrap_err().to_string();
        assert!(several.contains("several tables (`c.csv`, `d.csv`)"), "{several}");
    }

    #[test]
    fn links_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        writer.add_symlink("train.csv", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        writer.finish().unwrap();
        assert!(unpack(&path).unwrap_err().to_string().contains("is a link"));
    }

    #[test]
    fn what_unpacks_to_far_more_than_it_is_is_refused() {
        let zeros = vec![0; (SMALL + 1) as usize];
        let problem = refusal(&[("train.csv", &zeros)]);
        assert!(problem.contains("unpacks to more than 67108864 bytes"), "{problem}");
    }

    #[test]
    fn what_is_no_zip_or_breaks_off_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.zip");
        std::fs::write(&path, "not a zip").unwrap();
        assert!(unpack(&path).unwrap_err().to_string().contains("expected a zip"));
        let whole = std::fs::read(packed(folder.path(), &[("train.csv", &[7; 1000])])).unwrap();
        std::fs::write(&path, &whole[20..]).unwrap();
        unpack(&path).unwrap_err();
    }
}
