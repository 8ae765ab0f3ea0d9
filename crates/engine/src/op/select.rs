use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

impl Tape<'_> {
    /// Elements of a matrix by row and column; one may occur several times.
    ///
    /// # Shapes
    /// `x [rows, columns]`; gives `[indices]`.
    ///
    /// # Errors
    /// [`Error::Index`] for an index outside the matrix.
    pub fn gather(&mut self, x: &Var, indices: Arc<[[u32; 2]]>) -> Result<Var> {
        let limits = [x.value().rows(), x.value().columns()];
        for (position, pair) in indices.iter().enumerate() {
            for (&index, limit) in pair.iter().zip(limits) {
                if index as usize >= limit {
                    return Err(Error::Index { operation: "gather", index: index as usize, position, limit });
                }
            }
        }
        let y = self.device().gather(x.value(), &indices);
        let (source, shape) = (x.source(), x.value().shape().to_vec());
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.gather_backward(&indices, &dy, &shape);
            backward.add(source, dx);
            Ok(())
        }))
    }

    /// The elements `x[i, i]`.
    ///
    /// # Shapes
    /// `x [rows, columns]`; gives `[min(rows, columns)]`.
    pub fn diagonal(&mut self, x: &Var) -> Result<Var> {
        let count = x.value().rows().min(x.value().columns()) as u32;
        self.gather(x, (0..count).map(|i| [i, i]).collect())
    }

    /// Consecutive rows.
    ///
    /// # Shapes
    /// `x [rows, columns]`; gives `[range, columns]`.
    ///
    /// # Errors
    /// [`Error::Index`] when the range ends outside the matrix.
    pub fn row_range(&mut self, x: &Var, range: Range<usize>) -> Result<Var> {
        let (rows, columns) = (x.value().rows(), x.value().columns());
        if range.end > rows || range.start > range.end {
            return Err(Error::Index { operation: "row_range", index: range.end, position: range.start, limit: rows });
        }
        let mut y = Tensor::zeros(&[range.len(), columns]);
        self.device().copy_block(x.value(), [range.start, 0], &mut y, [0, 0], [range.len(), columns]);
        let (source, shape) = (x.source(), x.value().shape().to_vec());
        Ok(self.record(&[x], y, move |backward, dy| {
            let mut dx = Tensor::zeros(&shape);
            backward.device.copy_block(&dy, [0, 0], &mut dx, [range.start, 0], [range.len(), columns]);
            backward.add(source, dx);
            Ok(())
        }))
    }

    /// Matrices side by side.
    ///
    /// # Shapes
    /// `[rows, columns_1]`, `[rows, columns_2]` …; gives `[rows, columns_1 + columns_2 + …]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the rows differ.
    pub fn side_by_side(&mut self, parts: &[&Var]) -> Result<Var> {
        let rows = parts.first().map_or(0, |part| part.value().rows());
        self.concatenate(parts, rows, |shape| (shape.0 == rows).then_some([0, shape.1]), "side_by_side")
    }

    /// Matrices one below the other.
    ///
    /// # Shapes
    /// `[rows_1, columns]`, `[rows_2, columns]` …; gives `[rows_1 + rows_2 + …, columns]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the columns differ.
    pub fn stacked(&mut self, parts: &[&Var]) -> Result<Var> {
        let columns = parts.first().map_or(0, |part| part.value().columns());
        self.concatenate(parts, columns, |shape| (shape.1 == columns).then_some([shape.0, 0]), "stacked")
    }

    /// Lays parts along the axis in which `step` says how far a part of a shape reaches; it refuses other shapes.
    fn concatenate(
        &mut self,
        parts: &[&Var],
        across: usize,
        step: impl Fn((usize, usize)) -> Option<[usize; 2]>,
        operation: &'static str,
    ) -> Result<Var> {
        let mut corner = [0, 0];
        let mut places = Vec::new();
        for part in parts {
            let (rows, columns) = (part.value().rows(), part.value().columns());
            let Some(reach) = step((rows, columns)) else {
                let expected = format!("parts of {across} across");
                return Err(Error::shape(operation, expected, format!("{:?}", part.value().shape())));
            };
            places.push((part.source(), part.value().shape().to_vec(), corner, [rows, columns]));
            corner = [corner[0] + reach[0], corner[1] + reach[1]];
        }
        let shape = if corner[0] == 0 { [across, corner[1]] } else { [corner[0], across] };
        let mut y = Tensor::zeros(&shape);
        for (part, (_, _, corner, extent)) in parts.iter().zip(&places) {
            self.device().copy_block(part.value(), [0, 0], &mut y, *corner, *extent);
        }
        Ok(self.record(parts, y, move |backward, dy| {
            for (source, shape, corner, extent) in places {
                let mut dx = Tensor::zeros(&shape);
                backward.device.copy_block(&dy, corner, &mut dx, [0, 0], extent);
                backward.add(source, dx);
            }
            Ok(())
        }))
    }
}
