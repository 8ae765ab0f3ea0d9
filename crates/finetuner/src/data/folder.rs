//! A folder of pictures, by class or without.

use std::path::{Path, PathBuf};

use super::collect::{Cell, Collector};
use super::columns::Role;
use super::{Dataset, Kind, is_picture};
use crate::error::{Error, Result};

/// How deep folders may lie in each other. Links to folders are followed, and one may lead back.
const DEPTH: usize = 32;
/// Names shown of files that are left out.
const SHOWN: usize = 3;

/// Reads `FOLDER/CLASS/…/picture.jpg` as labelled pictures, and pictures that lie in the folder itself as single ones.
///
/// The class is the first folder below, as torchvision's `ImageFolder` has it; folders further below belong to it. Pictures
/// stand in the order of their paths, byte by byte. Hidden files are passed over, files of other endings counted.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] without pictures, or for a kind that a folder cannot hold.
pub(super) fn read(folder: &Path, asked: Option<Kind>) -> Result<Dataset> {
    let mut files = Vec::new();
    walk(folder, &PathBuf::new(), 0, &mut files)?;
    files.sort();
    let (pictures, others): (Vec<String>, Vec<String>) = files.into_iter().partition(|file| is_picture(file));
    let class = |picture: &str| picture.split_once('/').map(|(class, _)| class.to_owned());
    let classes = pictures.iter().filter_map(|picture| class(picture));
    let by_class =
        classes.clone().count() == pictures.len() && classes.collect::<std::collections::HashSet<_>>().len() > 1;
    let kind = match asked {
        None if by_class => Kind::Labelled,
        None => Kind::Single,
        Some(kind @ (Kind::Labelled | Kind::Single)) => kind,
        Some(other) => {
            let problem = format!(
                "a folder of pictures holds labelled pictures (`FOLDER/CLASS/picture.jpg`) or single ones, asked for {other}; \
                 name the pictures in a CSV file"
            );
            return Err(Error::data(folder, None, problem));
        }
    };
    let mut collector = Collector::new(folder, kind);
    for (number, picture) in (1..).zip(&pictures) {
        let class = class(picture).unwrap_or_default();
        let image = Cell { role: Role::Image, column: "picture", value: picture };
        let label = Cell { role: Role::Label, column: "folder", value: &class };
        let cells = [image, label];
        collector.push(number, if kind == Kind::Labelled { &cells } else { &cells[..1] })?;
    }
    let how = if kind == Kind::Labelled { "a folder a class" } else { "pictures of a folder" };
    let left_out = match others.len() {
        0 => String::new(),
        count => {
            let dots = if count > SHOWN { ", …" } else { "" };
            format!("; {count} files of other endings left out ({}{dots})", others[..count.min(SHOWN)].join(", "))
        }
    };
    collector.finish(&format!("{how}{left_out}"))
}

/// Whether a folder, or one just below it, has a picture or a tar shard: what it holds, `true` for shards.
pub(super) fn holds(folder: &Path) -> Option<bool> {
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).ok()?;
        Some(entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
    };
    let own = names(folder)?;
    if own.iter().any(|path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"))) {
        return Some(true);
    }
    let mut folders = vec![own];
    for _ in 0..DEPTH {
        let all: Vec<PathBuf> = std::mem::take(&mut folders).into_iter().flatten().collect();
        if all.iter().any(|path| path.to_str().is_some_and(is_picture)) {
            return Some(false);
        }
        folders = all.iter().filter(|path| path.is_dir()).filter_map(|path| names(path)).collect();
        if folders.is_empty() {
            return None;
        }
    }
    None
}

/// The files below a folder by their paths from it, with `/` between.
fn walk(root: &Path, inside: &Path, depth: usize, files: &mut Vec<String>) -> Result<()> {
    let folder = root.join(inside);
    if depth > DEPTH {
        return Err(Error::data(
            folder,
            None,
            format!("expected at most {DEPTH} folders in each other; does a link lead back?"),
        ));
    }
    for entry in std::fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
        let entry = entry.map_err(Error::io("read", &folder))?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = inside.join(&name);
        if entry.path().is_dir() {
            walk(root, &path, depth + 1, files)?;
        } else {
            let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
            let name = parts.map(|parts| parts.join("/"));
            files.push(
                name.ok_or_else(|| Error::data(root.join(&path), None, "expected a name in UTF-8; rename the file"))?,
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Example, Modality, read as read_any};
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    #[test]
    fn the_first_folder_is_the_class_and_the_order_that_of_the_paths() {
        let files = ["b/2.jpg", "b/1.PNG", "a/deep/er/1.webp", "a/x.txt", "a/.hidden.jpg", "notes.md", ".git/a.jpg"];
        let folder = folder(&files);
        let data = read_any(folder.path(), None).unwrap();
        assert_eq!((data.kind, &data.label_names[..]), (Kind::Labelled, &["a".to_owned(), "b".to_owned()][..]));
        let names: Vec<&str> =
            data.items.iter().map(|path| &path[folder.path().to_str().unwrap().len() + 1..]).collect();
        assert_eq!(names, ["a/deep/er/1.webp", "b/1.PNG", "b/2.jpg"]);
        assert_eq!(data.items.ids(Modality::Image).count(), 3);
        assert!(data.decision.ends_with(
            "a folder a class; 2 files of other endings left out (a/x.txt, notes.md); pictures in `picture`"
        ));
    }

    #[test]
    fn pictures_beside_each_other_are_single_ones() {
        let flat = folder(&["2.jpg", "1.jpg"]);
        let data = read_any(flat.path(), None).unwrap();
        assert_eq!((data.kind, data.examples.len()), (Kind::Single, 2));
        assert!(matches!(data.examples[0], Example::Single { .. }));
        let one_class = folder(&["only/2.jpg", "only/1.jpg"]);
        assert_eq!(read_any(one_class.path(), None).unwrap().kind, Kind::Single);
        let by_class = folder(&["a/2.jpg", "b/1.jpg"]);
        assert_eq!(read_any(by_class.path(), Some(Kind::Single)).unwrap().kind, Kind::Single);
        let error = read_any(flat.path(), Some(Kind::Labelled)).unwrap_err().to_string();
        assert!(error.contains("expected a label in column `folder`"), "{error}");
        let error = read_any(flat.path(), Some(Kind::Pairs)).unwrap_err().to_string();
        assert!(error.contains("asked for pairs"), "{error}");
    }
}
