use super::expect_columns;
use crate::error::Result;
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// Divides each row by its Euclidean norm.
    ///
    /// ```text
    /// y = x / max(norm(x), 1e-12)
    /// ```
    ///
    /// # Shapes
    /// `x [rows, columns]`; gives the same.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when there are no columns.
    ///
    /// # Reference
    /// `torch.nn.functional.normalize`.
    pub fn normalize(&mut self, x: &Var) -> Result<Var> {
        const EPS: f32 = 1e-12;
        expect_columns("normalize", "x", x.value())?;
        let (y, norms) = self.device().normalize(x.value(), EPS);
        let (source, value) = (x.source(), y.clone());
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.normalize_backward(&value, &norms, EPS, &dy);
            backward.add(source, dx);
            Ok(())
        }))
    }
}
