use super::{expect_columns, expect_shape};
use crate::device::Activation;
use crate::device::Operand::{Plain, Transposed};
use crate::error::Result;
use crate::tape::{Tape, Var};

/// Weight `[out, in]` and bias `[out]` of a linear layer.
pub(super) type Linear<'a> = (&'a Var, &'a Var);

impl Tape<'_> {
    /// The feed-forward part of a transformer layer: two linear layers with an activation between them. Only the value
    /// before the activation is kept; the backward pass computes the activation again.
    ///
    /// ```text
    /// y = activation(x w1^T + b1) w2^T + b2
    /// ```
    ///
    /// # Shapes
    /// `x [rows, in]`, `w1 [middle, in]`, `w2 [out, middle]`; gives `[rows, out]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when they do not fit.
    pub fn feed_forward(
        &mut self,
        x: &Var,
        first: Linear<'_>,
        second: Linear<'_>,
        activation: Activation,
    ) -> Result<Var> {
        let (middle, inputs) = (first.0.value().rows(), x.value().columns());
        let outputs = second.0.value().rows();
        expect_shape("feed_forward", "the first weight", first.0.value(), &[middle, inputs])?;
        expect_shape("feed_forward", "the first bias", first.1.value(), &[middle])?;
        expect_shape("feed_forward", "the second weight", second.0.value(), &[outputs, middle])?;
        expect_shape("feed_forward", "the second bias", second.1.value(), &[outputs])?;

        expect_columns("feed_forward", "x", x.value())?;
        expect_columns("feed_forward", "the second weight", second.0.value())?;
        expect_columns("feed_forward", "the second bias", second.1.value())?;

        let tracked = [x, first.0, first.1, second.0, second.1];
        let before = [x, first.0, first.1].into_iter().find(|input| input.needs_gradient()).unwrap_or(x);
        self.count(2 * x.value().rows() * inputs * middle, &[x, first.0]);
        self.count(2 * x.value().rows() * middle * outputs, &[before, second.0]);
        let keep = self.tracks(&tracked);
        let (y, middle_value) = self.device().feed_forward(
            x.value(),
            (first.0.value(), first.1.value()),
            (second.0.value(), second.1.value()),
            activation,
            keep,
        );
        let sources = tracked.map(Var::source);
        let (x_kept, w1, w2) = (x.keep(), first.0.value().clone(), second.0.value().clone());
        Ok(self.record(&tracked, y, move |backward, dy| {
            let [x_source, w1_source, b1_source, w2_source, b2_source] = sources;
            let (active, dmiddle, db1) = backward.device.feed_forward_backward(&middle_value, &w2, &dy, activation);
            backward.write(w2_source, w2.shape(), |device, dw2, accumulate| {
                device.matmul(Transposed(&dy), Plain(&active), 1.0, dw2, accumulate);
            });
            drop(active);
            backward.write(b2_source, &[outputs], |device, db2, accumulate| {
                device.column_sums(&dy, db2, accumulate);
            });
            backward.write(w1_source, w1.shape(), |device, dw1, accumulate| {
                device.matmul(Transposed(&dmiddle), Plain(&x_kept.value(device)), 1.0, dw1, accumulate);
            });
            backward.add(b1_source, db1);
            backward.write(x_source, x_kept.shape(), |device, dx, accumulate| {
                device.matmul(Plain(&dmiddle), Plain(&w1), 1.0, dx, accumulate);
            });
            Ok(())
        }))
    }
}
