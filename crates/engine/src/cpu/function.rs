//! The kernels of objectives on the processor.

use rayon::prelude::*;

use super::{Cpu, TASK, elementwise, inverse, reduce, similarity, triplets};
use crate::device::Device;
use crate::function::{Binary, Functions, MatrixFunction, RowFunction, Similarity, TripletRule, Unary};
use crate::tensor::Tensor;

impl Functions for Cpu {
    fn unary(&self, function: Unary, x: &Tensor) -> Tensor {
        let mut y = Tensor::stale(x.shape());
        let chunks = y.data_mut().par_chunks_mut(TASK).zip(x.data().par_chunks(TASK));
        chunks.for_each(|(y, x)| elementwise::unary(function, x, y));
        y
    }

    fn unary_backward(&self, function: Unary, x: &Tensor, dy: &Tensor) -> Tensor {
        let mut dx = Tensor::stale(x.shape());
        let chunks = dx.data_mut().par_chunks_mut(TASK).zip(x.data().par_chunks(TASK)).zip(dy.data().par_chunks(TASK));
        chunks.for_each(|((dx, x), dy)| elementwise::unary_backward(function, x, dy, dx));
        dx
    }

    fn binary(&self, function: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        if function == Binary::Add && a.shape() == b.shape() {
            // The sum of two f32 rounds alike from f32 and from f64.
            let mut y = a.clone();
            self.add_assign(&mut y, b);
            return y;
        }
        let mut y = Tensor::stale(a.shape());
        elementwise::binary(function, a, b, y.data_mut());
        y
    }

    fn binary_backward(&self, function: Binary, a: &Tensor, b: &Tensor, dy: &Tensor) -> (Tensor, Tensor) {
        if function == Binary::Add && a.shape() == b.shape() {
            return (dy.clone(), dy.clone());
        }
        let (mut da, mut db) = (Tensor::stale(a.shape()), Tensor::stale(b.shape()));
        elementwise::binary_backward(function, a, b, dy, da.data_mut(), db.data_mut());
        (da, db)
    }

    fn row_sums(&self, x: &Tensor, weights: Option<&Tensor>) -> Tensor {
        let mut y = Tensor::stale(&[x.rows()]);
        reduce::row_sums(x.data(), weights.map(Tensor::data), x.columns(), y.data_mut());
        y
    }

    fn row_sums_backward(&self, weights: Option<&Tensor>, dy: &Tensor, shape: &[usize]) -> Tensor {
        let mut dx = Tensor::stale(shape);
        let columns = dx.columns();
        reduce::row_sums_backward(weights.map(Tensor::data), dy.data(), columns, dx.data_mut());
        dx
    }

    fn log_sum_exp(&self, x: &Tensor, weights: Option<&Tensor>, targets: Option<&Tensor>, scale: f64) -> Tensor {
        let mut y = Tensor::stale(&[x.rows()]);
        let (weights, targets) = (weights.map(Tensor::data), targets.map(Tensor::data));
        reduce::log_sum_exp(x.data(), weights, targets, x.columns(), scale, y.data_mut());
        y
    }

    fn log_sum_exp_backward(
        &self,
        x: &Tensor,
        weights: Option<&Tensor>,
        targets: Option<&Tensor>,
        scale: f64,
        dy: &Tensor,
    ) -> Tensor {
        let mut dx = Tensor::stale(x.shape());
        let (weights, targets) = (weights.map(Tensor::data), targets.map(Tensor::data));
        reduce::log_sum_exp_backward(x.data(), weights, targets, x.columns(), scale, dy.data(), dx.data_mut());
        dx
    }

    fn gather(&self, x: &Tensor, indices: &[[u32; 2]]) -> Tensor {
        let mut y = Tensor::stale(&[indices.len()]);
        let columns = x.columns();
        for (y, [row, column]) in y.data_mut().iter_mut().zip(indices) {
            *y = x.data()[*row as usize * columns + *column as usize];
        }
        y
    }

    fn gather_backward(&self, indices: &[[u32; 2]], dy: &Tensor, shape: &[usize]) -> Tensor {
        let mut dx = Tensor::zeros(shape);
        let columns = dx.columns();
        let data = dx.data_mut();
        for (dy, [row, column]) in dy.data().iter().zip(indices) {
            data[*row as usize * columns + *column as usize] += dy;
        }
        dx
    }

    fn copy_block(
        &self,
        from: &Tensor,
        from_corner: [usize; 2],
        to: &mut Tensor,
        to_corner: [usize; 2],
        extent: [usize; 2],
    ) {
        let (from_columns, to_columns, [rows, width]) = (from.columns(), to.columns(), extent);
        let to = to.data_mut();
        for r in 0..rows {
            let from_start = (from_corner[0] + r) * from_columns + from_corner[1];
            let to_start = (to_corner[0] + r) * to_columns + to_corner[1];
            to[to_start..to_start + width].copy_from_slice(&from.data()[from_start..from_start + width]);
        }
    }

