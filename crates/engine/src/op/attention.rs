use super::expect_columns;
use crate::device::AttentionOptions;
use crate::error::{Error, Result};
use crate::packing::Packing;
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// Scaled dot-product attention within each packed sequence.
    ///
    /// ```text
    /// s_ij = q_i k_j / sqrt(size) + bias[j - i + reach - 1, head]
    /// y_i  = sum over j of dropout(softmax_j(s_ij)) v_j
    /// ```
    ///
    /// # Shapes
    /// `qkv [rows, 3 hidden]` packed, `bias [2 reach - 1, heads]` with `reach` at least the longest sequence; gives
    /// `[rows, hidden]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not fit.
    ///
    /// # Reference
    /// Vaswani et al. 2017; the relative bias by distance as in T5 and MPNet.
    pub fn attention(
        &mut self,
        qkv: &Var,
        packing: &Packing,
        bias: Option<&Var>,
        options: AttentionOptions,
    ) -> Result<Var> {
        let shape = qkv.value().shape();
        if packing.rows() != qkv.value().rows() || !qkv.value().columns().is_multiple_of(3 * options.heads) {
            let expected = format!("qkv of {} rows and a multiple of {} columns", packing.rows(), 3 * options.heads);
            return Err(Error::shape("attention", expected, format!("{shape:?}")));
        }
        if let Some(bias) = bias {
            let (rows, needed) = (bias.value().rows(), 2 * packing.longest().max(1) - 1);
            if rows < needed || rows.is_multiple_of(2) || bias.value().columns() != options.heads {
                let expected = format!("a bias of an odd number of rows, at least {needed}, by {}", options.heads);
                return Err(Error::shape("attention", expected, format!("{:?}", bias.value().shape())));
            }
        }
        expect_columns("attention", "qkv", qkv.value())?;
        // Scores and their product with the values; either has two operands within `qkv`.
        let scores: usize = packing.ranges().map(|range| options.pairs(range.len())).sum();
        self.count(4 * scores * (shape[1] / 3), &[qkv, qkv]);
        let (y, log_sum_exp) = self.device().attention(qkv.value(), packing, bias.map(Var::value), &options);
        let sources = (qkv.source(), bias.map(Var::source));
        let (qkv_value, bias_value) = (qkv.value().clone(), bias.map(|bias| bias.value().clone()));
        let (output, packing) = (y.clone(), packing.clone());
        let tracked: Vec<&Var> = [qkv].into_iter().chain(bias).collect();
        Ok(self.record(&tracked, y, move |backward, dy| {
            let (dqkv, dbias) = backward.device.attention_backward(
                &qkv_value,
                &packing,
                bias_value.as_ref(),
                &options,
                &output,
                &log_sum_exp,
                &dy,
            );
            backward.add(sources.0, dqkv);
            if let (Some(source), Some(dbias)) = (sources.1, dbias) {
                backward.add(source, dbias);
            }
            Ok(())
        }))
    }
}
