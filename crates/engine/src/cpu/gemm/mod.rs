//! Matrix products.
//!
//! The plan is that of Goto and van de Geijn (2008) and BLIS: the right operand is packed once into panels as wide as a
//! register tile, every task packs its block of rows of the left one, and a tile of the result stays in registers for a
//! whole block of the inner extent. Ours differs from a library's product in two ways that training needs: tasks are
//! handed out one by one, so that a slower core takes fewer, and a task goes on with its rows while they are in the
//! cache (bias, activation, the next layer). How the work is cut never changes the order of the sums: same input, same
//! bits, on any number of threads.

mod pack;
mod scratch;
mod short;
mod tile;

use std::ops::{Add, Mul, Range};

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use self::pack::turn_avx2;
pub(crate) use self::pack::{Matrix, Part, Source};
pub(super) use self::pack::{Turn, interleave};
use self::pack::{pack, turn_plain};
pub(crate) use self::scratch::{Scratch, Spare};
pub(crate) use self::short::Bf16;
#[cfg(not(target_arch = "aarch64"))]
use self::tile::tile;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use self::tile::vectors;
use self::tile::{Destination, multiply};
use crate::isa::{InstructionSet, instruction_set};

/// The inner extent that a tile of the result stays in registers for; a panel of it fits the first-level cache. An interpreter has
/// no time for so many.
const BLOCK: usize = if cfg!(miri) { 8 } else { 448 };
/// Rows of a task at most: with a block of the inner extent they fit the second-level cache.
const TASK_ROWS: usize = 96;
/// Elements of the right operand that are packed at once at most, 8 MB of f32.
const SLAB: usize = 1 << 21;
/// Panels that one task packs.
const PACK_PANELS: usize = 4;
/// Below this many multiplications a product is not worth a second thread.
const SMALLEST_PARALLEL: usize = 1 << 18;
/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone, inside a loop that is parallel already.
    One,
    /// All threads of the current rayon pool.
    All,
}

/// A number that operands and results are made of: f32 or f64.
pub(crate) trait Scalar: Format<Number = Self> + Spare + Mul<Output = Self> + Add<Output = Self> {}

impl Scalar for f32 {}

impl Scalar for f64 {}

