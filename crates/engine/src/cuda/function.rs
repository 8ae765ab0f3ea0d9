//! The kernels of objectives on a GPU.

use super::Cuda;
use crate::cpu::Cpu;
use crate::function::{Binary, Functions, MatrixFunction, RowFunction, Similarity, TripletRule, Unary};
use crate::tensor::Tensor;

impl Functions for Cuda {
    fn unary(&self, function: Unary, x: &Tensor) -> Tensor {
        Cpu.unary(function, x)
    }

    fn unary_backward(&self, function: Unary, x: &Tensor, dy: &Tensor) -> Tensor {
        Cpu.unary_backward(function, x, dy)
    }

    fn binary(&self, function: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        Cpu.binary(function, a, b)
    }

    fn binary_backward(&self, function: Binary, a: &Tensor, b: &Tensor, dy: &Tensor) -> (Tensor, Tensor) {
        Cpu.binary_backward(function, a, b, dy)
    }

    fn row_sums(&self, x: &Tensor, weights: Option<&Tensor>) -> Tensor {
        Cpu.row_sums(x, weights)
    }

    fn row_sums_backward(&self, weights: Option<&Tensor>, dy: &Tensor, shape: &[usize]) -> Tensor {
        Cpu.row_sums_backward(weights, dy, shape)
    }

    fn log_sum_exp(&self, x: &Tensor, weights: Option<&Tensor>, targets: Option<&Tensor>, scale: f64) -> Tensor {
        Cpu.log_sum_exp(x, weights, targets, scale)
    }

    fn log_sum_exp_backward(
        &self,
        x: &Tensor,
        weights: Option<&Tensor>,
        targets: Option<&Tensor>,
        scale: f64,
        dy: &Tensor,
    ) -> Tensor {
        Cpu.log_sum_exp_backward(x, weights, targets, scale, dy)
    }

    fn gather(&self, x: &Tensor, indices: &[[u32; 2]]) -> Tensor {
        Cpu.gather(x, indices)
    }

    fn gather_backward(&self, indices: &[[u32; 2]], dy: &Tensor, shape: &[usize]) -> Tensor {
        Cpu.gather_backward(indices, dy, shape)
    }

    fn copy_block(
        &self,
        from: &Tensor,
        from_corner: [usize; 2],
        to: &mut Tensor,
        to_corner: [usize; 2],
        extent: [usize; 2],
    ) {
        Cpu.copy_block(from, from_corner, to, to_corner, extent)
    }

    fn add_columns(&self, x: &Tensor, scale: f32, out: &mut Tensor, first: usize) {
        Cpu.add_columns(x, scale, out, first)
    }

    fn similarities(&self, similarity: Similarity, a: &Tensor, b: &Tensor) -> Tensor {
        Cpu.similarities(similarity, a, b)
    }

    fn similarities_backward(
        &self,
        similarity: Similarity,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        Cpu.similarities_backward(similarity, a, b, y, dy)
    }

    fn paired_similarities(&self, similarity: Similarity, a: &Tensor, b: &Tensor) -> Tensor {
        Cpu.paired_similarities(similarity, a, b)
    }

    fn paired_similarities_backward(
        &self,
        similarity: Similarity,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        Cpu.paired_similarities_backward(similarity, a, b, y, dy)
    }

    fn triplets(
        &self,
        rule: &TripletRule,
        distances: &Tensor,
        mining: Option<&Tensor>,
        positives: &Tensor,
        negatives: &Tensor,
    ) -> (Tensor, Tensor) {
        Cpu.triplets(rule, distances, mining, positives, negatives)
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
        Cpu.triplets_backward(rule, distances, mining, positives, negatives, dy)
    }

    fn transpose(&self, x: &Tensor) -> Tensor {
        Cpu.transpose(x)
    }

    fn similarity_rows(
        &self,
        similarity: Similarity,
        scale: f64,
        a: &Tensor,
        b: &Tensor,
        function: &dyn RowFunction,
    ) -> (Tensor, Tensor) {
        Cpu.similarity_rows(similarity, scale, a, b, function)
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
        Cpu.similarity_rows_backward(similarity, scale, a, b, function, dy)
    }

    fn matrix_rows(&self, x: &Tensor, function: &dyn MatrixFunction) -> (Tensor, Tensor) {
        Cpu.matrix_rows(x, function)
    }

    fn matrix_rows_backward(&self, x: &Tensor, function: &dyn MatrixFunction, dy: &Tensor) -> Tensor {
        Cpu.matrix_rows_backward(x, function, dy)
    }

    fn inverse(&self, x: &Tensor) -> Tensor {
        Cpu.inverse(x)
    }

    fn inverse_backward(&self, y: &Tensor, dy: &Tensor) -> Tensor {
        Cpu.inverse_backward(y, dy)
    }

    fn ranked_pairs(&self, x: &Tensor, targets: &[f32], scale: f64) -> (Tensor, Tensor) {
        Cpu.ranked_pairs(x, targets, scale)
    }
}
