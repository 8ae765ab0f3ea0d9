//! A picture in memory.

/// Red, green and blue of 8 bits, row by row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// `[height * width, 3]`.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// A picture of these pixels.
    ///
    /// # Panics
    /// If there are not `3 * width * height` numbers: a bug of the caller.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), 3 * width as usize * height as usize, "a picture has all its pixels: bug");
        Picture { width, height, pixels }
    }

    /// A picture of one colour.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        Picture::new(width, height, colour.repeat(width as usize * height as usize))
    }

    /// Red, green and blue at a place.
    ///
    /// # Panics
    /// Outside the picture.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let at = 3 * (y as usize * self.width as usize + x as usize);
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// The part of `width` x `height` pixels from (`left`, `top`) on; what lies outside the picture is black.
    pub fn window(&self, left: i64, top: i64, width: u32, height: u32) -> Picture {
        let mut part = Picture::filled(width, height, [0; 3]);
        let (from, to) = (left.max(0), (left + i64::from(width)).min(i64::from(self.width)));
        if from < to {
            for (y, row) in part.pixels.chunks_exact_mut(3 * width as usize).enumerate() {
                let source = top + y as i64;
                if (0..i64::from(self.height)).contains(&source) {
                    let start = source as usize * self.width as usize;
                    let own = &self.pixels[3 * (start + from as usize)..3 * (start + to as usize)];
                    row[3 * (from - left) as usize..][..own.len()].copy_from_slice(own);
                }
            }
        }
        part
    }

    /// Left and right exchanged.
    pub fn mirror(&mut self) {
        let width = self.width as usize;
        for row in self.pixels.chunks_exact_mut((3 * width).max(1)) {
            for x in 0..width / 2 {
                let other = width - 1 - x;
                for channel in 0..3 {
                    row.swap(3 * x + channel, 3 * other + channel);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: u32, height: u32) -> Picture {
        let pixels = (0..width * height).flat_map(|place| [place as u8, 100 + place as u8, 200]);
        Picture::new(width, height, pixels.collect())
    }

    #[test]
    fn a_window_is_the_part_and_black_outside() {
        let picture = numbered(4, 3);
        let part = picture.window(1, 1, 2, 2);
        assert_eq!(part.pixels, [5, 105, 200, 6, 106, 200, 9, 109, 200, 10, 110, 200]);
        let beyond = picture.window(-1, 2, 3, 2);
        assert_eq!((beyond.pixel(0, 0), beyond.pixel(1, 0), beyond.pixel(1, 1)), ([0; 3], [8, 108, 200], [0; 3]));
        assert_eq!(picture.window(9, 0, 2, 1), Picture::filled(2, 1, [0; 3]));
    }

    #[test]
    fn a_mirror_reverses_every_row() {
        let mut picture = numbered(3, 2);
        picture.mirror();
        let first: Vec<u8> = picture.pixels.iter().step_by(3).copied().collect();
        assert_eq!(first, [2, 1, 0, 5, 4, 3]);
    }
}
