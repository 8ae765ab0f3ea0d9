//! Arrays of NumPy (`.npy`): `[rows, numbers]` of float32 or float64, as `numpy.save` and `finetuner encode` write them.
//!
//! Reference: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::path::Path;

use super::collect::{Cell, Collector};
use super::columns::Role;
use super::vector::write_vector;
use super::{Dataset, Kind};
use crate::error::{Error, Result};

/// The numbers of a file.
#[derive(Debug)]
pub(super) struct Array {
    values: Vec<f32>,
    width: usize,
}

impl Array {
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a file that is no array of two dimensions, or of other numbers.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let refuse = |problem: String| Error::data(path, None, problem);
        let (header, numbers) = split(&bytes).ok_or_else(|| refuse("is no array of NumPy (`.npy`)".into()))?;
        let value = |key: &str| {
            let rest = header.split_once(&format!("'{key}':"))?.1.trim_start();
            Some(if rest.starts_with('(') { &rest[..=rest.find(')')?] } else { rest.split([',', '}']).next()?.trim() })
        };
        let shape = value("shape").unwrap_or_default();
        let extents: Vec<usize> =
            shape.trim_matches(['(', ')']).split(',').filter_map(|n| n.trim().parse().ok()).collect();
        let [rows, width] = extents[..] else {
            return Err(refuse(format!(
                "expected an array of two dimensions, a row a vector, got one of shape {shape}"
            )));
        };
        if value("fortran_order") != Some("False") {
            return Err(refuse("lies column by column; write it again with `numpy.ascontiguousarray`".into()));
        }
        let size = match value("descr").unwrap_or_default() {
            "'<f4'" => 4,
            "'<f8'" => 8,
            other => {
                let problem =
                    format!("holds numbers of type {other}, expected float32; write `array.astype(\"float32\")`");
                return Err(refuse(problem));
            }
        };
        if width == 0 || rows.checked_mul(width).and_then(|count| count.checked_mul(size)) != Some(numbers.len()) {
            return Err(refuse(format!("breaks off, or holds more than its {rows} rows of {width} numbers")));
        }
        let values = match size {
            4 => bytemuck::pod_collect_to_vec(numbers),
            _ => numbers.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
        };
        Ok(Array { values, width })
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// The numbers of a row, counted from 0.
    pub(super) fn row(&self, row: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.width).nth(row)
    }
}

/// The header's text and the bytes of the numbers.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let version = bytes.strip_prefix(b"\x93NUMPY")?;
    let (length, rest) = match version.first()? {
        1 => (usize::from(u16::from_le_bytes(version.get(2..4)?.try_into().ok()?)), version.get(4..)?),
        _ => (u32::from_le_bytes(version.get(2..6)?.try_into().ok()?) as usize, version.get(6..)?),
    };
    Some((std::str::from_utf8(rest.get(..length)?).ok()?, &rest[length..]))
}

/// Reads the rows as vectors alone.
pub(super) fn read(path: &Path, asked: Option<Kind>) -> Result<Dataset> {
    if let Some(kind) = asked.filter(|kind| *kind != Kind::Single) {
        let problem = format!(
            "holds vectors alone, asked for {kind}; name its rows in a CSV file beside it, as in `vector,label` above \
             `{}:0,cat`",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
        return Err(Error::data(path, None, problem));
    }
    let array = Array::open(path)?;
    let mut collector = Collector::new(path, Kind::Single);
    for (line, row) in (1..).zip(array.values.chunks_exact(array.width)) {
        collector.push(line, &[Cell { role: Role::Vector, column: "array", value: &write_vector(row) }])?;
    }
    collector.finish("an array of NumPy, a row a vector")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, numbers: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.npy");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(numbers);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn header(descr: &str, order: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
    }

    #[test]
    fn both_sizes_of_numbers_are_read_by_rows() {
        let singles: Vec<u8> = [1.0f32, 2.0, -3.5, 0.1].iter().flat_map(|value| value.to_le_bytes()).collect();
        let doubles: Vec<u8> = [1.0f64, 2.0, -3.5, 0.1].iter().flat_map(|value| value.to_le_bytes()).collect();
        for (descr, numbers) in [("<f4", singles), ("<f8", doubles)] {
            let (_folder, path) = file(&header(descr, "False", "(2, 2)"), &numbers);
            let data = read(&path, None).unwrap();
            assert_eq!(data.items.iter().collect::<Vec<_>>(), ["[1.0,2.0]", "[-3.5,0.1]"]);
            assert_eq!((data.kind, &data.lines[..]), (Kind::Single, &[1, 2][..]));
        }
    }

    #[test]
    fn what_is_no_table_of_numbers_is_refused() {
        for (header, bytes, expected) in [
            (
                header("<f4", "False", "(4,)"),
                16,
                "expected an array of two dimensions, a row a vector, got one of shape (4,)",
            ),
            (header("<f4", "True", "(2, 2)"), 16, "ascontiguousarray"),
            (header("<i8", "False", "(2, 2)"), 32, "numbers of type '<i8', expected float32"),
            (header("<f4", "False", "(2, 2)"), 12, "breaks off"),
            (header("<f4", "False", "(4611686018427387904, 4)"), 0, "breaks off"),
            (header("<f4", "False", "(0, 0)"), 0, "breaks off"),
            (String::new(), 0, "two dimensions"),
        ] {
            let (_folder, path) = file(&header, &vec![0; bytes]);
            let error = read(&path, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let (_folder, path) = file(&header("<f4", "False", "(1, 1)"), &f32::NAN.to_le_bytes());
        assert!(read(&path, None).unwrap_err().to_string().contains("v.npy:1: expected finite numbers"));
        std::fs::write(&path, "id,text\n").unwrap();
        assert!(read(&path, None).unwrap_err().to_string().contains("is no array of NumPy"));
        assert!(read(&path, Some(Kind::Labelled)).unwrap_err().to_string().contains("`v.npy:0,cat`"));
    }
}
