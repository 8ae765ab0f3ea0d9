//! Products of bf16 numbers with sums in f32: twice as many multiplications an instruction where the processor has
//! AVX-512 BF16. Operands stay f32 in memory and are rounded, to the nearest, ties to even, while they are packed; two
//! neighbours along the inner extent share one element, as `vdpbf16ps` wants them.

use super::pack::{Part, Source, interleave};
use super::{Destination, Format, Scratch, multiply};
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
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
            fn avx512(left: &[u32], right: &[u32], to: Destination<'_, f32>) {
                // SAFETY: this function has the features of the tile.
                multiply(left, right, to, |left, right| unsafe { hardware::tile(left, right) });
            }
            // SAFETY: `has_bf16` has checked that this processor has the enabled features.
            return unsafe { avx512(left, right, to) };
        }
        multiply(left, right, to, tile);
    }
}

fn pack<const WIDTH: usize>(part: Part<'_, f32>, panels: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if has_bf16() {
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn avx512<const WIDTH: usize>(part: Part<'_, f32>, panels: &mut [u32]) {
            pack_with::<WIDTH>(part, panels, hardware::neighbours, hardware::pairs);
        }
        // SAFETY: `has_bf16` has checked that this processor has the enabled features.
        return unsafe { avx512::<WIDTH>(part, panels) };
    }
    pack_with::<WIDTH>(part, panels, neighbours, pairs);
}

/// Fills panels of `WIDTH` rows side by side, a pair of columns below the other. What the last panel lacks is zero, as is
/// the second of an odd last pair.
#[inline(always)]
fn pack_with<const WIDTH: usize>(
    part: Part<'_, f32>,
    panels: &mut [u32],
    neighbours: impl Fn(&[f32], &mut [u32]),
    pairs: impl Fn(&[f32], &[f32], &mut [u32]),
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
                interleave(std::array::from_fn(|offset| &rounded[offset * elements..][..elements]), to);
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

    use super::{COLUMNS, ROWS};

    /// The sums of a tile, in 24 of the 32 registers.
    ///
    /// # Safety
    /// The processor has AVX-512 F and BF16.
    #[inline(always)]
    pub(super) unsafe fn tile(left: &[u32], right: &[u32]) -> [[f32; COLUMNS]; ROWS] {
        // SAFETY: the caller has the features; both loads read the 32 elements of one line; the arrays have one layout.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            for (left, right) in left.as_chunks::<ROWS>().0.iter().zip(right.as_chunks::<COLUMNS>().0) {
                let right: [__m512bh; 2] = [
                    std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.as_ptr().cast())),
                    std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right[16..].as_ptr().cast())),
                ];
                for row in 0..ROWS {
                    let left: __m512bh = std::mem::transmute(_mm512_set1_epi32(left[row].cast_signed()));
                    sums[row][0] = _mm512_dpbf16_ps(sums[row][0], left, right[0]);
                    sums[row][1] = _mm512_dpbf16_ps(sums[row][1], left, right[1]);
                }
            }
            std::mem::transmute(sums)
        }
    }

    /// [`super::neighbours`], sixteen pairs an instruction.
    #[inline(always)]
    pub(super) fn neighbours(from: &[f32], to: &mut [u32]) {
        let (whole, rest) = from.as_chunks::<32>();
        let (lines, last) = to.split_at_mut(whole.len() * 16);
        for (to, from) in lines.as_chunks_mut::<16>().0.iter_mut().zip(whole) {
            // SAFETY: called only from functions that have AVX-512 BF16; 32 numbers are read, 16 elements written.
            unsafe {
                let (low, high) = (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from[16..].as_ptr()));
                let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), rounded);
            }
        }
        super::neighbours(rest, last);
    }

    /// [`super::pairs`], sixteen pairs at once.
    #[inline(always)]
    pub(super) fn pairs(low: &[f32], high: &[f32], to: &mut [u32]) {
        let (lows, highs) = (low.as_chunks::<16>(), high.as_chunks::<16>());
        let (lines, last) = to.as_chunks_mut::<16>();
        for ((to, low), high) in lines.iter_mut().zip(lows.0).zip(highs.0) {
            // SAFETY: called only from functions that have AVX-512 BF16; 16 numbers of each are read, 16 elements written.
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
