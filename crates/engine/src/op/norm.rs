use super::{expect_packed, expect_shape};
use crate::error::Result;
use crate::packing::Packing;
use crate::random::Dropout;
use crate::tape::{Kept, Tape, Var};

impl Tape<'_> {
    /// Layer norm of a sum, with dropout on its first term: what follows each half of a transformer layer. Linear layers
    /// that read `y` do not keep it: their backward pass computes it again from the normalised rows.
    ///
    /// ```text
    /// z = dropout(x) + residual
    /// y = (z - mean(z)) / sqrt(var(z) + eps) * weight + bias      per row, biased variance
    /// ```
    ///
    /// # Shapes
    /// `x`, `residual [rows, columns]` packed, `weight`, `bias [columns]`; gives `[rows, columns]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when they do not fit.
    ///
    /// # Reference
    /// Ba, Kiros, Hinton 2016; `torch.nn.LayerNorm`.
    #[allow(clippy::too_many_arguments)]
    pub fn add_norm(
        &mut self,
        x: &Var,
        residual: Option<&Var>,
        weight: &Var,
        bias: &Var,
        eps: f32,
        dropout: Option<Dropout>,
        packing: &Packing,
    ) -> Result<Var> {
        let columns = x.value().columns();
        expect_packed("add_norm", x.value(), packing)?;
        expect_shape("add_norm", "weight", weight.value(), &[columns])?;
        expect_shape("add_norm", "bias", bias.value(), &[columns])?;
        if let Some(residual) = residual {
            expect_shape("add_norm", "residual", residual.value(), x.value().shape())?;
        }
        let (y, normalised, deviation) = self.device().add_norm(
            x.value(),
            residual.map(Var::value),
            weight.value(),
            bias.value(),
            eps,
            dropout.as_ref().map(|dropout| (dropout, packing)),
        );
        let sources = (x.source(), residual.map(Var::source), weight.source(), bias.source());
        let (weight_value, packing) = (weight.value().clone(), packing.clone());
        let tracked: Vec<&Var> = [x, weight, bias].into_iter().chain(residual).collect();
        let again =
            Kept::Norm { normalised: normalised.clone(), weight: weight_value.clone(), bias: bias.value().clone() };
        let y = self.record(&tracked, y, move |backward, dy| {
            let (x_source, residual_source, weight_source, bias_source) = sources;
            let dropout = dropout.as_ref().map(|dropout| (dropout, &packing));
            let of = backward.device.add_norm_backward(&normalised, &deviation, &weight_value, &dy, dropout);
            backward.add(weight_source, of.weight);
            backward.add(bias_source, of.bias);
            backward.add(x_source, of.x);
            if let Some(source) = residual_source {
                backward.add(source, of.sum);
            }
            Ok(())
        });
        Ok(y.computed_again_from(again))
    }
}
