//! The bytes of a picture file to red, green and blue.
//!
//! The `image` crate decodes PNG, WebP, BMP and GIF, and its own decoder of JPEG, `zune-jpeg`, is called directly: one
//! copy less, and no output of a file that breaks off.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Picture;
use crate::error::{Error, Result};

/// Endings of the names of files that can be decoded.
pub const ENDINGS: &[&str] = crate::data::PICTURE_ENDINGS;

/// The bytes at the end of a file among which its end mark is looked for.
const TAIL: usize = 64 * 1024;

const BREAKS_OFF: &str = "it breaks off before its end";

/// What a picture may cost. A file that asks for more is refused before memory is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Width times height. Default 2^26, about 67 million.
    pub pixels: u64,
    /// Size of the file, in bytes. Default 2^27, 128 MiB.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { pixels: 1 << 26, bytes: 1 << 27 }
    }
}

/// What a file says of itself before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// In pixels, before it is turned as its EXIF data says.
    pub width: u32,
    /// In pixels, likewise.
    pub height: u32,
    /// Whether it has several frames, of which the first is used.
    pub animated: bool,
}

/// Decodes a JPEG (colour, grey or CMYK), PNG, WebP, BMP or GIF; the contents decide, not the name.
///
/// The picture is turned as its EXIF data says; transparent parts are laid on white; 16 bits become 8; of an animation
/// the first frame is taken. Colour profiles are not applied, as Pillow does not. `name` is for messages.
///
/// # Errors
/// [`Error::Picture`]: not a picture or of another format, larger than the limits, truncated, damaged.
pub fn decode(name: &str, bytes: &[u8], limits: &Limits) -> Result<Picture> {
    let refuse = |problem: String| Error::Picture { picture: name.to_owned(), problem };
    match format(name, bytes)? {
        ImageFormat::Jpeg => decode_jpeg(bytes, limits).map_err(refuse),
        format => decode_other(bytes, format, limits).map_err(refuse),
    }
}

/// What the first bytes of a file say of it. Of most files 64 KiB are enough; where they are not, this fails.
///
/// # Errors
/// As [`decode`], but nothing is known of the pixels yet.
pub fn header(name: &str, start: &[u8], limits: &Limits) -> Result<Header> {
    let refuse = |problem: String| Error::Picture { picture: name.to_owned(), problem };
    let format = format(name, start)?;
    let size = ImageReader::with_format(Cursor::new(start), format).into_dimensions();
    let (width, height) = size.map_err(|error| refuse(damaged(format, &error.to_string())))?;
    check_size(u64::from(width), u64::from(height), limits).map_err(refuse)?;
    Ok(Header { width, height, animated: animated(format, start) })
}

/// Whether the last bytes of a file are those of a whole one.
pub(super) fn ends_whole(start: &[u8], end: &[u8], length: u64) -> bool {
    let number = |at: usize| start.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
    match image::guess_format(start) {
        Ok(ImageFormat::Jpeg) => find(end, &[0xFF, 0xD9]),
        Ok(ImageFormat::Png) => find(end, b"IEND"),
        Ok(ImageFormat::Gif) => end.iter().rev().find(|byte| **byte != 0) == Some(&0x3B),
        Ok(ImageFormat::WebP) => number(4).is_some_and(|bytes| u64::from(bytes) + 8 <= length),
        _ => true,
    }
}

/// The format, or what the bytes are instead.
fn format(name: &str, bytes: &[u8]) -> Result<ImageFormat> {
    const EXPECTED: &str = "expected a picture (JPEG, PNG, WebP, BMP or GIF)";
    let problem = match image::guess_format(bytes) {
        Ok(
            format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp | ImageFormat::Gif),
        ) => {
            return Ok(format);
        }
        _ if bytes.is_empty() => "the file is empty".to_owned(),
        Ok(other) => format!("{EXPECTED}, got {}; convert it", other.to_mime_type()),
        Err(_) if bytes.get(4..8) == Some(b"ftyp") => format!("{EXPECTED}, got HEIF or a video; convert it"),
        Err(_) => match text(bytes) {
            Some(text) => format!("{EXPECTED}, got text that begins `{text}`"),
            None => format!("{EXPECTED}, got a file of another kind"),
        },
    };
    Err(Error::Picture { picture: name.to_owned(), problem })
}

/// The beginning of bytes that are a text.
fn text(bytes: &[u8]) -> Option<String> {
    let start = &bytes[..bytes.len().min(200)];
    let valid = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if start.len() - error.valid_up_to() < 4 => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let plain = valid.chars().all(|letter| !letter.is_control() || letter.is_whitespace());
    plain.then(|| valid.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(40).collect())
}

