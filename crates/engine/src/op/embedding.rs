use std::sync::Arc;

use super::{expect_columns, expect_indices};
use crate::error::{Error, Result};
use crate::tape::{Source, Tape, Var};
use crate::tensor::Tensor;

impl Tape<'_> {
    /// The sum of one entry of each table per row: word, position and type embeddings in one pass.
    ///
    /// ```text
    /// y[r] = sum over tables of table[ids[r]]
    /// ```
    ///
    /// # Shapes
    /// Tables `[entries, columns]`, ids `[rows]` each; gives `[rows, columns]`.
    ///
    /// # Errors
    /// [`Error::Index`] for an id outside its table, [`Error::Shape`] when tables or lists of ids do not fit.
    pub fn embedding_sum(&mut self, tables: &[(&Var, Arc<[u32]>)]) -> Result<Var> {
        let Some((first, ids)) = tables.first() else {
            return Err(Error::shape("embedding", "at least one table", "none"));
        };
        let (columns, rows) = (first.value().columns(), ids.len());
        expect_columns("embedding", "a table", first.value())?;
        for (table, ids) in tables {
            if table.value().columns() != columns || ids.len() != rows {
                let got = format!("{} ids into {:?}", ids.len(), table.value().shape());
                return Err(Error::shape("embedding", format!("{rows} ids into tables of {columns} columns"), got));
            }
            expect_indices("embedding", ids, table.value().rows())?;
        }
        let values: Vec<_> = tables.iter().map(|(table, ids)| (table.value(), &ids[..])).collect();
        let y = self.device().embedding_sum(&values, columns);
        let saved: Vec<_> =
            tables.iter().map(|(table, ids)| (table.source(), table.value().shape().to_vec(), ids.clone())).collect();
        let tracked: Vec<&Var> = tables.iter().map(|(table, _)| *table).collect();
        Ok(self.record(&tracked, y, move |backward, dy| {
            for (source, shape, ids) in saved {
                backward.write(source, &shape, |device, dtable, accumulate| {
                    // Of a table's entries few are read: the others' gradients take no memory.
                    if matches!(source, Source::Parameter(_)) && !dtable.is_written() {
                        *dtable = Tensor::vacant(&shape);
                    }
                    device.embedding_backward(&ids, &dy, dtable, accumulate);
                });
            }
            Ok(())
        }))
    }

    /// Rows of a table or matrix by index; an index may occur several times.
    ///
    /// # Shapes
    /// `x [entries, columns]`, `indices [rows]`; gives `[rows, columns]`.
    ///
    /// # Errors
    /// [`Error::Index`] for an index outside the table.
    pub fn rows(&mut self, x: &Var, indices: Arc<[u32]>) -> Result<Var> {
        self.embedding_sum(&[(x, indices)])
    }
}
