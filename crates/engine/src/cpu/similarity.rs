//! Similarities of vectors, in f64: distances between near vectors are differences of almost equal numbers, and
//! objectives multiply similarities by 20 and more before they exponentiate them.

use rayon::prelude::*;

use crate::function::Similarity;
use crate::tensor::Tensor;

const EPS: f64 = 1e-12;
/// Squared distances below this share of the squared norms are computed again from the differences.
const CANCELLED: f64 = 1e-6;

/// Rows in f64, normalised where asked for.
struct Rows {
    data: Vec<f64>,
    columns: usize,
    /// Euclidean norms before normalisation; empty if not normalised.
    norms: Vec<f64>,
}

impl Rows {
    fn new(x: &Tensor, normalize: bool) -> Self {
        let columns = x.columns();
        let mut data: Vec<f64> = x.data().iter().map(|&x| f64::from(x)).collect();
        let mut norms = Vec::new();
        if normalize {
            for row in data.chunks_exact_mut(columns.max(1)) {
                let norm = dot(row, row).sqrt();
                row.iter_mut().for_each(|x| *x /= norm.max(EPS));
                norms.push(norm);
            }
        }
        Rows { data, columns, norms }
    }

    fn count(&self) -> usize {
        self.data.len().checked_div(self.columns).unwrap_or(0)
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.columns..(i + 1) * self.columns]
    }

    /// From the gradient of these rows to that of the rows before normalisation.
    fn finish(&self, mut gradient: Vec<f64>, shape: &[usize]) -> Tensor {
        for (i, norm) in self.norms.iter().enumerate() {
            let (row, gradient) = (self.row(i), &mut gradient[i * self.columns..(i + 1) * self.columns]);
            let along = if *norm > EPS { dot(row, gradient) } else { 0.0 };
            gradient.iter_mut().zip(row).for_each(|(g, y)| *g = (*g - along * y) / norm.max(EPS));
        }
        let mut result = Tensor::stale(shape);
        result.data_mut().iter_mut().zip(gradient).for_each(|(result, g)| *result = g as f32);
        result
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// A matrix with the distances between its rows and between its columns.
type Strided<'a> = (&'a [f64], usize, usize);

/// `a b`: `a [m, k]`, `b [k, n]`; gives `[m, n]`.
fn product(a: Strided<'_>, b: Strided<'_>, (m, k, n): (usize, usize, usize)) -> Vec<f64> {
    let mut out = vec![0.0f64; m * n];
    if m * n * k == 0 {
        return out;
    }
    let end = |(_, row, column): Strided<'_>, rows: usize, columns: usize| (rows - 1) * row + (columns - 1) * column;
    assert!(end(a, m, k) < a.0.len() && end(b, k, n) < b.0.len(), "operands inside their slices");
    let parallel = rayon::current_num_threads() > 1 && m * n * k > 1 << 18;
    let threads = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: every element that the strides reach lies inside its slice, as asserted above; `out` is owned and dense.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.0.as_ptr(),
            a.2 as isize,
            a.1 as isize,
            b.0.as_ptr(),
            b.2 as isize,
            b.1 as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
    out
}

pub(super) fn similarities(similarity: Similarity, a: &Tensor, b: &Tensor, y: &mut [f32]) {
    let (a, b) = (Rows::new(a, similarity.normalizes()), Rows::new(b, similarity.normalizes()));
    let (m, n, k) = (a.count(), b.count(), a.columns);
    let products = product((&a.data, k, 1), (&b.data, 1, k), (m, k, n));
    let Similarity::Euclidean { squared, .. } = similarity else {
        return y.iter_mut().zip(products).for_each(|(y, product)| *y = product as f32);
    };
    let norms: Vec<f64> = (0..n).map(|j| dot(b.row(j), b.row(j))).collect();
    y.par_chunks_mut(n.max(1)).zip(products.par_chunks(n.max(1))).enumerate().for_each(|(i, (y, products))| {
        let norm = dot(a.row(i), a.row(i));
        for (j, (y, product)) in y.iter_mut().zip(products).enumerate() {
            let mut square = norm + norms[j] - 2.0 * product;
            if square < CANCELLED * (norm + norms[j]) {
                square = squared_distance(a.row(i), b.row(j));
            }
            *y = if squared { square } else { square.sqrt() } as f32;
        }
    });
}