/// What operands are packed as: their own numbers, or shorter ones. Sums are numbers of the result in any case.
pub(crate) trait Format: 'static {
    /// What operands and results are made of.
    type Number: Scalar;
    /// What panels are made of.
    type Element: Spare;
    /// Numbers along the inner extent that one element holds.
    const GROUP: usize;
    /// Rows and columns of the tile of sums that stays in registers, chosen so that all but a few registers hold sums.
    fn tile() -> (usize, usize);
    /// Packs rows of the left operand into panels as wide as the tile is high.
    fn pack_left(part: Part<'_, Self::Number>, panels: &mut [Self::Element]);
    /// Packs columns of the right operand (rows of its transpose) into panels as wide as the tile.
    fn pack_right(part: Part<'_, Self::Number>, panels: &mut [Self::Element]);
    /// Adds the product of packed operands to rows of the result, or overwrites them.
    fn multiply(left: &[Self::Element], right: &[Self::Element], to: Destination<'_, Self::Number>);
}

/// Tiles of the plain instruction set: 16 registers of four f32 on x86-64, 32 on 64-bit ARM.
const PLAIN: (usize, usize) = if cfg!(target_arch = "aarch64") { (12, 8) } else { (4, 8) };

/// Numbers that are packed as they are: columns of a plain tile, of one of AVX2 (6 rows), of AVX-512 (12), and their products.
macro_rules! packed_as_they_are {
    ($number:ident, $plain:expr, $avx2:literal by $by_avx2:ident, $avx512:literal by $by_avx512:ident, $by_neon:ident) => {
        impl Format for $number {
            type Number = $number;
            type Element = $number;
            const GROUP: usize = 1;

            fn tile() -> (usize, usize) {
                choose((PLAIN.0, $plain), (6, $avx2), (12, $avx512))
            }

            fn pack_left(part: Part<'_, $number>, panels: &mut [$number]) {
                pack_for_isa::<$number, { PLAIN.0 }, 6, 12>(part, panels);
            }

            fn pack_right(part: Part<'_, $number>, panels: &mut [$number]) {
                pack_for_isa::<$number, { $plain }, $avx2, $avx512>(part, panels);
            }

            fn multiply(left: &[$number], right: &[$number], to: Destination<'_, $number>) {
                match instruction_set() {
                    // SAFETY: `instruction_set` has checked that this processor has the instructions.
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 => unsafe { vectors::$by_avx512(left, right, to) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => unsafe { vectors::$by_avx2(left, right, to) },
                    // SAFETY: every 64-bit ARM has the instructions.
                    #[cfg(target_arch = "aarch64")]
                    _ => unsafe { vectors::$by_neon(left, right, to) },
                    #[cfg(not(target_arch = "aarch64"))]
                    _ => multiply(left, right, to, tile::<$number, { PLAIN.0 }, { $plain }>),
                }
            }
        }
    };
}

packed_as_they_are!(f32, PLAIN.1, 16 by f32_avx2, 32 by f32_avx512, f32_neon);
packed_as_they_are!(f64, PLAIN.1 / 2, 8 by f64_avx2, 16 by f64_avx512, f64_neon);

fn choose<C>(plain: C, avx2: C, avx512: C) -> C {
    match instruction_set() {
        InstructionSet::Plain => plain,
        InstructionSet::Avx2 => avx2,
        InstructionSet::Avx512 => avx512,
    }
}

fn pack_for_isa<T: Scalar, const PLAIN: usize, const AVX2: usize, const AVX512: usize>(
    part: Part<'_, T>,
    panels: &mut [T],
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2<T: Scalar, const WIDTH: usize>(part: Part<'_, T>, panels: &mut [T]) {
            pack::<T, WIDTH>(part, panels, |square| turn_avx2(square));
        }
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512<T: Scalar, const WIDTH: usize>(part: Part<'_, T>, panels: &mut [T]) {
            pack::<T, WIDTH>(part, panels, |square| turn_avx2(square));
        }
        match instruction_set() {
            // SAFETY: `instruction_set` has checked that this processor has the enabled features.
            InstructionSet::Avx512 => return unsafe { avx512::<T, AVX512>(part, panels) },
            // SAFETY: as above.
            InstructionSet::Avx2 => return unsafe { avx2::<T, AVX2>(part, panels) },
            InstructionSet::Plain => {}
        }
    }
    pack::<T, PLAIN>(part, panels, turn_plain);
}

/// Rows of a right operand, packed for [`Packed::multiply`].
pub(crate) struct Packed<F: Format> {
    panels: Scratch<F::Element>,
    /// Inner extent, in numbers.
    inner: usize,
    columns: usize,
    /// Columns up to the end of the last panel.
    padded: usize,
    /// Inner extent of all blocks but perhaps the last, in elements.
    block: usize,
}

impl<F: Format> Packed<F> {
    /// Packs all of a matrix `[inner, columns]`.
    pub(crate) fn new(matrix: Matrix<'_, F::Number>, threads: Threads) -> Self {
        Packed::rows(matrix, 0, matrix.rows, threads)
    }

    /// Packs `inner` rows from `first` on.
    fn rows(matrix: Matrix<'_, F::Number>, first: usize, inner: usize, threads: Threads) -> Self {
        let (_, width) = F::tile();
        let columns = matrix.columns;
        let padded = columns.next_multiple_of(width);
        let elements = inner.div_ceil(F::GROUP);
        // Blocks of equal length: a short last one would waste its tiles.
        let block = elements.div_ceil(elements.div_ceil(BLOCK).max(1)).max(1);
        let mut panels = Scratch::stale(padded * elements);
        let (source, step) = (matrix.transposed().into(), PACK_PANELS * width);
        let tasks = panels.as_mut_slice().chunks_mut(padded * block).enumerate().flat_map(|(index, panels)| {
            let elements = panels.len() / padded;
            let skipped = index * block * F::GROUP;
            let (first, inner) = (first + skipped, (elements * F::GROUP).min(inner - skipped));
            let parts = (0..columns).step_by(step).map(move |from| {
                let to = (from + step).min(columns);
                Part { source, from, to, first, inner }
            });
            parts.zip(panels.chunks_mut(step * elements))
        });
        match threads {
            Threads::One => tasks.for_each(|(part, panels)| F::pack_right(part, panels)),
            Threads::All => tasks.collect::<Vec<_>>().into_par_iter().for_each(|(part, p)| F::pack_right(part, p)),
        }
        Packed { panels, inner, columns, padded, block }
    }

    /// `out = alpha left self (+ out)` on the calling thread; rows of `out` are `stride` apart.
    pub(crate) fn multiply(
        &self,
        left: Matrix<'_, F::Number>,
        alpha: F::Number,
        accumulate: bool,
        out: &mut [F::Number],
        stride: usize,
    ) {
        assert_eq!(left.columns, self.inner, "inner extents of a product");
        self.multiply_rows((left.into(), 0, 0), left.rows, alpha, accumulate, out, stride);
    }

    /// The same for `rows` rows of `left` from a row on, and its columns from a column on.
    fn multiply_rows(
        &self,
        (left, from, first): (Source<'_, F::Number>, usize, usize),
        rows: usize,
        alpha: F::Number,
        accumulate: bool,
        out: &mut [F::Number],
        stride: usize,
    ) {
        let (height, _) = F::tile();
        assert!(stride >= self.columns, "rows of a result do not overlap");
        let out = &mut out[..(rows - 1) * stride + self.columns];
        let mut panels = Scratch::stale(rows.next_multiple_of(height) * self.block);
        for (index, right) in self.panels.as_slice().chunks(self.padded * self.block).enumerate() {
            let elements = right.len() / self.padded;
            let skipped = index * self.block * F::GROUP;
            let inner = (elements * F::GROUP).min(self.inner - skipped);
            let panels = &mut panels.as_mut_slice()[..rows.next_multiple_of(height) * elements];
            F::pack_left(Part { source: left, from, to: from + rows, first: first + skipped, inner }, panels);
            let accumulate = accumulate || index > 0;
            let to = Destination { out, columns: self.columns, stride, inner: elements, alpha, accumulate };
            F::multiply(panels, right, to);
        }
    }

    /// `out = left self` for dense rows on the calling thread.
    pub(crate) fn apply(&self, left: &[F::Number], out: &mut [F::Number])
    where
        F::Number: From<f32>,
    {
        let left = Matrix::new(left, out.len() / self.columns, self.inner);
        self.multiply(left, F::Number::from(1.0), false, out, self.columns);
    }
}

/// The rows of each task of all threads: whole tiles, not more than fit the cache, as many tasks for every thread, and enough of
/// them that a slower core takes fewer. The larger ones come first.
pub(crate) fn task_rows(rows: usize) -> Vec<Range<usize>> {
    let (height, _) = f32::tile();
    let (tiles, threads) = (rows.div_ceil(height), rayon::current_num_threads());
    let tasks = tiles.div_ceil(TASK_ROWS / height).max(4 * threads).next_multiple_of(threads).min(tiles);
    let start = |task: usize| (height * (task * (tiles / tasks) + task.min(tiles % tasks))).min(rows);
    (0..tasks).map(|task| start(task)..start(task + 1)).collect()
}

/// Cuts rows that begin `stride` numbers apart into ranges that follow each other; of nothing every range gets nothing.
pub(crate) fn cut<'a, T>(mut data: &'a mut [T], ranges: &[Range<usize>], stride: usize) -> Vec<&'a mut [T]> {
    let own = |range: &Range<usize>| {
        let whole = std::mem::take(&mut data);
        let (own, rest) = whole.split_at_mut((range.len() * stride).min(whole.len()));
        data = rest;
        own
    };
    ranges.iter().map(own).collect()
}

/// `out = alpha a b (+ out)`; rows of `out` are `row_stride` apart.
pub(crate) fn matmul<T: Scalar>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    alpha: T,
    out: &mut [T],
    row_stride: usize,
    accumulate: bool,
    threads: Threads,
) {
    product::<T>(a.into(), b, alpha, (out, row_stride), accumulate, threads, &mut [], |_, _, _| {});
}

