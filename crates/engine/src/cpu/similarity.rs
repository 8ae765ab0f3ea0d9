//! Similarities of vectors, in f64: distances between near vectors are differences of almost equal numbers, and
//! objectives multiply similarities by 20 and more before they exponentiate them.

use rayon::prelude::*;

use super::gemm::{Matrix, Threads, matmul};
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

    fn matrix(&self) -> Matrix<'_, f64> {
        Matrix::new(&self.data, self.count(), self.columns)
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

/// `a b`: `a [m, k]`, `b [k, n]`; gives `[m, n]`.
fn product(a: Matrix<'_, f64>, b: Matrix<'_, f64>) -> Vec<f64> {
    let (m, n) = (a.rows(), b.columns());
    let mut out = vec![0.0; m * n];
    matmul(a, b, 1.0, &mut out, n, false, Threads::All);
    out
}

pub(super) fn similarities(similarity: Similarity, a: &Tensor, b: &Tensor, y: &mut [f32]) {
    let (a, b) = (Rows::new(a, similarity.normalizes()), Rows::new(b, similarity.normalizes()));
    let n = b.count();
    let products = product(a.matrix(), b.matrix().transposed());
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
    let mut da = product(Matrix::new(&weights, m, n), b.matrix());
    let mut db = product(Matrix::new(&weights, m, n).transposed(), a.matrix());
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
