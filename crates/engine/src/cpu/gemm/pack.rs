//! Operands and how they are packed into panels as wide as a side of the register tile.

use super::Scalar;
use crate::cpu::patches::Patches;
use crate::tensor::Tensor;

/// Rows between a read that packs and the prefetch that goes before it.
const AHEAD: usize = 12;

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

/// Fills panels of `WIDTH` rows side by side, one column below the other; rows that the last panel lacks are zero.
#[inline(always)]
pub(super) fn pack<T: Scalar, const WIDTH: usize>(part: Part<'_, T>, panels: &mut [T]) {
    let Part { source, from, to, first, inner } = part;
    match source {
        Source::Matrix(matrix) => pack_matrix::<T, WIDTH>(matrix.transposed(), from, to, first, inner, panels),
        Source::Patches(patches) => patches.pack_positions::<WIDTH>(from, to, first, inner, panels),
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
) {
    let whole = (to - from) / WIDTH;
    panels[whole * WIDTH * inner..].fill(T::default());
    if matrix.column_stride == 1 {
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
        let column = |offset: usize| {
            let start = (from + panel * WIDTH + offset) * matrix.column_stride + first;
            &matrix.data[start..start + inner]
        };
        if panel == whole {
            for offset in 0..to - from - whole * WIDTH {
                rows.iter_mut().zip(column(offset)).for_each(|(row, &value)| row[offset] = value);
            }
            continue;
        }
        interleave(std::array::from_fn::<_, WIDTH, _>(column), rows);
    }
}

/// Lays `WIDTH` rows side by side.
#[inline(always)]
pub(in crate::cpu) fn interleave<T: Copy, const WIDTH: usize>(sources: [&[T]; WIDTH], rows: &mut [[T; WIDTH]]) {
    // Squares of eight rows at a time, which the compiler turns in registers.
    let (squares, rest) = rows.as_chunks_mut::<8>();
    let done = 8 * squares.len();
    for (index, square) in squares.iter_mut().enumerate() {
        for (offset, source) in sources.iter().enumerate() {
            let values = &source[8 * index..8 * index + 8];
            for row in 0..8 {
                square[row][offset] = values[row];
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
