use super::expect_shape;
use crate::device::Operand::{Plain, Transposed};
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

impl Tape<'_> {
    /// A fully connected layer.
    ///
    /// ```text
    /// y = x weight^T + bias
    /// ```
    ///
    /// # Shapes
    /// `x [rows, in]`, `weight [out, in]`, `bias [out]`; gives `[rows, out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not fit.
    ///
    /// # Reference
    /// `torch.nn.functional.linear`.
    pub fn linear(&mut self, x: &Var, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        let (outputs, inputs) = (weight.value().rows(), weight.value().columns());
        if weight.value().is_empty() {
            return Err(Error::shape(
                "linear",
                "a weight of at least one element",
                format!("{:?}", weight.value().shape()),
            ));
        }
        if x.value().columns() != inputs {
            let got = format!("{:?}", x.value().shape());
            return Err(Error::shape("linear", format!("x of {inputs} columns"), got));
        }
        if let Some(bias) = bias {
            expect_shape("linear", "bias", bias.value(), &[outputs])?;
        }
        self.count(2 * x.value().rows() * inputs * outputs, &[x, weight]);
        let y = self.device().linear(x.value(), weight.value(), bias.map(Var::value));
        let sources = (x.source(), weight.source(), bias.map(Var::source));
        let (x_kept, weight_value) = (x.keep(), weight.value().clone());
        let tracked: Vec<&Var> = [x, weight].into_iter().chain(bias).collect();
        Ok(self.record(&tracked, y, move |backward, dy| {
            let (x_source, weight_source, bias_source) = sources;
            backward.write(x_source, x_kept.shape(), |device, dx, accumulate| {
                device.matmul(Plain(&dy), Plain(&weight_value), 1.0, dx, accumulate);
            });
            backward.write(weight_source, weight_value.shape(), |device, dweight, accumulate| {
                device.matmul(Transposed(&dy), Plain(&x_kept.value(device)), 1.0, dweight, accumulate);
            });
            if let Some(source) = bias_source {
                backward.write(source, &[outputs], |device, dbias, accumulate| {
                    device.column_sums(&dy, dbias, accumulate);
                });
            }
            Ok(())
        }))
    }

    /// The product of every row of `a` with every row of `b`: the scores of all pairs.
    ///
    /// ```text
    /// y = a b^T
    /// ```
    ///
    /// # Shapes
    /// `a [m, k]`, `b [n, k]`; gives `[m, n]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the columns differ.
    pub fn scores(&mut self, a: &Var, b: &Var) -> Result<Var> {
        if a.value().columns() != b.value().columns() {
            let expected = format!("b of {} columns", a.value().columns());
            return Err(Error::shape("scores", expected, format!("{:?}", b.value().shape())));
        }
        self.count(2 * a.value().rows() * a.value().columns() * b.value().rows(), &[a, b]);
        let mut y = Tensor::stale(&[a.value().rows(), b.value().rows()]);
        self.device().matmul(Plain(a.value()), Transposed(b.value()), 1.0, &mut y, false);
        let (a_source, b_source) = (a.source(), b.source());
        let (a_value, b_value) = (a.value().clone(), b.value().clone());
        Ok(self.record(&[a, b], y, move |backward, dy| {
            backward.write(a_source, a_value.shape(), |device, da, accumulate| {
                device.matmul(Plain(&dy), Plain(&b_value), 1.0, da, accumulate);
            });
            backward.write(b_source, b_value.shape(), |device, db, accumulate| {
                device.matmul(Transposed(&dy), Plain(&a_value), 1.0, db, accumulate);
            });
            Ok(())
        }))
    }
}
