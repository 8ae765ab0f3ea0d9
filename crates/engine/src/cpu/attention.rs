//! Attention over packed sequences, in blocks of query rows so that the scores stay in the cache.
//!
//! The forward pass keeps only the log-sum-exp of each row; the backward pass computes the probabilities again from
//! it (Dao 2022, FlashAttention).

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Format, Matrix, Packed, Threads, cut, product};
use super::math::exp;
use super::rows::{LANES, dot, fold, max};
use crate::device::AttentionOptions;
use crate::packing::Packing;
use crate::random::{Key, SPAN, kept};

/// Query rows that are scored at once: whole tiles on every instruction set.
const BLOCK: usize = 96;

/// One sequence's share of the problem; everything is indexed by its own rows.
struct Sequence<'a> {
    qkv: &'a [f32],
    rows: usize,
    hidden: usize,
    /// `[heads, 2 reach - 1]`: a row of scores reads its biases in one piece.
    bias: Option<&'a [f32]>,
    options: &'a AttentionOptions,
    packing: &'a Packing,
    first_row: usize,
}

impl Sequence<'_> {
    fn head_size(&self) -> usize {
        self.hidden / self.options.heads
    }

    fn factor(&self) -> f32 {
        1.0 / (self.head_size() as f32).sqrt()
    }

    /// Queries (0), keys (1) or values (2) of a head, from row `from` on.
    fn part(&self, which: usize, head: usize, from: usize, rows: usize) -> Matrix<'_> {
        let start = from * 3 * self.hidden + which * self.hidden + head * self.head_size();
        Matrix::strided(&self.qkv[start..], rows, self.head_size(), 3 * self.hidden)
    }

    /// Keys (1) or values (2) of a head, packed as `[size, rows]`: every block of queries is multiplied with them.
    fn transposed<F: Format<Number = f32>>(&self, which: usize, head: usize) -> Packed<F> {
        Packed::new(self.part(which, head, 0, self.rows).transposed(), Threads::One)
    }

    /// Keys (1) or values (2) of a head, packed as `[rows, size]`.
    fn plain<F: Format<Number = f32>>(&self, which: usize, head: usize) -> Packed<F> {
        Packed::new(self.part(which, head, 0, self.rows), Threads::One)
    }

    /// Scores of query rows `from..from + count` with the transposed keys, scaled, biased and masked.
    fn scores<F>(&self, head: usize, keys: &Packed<F>, from: usize, count: usize, scores: &mut [f32])
    where
        F: Format<Number = f32>,
    {
        keys.multiply(self.part(0, head, from, count), self.factor(), false, scores, self.rows);
        for (i, row) in scores.chunks_exact_mut(self.rows).enumerate() {
            let query = from + i;
            if let Some(bias) = self.bias {
                super::rows::add(row, &bias[self.distances(bias.len(), head, query)]);
            }
            if self.options.causal {
                row[query + 1..].fill(f32::NEG_INFINITY);
            }
            if let Some(window) = self.options.window {
                row[..query.saturating_sub(window)].fill(f32::NEG_INFINITY);
                let end = (query + window + 1).min(self.rows);
                row[end..].fill(f32::NEG_INFINITY);
            }
        }
    }

    /// Where the biases of a query's row of scores lie among `len` of `[heads, 2 reach - 1]`.
    fn distances(&self, len: usize, head: usize, query: usize) -> Range<usize> {
        let distances = len / self.options.heads;
        let start = head * distances + distances / 2 - query;
        start..start + self.rows
    }

    /// The words of the mask of one row of probabilities.
    fn mask_words(&self, key: Key, head: usize, query: usize) -> (u32, u32) {
        self.packing.row_words(key.part(head as u64), self.first_row + query)
    }
}

kernel! {
    /// `row = exp(row - max)`; gives the maximum and the sum.
    fn exponentiate(row: &mut [f32]) -> (f32, f32) {
        let largest = max(row);
        (largest, exp_minus(row, largest))
    }
}

kernel! {
    /// `row = exp(row - shift)`; gives the sum.
    fn exponentiate_from(row: &mut [f32], shift: f32) -> f32 {
        exp_minus(row, shift)
    }
}

#[inline(always)]
fn exp_minus(row: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            let value = if chunk[i] == f32::NEG_INFINITY { 0.0 } else { exp(chunk[i] - shift) };
            chunk[i] = value;
            lanes[i] += value;
        }
    }
    for (lane, value) in lanes.iter_mut().zip(chunks.into_remainder()) {
        *value = if *value == f32::NEG_INFINITY { 0.0 } else { exp(*value - shift) };
        *lane += *value;
    }
    fold(lanes)
}

