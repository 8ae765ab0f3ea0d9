//! Pictures to packed pixel batches.

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
