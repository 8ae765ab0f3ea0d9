use std::sync::Arc;

use super::expect_shape;
use crate::error::{Error, Result};
use crate::function::{Binary, TripletRule};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

impl Tape<'_> {
    /// A loss over all triplets of anchor, positive and negative in a matrix of distances, without listing them.
    ///
    /// ```text
    /// v = d[a, p] - d[a, n] + margin          with swap: min(d[a, n], d[p, n]) for d[a, n]
    /// sums[a]   = sum of shape(v) over the triplets of a that are mined and whose loss lies within the rule's bounds
    /// counts[a] = how many those are
    /// ```
    ///
    /// Time `O(n log n)` per anchor; `O(positives * negatives)` with swap, the softplus or separate mining distances.
    /// Memory is that of one matrix.
    ///
    /// # Shapes
    /// `distances`, `positives`, `negatives` and `mining [anchors, candidates]`; a pair is a positive or a negative where
    /// the mask is not 0. Gives `sums [anchors]` and, without gradient, `counts [anchors]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not fit, or when `swap` meets a matrix that is not square.
    ///
    /// # Reference
    /// `TripletMarginLoss` and `TripletMarginMiner` of pytorch-metric-learning, which need all triplets in memory.
    pub fn triplets(
        &mut self,
        rule: TripletRule,
        distances: &Var,
        mining: Option<&Tensor>,
        positives: &Tensor,
        negatives: &Tensor,
    ) -> Result<(Var, Var)> {
        let shape = distances.value().shape();
        expect_shape("triplets", "positives", positives, shape)?;
        expect_shape("triplets", "negatives", negatives, shape)?;
        if let Some(mining) = mining {
            expect_shape("triplets", "mining", mining, shape)?;
        }
        if rule.swap && distances.value().rows() != distances.value().columns() {
            return Err(Error::shape("triplets", "a square matrix to swap in", format!("{shape:?}")));
        }
        let (sums, counts) = self.device().triplets(&rule, distances.value(), mining, positives, negatives);
        let (source, value, mining) = (distances.source(), distances.value().clone(), mining.cloned());
        let (positives, negatives) = (positives.clone(), negatives.clone());
        let sums = self.record(&[distances], sums, move |backward, dy| {
            let (device, mining) = (backward.device, mining.as_ref());
            let gradient = device.triplets_backward(&rule, &value, mining, &positives, &negatives, &dy);
            backward.add(source, gradient);
            Ok(())
        });
        Ok((sums, self.constant(counts)))
    }

    /// How badly values are out of the order of their targets: one term for every pair with different targets.
    ///
    /// ```text
    /// y = ln(1 + sum over i, j with targets[i] < targets[j] of exp(scale (x[i] - x[j])))
    /// ```
    ///
    /// Time `O(n log n)`, memory `O(n)`.
    ///
    /// # Shapes
    /// `x [n]`, `n` targets; gives `[1]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the numbers differ.
    ///
    /// # Reference
    /// Su 2022 (CoSENT).
    pub fn ranked_pairs(&mut self, x: &Var, targets: &Arc<[f32]>, scale: f64) -> Result<Var> {
        expect_shape("ranked_pairs", "x", x.value(), &[targets.len()])?;
        let (y, gradient) = self.device().ranked_pairs(x.value(), targets, scale);
        let source = x.source();
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.binary(Binary::Multiply, &gradient, &dy);
            backward.add(source, dx);
            Ok(())
        }))
    }
}
