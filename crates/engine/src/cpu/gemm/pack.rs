//! Operands and how they are packed into panels as wide as a side of the register tile.

use super::Scalar;
use crate::cpu::patches::Patches;
use crate::tensor::Tensor;

/// Rows between a read that packs and the prefetch that goes before it.
pub(super) const AHEAD: usize = 12;

/// A strided view of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A dense row-major matrix.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Matrix::strided(data, rows, columns, columns)
    }

    /// Rows that start `row_stride` elements apart.
    pub(crate) fn strided(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> Matrix<'a> {
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        Matrix::new(tensor.data(), tensor.rows(), tensor.columns())
    }
}

/// What is packed: a matrix, or patches of a feature map, which are never held as a matrix.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a, T> {
    Matrix(Matrix<'a, T>),
    /// One row a position, one column a tap and channel.
    Patches(&'a Patches<'a, T>),
    /// One row a tap and channel, one column a position.
    PatchesTransposed(&'a Patches<'a, T>),
}

impl<'a, T> From<Matrix<'a, T>> for Source<'a, T> {
    fn from(matrix: Matrix<'a, T>) -> Self {
        Source::Matrix(matrix)
    }
}

impl<T> Source<'_, T> {
    pub(super) fn rows(&self) -> usize {
        match self {
            Source::Matrix(matrix) => matrix.rows,
            Source::Patches(patches) => patches.positions(),
            Source::PatchesTransposed(patches) => patches.columns(),
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Source::Matrix(matrix) => matrix.columns,
            Source::Patches(patches) => patches.columns(),
            Source::PatchesTransposed(patches) => patches.positions(),
        }
    }
}

/// Rows `from..to` of what is packed, columns `first..first + inner` of them.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a, T> {
    pub(super) source: Source<'a, T>,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) first: usize,
    pub(super) inner: usize,
}

/// Fills panels of `WIDTH` rows side by side, one column below the other; what the last panel lacks nobody takes.
#[inline(always)]
pub(super) fn pack<T: Scalar, const WIDTH: usize>(part: Part<'_, T>, panels: &mut [T], turn: impl Turn<T>) {
    let Part { source, from, to, first, inner } = part;
    match source {
        Source::Matrix(matrix) => pack_matrix::<T, WIDTH>(matrix.transposed(), from, to, first, inner, panels, turn),
        Source::Patches(patches) => patches.pack_positions::<WIDTH>(from, to, first, inner, panels, turn),
        Source::PatchesTransposed(patches) => patches.pack_taps::<WIDTH>(from, to, first, inner, panels),
    }
}

/// Columns `from..to` of rows `first..first + inner`, panels of `WIDTH` columns.
#[inline(always)]
fn pack_matrix<T: Scalar, const WIDTH: usize>(
    matrix: Matrix<'_, T>,
    from: usize,
    to: usize,
    first: usize,
    inner: usize,
    panels: &mut [T],
    turn: impl Turn<T>,
) {
    if matrix.column_stride == 1 {
        let whole = (to - from) / WIDTH;
        panels[whole * WIDTH * inner..].fill(T::default());
        for row in 0..inner {
            let start = (first + row) * matrix.row_stride;
            let ahead = start + AHEAD * matrix.row_stride;
            prefetch::<_, false>(matrix.data.get(ahead + from..ahead + to).unwrap_or_default());
            let (pieces, rest) = matrix.data[start + from..start + to].as_chunks::<WIDTH>();
            for (panel, piece) in pieces.iter().enumerate() {
                panels[(panel * inner + row) * WIDTH..][..WIDTH].copy_from_slice(piece);
            }
            panels.get_mut((whole * inner + row) * WIDTH..).unwrap_or_default()[..rest.len()].copy_from_slice(rest);
        }
        return;
    }
    assert_eq!(matrix.row_stride, 1, "rows or columns of an operand are contiguous");
    for (panel, to_panel) in panels.chunks_exact_mut(WIDTH * inner).enumerate() {
        let (rows, _) = to_panel.as_chunks_mut::<WIDTH>();
        // Of a last panel that is not full the last column again, in places that nobody takes.
        let column = |offset: usize| {
            let start = (from + panel * WIDTH + offset).min(to - 1) * matrix.column_stride + first;
            &matrix.data[start..start + inner]
        };
        interleave(std::array::from_fn::<_, WIDTH, _>(column), rows, turn);
    }
}

/// Side of the squares that are turned in registers.
const SIDE: usize = 8;

