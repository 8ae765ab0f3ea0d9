//! Matrix products, by the `gemm` crate.

use crate::tensor::Tensor;

/// A strided view of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A dense row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix::strided(data, rows, columns, columns)
    }

    /// Rows that start `row_stride` elements apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        Matrix::new(tensor.data(), tensor.rows(), tensor.columns())
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

    /// One past the last element that is read.
    fn end(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone, inside a loop that is parallel already.
    One,
    /// All threads of the current rayon pool.
    All,
}

/// `out = alpha a b + beta out`; `out` has rows `row_stride` apart. `beta` 0 ignores what `out` holds.
pub(crate) fn matmul(
    a: Matrix<'_>,
    b: Matrix<'_>,
    alpha: f32,
    out: &mut [f32],
    row_stride: usize,
    beta: f32,
    threads: Threads,
) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(k, b.rows, "inner extents of a product");
    assert!(a.end() <= a.data.len() && b.end() <= b.data.len(), "operands inside their slices");
    if m == 0 || n == 0 {
        return;
    }
    assert!(row_stride >= n && (m - 1) * row_stride + n <= out.len(), "output inside its slice");
    let parallelism = match threads {
        Threads::All if rayon::current_num_threads() > 1 => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: every element that the strides reach lies inside its slice, as asserted above; `out` is borrowed
    // exclusively, and its rows do not overlap because `row_stride >= n`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row_stride as isize,
            beta != 0.0,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
