//! Another size, as Pillow's `Image.resize` gives it: a convolution whose support grows with the scale (antialiasing), rows
//! first, then columns, each rounded to 8 bits.
//!
//! `fast_image_resize` has Pillow's filters, but always works on columns first. That differs where a filter overshoots and
//! the intermediate is cut to 0..255; so the two passes are asked for one by one. Pillow 13 takes columns first, too, where
//! the height shrinks much more than the width; every version before it takes rows first, as models have been trained.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::Picture;
use crate::error::{Error, Result};

/// How new pixels are made of old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Lanczos, 3 lobes.
    Lanczos,
    /// Linear.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// The mean of the covered pixels.
    Box,
    /// Hamming.
    Hamming,
}

impl Filter {
    /// All, in the order of Pillow's numbers, by the names that timm and torchvision use.
    pub const NAMES: [(&'static str, Filter); 6] = [
        ("nearest", Filter::Nearest),
        ("lanczos", Filter::Lanczos),
        ("bilinear", Filter::Bilinear),
        ("bicubic", Filter::Bicubic),
        ("box", Filter::Box),
        ("hamming", Filter::Hamming),
    ];

    /// The filter of Pillow's number (`resample` in `preprocessor_config.json`).
    pub fn of_number(number: u64) -> Option<Filter> {
        Filter::NAMES.get(usize::try_from(number).ok()?).map(|(_, filter)| *filter)
    }

    /// Pillow's number.
    pub fn number(self) -> u64 {
        Filter::NAMES.iter().position(|(_, filter)| *filter == self).unwrap_or(0) as u64
    }

    fn algorithm(self) -> ResizeAlg {
        ResizeAlg::Convolution(match self {
            Filter::Nearest => return ResizeAlg::Nearest,
            Filter::Lanczos => FilterType::Lanczos3,
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Box => FilterType::Box,
            Filter::Hamming => FilterType::Hamming,
        })
    }

    /// How far the filter reaches, in pixels of the smaller scale.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }
}

impl std::str::FromStr for Filter {
    type Err = Error;

    fn from_str(name: &str) -> Result<Filter> {
        let known = Filter::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, filter)| *filter).ok_or_else(|| {
            let names = Filter::NAMES.iter().map(|(name, _)| *name);
            Error::spec("interpolation", format!("unknown `{name}`{}", crate::error::nearest(name, names)))
        })
    }
}

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The picture with this width and height.
///
/// # Panics
/// If either is 0, or the picture is empty.
pub fn resize(picture: &Picture, width: u32, height: u32, filter: Filter) -> Picture {
    resize_window(picture, (width, height), Window { left: 0, top: 0, width, height }, filter)
}

/// A window of the resized picture; only what it needs is computed.
pub(super) fn resize_window(picture: &Picture, size: (u32, u32), window: Window, filter: Filter) -> Picture {
    assert!(size.0 > 0 && size.1 > 0 && window.width > 0 && window.height > 0, "an empty picture: bug");
    if size == (picture.width, picture.height) {
        return picture.window(i64::from(window.left), i64::from(window.top), window.width, window.height);
    }
    let options = ResizeOptions::new().resize_alg(filter.algorithm()).use_alpha(false);
    let mut resizer = Resizer::new();
    let mut pass = |source: &Picture, [left, top, width, height]: [f64; 4], size: (u32, u32)| {
        // Rounding may push a box over the edge.
        let (width, height) = (width.min(f64::from(source.width) - left), height.min(f64::from(source.height) - top));
        let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
        // Typed: else code is made for every sort of pixel there is.
        let done = TypedImageRef::<U8x3>::from_buffer(source.width, source.height, &source.pixels).and_then(|image| {
            let mut target = TypedImage::<U8x3>::from_buffer(size.0, size.1, &mut pixels)?;
            Ok(resizer.resize_typed(&image, &mut target, &options.crop(left, top, width, height)))
        });
        assert!(matches!(done, Ok(Ok(()))), "a window inside a picture: bug: {done:?}");
        Picture::new(size.0, size.1, pixels)
    };
    let scales = (f64::from(picture.width) / f64::from(size.0), f64::from(picture.height) / f64::from(size.1));
    // What of the picture the window is made of: where it begins, and how long it is.
    let (left, wide) = (f64::from(window.left) * scales.0, f64::from(window.width) * scales.0);
    let (top, high) = (f64::from(window.top) * scales.1, f64::from(window.height) * scales.1);
    // The rows that the filter reaches, as whole pixels.
    let reach = filter.support() * scales.1.max(1.0) + 1.0;
    let first = (top - reach).floor().max(0.0);
    let rows = (top + high + reach).ceil().min(f64::from(picture.height)) - first;
    let narrow = pass(picture, [left, first, wide, rows], (window.width, rows as u32));
    pass(&narrow, [0.0, top - first, f64::from(window.width), high], (window.width, window.height))
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
