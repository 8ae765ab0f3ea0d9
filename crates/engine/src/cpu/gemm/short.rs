//! Products of bf16 numbers with sums in f32: twice as many multiplications an instruction where the processor has
//! AVX-512 BF16. Operands stay f32 in memory and are rounded, to the nearest, ties to even, while they are packed; two
//! neighbours along the inner extent share one element, as `vdpbf16ps` wants them.

use super::pack::{Matrix, Part, Source};
#[cfg(target_arch = "x86_64")]
use super::tile::vectors;
use super::{Destination, Format, multiply};
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
        // SAFETY: `has_bf16` has checked that this processor has the enabled features.
        return unsafe { hardware::pack::<WIDTH>(part, panels) };
    }
    pack_plain::<WIDTH>(part, panels);
}

/// Fills panels of `WIDTH` rows side by side, a pair of columns below the other. The second of an odd last pair is zero; what the
/// last panel lacks nobody takes.
fn pack_plain<const WIDTH: usize>(part: Part<'_, f32>, panels: &mut [u32]) {
    let Part { source, from, to, first, inner } = part;
    let matrix = matrix(source);
    let elements = inner.div_ceil(2);
    for (panel, start) in panels.chunks_exact_mut(WIDTH * elements).zip((from..to).step_by(WIDTH)) {
        for (index, pairs) in panel.chunks_exact_mut(WIDTH).enumerate() {
            for (row, out) in (start..to).zip(pairs) {
                let number = |column| {
                    let place = row * matrix.row_stride + (first + column) * matrix.column_stride;
                    if column < inner { matrix.data[place] } else { 0.0 }
                };
                *out = pair(number(2 * index), number(2 * index + 1));
            }
        }
    }
}

