//! The safetensors format: eight bytes of header length, a JSON header, the tensors' bytes.
//!
//! Files come from strangers, so every number of the header is checked against the file before it is used, and every
//! refusal names the tensor. Little-endian throughout; tensors are row-major and follow each other without gaps.
//!
//! Reference: <https://github.com/huggingface/safetensors#format>

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The reference implementation's limit on the header: 100 MB.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What follows a tensor's name in the name of its scales.
pub const SCALE: &str = ".scale";

/// What the header says about one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The element type as written: `F32`, `BF16` …
    pub dtype: String,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where the bytes lie in the file.
    bytes: Range<usize>,
}

/// A safetensors file, checked and ready to read; mapped into memory, so tensors nobody asks for are never loaded.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    bytes: Bytes,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl SafetensorsFile {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Model`] if it is truncated, hostile, a pickle or a Git LFS pointer.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        if file.metadata().map_err(Error::io("read", path))?.len() == 0 {
            return Err(Error::model(path.display().to_string(), "the file is empty"));
        }
        // SAFETY: the map is only read. Another program that shortens the file meanwhile would end this process with
        // a bus error, as with every memory-mapped model; our own files are replaced by rename, never in place.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Self::check(path.to_owned(), Bytes::Mapped(map))
    }

    /// A file inside the binary. `name` is used in messages.
    ///
    /// # Errors
    /// [`Error::Model`] as [`SafetensorsFile::open`].
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::check(name.into(), Bytes::Embedded(bytes))
    }

    fn check(path: PathBuf, bytes: Bytes) -> Result<Self> {
        let (tensors, metadata) =
            parse_header(bytes.as_slice()).map_err(|problem| Error::model(path.display().to_string(), problem))?;
        Ok(SafetensorsFile { path, bytes, tensors, metadata })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The `__metadata__` strings.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// A tensor's values in row-major order, converted from F32, F16, BF16, or from I8 with one scale per row: the value
    /// of an I8 element is itself times its row's entry of the tensor `<name>.scale`.
    ///
    /// # Errors
    /// [`Error::Model`] if there is no such tensor or it has another element type.
    pub fn f32s(&self, name: &str) -> Result<Vec<f32>> {
        let (info, bytes) = self.find(name)?;
        Ok(match info.dtype.as_str() {
            "F32" => bytemuck::pod_collect_to_vec(bytes),
            "F16" => halves(bytes, |pair| f16::from_le_bytes(pair).to_f32()),
            "BF16" => halves(bytes, |pair| bf16::from_le_bytes(pair).to_f32()),
            "I8" => {
                let scales = self.f32s(&format!("{name}{SCALE}"))?;
                if scales.len() != info.shape.first().copied().unwrap_or(1) {
                    return Err(self.refuse(name, &format!("has shape {:?} but {} scales", info.shape, scales.len())));
                }
                let rows = bytes.chunks_exact((bytes.len() / scales.len().max(1)).max(1));
                let mut values = Vec::with_capacity(bytes.len());
                for (row, scale) in rows.zip(scales) {
                    values.extend(row.iter().map(|&x| f32::from(x as i8) * scale));
                }
                values
            }
            other => return Err(self.refuse(name, &format!("has element type {other}, expected F32, F16 or BF16"))),
        })
    }

    /// A tensor's values in row-major order, which must be U64.
    ///
    /// # Errors
    /// [`Error::Model`] if there is no such tensor or it has another element type.
    pub fn u64s(&self, name: &str) -> Result<Vec<u64>> {
        let (info, bytes) = self.find(name)?;
        match info.dtype.as_str() {
            "U64" => Ok(bytemuck::pod_collect_to_vec(bytes)),
            other => Err(self.refuse(name, &format!("has element type {other}, expected U64"))),
        }
    }

    fn find(&self, name: &str) -> Result<(&TensorInfo, &[u8])> {
        let info = self.tensors.get(name).ok_or_else(|| self.refuse(name, "is missing"))?;
        Ok((info, &self.bytes.as_slice()[info.bytes.clone()]))
    }

    fn refuse(&self, tensor: &str, problem: &str) -> Error {
        Error::model(self.path.display().to_string(), format!("tensor `{tensor}` {problem}"))
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

/// Elements of two bytes.
fn halves(bytes: &[u8], convert: impl Fn([u8; 2]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&chunk| convert(chunk)).collect()
}

type Header = (BTreeMap<String, TensorInfo>, BTreeMap<String, String>);

/// Reads and checks the header; a problem is a sentence.
fn parse_header(file: &[u8]) -> std::result::Result<Header, String> {
    if file.starts_with(b"PK\x03\x04") || file.starts_with(&[0x80, 0x02]) {
        return Err(format!("is a pickle, which can run code when it is opened; {}", super::weights::CONVERSION));
    }
    if file.starts_with(b"version https://git-lfs") {
        return Err("is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder".into());
    }
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(format!("is cut off: a safetensors file has at least 8 bytes, this one has {}", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(format!("is not a safetensors file: its header would be {length} bytes long"));
    }
    let length = length as usize;
    let (Some(header), Some(data)) = (rest.get(..length), rest.get(length..)) else {
        return Err(format!("is cut off: its header has {length} bytes, {} are there", rest.len()));
    };
    let mut entries: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| format!("has a damaged header: {error}"))?;
    let metadata = match entries.remove("__metadata__") {
        Some(value) => serde_json::from_value(value).map_err(|error| format!("has damaged metadata: {error}"))?,
        None => BTreeMap::new(),
    };
    let data_start = 8 + length;
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        let info =
            check_entry(entry, data.len(), data_start).map_err(|problem| format!("tensor `{name}` {problem}"))?;
        tensors.insert(name, info);
    }
    check_coverage(&tensors, data_start, file.len())?;
    Ok((tensors, metadata))
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

fn check_entry(
    entry: serde_json::Value,
    data_bytes: usize,
    data_start: usize,
) -> std::result::Result<TensorInfo, String> {
    let Entry { dtype, shape, data_offsets: (start, end) } =
        serde_json::from_value(entry).map_err(|error| format!("has a damaged header entry: {error}"))?;
    if start > end || end > data_bytes {
        return Err(format!("would lie at bytes {start} to {end}, the file has {data_bytes} (cut off or damaged)"));
    }
    if let Some(size) = element_bytes(&dtype) {
        let expected = shape.iter().try_fold(size, |product, &dimension| product.checked_mul(dimension));
        if expected != Some(end - start) {
            return Err(format!("has shape {shape:?} of {dtype} but {} bytes", end - start));
        }
    }
    Ok(TensorInfo { dtype, shape, bytes: data_start + start..data_start + end })
}

/// Tensors must cover the data exactly: no overlaps, no gaps, no tail.
fn check_coverage(
    tensors: &BTreeMap<String, TensorInfo>,
    data_start: usize,
    file_end: usize,
) -> std::result::Result<(), String> {
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| (info.bytes.start, info.bytes.end));
    let mut covered = data_start;
    for (name, info) in in_order {
        if info.bytes.start != covered {
            let fault = if info.bytes.start < covered { "overlaps another one" } else { "follows a gap" };
            return Err(format!("tensor `{name}` {fault} (damaged header)"));
        }
        covered = info.bytes.end;
    }
    match file_end - covered {
        0 => Ok(()),
        tail => Err(format!("has {tail} bytes after its last tensor (damaged header)")),
    }
}

/// Bytes per element; types that we do not know are listed but cannot be read.
fn element_bytes(dtype: &str) -> Option<usize> {
    match dtype {
        "BOOL" | "U8" | "I8" => Some(1),
        "F16" | "BF16" | "U16" | "I16" => Some(2),
        "F32" | "U32" | "I32" => Some(4),
        "F64" | "U64" | "I64" => Some(8),
        _ => None,
    }
}

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct NamedTensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// The values in row-major order.
    pub values: Values<'a>,
}

