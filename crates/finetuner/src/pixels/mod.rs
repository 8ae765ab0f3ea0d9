//! Pictures to packed pixel batches: decoded, resized and normalised as a model was trained, prepared ahead of the step.
//!
//! - [`mod@decode`]: the bytes of a JPEG, PNG, WebP, BMP or GIF to red, green and blue, within limits
//! - [`mod@resize`]: to another size, as Pillow does it
//! - [`processor`]: a picture to what a model reads, as its `preprocessor_config.json` says
//! - [`augment`]: random views of a picture, a function of seed, epoch, row and view
//! - [`source`]: an address to bytes: a file, an entry of a tar shard, a URL
//! - [`mod@scan`]: every picture looked at before training
//! - [`prepare`]: many pictures at once, on threads of their own

pub mod augment;
mod colour;
pub mod decode;
mod fetch;
#[cfg(test)]
mod golden;
mod picture;
pub mod prepare;
pub mod processor;
pub mod resize;
pub mod scan;
pub mod source;

pub use augment::{Augmentation, Draw};
pub use decode::{Header, Limits, decode};
pub use picture::Picture;
pub use prepare::{Order, Preparer, pack};
pub use processor::ImageProcessor;
pub use resize::{Filter, resize};
pub use scan::{Depth, scan};
pub use source::Sources;

/// Some pictures of one size, normalised, as one run of pixels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PixelBatch {
    /// Red, green and blue of every pixel, picture by picture, row by row: `[examples * height * width, 3]`.
    pub values: Vec<f32>,
    /// Height of every picture in pixels.
    pub height: usize,
    /// Width of every picture in pixels.
    pub width: usize,
    /// The row of the whole batch each picture belongs to: `[pictures]`. Dropout is drawn by it.
    pub examples: Vec<u32>,
}

impl PixelBatch {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Its size in patches of 16 x 16 pixels, at least one a picture.
    pub fn tokens(&self) -> usize {
        self.len() * (self.height * self.width / 256).max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }
}
