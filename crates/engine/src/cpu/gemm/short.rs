//! Products of bf16 numbers with sums in f32: twice as many multiplications an instruction where the processor has
//! AVX-512 BF16. Operands stay f32 in memory and are rounded, to the nearest, ties to even, while they are packed; two
//! neighbours along the inner extent share one element, as `vdpbf16ps` wants them.

#[cfg(target_arch = "x86_64")]
use super::pack::turn_avx2;
use super::pack::{Part, Source, Turn, interleave, turn_plain};
#[cfg(target_arch = "x86_64")]
use super::tile::vectors;
use super::{Destination, Format, Scratch, multiply};
#[cfg(target_arch = "x86_64")]
use crate::isa::has_bf16;

/// f32 operands, rounded to bf16 when packed. Processors without the instruction make the sums one by one.
pub(crate) struct Bf16;

const ROWS: usize = 12;
const COLUMNS: usize = 32;

impl Format for Bf16 {
    type Number = f32;
    type Element = u32;
    const GROUP: usize = 2;

    fn tile() -> (usize, usize) {
        (ROWS, COLUMNS)
    }

    fn pack_left(part: Part<'_, f32>, panels: &mut [u32]) {
        pack::<ROWS>(part, panels);
    }

    fn pack_right(part: Part<'_, f32>, panels: &mut [u32]) {
        pack::<COLUMNS>(part, panels);
    }

    fn multiply(left: &[u32], right: &[u32], to: Destination<'_, f32>) {
        #[cfg(target_arch = "x86_64")]
        if has_bf16() {
            // SAFETY: `has_bf16` has checked that this processor has the instructions.
            return unsafe { vectors::bf16_avx512(left, right, to) };
        }
        multiply(left, right, to, |left, right, _| tile(left, right));
    }
}

fn pack<const WIDTH: usize>(part: Part<'_, f32>, panels: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if has_bf16() {
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn avx512<const WIDTH: usize>(part: Part<'_, f32>, panels: &mut [u32]) {
            pack_with::<WIDTH>(
                part,
                panels,
                |from, to| hardware::neighbours(from, to),
                |low, high, to| hardware::pairs(low, high, to),
                |square| turn_avx2(square),
            );
        }
        // SAFETY: `has_bf16` has checked that this processor has the enabled features.
        return unsafe { avx512::<WIDTH>(part, panels) };
    }
    pack_with::<WIDTH>(part, panels, neighbours, pairs, turn_plain);
}

/// Fills panels of `WIDTH` rows side by side, a pair of columns below the other. What the last panel lacks is zero, as is
/// the second of an odd last pair.
#[inline(always)]
fn pack_with<const WIDTH: usize>(
    part: Part<'_, f32>,
    panels: &mut [u32],
    neighbours: impl Fn(&[f32], &mut [u32]),
    pairs: impl Fn(&[f32], &[f32], &mut [u32]),
    turn: impl Turn<u32>,
) {
    let Part { source, from, to, first, inner } = part;
    let Source::Matrix(matrix) = source else { unreachable!("convolutions are f32 products") };
    let elements = inner.div_ceil(2);
    let panels = panels.chunks_exact_mut(WIDTH * elements);
    for (panel, start) in panels.zip((from..to).step_by(WIDTH)) {
        let width = WIDTH.min(to - start);
        if width < WIDTH {
            panel.fill(0);
        }
        if matrix.column_stride == 1 {
            // The inner extent is contiguous: pairs are neighbours already.
            let row = |offset: usize| &matrix.data[(start + offset) * matrix.row_stride + first..][..inner];
            let mut rounded = Scratch::<u32>::stale(WIDTH * elements);
            let rounded = rounded.as_mut_slice();
            for offset in 0..width {
                neighbours(row(offset), &mut rounded[offset * elements..][..elements]);
            }
            let (to, _) = panel.as_chunks_mut::<WIDTH>();
            if width == WIDTH {
                interleave(std::array::from_fn(|offset| &rounded[offset * elements..][..elements]), to, turn);
            } else {
                for (index, to) in to.iter_mut().enumerate() {
                    (0..width).for_each(|offset| to[offset] = rounded[offset * elements + index]);
                }
            }
        } else {
            assert_eq!(matrix.row_stride, 1, "rows or columns of an operand are contiguous");
            let line = |column: usize| &matrix.data[(first + column) * matrix.column_stride + start..][..width];
            for (index, to) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let low = line(2 * index);
                match 2 * index + 1 < inner {
                    true => pairs(low, line(2 * index + 1), &mut to[..width]),
                    false => pairs(low, &[0.0; WIDTH][..width], &mut to[..width]),
                }
            }
        }
    }
}

