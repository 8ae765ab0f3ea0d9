use std::sync::Arc;

use crate::error::{Error, Result};
use crate::function::{MatrixFunction, RowFunction, Similarity};
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// A function of how alike each row of `a` is to all rows of `b`. The matrix of similarities is computed in `f64`,
    /// a block of rows at a time, and again for the backward pass: memory is `O(m + n)`, and no value between
    /// embeddings and function is rounded.
    ///
    /// ```text
    /// values[r], counts[r] = function of scale similarity(a[r], b[0]), scale similarity(a[r], b[1]) …
    /// ```
    ///
    /// # Shapes
    /// `a [m, k]`, `b [n, k]`; gives `values [m]` and, without gradient, `counts [m]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the columns differ.
    pub fn similarity_rows(
        &mut self,
        similarity: Similarity,
        scale: f64,
        a: &Var,
        b: &Var,
        function: Arc<dyn RowFunction>,
    ) -> Result<(Var, Var)> {
        if a.value().columns() != b.value().columns() {
            let expected = format!("b of {} columns", a.value().columns());
            return Err(Error::shape("similarity_rows", expected, format!("{:?}", b.value().shape())));
        }
        let (values, counts) = self.device().similarity_rows(similarity, scale, a.value(), b.value(), &*function);
        let (a_source, b_source) = (a.source(), b.source());
        let (a_value, b_value) = (a.value().clone(), b.value().clone());
        let values = self.record(&[a, b], values, move |backward, dy| {
            let device = backward.device;
            let (da, db) = device.similarity_rows_backward(similarity, scale, &a_value, &b_value, &*function, &dy);
            backward.add(a_source, da);
            backward.add(b_source, db);
            Ok(())
        });
        Ok((values, self.constant(counts)))
    }

    /// A function of each row of a matrix that may look at its other rows.
    ///
    /// # Shapes
    /// `x [rows, columns]`; gives values `[rows]` and, without gradient, counts `[rows]`.
    ///
    /// # Errors
    /// None at present.
    pub fn matrix_rows(&mut self, x: &Var, function: Arc<dyn MatrixFunction>) -> Result<(Var, Var)> {
        let (values, counts) = self.device().matrix_rows(x.value(), &*function);
        let (source, value) = (x.source(), x.value().clone());
        let values = self.record(&[x], values, move |backward, dy| {
            let dx = backward.device.matrix_rows_backward(&value, &*function, &dy);
            backward.add(source, dx);
            Ok(())
        });
        Ok((values, self.constant(counts)))
    }
}
