use super::{expect_packed, expect_shape};
use crate::error::Result;
use crate::packing::Packing;
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// The generalised mean of each sequence with a power that is learnt; [`crate::device::Pooling::Gem`] has a fixed one.
    ///
    /// ```text
    /// y[s, c] = (mean over the rows r of s of max(x[r, c], eps)^p)^(1/p)
    /// ```
    ///
    /// # Shapes
    /// `x [rows, columns]` packed, `power [1]`; gives `[sequences, columns]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when they do not fit.
    ///
    /// # Reference
    /// Radenovic, Tolias, Chum 2018.
    pub fn gem(&mut self, x: &Var, power: &Var, eps: f32, packing: &Packing) -> Result<Var> {
        expect_packed("gem", x.value(), packing)?;
        expect_shape("gem", "power", power.value(), &[1])?;
        let y = self.device().gem(x.value(), power.value(), eps, packing);
        let (x_source, power_source, packing) = (x.source(), power.source(), packing.clone());
        let (x_value, power_value, y_value) = (x.value().clone(), power.value().clone(), y.clone());
        Ok(self.record(&[x, power], y, move |backward, dy| {
            let device = backward.device;
            let (dx, dpower) = device.gem_backward(&x_value, &power_value, eps, &packing, &y_value, &dy);
            backward.add(x_source, dx);
            backward.add(power_source, dpower);
            Ok(())
        }))
    }
}
