//! A folder of data as one zip. Bytes depend on names and contents alone, so that a server knows again what it has.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use finetuner::Error as LibraryError;
use finetuner::data::is_picture;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::error::{Error, Result};

/// Folders in each other; a server takes no more.
const DEPTH: usize = 32;

/// What of a folder is data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// `corpus.jsonl`, `queries.jsonl` and judgements.
    Beir,
    /// Pictures or tar shards.
    Pictures,
}

/// A zip that is removed when this is dropped.
pub(super) struct Packed {
    pub(super) path: PathBuf,
    _folder: TempDir,
}

/// Packs the data of a folder, as it is: pictures do not get smaller, and texts are read once.
pub(super) fn pack(folder: &Path, holds: Holds) -> Result<Packed> {
    let mut names = Vec::new();
    walk(folder, "", 0, holds, &mut names)?;
    if names.is_empty() {
        let problem =
            "expected a BEIR folder (corpus.jsonl, queries.jsonl and judgements), pictures or tar files, found none";
        return Err(LibraryError::data(folder, None, problem).into());
    }
    names.sort();
    let place = tempfile::tempdir().map_err(LibraryError::io("create a folder in", std::env::temp_dir()))?;
    let path = place.path().join(format!("{}.zip", known_as(folder)));
    let file = File::create(&path).map_err(LibraryError::io("create", &path))?;
    let failed = |error: zip::result::ZipError| Error::from(LibraryError::io("write", &path)(error.into()));
    let mut writer = ZipWriter::new(BufWriter::new(file));
    for name in &names {
        let source = folder.join(name);
        let mut source_file = File::open(&source).map_err(LibraryError::io("read", &source))?;
        let bytes = source_file.metadata().map_err(LibraryError::io("read", &source))?.len();
        writer.start_file(name.as_str(), stored(bytes)).map_err(failed)?;
        std::io::copy(&mut source_file, &mut writer).map_err(LibraryError::io("pack", &source))?;
    }
    writer.finish().map_err(failed)?;
    Ok(Packed { path, _folder: place })
}

/// How an entry of so many bytes stands in a zip of ours: as it is, from 4 GB on in the large form of its records.
pub(crate) fn stored(bytes: u64) -> SimpleFileOptions {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    options.large_file(bytes >= u64::from(u32::MAX))
}

impl Holds {
    /// Whether data of this sort lies in a folder of this path.
    fn enters(self, name: &str) -> bool {
        self == Holds::Pictures || name == "qrels"
    }

    /// Whether a file of this path is data of this sort.
    fn takes(self, name: &str) -> bool {
        match self {
            Holds::Beir => match name.split_once('/') {
                None => {
                    name == "corpus.jsonl"
                        || name == "queries.jsonl"
                        || name.starts_with("qrels") && name.ends_with(".tsv")
                }
                Some((folder, file)) => folder == "qrels" && file.ends_with(".tsv"),
            },
            Holds::Pictures => is_picture(name) || name.to_lowercase().ends_with(".tar"),
        }
    }
}

/// The data below a folder, by its paths from there; links are followed, hidden files are nobody's data.
fn walk(folder: &Path, prefix: &str, depth: usize, holds: Holds, names: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(LibraryError::io("read", folder))? {
        let path = entry.map_err(LibraryError::io("read", folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(LibraryError::data(path, None, "expected a name in UTF-8; rename it").into());
        };
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        match path.is_dir() {
            true if !holds.enters(&name) => {}
            true if depth + 1 == DEPTH => {
                let problem = "lies too deep; expected at most 32 folders in each other";
                return Err(LibraryError::data(path, None, problem).into());
            }
            true => walk(&path, &format!("{name}/"), depth + 1, holds, names)?,
            false if holds.takes(&name) => names.push(name),
            false => {}
        }
    }
    Ok(())
}

/// What a server calls it.
fn known_as(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name: String =
        name.chars().filter(|letter| letter.is_alphanumeric() || "._- ".contains(*letter)).take(60).collect();
    let name = name.trim_start_matches(['.', '-', ' ']);
    if name.is_empty() { "data".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[&str]) {
        for name in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
    }

    fn packed(folder: &Path, holds: Holds) -> (Vec<u8>, Vec<String>) {
        let packed = pack(folder, holds).unwrap();
        let bytes = std::fs::read(&packed.path).unwrap();
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes.clone())).unwrap();
        let names =
            (0..archive.len()).map(|place| archive.by_index(place).unwrap().name().unwrap().into_owned()).collect();
        (bytes, names)
    }

    #[test]
    fn of_a_folder_its_data_alone_is_packed() {
        let folder = tempfile::tempdir().unwrap();
        let other =
            ["model.safetensors", "a/notes.txt", ".git/x.png", "train.csv", "qrels/readme.md", "deep/corpus.jsonl"];
        write(folder.path(), &other);
        assert!(pack(folder.path(), Holds::Beir).err().unwrap().to_string().contains("found none"));
        write(
            folder.path(),
            &["corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "qrels_dev.tsv", "b/2.PNG", "a/1.jpg", "c.tar"],
        );
        let (_, names) = packed(folder.path(), Holds::Beir);
        assert_eq!(names, ["corpus.jsonl", "qrels/test.tsv", "qrels_dev.tsv", "queries.jsonl"]);
        assert_eq!(packed(folder.path(), Holds::Pictures).1, ["a/1.jpg", "b/2.PNG", "c.tar"]);
    }

    #[test]
    fn the_same_files_are_the_same_zip() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), &["corpus.jsonl", "queries.jsonl", "qrels.tsv"]);
        write(other.path(), &["qrels.tsv", "queries.jsonl", "corpus.jsonl"]);
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
        File::options().write(true).open(other.path().join("qrels.tsv")).unwrap().set_modified(later).unwrap();
        assert_eq!(packed(one.path(), Holds::Beir).0, packed(other.path(), Holds::Beir).0);
    }

    #[test]
    fn a_folder_has_a_name_that_a_server_takes() {
        for (folder, expected) in [("/x/scifact", "scifact"), ("/x/.a:b", "ab"), ("/", "data"), ("/x/-Ü 1", "Ü 1")] {
            assert_eq!(known_as(Path::new(folder)), expected);
        }
    }
}
