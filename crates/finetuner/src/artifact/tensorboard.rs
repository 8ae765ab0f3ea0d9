//! Event files that TensorBoard reads: scalars by tag and step.
//!
//! A record is its length (u64), the masked CRC-32C of the length, the bytes and their masked CRC-32C, all little-endian
//! (TFRecord). The bytes are a protocol buffer `Event { 1: double wall_time, 2: int64 step, 3: string file_version,
//! 5: Summary { 1: Value { 1: string tag, 2: float simple_value } } }`, of which we write these fields and no others.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// An event file, open for writing.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Starts a new event file in a folder, which is made if need be; TensorBoard shows all files of a folder as one run.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{}.{}.finetuner", time.as_secs(), time.subsec_nanos());
        let path = folder.join(name);
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let mut events = EventFile { file, path };
        let mut version = Vec::new();
        field(&mut version, 3, b"brain.Event:2");
        events.event(&version)?;
        Ok(events)
    }

    /// Adds a point of the curve `tag`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn scalar(&mut self, tag: &str, step: usize, value: f32) -> Result<()> {
        let mut point = Vec::new();
        field(&mut point, 1, tag.as_bytes());
        point.push(2 << 3 | 5); // 32 bits
        point.extend(value.to_le_bytes());
        let mut summary = Vec::new();
        field(&mut summary, 1, &point);
        let mut event = vec![2 << 3]; // varint
        varint(&mut event, step as u64);
        field(&mut event, 5, &summary);
        self.event(&event)
    }

    /// Writes a record whole: the wall time and the other fields of an event.
    fn event(&mut self, fields: &[u8]) -> Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = vec![1 << 3 | 1]; // 64 bits
        event.extend(time.as_secs_f64().to_le_bytes());
        event.extend(fields);
        self.file.write_all(&record(&event)).map_err(Error::io("write", &self.path))
    }
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let check = |bytes: &[u8]| masked_crc(bytes).to_le_bytes();
    [&length[..], &check(&length), bytes, &check(bytes)].concat()
}

/// A field of bytes, a text or a message.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// TFRecord's masking, so that a checksum of data that holds checksums stays one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: the records are small.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_file_is_records_of_a_version_and_points() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(&folder.path().join("run")).unwrap();
        events.scalar("mrr", 300, 0.5).unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        let (mut rest, mut records) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            records.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 2);
        assert_eq!(records[0][9..], *b"\x1a\x0dbrain.Event:2");
        // step 300, a summary of 12 bytes, a value of 10: the tag and 0.5
        assert_eq!(records[1][9..], *b"\x10\xac\x02\x2a\x0c\x0a\x0a\x0a\x03mrr\x15\x00\x00\x00\x3f");
    }
}
