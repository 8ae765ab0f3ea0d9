use super::expect_shape;
use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

impl Tape<'_> {
    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the number of elements differs.
    pub fn reshape(&mut self, x: &Var, shape: &[usize]) -> Result<Var> {
        let y = x.value().reshaped(shape)?;
        let (source, shape) = (x.source(), x.value().shape().to_vec());
        Ok(self.record(&[x], y, move |backward, dy| {
            backward.add(source, dy.reshaped(&shape)?);
            Ok(())
        }))
    }

    /// The weighted sum of each row. Elements of weight 0 are not read, so that they may be infinite.
    ///
    /// ```text
    /// y[r] = sum_c weights[r, c] x[r, c]
    /// ```
    ///
    /// # Shapes
    /// `x [rows, columns]`, `weights` the same (without them, all 1); gives `[rows]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the weights have another shape.
    pub fn row_sums(&mut self, x: &Var, weights: Option<&Tensor>) -> Result<Var> {
        if let Some(weights) = weights {
            expect_shape("row_sums", "weights", weights, x.value().shape())?;
        }
        let y = self.device().row_sums(x.value(), weights);
        let (source, shape, weights) = (x.source(), x.value().shape().to_vec(), weights.cloned());
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.row_sums_backward(weights.as_ref(), &dy, &shape);
            backward.add(source, dx);
            Ok(())
        }))
    }

    /// The weighted sum of all elements.
    ///
    /// # Shapes
    /// Any, `weights` the same (without them, all 1); gives `[1]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the weights have another shape.
    pub fn sum(&mut self, x: &Var, weights: Option<&Tensor>) -> Result<Var> {
        let flat = [1, x.value().len()];
        let weights = match weights {
            Some(weights) => {
                expect_shape("sum", "weights", weights, x.value().shape())?;
                Some(weights.reshaped(&flat)?)
            }
            None => None,
        };
        let x = self.reshape(x, &flat)?;
        self.row_sums(&x, weights.as_ref())
    }

    /// The logarithm of the weighted sum of exponentials of each row.
    ///
    /// ```text
    /// y[r] = ln sum_c weights[r, c] exp(scale x[r, c])
    /// ```
    ///
    /// Elements of weight 0 are not read. A row without any gives minus infinity, and has no gradient.
    ///
    /// # Shapes
    /// `x [rows, columns]`, `weights` the same, not negative (without them, all 1); gives `[rows]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the weights have another shape.
    pub fn log_sum_exp(&mut self, x: &Var, weights: Option<&Tensor>, scale: f64) -> Result<Var> {
        self.cross_entropy_terms(x, weights, None, scale)
    }

    /// The cross-entropy of each row with its targets, which sum to 1; neither value nor gradient suffers from
    /// cancellation where it is small.
    ///
    /// ```text
    /// y[r] = ln sum_c weights[r, c] exp(scale x[r, c]) - scale sum_c targets[r, c] x[r, c]
    /// ```
    ///
    /// As for [`Tape::log_sum_exp`], elements of weight 0 are not read, and a row without any gives minus infinity.
    ///
    /// # Shapes
    /// `x [rows, columns]`, `weights` and `targets` the same; gives `[rows]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when they do not fit.
    pub fn cross_entropy(&mut self, x: &Var, weights: Option<&Tensor>, targets: &Tensor, scale: f64) -> Result<Var> {
        self.cross_entropy_terms(x, weights, Some(targets), scale)
    }

    fn cross_entropy_terms(
        &mut self,
        x: &Var,
        weights: Option<&Tensor>,
        targets: Option<&Tensor>,
        scale: f64,
    ) -> Result<Var> {
        for (name, tensor) in [("weights", weights), ("targets", targets)] {
            if let Some(tensor) = tensor {
                expect_shape("log_sum_exp", name, tensor, x.value().shape())?;
            }
        }
        let y = self.device().log_sum_exp(x.value(), weights, targets, scale);
        let (source, value, weights, targets) = (x.source(), x.value().clone(), weights.cloned(), targets.cloned());
        Ok(self.record(&[x], y, move |backward, dy| {
            let (weights, targets) = (weights.as_ref(), targets.as_ref());
            let dx = backward.device.log_sum_exp_backward(&value, weights, targets, scale, &dy);
            backward.add(source, dx);
            Ok(())
        }))
    }
}
