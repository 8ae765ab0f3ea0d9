//! The rows of a batch, class by class.

use std::ops::Range;

/// Where the rows of each class stand when all are sorted by label. Rows of a class keep their order.
pub(super) struct ByClass {
    /// Numbers of rows, class after class.
    pub(super) order: Vec<u32>,
    /// Where each class begins in that order, and the end.
    pub(super) offsets: Vec<u32>,
    /// The class of each row, by the row's number.
    pub(super) of_row: Vec<u32>,
}

impl ByClass {
    pub(super) fn new(labels: &[u32]) -> Self {
        let label = |row: u32| labels[row as usize];
        let mut order: Vec<u32> = (0..labels.len() as u32).collect();
        order.sort_by_key(|&row| label(row));
        let (mut offsets, mut of_row) = (vec![0], vec![0; labels.len()]);
        for (class, run) in (0..).zip(order.chunk_by(|&row, &next| label(row) == label(next))) {
            run.iter().for_each(|&row| of_row[row as usize] = class);
            offsets.push(offsets[class as usize] + run.len() as u32);
        }
        ByClass { order, offsets, of_row }
    }

    pub(super) fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The places of a class in the order.
    pub(super) fn places(&self, class: u32) -> Range<usize> {
        self.offsets[class as usize] as usize..self.offsets[class as usize + 1] as usize
    }

    /// How many rows are of the class of a row.
    pub(super) fn rows_like(&self, row: usize) -> usize {
        self.places(self.of_row[row]).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_class_stand_together_in_their_order() {
        let classes = ByClass::new(&[7, 3, 7, 9, 3, 7]);
        assert_eq!(classes.order, [1, 4, 0, 2, 5, 3]);
        assert_eq!(classes.offsets, [0, 2, 5, 6]);
        assert_eq!(classes.of_row, [1, 0, 1, 2, 0, 1]);
        assert_eq!((classes.count(), classes.places(1)), (3, 2..5));
        assert_eq!((classes.rows_like(5), classes.rows_like(3)), (3, 1));
        let none = ByClass::new(&[]);
        assert_eq!((none.count(), none.order.len()), (0, 0));
    }
}
