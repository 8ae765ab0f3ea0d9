//! Similarities of vectors, in f64: distances between near vectors are differences of almost equal numbers, and
//! objectives multiply similarities by 20 and more before they exponentiate them. Matrices are computed a block of rows
//! at a time, so that only what is asked for is ever held as a whole.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Matrix, Threads, matmul};
use super::measure::{norm, norm_slope};
use crate::function::{RowFunction, Similarity};
use crate::tensor::Tensor;

const EPS: f64 = 1e-12;
/// Squared distances below this share of the squared norms are computed again from the differences.
const CANCELLED: f64 = 1e-6;
/// Numbers of a block, 8 MB.
const BLOCK: usize = 1 << 20;

/// Rows in f64, normalised where asked for.
struct Rows {
    data: Vec<f64>,
    columns: usize,
    /// The `p` and the norms before normalisation.
    norms: Option<(f64, Vec<f64>)>,
}

impl Rows {
    fn new(x: &Tensor, p: Option<f64>) -> Self {
        let columns = x.columns();
        let mut data: Vec<f64> = x.data().iter().map(|&x| f64::from(x)).collect();
        let norms = p.map(|p| {
            let rows = data.chunks_exact_mut(columns.max(1));
            let norms = rows.map(|row| {
                let norm = norm(row, p);
                row.iter_mut().for_each(|x| *x /= norm.max(EPS));
                norm
            });
            (p, norms.collect())
        });
        Rows { data, columns, norms }
    }

    fn count(&self) -> usize {
        self.data.len().checked_div(self.columns).unwrap_or(0)
    }

    fn block(&self, rows: &Range<usize>) -> &[f64] {
        &self.data[rows.start * self.columns..rows.end * self.columns]
    }

