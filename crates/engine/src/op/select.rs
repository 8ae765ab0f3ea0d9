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
        let mut y = Tensor::stale(&[range.len(), columns]);
        self.device().copy_block(x.value(), [range.start, 0], &mut y, [0, 0], [range.len(), columns]);
        let (source, shape) = (x.source(), x.value().shape().to_vec());
        Ok(self.record(&[x], y, move |backward, dy| {
            let extent = [range.len(), columns];
            let dx = backward.device.placed_block(&dy, [0, 0], &shape, [range.start, 0], extent);
            backward.add(source, dx);
            Ok(())
        }))
    }

    /// Rows and columns exchanged.
    ///
    /// # Shapes
    /// `x [rows, columns]`; gives `[columns, rows]`.
    ///
    /// # Errors
    /// None at present.
    pub fn transpose(&mut self, x: &Var) -> Result<Var> {
        let y = self.device().transpose(x.value());
        let source = x.source();
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.transpose(&dy);
            backward.add(source, dx);
            Ok(())
        }))
    }

    /// Consecutive columns.
    ///
    /// # Shapes
    /// `x [rows, columns]`; gives `[rows, range]`.
    ///
    /// # Errors
    /// [`Error::Index`] when the range ends outside the matrix.
    pub fn column_range(&mut self, x: &Var, range: Range<usize>) -> Result<Var> {
        let (rows, columns) = (x.value().rows(), x.value().columns());
        if range.end > columns || range.start > range.end {
            let (index, position) = (range.end, range.start);
            return Err(Error::Index { operation: "column_range", index, position, limit: columns });
        }
        let mut y = Tensor::stale(&[rows, range.len()]);
        self.device().copy_block(x.value(), [0, range.start], &mut y, [0, 0], [rows, range.len()]);
        let (source, shape) = (x.source(), x.value().shape().to_vec());
        Ok(self.record(&[x], y, move |backward, dy| {
            let extent = [rows, range.len()];
            let dx = backward.device.placed_block(&dy, [0, 0], &shape, [0, range.start], extent);
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
        self.concatenate("side_by_side", parts, 1)
    }

    /// Matrices one below the other.
    ///
    /// # Shapes
    /// `[rows_1, columns]`, `[rows_2, columns]` …; gives `[rows_1 + rows_2 + …, columns]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the columns differ.
    pub fn stacked(&mut self, parts: &[&Var]) -> Result<Var> {
        self.concatenate("stacked", parts, 0)
    }

    /// Lays parts along an axis: 0 downwards, 1 to the right.
    fn concatenate(&mut self, operation: &'static str, parts: &[&Var], axis: usize) -> Result<Var> {
        let extent = |part: &Var| [part.value().rows(), part.value().columns()];
        let mut shape = parts.first().map_or([0, 0], |part| extent(part));
        shape[axis] = 0;
        let mut places = Vec::new();
        for part in parts {
            let extent = extent(part);
            if extent[1 - axis] != shape[1 - axis] {
                let expected = format!("{} {}", shape[1 - axis], ["columns", "rows"][axis]);
                return Err(Error::shape(operation, expected, format!("{:?}", part.value().shape())));
            }
            let mut corner = [0, 0];
            corner[axis] = shape[axis];
            shape[axis] += extent[axis];
            places.push((part.source(), part.value().shape().to_vec(), corner, extent));
        }
        // The parts cover all of it.
        let mut y = Tensor::stale(&shape);
        for (part, (_, _, corner, extent)) in parts.iter().zip(&places) {
            self.device().copy_block(part.value(), [0, 0], &mut y, *corner, *extent);
        }
        Ok(self.record(parts, y, move |backward, dy| {
            for (source, shape, corner, extent) in places {
                let mut dx = Tensor::stale(&shape);
                backward.device.copy_block(&dy, corner, &mut dx, [0, 0], extent);
                backward.add(source, dx);
            }
            Ok(())
        }))
    }
}