kernel! {
    /// Multiplies by the mask and a factor.
    fn mask_row(row: &mut [f32], words: (u32, u32), threshold: u32, factor: f32) {
        let (spans, rest) = row.as_chunks_mut::<SPAN>();
        let mut counter = 0;
        for values in spans {
            let kept = kept(words, counter, threshold);
            for i in 0..SPAN {
                values[i] *= factor * kept[i];
            }
            counter += SPAN as u32;
        }
        for (value, kept) in rest.iter_mut().zip(kept(words, counter, threshold)) {
            *value *= factor * kept;
        }
    }
}

kernel! {
    /// [`softmax_row_backward`] of masked probabilities, which are left masked: what their product with the values saw.
    fn masked_softmax_row_backward(
        probabilities: &mut [f32],
        dprobabilities: &mut [f32],
        inner: f32,
        words: (u32, u32),
        threshold: u32,
        scale: f32,
    ) {
        let (spans, rest) = probabilities.as_chunks_mut::<SPAN>();
        let (dspans, drest) = dprobabilities.as_chunks_mut::<SPAN>();
        let mut counter = 0;
        for (p, d) in spans.iter_mut().zip(dspans) {
            let kept = kept(words, counter, threshold);
            for i in 0..SPAN {
                d[i] = p[i] * (d[i] * (scale * kept[i]) - inner);
                p[i] *= scale * kept[i];
            }
            counter += SPAN as u32;
        }
        for ((p, d), kept) in rest.iter_mut().zip(drest).zip(kept(words, counter, threshold)) {
            *d = *p * (*d * (scale * kept) - inner);
            *p *= scale * kept;
        }
    }
}

kernel! {
    /// `scores = probability (dprobability - inner)`
    fn softmax_row_backward(probabilities: &[f32], dprobabilities: &mut [f32], inner: f32) {
        for (probability, d) in probabilities.iter().zip(dprobabilities) {
            *d = probability * (*d - inner);
        }
    }
}

kernel! {
    /// The inner products of rows of `columns` numbers, `stride` apart.
    fn row_dots(x: &[f32], y: &[f32], columns: usize, stride: usize, dots: &mut [f32]) {
        for ((x, y), out) in x.chunks(stride).zip(y.chunks(stride)).zip(dots) {
            *out = dot(&x[..columns], &y[..columns]);
        }
    }
}

/// The transpose of `[rows, columns]`.
fn transposed(x: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| x.iter().skip(column).step_by(columns)).copied().collect()
}

/// Cuts a packed buffer of `columns` into one mutable piece per sequence.
fn per_sequence<'a>(data: &'a mut [f32], columns: usize, packing: &Packing) -> Vec<&'a mut [f32]> {
    cut(data, &packing.ranges().collect::<Vec<_>>(), columns)
}

/// [`crate::Device::attention`], products in the format `F`.
pub(crate) fn attention<F: Format<Number = f32>>(
    qkv: &[f32],
    hidden: usize,
    packing: &Packing,
    bias: Option<&[f32]>,
    options: &AttentionOptions,
    output: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    let heads = options.heads;
    let bias = bias.map(|bias| transposed(bias, heads));
    per_sequence(output, hidden, packing)
        .into_par_iter()
        .zip(per_sequence(log_sum_exp, heads, packing))
        .zip(packing.ranges().collect::<Vec<_>>())
        .filter(|(_, range)| !range.is_empty())
        .for_each(|((output, log_sum_exp), range)| {
            let sequence = Sequence {
                qkv: &qkv[range.start * 3 * hidden..range.end * 3 * hidden],
                rows: range.len(),
                hidden,
                bias: bias.as_deref(),
                options,
                packing,
                first_row: range.start,
            };
            let mut scratch = vec![0.0; BLOCK.min(sequence.rows) * sequence.rows];
            for head in 0..heads {
                let (keys, values) = (sequence.transposed::<F>(1, head), sequence.plain::<F>(2, head));
                for from in (0..sequence.rows).step_by(BLOCK) {
                    let count = BLOCK.min(sequence.rows - from);
                    let scores = &mut scratch[..count * sequence.rows];
                    sequence.scores(head, &keys, from, count, scores);
                    for (i, row) in scores.chunks_exact_mut(sequence.rows).enumerate() {
                        let (largest, total) = exponentiate(row);
                        log_sum_exp[(from + i) * heads + head] = largest + total.ln();
                        match options.dropout {
                            Some(dropout) => mask_row(
                                row,
                                sequence.mask_words(dropout.key, head, from + i),
                                dropout.threshold(),
                                dropout.scale() / total,
                            ),
                            None => super::rows::scale(row, 1.0 / total),
                        }
                    }
                    let start = from * hidden + head * sequence.head_size();
                    let scores = Matrix::new(scores, count, sequence.rows);
                    values.multiply(scores, 1.0, false, &mut output[start..], hidden);
                }
            }
        });
}