    fn matrix(&self, rows: &Range<usize>) -> Matrix<'_, f64> {
        Matrix::new(self.block(rows), rows.len(), self.columns)
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.columns..(i + 1) * self.columns]
    }

    /// From the gradient of these rows to that of the rows before normalisation.
    fn finish(&self, mut gradient: Vec<f64>, shape: &[usize]) -> Tensor {
        for (i, norm) in self.norms.iter().flat_map(|(_, norms)| norms).enumerate() {
            let p = self.norms.as_ref().map_or(2.0, |(p, _)| *p);
            let (row, gradient) = (self.row(i), &mut gradient[i * self.columns..(i + 1) * self.columns]);
            let along = if *norm > EPS { dot(row, gradient) } else { 0.0 };
            let slope = |y: f64| if p == 2.0 { y } else { norm_slope(y, 1.0, p) };
            gradient.iter_mut().zip(row).for_each(|(g, y)| *g = (*g - along * slope(*y)) / norm.max(EPS));
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

/// What multiplies `a - b` in the gradient of a distance.
fn slope(squared: bool, y: f64, dy: f64) -> f64 {
    match squared {
        true => 2.0 * dy,
        false if y > 0.0 => dy / y,
        false => 0.0,
    }
}

/// All rows of `a` beside all rows of `b`.
struct Sides {
    similarity: Similarity,
    a: Rows,
    b: Rows,
    /// Squared norms of `b`, for distances.
    squares: Vec<f64>,
}

impl Sides {
    fn new(similarity: Similarity, a: &Tensor, b: &Tensor) -> Self {
        let (a, b) = (Rows::new(a, similarity.norm()), Rows::new(b, similarity.norm()));
        let euclidean = matches!(similarity, Similarity::Euclidean { .. });
        let squares = if euclidean { (0..b.count()).map(|j| dot(b.row(j), b.row(j))).collect() } else { Vec::new() };
        Sides { similarity, a, b, squares }
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let (count, rows) = (self.a.count(), (BLOCK / self.b.count().max(1)).clamp(16, 512));
        (0..count).step_by(rows).map(move |start| start..count.min(start + rows))
    }

    /// `[rows, n]`.
    fn values(&self, rows: &Range<usize>) -> Vec<f64> {
        let n = self.b.count();
        let mut y = vec![0.0; rows.len() * n];
        if !matches!(self.similarity, Similarity::Measured(_)) {
            let b = self.b.matrix(&(0..n)).transposed();
            matmul(self.a.matrix(rows), b, 1.0, &mut y, n, false, Threads::All);
        }
        let of_rows = y.par_chunks_mut(n.max(1)).zip(rows.clone());
        match self.similarity {
            Similarity::Dot { .. } => {}
            Similarity::Euclidean { squared, .. } => of_rows.for_each(|(y, i)| {
                let square_i = dot(self.a.row(i), self.a.row(i));
                for (j, y) in y.iter_mut().enumerate() {
                    let mut square = square_i + self.squares[j] - 2.0 * *y;
                    if square < CANCELLED * (square_i + self.squares[j]) {
                        square = squared_distance(self.a.row(i), self.b.row(j));
                    }
                    *y = if squared { square } else { square.sqrt() };
                }
            }),
            Similarity::Measured(measure) => of_rows.for_each(|(y, i)| {
                y.iter_mut().enumerate().for_each(|(j, y)| *y = measure.value(self.a.row(i), self.b.row(j)));
            }),
        }
        y
    }

    /// From values and their gradient (which is used up) to the gradients of the rows `a` and, added, of all `b`.
    fn gradients(&self, rows: &Range<usize>, y: &[f64], dy: &mut [f64], da: &mut [f64], db: &mut [f64]) {
        let (n, k) = (self.b.count(), self.a.columns);
        let da = &mut da[rows.start * k..rows.end * k];
        if let Similarity::Measured(measure) = self.similarity {
            return measure.block_gradient(self.a.block(rows), &self.b.data, k, dy, da, db);
        }
        if let Similarity::Euclidean { squared, .. } = self.similarity {
            dy.iter_mut().zip(y).for_each(|(dy, &y)| *dy = slope(squared, y, *dy));
        }
        let weights = Matrix::new(&*dy, rows.len(), n);
        let sign = if matches!(self.similarity, Similarity::Dot { .. }) { 1.0 } else { -1.0 };
        matmul(weights, self.b.matrix(&(0..n)), sign, da, k, false, Threads::All);
        matmul(weights.transposed(), self.a.matrix(rows), sign, db, k, true, Threads::All);
        if sign < 0.0 {
            // sum_j w_ij (a_i - b_j), and the same from the other side.
            let mut column_sums = vec![0.0; n];
            for (weights, (i, da)) in dy.chunks_exact(n.max(1)).zip(rows.clone().zip(da.chunks_exact_mut(k))) {
                let row_sum: f64 = weights.iter().sum();
                da.iter_mut().zip(self.a.row(i)).for_each(|(da, a)| *da += row_sum * a);
                column_sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
            }
            for (j, (db, sum)) in db.chunks_exact_mut(k).zip(column_sums).enumerate() {
                db.iter_mut().zip(self.b.row(j)).for_each(|(db, b)| *db += sum * b);
            }
        }
    }

    /// Runs `block` over blocks of rows, which fills in the gradient of their values, and collects those of the rows.
    fn backward(
        &self,
        shapes: (&[usize], &[usize]),
        mut block: impl FnMut(&Range<usize>) -> (Vec<f64>, Vec<f64>),
    ) -> (Tensor, Tensor) {
        let (mut da, mut db) = (vec![0.0; self.a.data.len()], vec![0.0; self.b.data.len()]);
        if self.b.count() > 0 {
            for rows in self.blocks() {
                let (y, mut dy) = block(&rows);
                self.gradients(&rows, &y, &mut dy, &mut da, &mut db);
            }
        }
        (self.a.finish(da, shapes.0), self.b.finish(db, shapes.1))
    }
}

pub(super) fn similarities(similarity: Similarity, a: &Tensor, b: &Tensor, y: &mut [f32]) {
    let sides = Sides::new(similarity, a, b);
    let n = sides.b.count();
    for rows in sides.blocks() {
        let values = sides.values(&rows);
        y[rows.start * n..rows.end * n].iter_mut().zip(values).for_each(|(y, value)| *y = value as f32);
    }
}

pub(super) fn similarities_backward(
    similarity: Similarity,
    a: &Tensor,
    b: &Tensor,
    y: &Tensor,
    dy: &Tensor,
) -> (Tensor, Tensor) {
    let sides = Sides::new(similarity, a, b);
    let n = sides.b.count();
    let block = |x: &Tensor, rows: &Range<usize>| -> Vec<f64> {
        x.data()[rows.start * n..rows.end * n].iter().map(|&x| f64::from(x)).collect()
    };
    sides.backward((a.shape(), b.shape()), |rows| (block(y, rows), block(dy, rows)))
}

/// See [`crate::Tape::similarity_rows`].
pub(super) fn rows(
    similarity: Similarity,
    scale: f64,
    a: &Tensor,
    b: &Tensor,
    function: &dyn RowFunction,
) -> (Tensor, Tensor) {
    let sides = Sides::new(similarity, a, b);
    let n = sides.b.count();
    let (mut sums, mut counts) = (Tensor::zeros(&[a.rows()]), Tensor::zeros(&[a.rows()]));
    for block in sides.blocks() {
        let mut values = sides.values(&block);
        let results = sums.data_mut()[block.clone()].par_iter_mut().zip(&mut counts.data_mut()[block.clone()]);
        let rows = values.par_chunks_mut(n.max(1)).zip(block);
        results.zip(rows).for_each(|((sum, count), (x, row))| {
            x.iter_mut().for_each(|x| *x *= scale);
            let (value, terms) = function.row(row, x, None);
            (*sum, *count) = (value as f32, terms as f32);
        });
    }
    (sums, counts)
}

pub(super) fn rows_backward(
    similarity: Similarity,
    scale: f64,
    a: &Tensor,
    b: &Tensor,
    function: &dyn RowFunction,
    dy: &Tensor,
) -> (Tensor, Tensor) {
    let sides = Sides::new(similarity, a, b);
    let n = sides.b.count();
    sides.backward((a.shape(), b.shape()), |block| {
        let values = sides.values(block);
        let mut gradient = vec![0.0; values.len()];
        let rows = values.par_chunks(n.max(1)).zip(gradient.par_chunks_mut(n.max(1))).zip(block.clone());
        rows.for_each(|((x, gradient), row)| {
            let dy = f64::from(dy.data()[row]) * scale;
            if dy != 0.0 {
                let x: Vec<f64> = x.iter().map(|x| scale * x).collect();
                function.row(row, &x, Some(&mut *gradient));
                gradient.iter_mut().for_each(|gradient| *gradient *= dy);
            }
        });
        (values, gradient)
    })
}

pub(super) fn paired(similarity: Similarity, a: &Tensor, b: &Tensor, y: &mut [f32]) {
    let (a, b) = (Rows::new(a, similarity.norm()), Rows::new(b, similarity.norm()));
    y.iter_mut().enumerate().for_each(|(i, y)| {
        let (a, b) = (a.row(i), b.row(i));
        *y = match similarity {
            Similarity::Dot { .. } => dot(a, b),
            Similarity::Euclidean { squared: true, .. } => squared_distance(a, b),
            Similarity::Euclidean { squared: false, .. } => squared_distance(a, b).sqrt(),
            Similarity::Measured(measure) => measure.value(a, b),
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
    let (a, b) = (Rows::new(a, similarity.norm()), Rows::new(b, similarity.norm()));
    let (mut da, mut db) = (vec![0.0; a.data.len()], vec![0.0; b.data.len()]);
    let k = a.columns.max(1);
    for (row, (da, db)) in da.chunks_exact_mut(k).zip(db.chunks_exact_mut(k)).enumerate() {
        let (x, w, y, dy) = (a.row(row), b.row(row), f64::from(y.data()[row]), f64::from(dy.data()[row]));
        match similarity {
            Similarity::Measured(measure) => measure.gradient(x, w, dy, da, db),
            Similarity::Dot { .. } => {
                da.iter_mut().zip(w).for_each(|(da, w)| *da = dy * w);
                db.iter_mut().zip(x).for_each(|(db, x)| *db = dy * x);
            }
            Similarity::Euclidean { squared, .. } => {
                let slope = slope(squared, y, dy);
                da.iter_mut().zip(x.iter().zip(w)).for_each(|(da, (x, w))| *da = slope * (x - w));
                db.iter_mut().zip(&*da).for_each(|(db, da)| *db = -da);
            }
        }
    }
    (a.finish(da, a_shape), b.finish(db, b_shape))
}
