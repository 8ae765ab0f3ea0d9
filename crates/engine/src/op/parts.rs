use super::expect_shape;
use crate::error::{Error, Result};
use crate::function::Binary;
use crate::parameter::{Gradients, Parameters};
use crate::tape::{Source, Tape, Var};
use crate::tensor::Tensor;

impl Tape<'_> {
    /// A number that is a sum of parts, where one part at a time is to be in memory: each is computed on a tape of its own
    /// and goes backward at once, and only the gradients of the inputs are kept. A single part is recorded like everything
    /// else.
    ///
    /// ```text
    /// y = sum over parts of compute(inputs, part)
    /// ```
    ///
    /// # Shapes
    /// `inputs` any; every part gives `[1]`, and so does the sum.
    ///
    /// # Errors
    /// Those of `compute`; [`Error::Shape`] for a part of another shape, or without parts.
    pub fn sum_of_parts<P, E: From<Error>>(
        &mut self,
        inputs: &[&Var],
        parts: impl IntoIterator<Item = P, IntoIter: ExactSizeIterator>,
        mut compute: impl FnMut(&mut Tape<'_>, &[Var], P) -> std::result::Result<Var, E>,
    ) -> std::result::Result<Var, E> {
        let mut parts = parts.into_iter();
        if parts.len() == 1
            && let Some(part) = parts.next()
        {
            let inputs: Vec<Var> = inputs.iter().map(|&input| input.clone()).collect();
            return compute(self, &inputs, part);
        }
        let parameters = Parameters::default();
        let mut sum: Option<Tensor> = None;
        let mut gradients: Vec<(Source, Option<Tensor>)> = inputs.iter().map(|input| (input.source(), None)).collect();
        for part in parts {
            let mut tape = match self.tracks(inputs) {
                true => Tape::recording(self.device(), &parameters),
                false => Tape::inference(self.device(), &parameters),
            };
            let own = inputs.iter().map(|input| match input.needs_gradient() {
                true => tape.leaf(input.value().clone()),
                false => tape.constant(input.value().clone()),
            });
            let own: Vec<Var> = own.collect();
            let value = compute(&mut tape, &own, part)?;
            expect_shape("sum_of_parts", "a part", value.value(), &[1])?;
            match &mut sum {
                Some(sum) => self.device().add_assign(sum, value.value()),
                none => *none = Some(value.value().clone()),
            }
            if !value.needs_gradient() {
                continue;
            }
            let mut found = tape.backward(&value, Tensor::scalar(1.0), &mut Gradients::default())?;
            for ((_, sum), leaf) in gradients.iter_mut().zip(&own) {
                match (sum.as_mut(), found.take(leaf)) {
                    (Some(sum), Some(gradient)) => self.device().add_assign(sum, &gradient),
                    (None, gradient) => *sum = gradient,
                    (Some(_), None) => {}
                }
            }
        }
        let sum = sum.ok_or_else(|| Error::shape("sum_of_parts", "one part or more", "none"))?;
        Ok(self.record(inputs, sum, move |backward, dy| -> Result<()> {
            for (source, gradient) in gradients {
                if let Some(gradient) = gradient {
                    let scaled = backward.device.binary(Binary::Multiply, &gradient, &dy);
                    backward.add(source, scaled);
                }
            }
            Ok(())
        }))
    }
}