/// Rounds pairs of neighbours; a last one alone is paired with zero.
#[inline(always)]
fn neighbours(from: &[f32], to: &mut [u32]) {
    let (whole, rest) = from.as_chunks::<2>();
    for (to, &[low, high]) in to.iter_mut().zip(whole) {
        *to = pair(low, high);
    }
    if let (&[last], Some(to)) = (rest, to.last_mut()) {
        *to = pair(last, 0.0);
    }
}

/// Rounds the numbers of two lines, each pair into one element.
#[inline(always)]
fn pairs(low: &[f32], high: &[f32], to: &mut [u32]) {
    for ((to, &low), &high) in to.iter_mut().zip(low).zip(high) {
        *to = pair(low, high);
    }
}

fn pair(low: f32, high: f32) -> u32 {
    let bits = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
    bits(low) | bits(high) << 16
}

#[inline(always)]
fn tile(left: &[u32], right: &[u32]) -> [[f32; COLUMNS]; ROWS] {
    let [low, high] = [|pair: u32| f32::from_bits(pair << 16), |pair: u32| f32::from_bits(pair & 0xffff_0000)];
    let mut sums = [[0.0; COLUMNS]; ROWS];
    for (left, right) in left.as_chunks::<ROWS>().0.iter().zip(right.as_chunks::<COLUMNS>().0) {
        for (sums, &left) in sums.iter_mut().zip(left) {
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum += low(left) * low(right) + high(left) * high(right);
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod hardware {
    use std::arch::x86_64::*;

    /// [`super::neighbours`], sixteen pairs an instruction.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn neighbours(from: &[f32], to: &mut [u32]) {
        let (whole, rest) = from.as_chunks::<32>();
        let (lines, last) = to.split_at_mut(whole.len() * 16);
        for (to, from) in lines.as_chunks_mut::<16>().0.iter_mut().zip(whole) {
            // SAFETY: 32 numbers are read, 16 elements written.
            unsafe {
                let (low, high) = (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from[16..].as_ptr()));
                let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), rounded);
            }
        }
        super::neighbours(rest, last);
    }

    /// [`super::pairs`], sixteen pairs at once.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn pairs(low: &[f32], high: &[f32], to: &mut [u32]) {
        let (lows, highs) = (low.as_chunks::<16>(), high.as_chunks::<16>());
        let (lines, last) = to.as_chunks_mut::<16>();
        for ((to, low), high) in lines.iter_mut().zip(lows.0).zip(highs.0) {
            // SAFETY: 16 numbers of each are read, 16 elements written.
            unsafe {
                let round = |x: &[f32; 16]| {
                    _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(
                        _mm512_loadu_ps(x.as_ptr()),
                    )))
                };
                let rounded = _mm512_or_si512(round(low), _mm512_slli_epi32::<16>(round(high)));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), rounded);
            }
        }
        super::pairs(lows.1, highs.1, last);
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    #![allow(clippy::print_stderr, reason = "why a test was left out")]

    use super::super::tile::Ahead;
    use super::*;

    /// Whether there is anything to compare; says so if not.
    fn instruction() -> bool {
        if !has_bf16() {
            eprintln!("skipped: this processor has no AVX-512 BF16");
        }
        has_bf16()
    }

    fn pack(count: usize, seed: usize, number: impl Fn(usize) -> f32) -> Vec<u32> {
        let number = |i: usize| number((i * 7919 + seed * 104_729) % 1009);
        (0..count).map(|i| pair(number(2 * i), number(2 * i + 1))).collect()
    }

    /// Compares both tiles, element by element, with what they may differ by: a factor of the sum of magnitudes.
    fn compare(inner: usize, number: impl Fn(usize) -> f32 + Copy, factor: f64) {
        let (left, right) = (pack(inner * ROWS, 1, number), pack(inner * COLUMNS, 2, number));
        // SAFETY: the tests run this only where the processor has AVX-512 BF16.
        let (got, expected) =
            (unsafe { vectors::bf16_tile_avx512(&left, &right, Ahead::nothing()) }, tile(&left, &right));
        let magnitudes = |x: &[u32]| x.iter().map(|x| x & 0x7fff_7fff).collect::<Vec<_>>();
        let most = tile(&magnitudes(&left), &magnitudes(&right));
        for (row, column) in (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (row, column))) {
            let (got, expected) = (got[row][column], expected[row][column]);
            let off = (f64::from(got) - f64::from(expected)).abs();
            let allowed = factor * f64::from(most[row][column]);
            assert!(off <= allowed, "{inner} [{row}][{column}]: {got:e}, not {expected:e}: {off:e} > {allowed:e}");
        }
    }

    /// Sums of small whole numbers are exact in any order: the same bits.
    #[test]
    fn the_instruction_sums_whole_numbers_exactly() {
        if instruction() {
            // 2 * 130 products of at most 127 * 127 stay below 2^24.
            for inner in [0, 1, 2, 7, 130] {
                compare(inner, |i| (i % 255) as f32 - 127.0, 0.0);
            }
        }
    }

    /// Products of two bf16 numbers are exact in f32, so each of the `2 inner` additions rounds by at most 2^-24 of the
    /// sum of magnitudes, on either side and in any order; a hundredth more covers the terms of second order.
    #[test]
    fn the_instruction_sums_as_precisely_as_plain_additions() {
        if instruction() {
            for inner in [1, 2, 7, 130, 448] {
                compare(inner, |i| (i as f32 - 504.3) / 77.7, 2.0 * 2.0 * inner as f64 * 2f64.powi(-24) * 1.01);
            }
        }
    }

    /// Rounding gives the same bits, whole lines and rests; only a subnormal number becomes zero with its sign.
    #[test]
    fn the_instruction_rounds_to_the_same_bits() {
        if !instruction() {
            return;
        }
        let ties =
            [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0x7f7f_8000, 0xff7f_ffff, 0x0080_0000, 0x8000_0000];
        let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -1.0 / 3.0, 0.0].map(f32::to_bits);
        let numbers: Vec<f32> = ties.into_iter().chain(odd).cycle().take(101).map(f32::from_bits).collect();
        for count in 0..=numbers.len() {
            let from = &numbers[..count];
            let (mut got, mut expected) = (vec![1; count.div_ceil(2)], vec![2; count.div_ceil(2)]);
            // SAFETY: `instruction` has checked that this processor has the enabled features.
            unsafe { hardware::neighbours(from, &mut got) };
            neighbours(from, &mut expected);
            assert_eq!(got, expected, "{count} neighbours");
            let (high, mut got, mut expected) = (&numbers[numbers.len() - count..], vec![1; count], vec![2; count]);
            // SAFETY: as above.
            unsafe { hardware::pairs(from, high, &mut got) };
            pairs(from, high, &mut expected);
            assert_eq!(got, expected, "{count} pairs");
        }
        let (mut got, tiny) = ([1; 16], [-f32::from_bits(0x7f_0000); 32]);
        // SAFETY: as above.
        unsafe { hardware::neighbours(&tiny, &mut got) };
        assert_eq!(got, [0x8000_8000; 16]);
    }
}