fn matrix(source: Source<'_, f32>) -> Matrix<'_> {
    match source {
        Source::Matrix(matrix) => matrix,
        Source::Patches(_) | Source::PatchesTransposed(_) => unreachable!("convolutions are f32 products"),
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
    use std::mem::transmute;

    use super::super::pack::{AHEAD, prefetch};
    use super::{Matrix, Part, matrix};

    /// Numbers of a vector.
    const LANES: usize = 16;

    /// [`super::pack_plain`], sixteen pairs at once.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn pack<const WIDTH: usize>(part: Part<'_, f32>, panels: &mut [u32]) {
        let Part { source, from, to, first, inner } = part;
        let matrix = matrix(source);
        if matrix.column_stride == 1 {
            let rows = |start: usize, end: usize| {
                let mut rows = [[].as_slice(); LANES];
                for (row, index) in rows.iter_mut().zip(start..end).take(WIDTH) {
                    *row = &matrix.data[index * matrix.row_stride + first..][..inner];
                }
                rows
            };
            for (panel, start) in panels.chunks_exact_mut(WIDTH * inner.div_ceil(2)).zip((from..to).step_by(WIDTH)) {
                for left in (0..WIDTH).step_by(LANES) {
                    let (start, end) = (start + left, matrix.rows);
                    turn_rows::<WIDTH>(rows(start, to), rows(start + WIDTH, end), left, panel);
                }
            }
        } else {
            interleave_lines::<WIDTH>(matrix, from..to, first, inner, panels);
        }
    }

    /// Pairs lie side by side already: lays up to sixteen rows side by side, from the column `left` of a panel on. Those of the next
    /// panel come into the second-level cache meanwhile: they are too short for the processor to foresee.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn turn_rows<const WIDTH: usize>(rows: [&[f32]; LANES], next: [&[f32]; LANES], left: usize, panel: &mut [u32]) {
        let (lines, _) = panel.as_chunks_mut::<WIDTH>();
        for (index, lines) in lines.chunks_mut(LANES).enumerate() {
            let mut square = [_mm512_setzero_si512(); LANES];
            for ((pairs, row), next) in square.iter_mut().zip(rows).zip(next).take(WIDTH) {
                let start = index * 2 * LANES;
                prefetch::<_, true>(piece(next, start, 2 * LANES));
                *pairs = round(load(piece(row, start, LANES)), load(piece(row, start + LANES, LANES)));
            }
            for (line, pairs) in lines.iter_mut().zip(turn(square)) {
                store(pairs, &mut line[left..]);
            }
        }
    }

    /// Rows are columns in memory: takes two lines at a time, and each number of one with that of the other.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn interleave_lines<const WIDTH: usize>(
        matrix: Matrix<'_>,
        rows: std::ops::Range<usize>,
        first: usize,
        inner: usize,
        panels: &mut [u32],
    ) {
        assert_eq!(matrix.row_stride, 1, "rows or columns of an operand are contiguous");
        let line = |column: usize| {
            let start = (first + column) * matrix.column_stride;
            &matrix.data[start + rows.start..start + rows.end]
        };
        // The sixteen of one line, then those of the other: each after its partner.
        let mut order = [0u16; 2 * LANES];
        for (i, place) in order.iter_mut().enumerate() {
            *place = (i / 2 + i % 2 * LANES) as u16;
        }
        // SAFETY: a vector is numbers side by side.
        let order = unsafe { transmute::<[u16; 2 * LANES], __m512i>(order) };
        let elements = inner.div_ceil(2);
        for element in 0..elements {
            let low = line(2 * element);
            let high = if 2 * element + 1 < inner { line(2 * element + 1) } else { &[] };
            for ahead in (2 * element + AHEAD..inner).take(2) {
                prefetch::<_, false>(line(ahead));
            }
            for (panel, start) in (0..rows.len()).step_by(WIDTH).enumerate() {
                let to = &mut panels[(panel * elements + element) * WIDTH..][..WIDTH];
                for left in (0..WIDTH).step_by(LANES) {
                    let to = &mut to[left..];
                    let (low, high) = (piece(low, start + left, to.len()), piece(high, start + left, to.len()));
                    store(_mm512_permutexvar_epi16(order, round(load(low), load(high))), to);
                }
            }
        }
    }

    /// At most `count` numbers from `start` on.
    #[inline(always)]
    fn piece(line: &[f32], start: usize, count: usize) -> &[f32] {
        let line = line.get(start..).unwrap_or_default();
        line.get(..count).unwrap_or(line)
    }

    /// Up to sixteen numbers, and zeros.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(from: &[f32]) -> __m512 {
        // SAFETY: reads as many numbers as are there.
        unsafe { _mm512_maskz_loadu_ps(lanes(from.len()), from.as_ptr()) }
    }

    /// As many elements as have place, sixteen at most.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(elements: __m512i, to: &mut [u32]) {
        // SAFETY: writes no more elements than have place.
        unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), lanes(to.len()), elements) }
    }

    #[inline(always)]
    fn lanes(count: usize) -> __mmask16 {
        if count < LANES { (1 << count) - 1 } else { __mmask16::MAX }
    }

    /// Rounds `low`, and after it `high`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn round(low: __m512, high: __m512) -> __m512i {
        // SAFETY: 32 numbers of 16 bits are as many bits.
        unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
    }

    /// Exchanges rows and columns of a square.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn turn(mut rows: [__m512i; LANES]) -> [__m512i; LANES] {
        // Pairs of neighbouring rows, then of those pairs: a quarter of a vector holds a column of four rows.
        for i in (0..LANES).step_by(2) {
            (rows[i], rows[i + 1]) =
                (_mm512_unpacklo_epi32(rows[i], rows[i + 1]), _mm512_unpackhi_epi32(rows[i], rows[i + 1]));
        }
        for i in (0..LANES).step_by(4) {
            let [first, second, third, fourth] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
            rows[i] = _mm512_unpacklo_epi64(first, third);
            rows[i + 1] = _mm512_unpackhi_epi64(first, third);
            rows[i + 2] = _mm512_unpacklo_epi64(second, fourth);
            rows[i + 3] = _mm512_unpackhi_epi64(second, fourth);
        }
        // Then eight rows of even and of odd quarters, and all sixteen.
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        for i in [0, 1, 2, 3, 8, 9, 10, 11] {
            (rows[i], rows[i + 4]) =
                (_mm512_shuffle_i32x4::<EVEN>(rows[i], rows[i + 4]), _mm512_shuffle_i32x4::<ODD>(rows[i], rows[i + 4]));
        }
        for i in 0..LANES / 2 {
            (rows[i], rows[i + 8]) =
                (_mm512_shuffle_i32x4::<EVEN>(rows[i], rows[i + 8]), _mm512_shuffle_i32x4::<ODD>(rows[i], rows[i + 8]));
        }
        rows
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

    /// Both orders of memory, whole squares and rests: the same bits, where anybody takes them.
    #[test]
    fn the_instruction_packs_and_rounds_to_the_same_bits() {
        if !instruction() {
            return;
        }
        let ties =
            [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0x7f7f_8000, 0xff7f_ffff, 0x0080_0000, 0x8000_0000];
        let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -1.0 / 3.0, 0.0].map(f32::to_bits);
        let number = |i: usize| match i % 3 {
            0 => f32::from_bits(*ties.iter().chain(&odd).nth(i / 3 % 13).unwrap()),
            _ => i as f32 / 7.0 - 100.0,
        };
        let numbers: Vec<f32> = (0..90 * 90).map(number).collect();
        for (rows, inner) in [(1, 1), (12, 32), (13, 33), (32, 64), (36, 65), (45, 31), (64, 90), (77, 2), (90, 47)] {
            let matrix = Matrix::new(&numbers, 90, 90);
            for source in [matrix, matrix.transposed()] {
                let part = Part { source: source.into(), from: 90 - rows, to: 90, first: 90 - inner, inner };
                same_panels::<ROWS>(part);
                same_panels::<COLUMNS>(part);
            }
        }
        let tiny = [-f32::from_bits(0x7f_0000); 32];
        let (source, mut got) = (Matrix::new(&tiny, 1, 32).into(), [1; 16 * ROWS]);
        // SAFETY: `instruction` has checked that this processor has the enabled features.
        unsafe { hardware::pack::<ROWS>(Part { source, from: 0, to: 1, first: 0, inner: 32 }, &mut got) };
        assert_eq!(got[0], 0x8000_8000, "a subnormal number becomes zero with its sign");
    }

    fn same_panels<const WIDTH: usize>(part: Part<'_, f32>) {
        let (rows, elements) = (part.to - part.from, part.inner.div_ceil(2));
        let [mut got, mut expected] = [1, 2].map(|fill| vec![fill; rows.next_multiple_of(WIDTH) * elements]);
        // SAFETY: only called where this processor has the enabled features.
        unsafe { hardware::pack::<WIDTH>(part, &mut got) };
        pack_plain::<WIDTH>(part, &mut expected);
        for (row, element) in (0..rows).flat_map(|row| (0..elements).map(move |element| (row, element))) {
            let place = (row / WIDTH * elements + element) * WIDTH + row % WIDTH;
            assert_eq!(got[place], expected[place], "row {row} of {rows}, element {element} of {elements}, {WIDTH}");
        }
    }
}