/// `out = a b` for dense `out`; each task calls `finish` with the number of its first row, its rows of the result and
/// its rows of `side`, a second result of the same shape (or empty), while they are in the cache.
pub(crate) fn matmul_then<F: Format<Number = f32>>(
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    side: &mut [f32],
    finish: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    product::<F>(a.into(), b, 1.0, (out, b.columns), false, Threads::All, side, finish);
}

/// Which rows a task has, those of the result, and those of the side.
type Task<'a, T> = (Range<usize>, (&'a mut [T], &'a mut [T]));

/// [`matmul`] and [`matmul_then`] of anything that can be packed, in any format.
pub(crate) fn product<F: Format>(
    a: Source<'_, F::Number>,
    b: Matrix<'_, F::Number>,
    alpha: F::Number,
    (out, row_stride): (&mut [F::Number], usize),
    accumulate: bool,
    threads: Threads,
    side: &mut [F::Number],
    finish: impl Fn(usize, &mut [F::Number], &mut [F::Number]) + Sync,
) {
    let (m, k, n) = (a.rows(), a.columns(), b.columns);
    assert_eq!(k, b.rows, "inner extents of a product");
    if m == 0 || n == 0 {
        return;
    }
    assert!(row_stride >= n, "rows of a result do not overlap");
    let out = &mut out[..(m - 1) * row_stride + n];
    let threads =
        if m * n * k < SMALLEST_PARALLEL || rayon::current_num_threads() == 1 { Threads::One } else { threads };
    let rows = match threads {
        Threads::One => (0..m).step_by(TASK_ROWS).map(|from| from..m.min(from + TASK_ROWS)).collect(),
        Threads::All => task_rows(m),
    };
    if k == 0 && !accumulate {
        out.chunks_mut(row_stride).for_each(|row| row[..n].fill(F::Number::default()));
    }
    let slab = (SLAB / n).next_multiple_of(BLOCK) * F::GROUP;
    for first in (0..k.max(1)).step_by(slab) {
        let inner = slab.min(k - first);
        let packed = Packed::<F>::rows(b, first, inner, threads);
        let (accumulate, last) = (accumulate || first > 0, first + slab >= k);
        let run = |(rows, (out, side)): Task<'_, F::Number>| {
            packed.multiply_rows((a, rows.start, first), rows.len(), alpha, accumulate, out, row_stride);
            if last {
                finish(rows.start, out, side);
            }
        };
        let parts = cut(out, &rows, row_stride).into_iter().zip(cut(side, &rows, n));
        let tasks = rows.iter().cloned().zip(parts);
        match threads {
            Threads::One => tasks.for_each(run),
            Threads::All => tasks.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(run),
        }
    }
}

#[cfg(test)]
mod tests;