/// What multiplies `a - b` in the gradient of a distance.
fn slope(squared: bool, y: f32, dy: f32) -> f64 {
    match squared {
        true => 2.0 * f64::from(dy),
        false if y > 0.0 => f64::from(dy) / f64::from(y),
        false => 0.0,
    }
}

pub(super) fn similarities_backward(
    similarity: Similarity,
    a: &Tensor,
    b: &Tensor,
    y: &Tensor,
    dy: &Tensor,
) -> (Tensor, Tensor) {
    let (a_shape, b_shape) = (a.shape(), b.shape());
    let (a, b) = (Rows::new(a, similarity.normalizes()), Rows::new(b, similarity.normalizes()));
    let (m, n, k) = (a.count(), b.count(), a.columns);
    let pairs = y.data().iter().zip(dy.data());
    let weights: Vec<f64> = match similarity {
        Similarity::Dot { .. } => dy.data().iter().map(|&dy| f64::from(dy)).collect(),
        Similarity::Euclidean { squared, .. } => pairs.map(|(&y, &dy)| slope(squared, y, dy)).collect(),
    };
    let mut da = product((&weights, n, 1), (&b.data, k, 1), (m, n, k));
    let mut db = product((&weights, 1, n), (&a.data, k, 1), (n, m, k));
    if matches!(similarity, Similarity::Euclidean { .. }) {
        // sum_j w_ij (a_i - b_j), and the same from the other side.
        let (mut row_sums, mut column_sums) = (vec![0.0; m], vec![0.0; n]);
        for (i, weights) in weights.chunks_exact(n.max(1)).enumerate() {
            row_sums[i] = weights.iter().sum();
            column_sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        let subtract = |from: &[f64], sums: &[f64], products: &mut [f64]| {
            for (i, product) in products.iter_mut().enumerate() {
                *product = sums[i / k] * from[i] - *product;
            }
        };
        subtract(&a.data, &row_sums, &mut da);
        subtract(&b.data, &column_sums, &mut db);
    }
    (a.finish(da, a_shape), b.finish(db, b_shape))
}

pub(super) fn paired(similarity: Similarity, a: &Tensor, b: &Tensor, y: &mut [f32]) {
    let (a, b) = (Rows::new(a, similarity.normalizes()), Rows::new(b, similarity.normalizes()));
    y.iter_mut().enumerate().for_each(|(i, y)| {
        let (a, b) = (a.row(i), b.row(i));
        *y = match similarity {
            Similarity::Dot { .. } => dot(a, b),
            Similarity::Euclidean { squared: true, .. } => squared_distance(a, b),
            Similarity::Euclidean { squared: false, .. } => squared_distance(a, b).sqrt(),
        } as f32;
    });
}

pub(super) fn paired_backward(
    similarity: Similarity,
    a: &Tensor,
    b: &Tensor,
    y: &Tensor,
    dy: &Tensor,
) -> (Tensor, Tensor) {
    let (a_shape, b_shape) = (a.shape(), b.shape());
    let (a, b) = (Rows::new(a, similarity.normalizes()), Rows::new(b, similarity.normalizes()));
    let (mut da, mut db) = (vec![0.0; a.data.len()], vec![0.0; b.data.len()]);
    for i in 0..a.data.len() {
        let row = i / a.columns;
        let (x, w, y, dy) = (a.data[i], b.data[i], y.data()[row], dy.data()[row]);
        match similarity {
            Similarity::Dot { .. } => {
                da[i] = f64::from(dy) * w;
                db[i] = f64::from(dy) * x;
            }
            Similarity::Euclidean { squared, .. } => {
                da[i] = slope(squared, y, dy) * (x - w);
                db[i] = -da[i];
            }
        }
    }
    (a.finish(da, a_shape), b.finish(db, b_shape))
}