/// [`crate::Device::attention_backward`], products in the format `F`: writes all of `dqkv` and adds to `dbias`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn attention_backward<F: Format<Number = f32>>(
    qkv: &[f32],
    hidden: usize,
    packing: &Packing,
    bias: Option<&[f32]>,
    options: &AttentionOptions,
    output: &[f32],
    log_sum_exp: &[f32],
    dy: &[f32],
    dqkv: &mut [f32],
    dbias: Option<&mut [f32]>,
) {
    let heads = options.heads;
    let bias = bias.map(|bias| transposed(bias, heads));
    let bias_parts: Vec<Option<Vec<f32>>> = per_sequence(dqkv, 3 * hidden, packing)
        .into_par_iter()
        .zip(packing.ranges().collect::<Vec<_>>())
        .filter(|(_, range)| !range.is_empty())
        .map(|(dqkv, range)| {
            let sequence = Sequence {
                qkv: &qkv[range.start * 3 * hidden..range.end * 3 * hidden],
                rows: range.len(),
                hidden,
                bias: bias.as_deref(),
                options,
                packing,
                first_row: range.start,
            };
            let mut dbias = bias.as_ref().map(|bias| vec![0.0; bias.len()]);
            let own = range.start * hidden..range.end * hidden;
            sequence_backward::<F>(
                &sequence,
                &output[own.clone()],
                &log_sum_exp[range.start * heads..range.end * heads],
                &dy[own],
                dqkv,
                dbias.as_deref_mut(),
            );
            dbias
        })
        .collect();
    if let Some(dbias) = dbias {
        for part in bias_parts.iter().flatten() {
            super::rows::add(dbias, &transposed(part, dbias.len() / heads));
        }
    }
}

fn sequence_backward<F: Format<Number = f32>>(
    sequence: &Sequence<'_>,
    output: &[f32],
    log_sum_exp: &[f32],
    dy: &[f32],
    dqkv: &mut [f32],
    mut dbias: Option<&mut [f32]>,
) {
    let (hidden, heads, rows, size) = (sequence.hidden, sequence.options.heads, sequence.rows, sequence.head_size());
    let block = BLOCK.min(rows) * rows;
    let (mut probabilities, mut dscores, mut inners) = (vec![0.0; block], vec![0.0; block], vec![0.0; BLOCK.min(rows)]);
    for head in 0..heads {
        let (keys, values) = (sequence.transposed::<F>(1, head), sequence.transposed::<F>(2, head));
        let plain_keys = sequence.plain::<F>(1, head);
        for from in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - from);
            let probabilities = &mut probabilities[..count * rows];
            let dscores = &mut dscores[..count * rows];
            sequence.scores(head, &keys, from, count, probabilities);
            for (i, row) in probabilities.chunks_exact_mut(rows).enumerate() {
                exponentiate_from(row, log_sum_exp[(from + i) * heads + head]);
            }
            let here = from * hidden + head * size;
            let dy_block = Matrix::strided(&dy[here..], count, size, hidden);
            values.multiply(dy_block, 1.0, false, dscores, rows);
            row_dots(&output[here..], &dy[here..], size, hidden, &mut inners[..count]);
            let rows_and_inners = probabilities.chunks_exact_mut(rows).zip(dscores.chunks_exact_mut(rows)).zip(&inners);
            for (i, ((row, drow), &inner)) in rows_and_inners.enumerate() {
                match sequence.options.dropout {
                    Some(dropout) => masked_softmax_row_backward(
                        row,
                        drow,
                        inner,
                        sequence.mask_words(dropout.key, head, from + i),
                        dropout.threshold(),
                        dropout.scale(),
                    ),
                    None => softmax_row_backward(row, drow, inner),
                }
                if let Some(dbias) = dbias.as_deref_mut() {
                    let distances = sequence.distances(dbias.len(), head, from + i);
                    super::rows::add(&mut dbias[distances], drow);
                }
            }
            let later = from > 0;
            let dvalues = &mut dqkv[2 * hidden + head * size..];
            // Values saw the masked probabilities.
            let seen = Matrix::new(probabilities, count, rows).transposed();
            let one = Threads::One;
            product::<F>(seen.into(), dy_block, 1.0, (dvalues, 3 * hidden), later, one, &mut [], |_, _, _| {});
            let dscores = Matrix::new(dscores, count, rows);
            let dqueries = &mut dqkv[from * 3 * hidden + head * size..];
            plain_keys.multiply(dscores, sequence.factor(), false, dqueries, 3 * hidden);
            let queries = sequence.part(0, head, from, count);
            let dkeys = &mut dqkv[hidden + head * size..];
            let (dscores, to) = (dscores.transposed().into(), (dkeys, 3 * hidden));
            product::<F>(dscores, queries, sequence.factor(), to, later, one, &mut [], |_, _, _| {});
        }
    }
}
