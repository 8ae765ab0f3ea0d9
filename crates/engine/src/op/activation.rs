use crate::device::Activation;
use crate::error::Result;
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// An elementwise [`Activation`].
    ///
    /// # Shapes
    /// Any; gives the same.
    pub fn activation(&mut self, activation: Activation, x: &Var) -> Result<Var> {
        let y = self.device().activation(activation, x.value());
        let (source, value) = (x.source(), x.value().clone());
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.activation_backward(activation, &value, &dy);
            backward.add(source, dx);
            Ok(())
        }))
    }
}
