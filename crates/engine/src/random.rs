//! Counter-based random numbers: a number is a pure function of where it is used, never of what was drawn before.
//!
//! So the second pass of a gradient cache, another micro-batch split or a resumed run draw the same dropout masks.

/// Names one stream of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The root stream of a run.
    pub fn new(seed: u64) -> Self {
        Key(mix(seed ^ 0x5851_f42d_4c95_7f2d))
    }

    /// The stream of one part (step, layer, example, row …) of this one.
    #[inline(always)]
    pub fn part(self, index: u64) -> Self {
        Key(mix(self.0 ^ mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// 64 uniform bits.
    #[inline(always)]
    pub fn bits(self, counter: u64) -> u64 {
        mix(self.0.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform in [0, 1).
    pub fn uniform(self, counter: u64) -> f64 {
        (self.bits(counter) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal, by the Box-Muller transform of two uniform numbers.
    pub fn normal(self, counter: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * counter)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * counter + 1)).cos()
    }

    /// Both words, as a device's kernels take them.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// The two words that [`kept`] mixes with an element's counter.
    #[inline(always)]
    pub(crate) fn words(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
#[inline(always)]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Dropout of one site: elements are zeroed with `probability`, to the nearest 2^-16, the others scaled by
/// `1 / (1 - probability)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Chance of an element to be dropped, in [0, 1).
    pub probability: f32,
    /// The stream of this site; a row's stream is a part of it.
    pub key: Key,
}

impl Dropout {
    /// An element is dropped if its 16 random bits, as the upper half of a word, are below this.
    #[inline(always)]
    pub(crate) fn threshold(&self) -> u32 {
        ((f64::from(self.probability) * 65_536.0).round().min(65_535.0) as u32) << 16
    }

    #[inline(always)]
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (1.0 - self.probability)
    }
}

/// How many elements of a row [`kept`] looks at.
pub(crate) const SPAN: usize = 16;

/// For each element of a row from `counter` on, a multiple of [`SPAN`], whether it survives dropout: 1, else 0.
///
/// One word serves two elements, eight apart: so a vector of words gives two vectors without exchange, and so two
/// numbers do that lie with one thread of a GPU's tensor cores. Integer operations of 32 bits only.
#[inline(always)]
pub(crate) fn kept(words: (u32, u32), counter: u32, threshold: u32) -> [f32; SPAN] {
    // Of a row's spans the compiler would take sixteen at once on AVX-512, and gather and scatter every number.
    let counter = std::hint::black_box(counter);
    let mut kept = [0.0; SPAN];
    let (first, second) = kept.split_at_mut(SPAN / 2);
    for i in 0..SPAN / 2 {
        let x = counter.wrapping_add(i as u32).wrapping_add(words.0).wrapping_mul(0x7feb_352d);
        let x = (x ^ (x >> 15) ^ words.1).wrapping_mul(0x846c_a68b);
        // The lower half alone has only lower bits in it: columns some distances apart would fall together a little often.
        let x = x ^ (x >> 16);
        first[i] = if (x << 16) >= threshold { 1.0 } else { 0.0 };
        second[i] = if x >= threshold { 1.0 } else { 0.0 };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_drops_the_asked_share_and_rows_are_independent() {
        let site = Dropout { probability: 0.1, key: Key::new(1).part(3) };
        let rows: Vec<Vec<f32>> = (0..200)
            .map(|row| {
                let words = site.key.part(row).words();
                (0..1024).step_by(SPAN).flat_map(|i| kept(words, i, site.threshold())).collect()
            })
            .collect();
        let kept: f32 = rows.iter().flatten().sum();
        assert!((kept / 204_800.0 - 0.9).abs() < 0.003, "{kept}");
        // Two independent rows agree on 0.82 of their elements.
        for row in 1..200 {
            let same = (0..1024).filter(|&i| rows[row][i] == rows[row - 1][i]).count();
            assert!((780..900).contains(&same), "rows {row}: {same}");
        }
    }

    /// A word's two halves, words that follow each other, and distances at which sums of few multiplications meet.
    #[test]
    fn elements_of_a_row_are_independent_however_far_apart() {
        let site = Dropout { probability: 0.1, key: Key::new(1).part(3) };
        let apart = [1, 2, 7, 8, 9, 15, 16, 17, 51, 64, 96, 197];
        let (mut same, rows) = ([0usize; 12], 40_000);
        for row in 0..rows {
            let words = site.key.part(row).words();
            let row: Vec<f32> = (0..1024).step_by(SPAN).flat_map(|i| kept(words, i, site.threshold())).collect();
            for (same, &apart) in same.iter_mut().zip(&apart) {
                *same += row.iter().zip(&row[apart..]).filter(|(one, other)| one == other).count();
            }
        }
        let dropped = f64::from(site.threshold() >> 16) / 65_536.0;
        let expected = dropped * dropped + (1.0 - dropped) * (1.0 - dropped);
        for (same, apart) in same.into_iter().zip(apart) {
            let pairs = (rows as usize * (1024 - apart)) as f64;
            let errors = (same as f64 / pairs - expected) / (expected * (1.0 - expected) / pairs).sqrt();
            assert!(errors.abs() < 4.0, "{apart} apart: {errors:.1} standard errors from independent");
        }
    }

    #[test]
    fn normal_numbers_have_unit_variance() {
        let key = Key::new(7);
        let numbers: Vec<f64> = (0..20_000).map(|i| key.normal(i)).collect();
        let mean = numbers.iter().sum::<f64>() / 20_000.0;
        let variance = numbers.iter().map(|x| x * x).sum::<f64>() / 20_000.0 - mean * mean;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
