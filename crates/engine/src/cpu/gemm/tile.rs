//! The tile of a product that stays in registers.

use super::Scalar;
use super::pack::{prefetch, prefetch_line};

/// Where a packed product goes: rows of `columns` numbers, `stride` apart, each a sum over `inner` elements of two panels,
/// times `alpha`.
pub(crate) struct Destination<'a, T> {
    pub(super) out: &'a mut [T],
    pub(super) columns: usize,
    pub(super) stride: usize,
    pub(super) inner: usize,
    pub(super) alpha: T,
    pub(super) accumulate: bool,
}

/// The panel that comes from afar while another one is used, but not yet into the cache that holds that one: so many elements of it
/// for each along the inner extent, because asked for at once they keep the processor waiting.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a, E> {
    panel: &'a [E],
    step: usize,
}

#[cfg(all(test, target_arch = "x86_64"))]
impl<E> Ahead<'_, E> {
    pub(super) fn nothing() -> Self {
        Ahead { panel: &[], step: 0 }
    }
}

/// Products of all pairs of panels, given the sums of a tile.
#[inline(always)]
pub(super) fn multiply<T: Scalar, E, const ROWS: usize, const COLUMNS: usize>(
    left: &[E],
    right: &[E],
    to: Destination<'_, T>,
    tile: impl Fn(&[E], &[E], Ahead<'_, E>) -> [[T; COLUMNS]; ROWS],
) {
    let Destination { out, columns, stride, inner, alpha, accumulate } = to;
    let rows = out.len().div_ceil(stride);
    let mut edge = [[T::default(); COLUMNS]; ROWS];
    let step = COLUMNS.div_ceil(rows.div_ceil(ROWS));
    for (panel, right_panel) in right.chunks_exact(COLUMNS * inner).enumerate() {
        let from = panel * COLUMNS;
        let width = COLUMNS.min(columns - from);
        let next = right.get((panel + 1) * COLUMNS * inner..).unwrap_or_default();
        for (block, left_panel) in left.chunks_exact(ROWS * inner).enumerate() {
            let ahead = Ahead { panel: next.get(block * step * inner..).unwrap_or(right_panel), step };
            let height = ROWS.min(rows - block * ROWS);
            let out = &mut out[block * ROWS * stride + from..];
            out.chunks(stride).take(height).for_each(|row| prefetch::<_, false>(&row[..width]));
            let sums = tile(left_panel, right_panel, ahead);
            if height == ROWS && width == COLUMNS {
                write(out, stride, sums, alpha, accumulate);
            } else {
                write(edge.as_flattened_mut(), COLUMNS, sums, alpha, false);
                for (row, sums) in edge.iter().enumerate().take(height) {
                    for (out, &sum) in out[row * stride..][..width].iter_mut().zip(sums) {
                        *out = if accumulate { *out + sum } else { sum };
                    }
                }
            }
        }
    }
}

/// Writes a whole tile, or adds it. All places in it are known to the compiler, which makes vectors of the sums only then.
#[inline(always)]
fn write<T: Scalar, const ROWS: usize, const COLUMNS: usize>(
    out: &mut [T],
    stride: usize,
    sums: [[T; COLUMNS]; ROWS],
    alpha: T,
    accumulate: bool,
) {
    for row in 0..ROWS {
        let out = &mut out[row * stride..][..COLUMNS];
        if accumulate {
            for column in 0..COLUMNS {
                out[column] = out[column] + alpha * sums[row][column];
            }
        } else {
            for column in 0..COLUMNS {
                out[column] = alpha * sums[row][column];
            }
        }
    }
}

/// The sums of a tile where no vectors are named.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
pub(super) fn tile<T: Scalar, const ROWS: usize, const COLUMNS: usize>(
    left: &[T],
    right: &[T],
    ahead: Ahead<'_, T>,
) -> [[T; COLUMNS]; ROWS] {
    let mut sums = [[T::default(); COLUMNS]; ROWS];
    let mut next = ahead.panel.as_ptr();
    let (left, right) = (left.as_chunks::<ROWS>().0, right.as_chunks::<COLUMNS>().0);
    for (left, right) in left.iter().zip(right) {
        prefetch_line::<_, true>(next);
        next = next.wrapping_add(ahead.step);
        for row in 0..ROWS {
            for column in 0..COLUMNS {
                sums[row][column] = left[row] * right[column] + sums[row][column];
            }
        }
    }
    sums
}

/// Tiles of vectors that are named. Left to itself the compiler makes such vectors of small tiles, and keeps the sums of larger ones
/// in memory, for each of which an instruction then waits.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) mod vectors {
    #[cfg(target_arch = "aarch64")]
    use std::arch::aarch64::*;
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{Ahead, Destination, multiply, prefetch_line};

    /// A tile of so many rows, two vectors each, and the product by such tiles.
    macro_rules! by_vectors {
        (
            $multiply:ident, $tile:ident, $features:literal, $rows:literal rows of 2 x $lanes:literal $number:ty,
            packed as $element:ty, $zero:expr, $load:expr, $spread:expr, $multiply_add:expr $(,)?
        ) => {
            #[target_feature(enable = $features)]
            pub(in super::super) fn $multiply(left: &[$element], right: &[$element], to: Destination<'_, $number>) {
                multiply(left, right, to, |left, right, ahead| $tile(left, right, ahead));
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(in super::super) fn $tile(
                left: &[$element],
                right: &[$element],
                ahead: Ahead<'_, $element>,
            ) -> [[$number; 2 * $lanes]; $rows] {
                let mut sums = [[$zero; 2]; $rows];
                let mut next = ahead.panel.as_ptr();
                let (left, right) = (left.as_chunks::<$rows>().0, right.as_chunks::<{ 2 * $lanes }>().0);
                for (left, right) in left.iter().zip(right) {
                    prefetch_line::<_, true>(next);
                    next = next.wrapping_add(ahead.step);
                    // SAFETY: each vector is as many numbers as are there.
                    let right = unsafe { [$load(right.as_ptr()), $load(right[$lanes..].as_ptr())] };
                    for row in 0..$rows {
                        let left = $spread(left[row]);
                        sums[row][0] = $multiply_add(left, right[0], sums[row][0]);
                        sums[row][1] = $multiply_add(left, right[1], sums[row][1]);
                    }
                }
                // SAFETY: a vector is numbers side by side.
                unsafe { transmute::<[[_; 2]; $rows], [[$number; 2 * $lanes]; $rows]>(sums) }
            }
        };
    }

    #[cfg(target_arch = "x86_64")]
    by_vectors!(
        f32_avx2, f32_tile_avx2, "avx2,fma", 6 rows of 2 x 8 f32, packed as f32,
        _mm256_setzero_ps(), _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps,
    );
    #[cfg(target_arch = "x86_64")]
    by_vectors!(
        f64_avx2, f64_tile_avx2, "avx2,fma", 6 rows of 2 x 4 f64, packed as f64,
        _mm256_setzero_pd(), _mm256_loadu_pd, _mm256_set1_pd, _mm256_fmadd_pd,
    );
    #[cfg(target_arch = "x86_64")]
    by_vectors!(
        f32_avx512, f32_tile_avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl", 12 rows of 2 x 16 f32, packed as f32,
        _mm512_setzero_ps(), _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps,
    );
    #[cfg(target_arch = "x86_64")]
    by_vectors!(
        f64_avx512, f64_tile_avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl", 12 rows of 2 x 8 f64, packed as f64,
        _mm512_setzero_pd(), _mm512_loadu_pd, _mm512_set1_pd, _mm512_fmadd_pd,
    );
    #[cfg(target_arch = "x86_64")]
    by_vectors!(
        bf16_avx512, bf16_tile_avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", 12 rows of 2 x 16 f32,
        packed as u32, _mm512_setzero_ps(),
        |pairs: *const u32| transmute::<__m512i, __m512bh>(_mm512_loadu_si512(pairs.cast())),
        // SAFETY: sixteen equal pairs of numbers are as many numbers.
        |pair: u32| unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair.cast_signed())) },
        |left, right, sum| _mm512_dpbf16_ps(sum, left, right),
    );
    #[cfg(target_arch = "aarch64")]
    by_vectors!(
        f32_neon, f32_tile_neon, "neon", 12 rows of 2 x 4 f32, packed as f32,
        vdupq_n_f32(0.0), vld1q_f32, vdupq_n_f32, |left, right, sum| vfmaq_f32(sum, left, right),
    );
    #[cfg(target_arch = "aarch64")]
    by_vectors!(
        f64_neon, f64_tile_neon, "neon", 12 rows of 2 x 2 f64, packed as f64,
        vdupq_n_f64(0.0), vld1q_f64, vdupq_n_f64, |left, right, sum| vfmaq_f64(sum, left, right),
    );
}
