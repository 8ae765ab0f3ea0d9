//! Which rows of a table hold anything but zeros.
//!
//! A batch reads a few hundred of the thirty thousand entries of a table of words (of the 250,000 of a multilingual one), so its
//! gradient is zero everywhere else, and so are the moments of entries that no batch has read yet. Knowing the rows, clearing,
//! measuring and updating leave the others alone, and the operating system need not give memory for them. Nothing is
//! approximated: what is left out would have added zeros.

use std::ops::Range;

/// A set of rows, one bit each: outside of it all numbers are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Support {
    words: Vec<u64>,
    /// How long the rows are.
    columns: usize,
}

impl Support {
    /// No row of so many.
    pub(crate) fn none(rows: usize, columns: usize) -> Self {
        Support { words: vec![0; rows.div_ceil(64)], columns }
    }

    /// The rows of a matrix that are not of zeros alone.
    pub(crate) fn of(data: &[f32], columns: usize) -> Self {
        let mut support = Support::none(data.len() / columns.max(1), columns);
        for (row, data) in data.chunks_exact(columns.max(1)).enumerate() {
            if data.iter().any(|number| number.to_bits() != 0) {
                support.insert(row);
            }
        }
        support
    }

    /// How long the rows are that it speaks of.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Takes all rows out.
    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    pub(crate) fn insert(&mut self, row: usize) {
        self.words[row / 64] |= 1 << (row % 64);
    }

    pub(crate) fn contains(&self, row: usize) -> bool {
        self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// Adds the rows of another set of as many.
    pub(crate) fn extend(&mut self, other: &Support) {
        self.words.iter_mut().zip(&other.words).for_each(|(own, other)| *own |= other);
    }

    /// The rows of a range that are in the set, in their order.
    pub(crate) fn within(&self, rows: Range<usize>) -> impl Iterator<Item = usize> {
        rows.filter(|&row| self.contains(row))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::{UpdateKind, UpdateRule};
    use crate::random::Key;
    use crate::{Cpu, Device, Gradients, Parameters, Tape, Tensor};

    fn numbers(seed: u64, shape: &[usize]) -> Tensor {
        let key = Key::new(seed);
        let number = |place| key.bits(place) as i32 as f32 / (1u64 << 31) as f32;
        Tensor::from_vec((0..shape.iter().product::<usize>() as u64).map(number).collect(), shape).unwrap()
    }

    fn bits(tensor: &Tensor) -> Vec<u32> {
        tensor.data().iter().map(|number| number.to_bits()).collect()
    }

    /// Adds the gradients of one look-up of these entries.
    fn look_up(parameters: &Parameters, ids: &[u32], gradients: &mut Gradients) {
        let mut tape = Tape::recording(&Cpu::F32, parameters);
        let table = tape.parameter(parameters.ids().next().unwrap());
        let rows = tape.rows(&table, Arc::from(ids)).unwrap();
        let upstream = numbers(u64::from(ids[0]), rows.value().shape());
        tape.backward(&rows, upstream, gradients).unwrap();
    }

    #[test]
    fn rows_of_zeros_are_left_out_and_nothing_else() {
        let adam = |weight_decay, decoupled, eps| {
            let kind = UpdateKind::Adam { beta1: 0.9, beta2: 0.999, eps, amsgrad: false };
            UpdateRule { kind, weight_decay, decoupled, step: 0 }
        };
        let amsgrad = UpdateKind::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, amsgrad: true };
        let momentum = UpdateKind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false };
        let rules = [
            (adam(0.0, false, 1e-8), true),
            (adam(0.01, true, 1e-8), true),
            (adam(0.01, false, 1e-8), false),
            (UpdateRule { kind: amsgrad, ..adam(0.0, true, 1e-8) }, false),
            (UpdateRule { kind: momentum, ..adam(0.0, true, 1e-8) }, false),
        ];
        // The second is larger than a task and than the smallest mapped buffer, the third has no whole lanes.
        for shape in [[70, 24], [3000, 40], [500, 13]] {
            for (rule, leaves_out) in rules {
                let mut parameters = Parameters::default();
                let id = parameters.add("table", numbers(1, &shape));
                let mut all = parameters.iter().next().unwrap().value.clone();
                let mut gradients = Gradients::new(&parameters);
                let (mut moments, mut moments_of_all) = (Vec::new(), Vec::new());
                for (step, ids) in [[3, 69, 3], [0, 5, 8], [69, 64, 2], [8, 8, 8]].into_iter().enumerate() {
                    let rule = UpdateRule { step: step as u64 + 1, ..rule };
                    gradients.clear();
                    look_up(&parameters, &ids, &mut gradients);
                    look_up(&parameters, &[63, ids[1]], &mut gradients);
                    let gradient = gradients.get(id).unwrap();
                    let mut read = [&ids[..], &[63]].concat();
                    read.sort_unstable();
                    read.dedup();
                    let rows: Vec<u32> =
                        gradient.support().unwrap().within(0..shape[0]).map(|row| row as u32).collect();
                    assert_eq!(rows, read);
                    let whole = Tensor::from_vec(gradient.data().to_vec(), &shape).unwrap();
                    assert_eq!(whole.data().iter().filter(|number| **number != 0.0).count(), read.len() * shape[1]);
                    let squares = [gradient, &whole].map(|gradient| Cpu::F32.sum_of_squares(&[gradient]).to_bits());
                    assert_eq!(squares[0], squares[1]);

                    if step == 0 {
                        let initial = rule.kind.initial_moments(0.1);
                        moments = initial.iter().map(|&initial| gradient.filled_like(initial)).collect();
                        moments_of_all = initial.iter().map(|&initial| Tensor::full(&shape, initial)).collect();
                    }
                    if step == 2 {
                        // As after a checkpoint.
                        let saved =
                            moments.iter().map(|moment| Tensor::from_vec(moment.data().to_vec(), &shape).unwrap());
                        moments = saved.map(Tensor::with_zeros_known).collect();
                    }
                    let weight = &mut parameters.iter_mut().next().unwrap().value;
                    Cpu::F32.update(&rule, 0.1, 0.5, weight, gradient, &mut moments);
                    Cpu::F32.update(&rule, 0.1, 0.5, &mut all, &whole, &mut moments_of_all);
                    assert_eq!(bits(weight), bits(&all), "{rule:?}");
                    for (moment, of_all) in moments.iter().zip(&moments_of_all) {
                        assert_eq!(bits(moment), bits(of_all), "{rule:?}");
                        assert_eq!(moment.support().is_some(), leaves_out, "{rule:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn whoever_writes_anywhere_makes_all_rows_count() {
        let mut table = Tensor::vacant(&[200, 8]);
        let (data, rows) = table.rows_mut().unwrap();
        data[16] = 1.0;
        rows.insert(2);
        let copy = table.clone();
        assert_eq!(copy.support(), Some(&Support::of(table.data(), 8)));
        table.data_mut()[17] = 2.0;
        assert!(table.support().is_none());
        assert_eq!((copy.data()[17], table.data()[17]), (0.0, 2.0));
        assert_eq!(table.with_zeros_known().support(), copy.support());
        assert!(copy.support().is_some() && copy.reshaped(&[400, 4]).unwrap().support().is_none());
        assert!(Tensor::zeros(&[2, 2]).filled_like(0.0).support().is_none());
        assert_eq!(copy.filled_like(0.5).data(), Tensor::full(&[200, 8], 0.5).data());
    }
}