fn check_size(width: u64, height: u64, limits: &Limits) -> std::result::Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("the picture has no pixels ({width} x {height})"));
    }
    if width * height > limits.pixels {
        return Err(format!(
            "{width} x {height} are {} pixels, expected at most {}; make it smaller",
            width * height,
            limits.pixels
        ));
    }
    Ok(())
}

fn damaged(format: ImageFormat, reason: &str) -> String {
    let name = format.extensions_str().first().copied().unwrap_or("picture").to_uppercase();
    format!("the {name} file is truncated or damaged: {}", reason.trim())
}

fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Whether the file says near its start that it has several frames.
fn animated(format: ImageFormat, start: &[u8]) -> bool {
    match format {
        ImageFormat::Gif => find(start, b"NETSCAPE2.0"),
        ImageFormat::WebP => start.get(12..16) == Some(b"VP8X") && start.get(20).is_some_and(|flags| flags & 2 != 0),
        ImageFormat::Png => {
            let data = start.windows(4).position(|window| window == b"IDAT").unwrap_or(start.len());
            find(&start[..data], b"acTL")
        }
        _ => false,
    }
}

fn decode_jpeg(bytes: &[u8], limits: &Limits) -> std::result::Result<Picture, String> {
    let damaged = |reason: &dyn std::fmt::Display| damaged(ImageFormat::Jpeg, &reason.to_string());
    let options = DecoderOptions::new_fast()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| damaged(&error))?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    check_size(width as u64, height as u64, limits)?;
    if !ends(bytes) {
        return Err(damaged(&BREAKS_OFF));
    }
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let pixels = decoder.decode().map_err(|error| damaged(&error))?;
    if pixels.len() != 3 * width * height {
        return Err(damaged(&"pixels are missing"));
    }
    let picture = Picture::new(width as u32, height as u32, pixels);
    Ok(match orientation {
        None | Some(Orientation::NoTransforms) => picture,
        Some(orientation) => turned(picture, orientation),
    })
}

/// Whether the end marker follows the last scan. The decoder paints what is missing grey and says nothing.
///
/// In a scan 0xFF is always followed by 0 or a marker, so the pair cannot stand there by chance. A preview inside the
/// EXIF data has its own end marker, but that stands before the first scan.
fn ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low]) = bytes.get(at..at + 4).and_then(|four| four.first_chunk()) {
        match marker {
            0xDA => return bytes[at..].windows(2).rev().any(|pair| pair == [0xFF, 0xD9]),
            0xFF => at += 1, // a fill byte before a marker
            0x01 | 0xD0..=0xD7 => at += 2,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    true // of an unusual shape; the decoder judges
}

fn turned(picture: Picture, orientation: Orientation) -> Picture {
    let Some(image) = RgbImage::from_raw(picture.width, picture.height, picture.pixels) else {
        unreachable!("a picture has all its pixels")
    };
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    plain(image)
}

fn decode_other(bytes: &[u8], format: ImageFormat, limits: &Limits) -> std::result::Result<Picture, String> {
    let whole = ends_whole(bytes, &bytes[bytes.len().saturating_sub(TAIL)..], bytes.len() as u64);
    let broken = || damaged(format, BREAKS_OFF);
    let damaged = |error: image::ImageError| damaged(format, &error.to_string());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allocation = image::Limits::no_limits();
    allocation.max_alloc = Some(limits.pixels.saturating_mul(16)); // 16 bits of 4 channels, and as much to work in
    reader.limits(allocation);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height), limits)?;
    if !whole {
        return Err(broken());
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(plain(image))
}

/// Red, green and blue, transparent parts on white.
fn plain(image: DynamicImage) -> Picture {
    let (width, height) = (image.width(), image.height());
    if !image.color().has_alpha() {
        return Picture::new(width, height, image.into_rgb8().into_raw());
    }
    let over_white = |colour: u8, alpha: u8| {
        let sum = u32::from(colour) * u32::from(alpha) + 255 * (255 - u32::from(alpha));
        ((sum + 127) / 255) as u8
    };
    let pixels = image.into_rgba8().into_raw();
    let blended = pixels.chunks_exact(4).flat_map(|pixel| {
        let &[red, green, blue, alpha] = pixel.first_chunk().unwrap_or(&[0; 4]);
        [over_white(red, alpha), over_white(green, alpha), over_white(blue, alpha)]
    });
    Picture::new(width, height, blended.collect())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