/// The values of a tensor to be written.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Numbers.
    F32(&'a [f32]),
    /// Numbers in units of their row's scale.
    I8(&'a [i8]),
    /// Counters, positions and random states.
    U64(&'a [u64]),
}

impl<'a> NamedTensor<'a> {
    /// A tensor of f32 values.
    pub fn f32(name: &'a str, shape: &'a [usize], values: &'a [f32]) -> Self {
        NamedTensor { name, shape, values: Values::F32(values) }
    }

    /// A tensor of u64 values.
    pub fn u64(name: &'a str, shape: &'a [usize], values: &'a [u64]) -> Self {
        NamedTensor { name, shape, values: Values::U64(values) }
    }
}

/// A matrix in one byte an element and one scale a row, `scale = max |row| / 127`; what [`SafetensorsFile::f32s`] reads.
pub fn quantise(values: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let rows = values.chunks_exact(columns.max(1));
    let scales: Vec<f32> =
        rows.clone().map(|row| row.iter().fold(1e-12f32, |largest, x| largest.max(x.abs())) / 127.0).collect();
    let elements = rows.zip(&scales).flat_map(|(row, &scale)| row.iter().map(move |x| (x / scale).round() as i8));
    (elements.collect(), scales)
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::I8(values) => values.len(),
            Values::U64(values) => values.len(),
        }
    }

    fn dtype(&self) -> (&'static str, usize) {
        match self {
            Values::F32(_) => ("F32", 4),
            Values::I8(_) => ("I8", 1),
            Values::U64(_) => ("U64", 8),
        }
    }
}

/// Writes tensors and metadata strings in the safetensors format, without a copy of the tensors in memory.
///
/// # Errors
/// What the writer refuses; `InvalidInput` if a shape does not fit its values or a name is used twice.
pub fn write(out: &mut dyn Write, metadata: &[(&str, &str)], tensors: &[NamedTensor<'_>]) -> std::io::Result<()> {
    let invalid = |problem: String| Err(IoError::new(ErrorKind::InvalidInput, problem));
    let mut in_order: Vec<&NamedTensor<'_>> = tensors.iter().collect();
    in_order.sort_by_key(|tensor| std::cmp::Reverse(tensor.values.dtype().1)); // widest first keeps all aligned
    let strings: serde_json::Map<_, _> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), serde_json::Value::from(*value))).collect();
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), strings.into());
    let mut end = 0;
    for tensor in &in_order {
        let (name, (dtype, size)) = (tensor.name, tensor.values.dtype());
        if tensor.shape.iter().product::<usize>() != tensor.values.len() {
            return invalid(format!("tensor `{name}`: shape {:?}, {} values", tensor.shape, tensor.values.len()));
        }
        let start = end;
        end += size * tensor.values.len();
        let entry = serde_json::json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        if header.insert(name.into(), entry).is_some() {
            return invalid(format!("tensor `{name}` is there twice"));
        }
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in in_order {
        match tensor.values {
            Values::F32(values) => out.write_all(bytemuck::cast_slice(values))?,
            Values::I8(values) => out.write_all(bytemuck::cast_slice(values))?,
            Values::U64(values) => out.write_all(bytemuck::cast_slice(values))?,
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
