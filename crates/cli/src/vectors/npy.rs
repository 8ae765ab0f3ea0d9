//! NumPy's `.npy`, version 1.0: magic, version, length and text of the header, then the numbers.
//!
//! Reference: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. The crates that write it bring a
//! parser of Python literals along; writing needs these lines only.

use std::io::{Result, Write};

use super::Vectors;

pub(super) fn write(vectors: &Vectors<'_>, out: &mut dyn Write) -> Result<()> {
    let shape = (vectors.texts.texts.len(), vectors.dimension);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape:?}, }}");
    // The numbers start at a multiple of 64 bytes, after 10 bytes of magic, version and length and a final line feed.
    let padding = (10 + header.len() + 1).next_multiple_of(64) - (10 + header.len() + 1);
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(bytemuck::cast_slice(vectors.embeddings))
}
