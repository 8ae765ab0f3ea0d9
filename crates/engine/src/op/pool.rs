use super::expect_packed;
use crate::device::Pooling;
use crate::error::Result;
use crate::packing::Packing;
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// One embedding per sequence; only its own rows are read, there is no padding that could leak in.
    ///
    /// # Shapes
    /// `x [rows, columns]` packed; gives `[sequences, columns]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the packing has another number of rows.
    pub fn pool(&mut self, pooling: Pooling, x: &Var, packing: &Packing) -> Result<Var> {
        expect_packed("pool", x.value(), packing)?;
        let y = self.device().pool(pooling, x.value(), packing);
        let (source, x_value, pooled, packing) = (x.source(), x.value().clone(), y.clone(), packing.clone());
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.pool_backward(pooling, &x_value, &pooled, &packing, &dy);
            backward.add(source, dx);
            Ok(())
        }))
    }
}
