use crate::error::{Error, Result};
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// The inverse of a matrix, computed in `f64`; not finite where there is none.
    ///
    /// # Shapes
    /// `x [n, n]`; gives the same.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is not square.
    pub fn inverse(&mut self, x: &Var) -> Result<Var> {
        let (rows, columns) = (x.value().rows(), x.value().columns());
        if rows != columns {
            return Err(Error::shape("inverse", "a square matrix", format!("{:?}", x.value().shape())));
        }
        let y = self.device().inverse(x.value());
        let (source, value) = (x.source(), y.clone());
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.inverse_backward(&value, &dy);
            backward.add(source, dx);
            Ok(())
        }))
    }
}
