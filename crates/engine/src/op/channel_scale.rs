use super::{expect_map, expect_shape};
use crate::error::Result;
use crate::map::Map;
use crate::tape::{Source, Tape, Var};

impl Tape<'_> {
    /// Every channel of every picture times its own factor: the last step of squeeze-and-excitation.
    ///
    /// ```text
    /// y[r, c] = x[r, c] factors[image of r, c]
    /// ```
    ///
    /// # Shapes
    /// `x [map rows, channels]`, `factors [images, channels]`; gives `[map rows, channels]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when they do not fit.
    ///
    /// # Reference
    /// Hu, Shen, Sun 2018.
    pub fn channel_scale(&mut self, x: &Var, map: Map, factors: &Var) -> Result<Var> {
        expect_map("channel_scale", x.value(), map)?;
        expect_shape("channel_scale", "factors", factors.value(), &[map.images, x.value().columns()])?;
        let y = self.device().channel_scale(x.value(), map, factors.value());
        let (x_source, factors_source) = (x.source(), factors.source());
        let (x_value, factors_value) = (x.value().clone(), factors.value().clone());
        Ok(self.record(&[x, factors], y, move |backward, dy| {
            if factors_source != Source::Constant {
                let gradient = backward.device.channel_products(&x_value, map, &dy);
                backward.add(factors_source, gradient);
            }
            if x_source != Source::Constant {
                let gradient = backward.device.channel_scale(&dy, map, &factors_value);
                backward.add(x_source, gradient);
            }
            Ok(())
        }))
    }
}
