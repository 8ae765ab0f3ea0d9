use super::expect_columns;
use crate::error::{Error, Result};
use crate::tape::{Source, Tape, Var};
use crate::tensor::Tensor;

impl Tape<'_> {
    /// Adds a multiple of a matrix to some consecutive columns of another, in place where nothing else holds it: what a
    /// low-rank adapter adds to the output of its layer, or of a part of a fused layer.
    ///
    /// ```text
    /// out[r, first + c] = y[r, first + c] + scale x[r, c]      the other columns of y as they are
    /// ```
    ///
    /// # Shapes
    /// `y [rows, columns]`, `x [rows, width]` with `first + width <= columns`; gives `[rows, columns]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the rows differ or the columns do not fit.
    pub fn add_columns(&mut self, y: Var, x: &Var, scale: f32, first: usize) -> Result<Var> {
        let (rows, columns, width) = (y.value().rows(), y.value().columns(), x.value().columns());
        expect_columns("add_columns", "x", x.value())?;
        if x.value().rows() != rows || first + width > columns {
            let expected = format!("x of {rows} rows and at most {} columns", columns.saturating_sub(first));
            return Err(Error::shape("add_columns", expected, format!("{:?}", x.value().shape())));
        }
        let (y_source, x_source, x_shape) = (y.source(), x.source(), x.value().shape().to_vec());
        let (mut out, y) = y.taken();
        self.device().add_columns(x.value(), scale, &mut out, first);
        Ok(self.record(&[&y, x], out, move |backward, dy| {
            if x_source != Source::Constant {
                let mut dx = Tensor::stale(&x_shape);
                backward.device.copy_block(&dy, [0, first], &mut dx, [0, 0], [rows, width]);
                backward.device.scale_assign(&mut dx, scale);
                backward.add(x_source, dx);
            }
            backward.add(y_source, dy);
            Ok(())
        }))
    }
}
