//! Numbers made by Pillow, transformers, timm and torchvision, for the tests (`tests/golden/pixels.py`).

use std::path::PathBuf;

use super::Picture;

pub(super) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pixels"))
}

fn tensor<T>(name: &str, of: impl Fn(&[u8]) -> T) -> T {
    let bytes = std::fs::read(folder().join("golden.safetensors")).unwrap();
    of(safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data())
}

/// Numbers of 32 bits.
pub(super) fn values(name: &str) -> Vec<f32> {
    let numbers = |data: &[u8]| data.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    tensor(name, numbers)
}

/// A picture.
pub(super) fn picture(name: &str, width: u32, height: u32) -> Picture {
    Picture::new(width, height, tensor(name, <[u8]>::to_vec))
}

/// The largest difference of two pictures, in levels, and how many values differ by more than one.
pub(super) fn difference(one: &Picture, other: &Picture) -> (u8, usize) {
    assert_eq!((one.width, one.height), (other.width, other.height));
    let differences = one.pixels.iter().zip(&other.pixels).map(|(one, other)| one.abs_diff(*other));
    (differences.clone().max().unwrap(), differences.filter(|difference| *difference > 1).count())
}