/// Exchanges rows and columns of a square.
pub(in crate::cpu) trait Turn<T>: Fn([&[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] + Copy {}

impl<T, F: Fn([&[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] + Copy> Turn<T> for F {}

/// Number by number.
#[inline(always)]
pub(super) fn turn_plain<T: Copy + Default>(square: [&[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] {
    let mut turned = [[T::default(); SIDE]; SIDE];
    for (row, column) in (0..SIDE).flat_map(|row| (0..SIDE).map(move |column| (row, column))) {
        turned[row][column] = square[column][row];
    }
    turned
}

/// By vectors of eight numbers, of those that are so short; left to itself the compiler moves one at a time, or scatters them.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn turn_avx2<T: super::Spare>(square: [&[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] {
    use std::arch::x86_64::*;

    if size_of::<T>() != size_of::<f32>() {
        return turn_plain(square);
    }
    // SAFETY: a row is eight numbers of 32 bits, whatever they mean: a vector.
    let rows = square.map(|row| unsafe { _mm256_loadu_ps(row.as_ptr().cast()) });
    // Pairs of neighbouring rows, then of those pairs, then of halves.
    let pairs: [__m256; SIDE] = std::array::from_fn(|i| match i % 2 {
        0 => _mm256_unpacklo_ps(rows[i], rows[i + 1]),
        _ => _mm256_unpackhi_ps(rows[i - 1], rows[i]),
    });
    let fours: [__m256; SIDE] = std::array::from_fn(|i| {
        let (low, high) = (pairs[i / 4 * 4 + i % 4 / 2], pairs[i / 4 * 4 + i % 4 / 2 + 2]);
        match i % 2 {
            0 => _mm256_shuffle_ps::<0b01_00_01_00>(low, high),
            _ => _mm256_shuffle_ps::<0b11_10_11_10>(low, high),
        }
    });
    let turned: [__m256; SIDE] = std::array::from_fn(|i| match i / 4 {
        0 => _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]),
        _ => _mm256_permute2f128_ps::<0x31>(fours[i - 4], fours[i]),
    });
    // SAFETY: as above, of all eight.
    unsafe { std::mem::transmute_copy::<[__m256; SIDE], [[T; SIDE]; SIDE]>(&turned) }
}

/// Lays `WIDTH` rows side by side, `turn` a square at a time.
#[inline(always)]
pub(in crate::cpu) fn interleave<T: Copy, const WIDTH: usize>(
    sources: [&[T]; WIDTH],
    rows: &mut [[T; WIDTH]],
    turn: impl Turn<T>,
) {
    let (squares, rest) = rows.as_chunks_mut::<SIDE>();
    let done = SIDE * squares.len();
    let source = |offset: usize, index: usize| &sources[offset].as_chunks::<SIDE>().0[index];
    for (index, square) in squares.iter_mut().enumerate() {
        for first in 0..WIDTH / SIDE {
            let turned = turn(std::array::from_fn(|offset| source(SIDE * first + offset, index)));
            for row in 0..SIDE {
                square[row][SIDE * first..][..SIDE].copy_from_slice(&turned[row]);
            }
        }
        if !WIDTH.is_multiple_of(SIDE) {
            // Of a narrower rest the last source again, in columns that nobody takes.
            let first = WIDTH / SIDE * SIDE;
            let turned = turn(std::array::from_fn(|offset| source((first + offset).min(WIDTH - 1), index)));
            for row in 0..SIDE {
                square[row][first..].copy_from_slice(&turned[row][..WIDTH % SIDE]);
            }
        }
    }
    for (index, row) in rest.iter_mut().enumerate() {
        for (offset, source) in sources.iter().enumerate() {
            row[offset] = source[done + index];
        }
    }
}

/// Asks for memory that is read soon: into the first-level cache, or the second where the first has other use until then.
#[inline(always)]
pub(super) fn prefetch<T, const SECOND_LEVEL: bool>(data: &[T]) {
    data.chunks(64 / size_of::<T>()).for_each(|line| prefetch_line::<T, SECOND_LEVEL>(line.as_ptr()));
}

/// The same for the line that an address is in, whatever is there.
#[inline(always)]
pub(super) fn prefetch_line<T, const SECOND_LEVEL: bool>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let line = address.cast();
        // SAFETY: a prefetch reads nothing; every x86-64 processor has it.
        unsafe { if SECOND_LEVEL { _mm_prefetch::<_MM_HINT_T1>(line) } else { _mm_prefetch::<_MM_HINT_T0>(line) } }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