    fn add_columns(&self, x: &Tensor, scale: f32, out: &mut Tensor, first: usize) {
        let (width, columns) = (x.columns(), out.columns());
        let rows = x.data().par_chunks_exact(width).zip(out.data_mut().par_chunks_exact_mut(columns));
        rows.with_min_len((1 << 14) / columns.max(1) + 1).for_each(|(x, out)| {
            out[first..first + width].iter_mut().zip(x).for_each(|(out, x)| *out += scale * x);
        });
    }

    fn similarities(&self, similarity: Similarity, a: &Tensor, b: &Tensor) -> Tensor {
        let mut y = Tensor::stale(&[a.rows(), b.rows()]);
        similarity::similarities(similarity, a, b, y.data_mut());
        y
    }

    fn similarities_backward(
        &self,
        similarity: Similarity,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        similarity::similarities_backward(similarity, a, b, y, dy)
    }

    fn paired_similarities(&self, similarity: Similarity, a: &Tensor, b: &Tensor) -> Tensor {
        let mut y = Tensor::stale(&[a.rows()]);
        similarity::paired(similarity, a, b, y.data_mut());
        y
    }

    fn paired_similarities_backward(
        &self,
        similarity: Similarity,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        similarity::paired_backward(similarity, a, b, y, dy)
    }

    fn triplets(
        &self,
        rule: &TripletRule,
        distances: &Tensor,
        mining: Option<&Tensor>,
        positives: &Tensor,
        negatives: &Tensor,
    ) -> (Tensor, Tensor) {
        let (mut sums, mut counts) = (Tensor::stale(&[distances.rows()]), Tensor::stale(&[distances.rows()]));
        triplets::Triplets {
            rule,
            distances: distances.data(),
            mining: mining.map(Tensor::data),
            positives: positives.data(),
            negatives: negatives.data(),
            columns: distances.columns(),
        }
        .forward(sums.data_mut(), counts.data_mut());
        (sums, counts)
    }

    fn triplets_backward(
        &self,
        rule: &TripletRule,
        distances: &Tensor,
        mining: Option<&Tensor>,
        positives: &Tensor,
        negatives: &Tensor,
        dy: &Tensor,
    ) -> Tensor {
        let mut gradient = Tensor::stale(distances.shape());
        triplets::Triplets {
            rule,
            distances: distances.data(),
            mining: mining.map(Tensor::data),
            positives: positives.data(),
            negatives: negatives.data(),
            columns: distances.columns(),
        }
        .backward(dy.data(), gradient.data_mut());
        gradient
    }

    fn transpose(&self, x: &Tensor) -> Tensor {
        let (rows, columns) = (x.rows(), x.columns());
        let mut y = Tensor::stale(&[columns, rows]);
        y.data_mut().par_chunks_mut(rows.max(1)).enumerate().for_each(|(c, y)| {
            y.iter_mut().enumerate().for_each(|(r, y)| *y = x.data()[r * columns + c]);
        });
        y
    }

    fn similarity_rows(
        &self,
        similarity: Similarity,
        scale: f64,
        a: &Tensor,
        b: &Tensor,
        function: &dyn RowFunction,
    ) -> (Tensor, Tensor) {
        similarity::rows(similarity, scale, a, b, function)
    }

    fn similarity_rows_backward(
        &self,
        similarity: Similarity,
        scale: f64,
        a: &Tensor,
        b: &Tensor,
        function: &dyn RowFunction,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        similarity::rows_backward(similarity, scale, a, b, function, dy)
    }

    fn matrix_rows(&self, x: &Tensor, function: &dyn MatrixFunction) -> (Tensor, Tensor) {
        let (mut sums, mut counts) = (Tensor::stale(&[x.rows()]), Tensor::stale(&[x.rows()]));
        sums.data_mut().par_iter_mut().zip(counts.data_mut()).enumerate().for_each(|(row, (sum, count))| {
            let (value, terms) = function.row(row, x);
            (*sum, *count) = (value as f32, terms as f32);
        });
        (sums, counts)
    }

    fn matrix_rows_backward(&self, x: &Tensor, function: &dyn MatrixFunction, dy: &Tensor) -> Tensor {
        let mut dx = Tensor::stale(x.shape());
        dx.data_mut().par_chunks_mut(x.columns().max(1)).enumerate().for_each(|(row, dx)| {
            let mut gradient = vec![0.0; dx.len()];
            function.gradient(row, x, dy.data(), &mut gradient);
            dx.iter_mut().zip(gradient).for_each(|(dx, gradient)| *dx = gradient as f32);
        });
        dx
    }

    fn inverse(&self, x: &Tensor) -> Tensor {
        let mut y = Tensor::stale(x.shape());
        inverse::inverse(x.data(), x.columns(), y.data_mut());
        y
    }

    fn inverse_backward(&self, y: &Tensor, dy: &Tensor) -> Tensor {
        let mut dx = Tensor::stale(y.shape());
        inverse::inverse_backward(y.data(), dy.data(), y.columns(), dx.data_mut());
        dx
    }

    fn ranked_pairs(&self, x: &Tensor, targets: &[f32], scale: f64) -> (Tensor, Tensor) {
        let (mut value, mut gradient) = (Tensor::stale(&[1]), Tensor::stale(x.shape()));
        value.data_mut()[0] = reduce::ranked_pairs(x.data(), targets, scale, gradient.data_mut());
        (value, gradient)
    }
}
