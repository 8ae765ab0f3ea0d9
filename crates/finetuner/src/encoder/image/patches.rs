//! Pictures cut into square patches: the words of a vision transformer.

use engine::Tensor;

use crate::error::{Error, Result};
use crate::pixels::PixelBatch;

/// The patches of a batch, row by row of each picture.
pub(super) struct Patches {
    /// `[pictures * rows * columns, 3 side side]`: a patch's red positions, then its green and blue ones, as the filters
    /// of a convolution lie on disk. What does not fill a patch at the right and at the bottom is left out, as there.
    pub(super) values: Tensor,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Patches {
    /// # Errors
    /// [`Error::Model`] where a picture is smaller than a patch.
    pub(super) fn of(batch: &PixelBatch, side: usize) -> Result<Self> {
        let (rows, columns) = (batch.height / side, batch.width / side);
        if rows == 0 || columns == 0 {
            let problem = format!("{} x {} pixels hold no patch of {side} x {side}", batch.width, batch.height);
            return Err(Error::model("the picture", problem));
        }
        let mut values = Vec::with_capacity(batch.examples.len() * rows * columns * 3 * side * side);
        for picture in batch.values.chunks_exact(3 * batch.height * batch.width) {
            for (top, left) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row * side, column * side))) {
                for (colour, y) in (0..3).flat_map(|colour| (top..top + side).map(move |y| (colour, y))) {
                    let line = &picture[3 * (y * batch.width + left)..][..3 * side];
                    values.extend(line.iter().skip(colour).step_by(3));
                }
            }
        }
        let shape = [values.len() / (3 * side * side), 3 * side * side];
        Ok(Patches { values: Tensor::from_vec(values, &shape)?, rows, columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_go_row_by_row_and_colour_by_colour() {
        // Two pictures of 2 x 5 positions, numbered through.
        let batch =
            PixelBatch { values: (0..60u8).map(f32::from).collect(), height: 2, width: 5, examples: vec![0, 1] };
        let patches = Patches::of(&batch, 2).unwrap();
        assert_eq!((patches.rows, patches.columns, patches.values.shape()), (1, 2, &[4, 12][..]));
        let first = [0.0, 3.0, 15.0, 18.0, 1.0, 4.0, 16.0, 19.0, 2.0, 5.0, 17.0, 20.0];
        assert_eq!(patches.values.data()[..12], first);
        let last: Vec<f32> = first.iter().map(|value| value + 36.0).collect();
        assert_eq!(patches.values.data()[36..], last);
        let error = Patches::of(&batch, 3).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("5 x 2 pixels hold no patch of 3 x 3"), "{error}");
    }
}
