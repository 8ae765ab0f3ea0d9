use super::expect_packed;
use crate::error::Result;
use crate::packing::Packing;
use crate::random::Dropout;
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// Zeroes elements at random and scales the others by `1 / (1 - probability)`. The mask is a function of the
    /// site's key and of each row's example and position, so it does not depend on the split into micro-batches.
    ///
    /// # Shapes
    /// `x [rows, columns]` packed; gives the same.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the packing has another number of rows.
    pub fn dropout(&mut self, x: &Var, dropout: Option<Dropout>, packing: &Packing) -> Result<Var> {
        let Some(dropout) = dropout else { return Ok(x.clone()) };
        expect_packed("dropout", x.value(), packing)?;
        let y = self.device().dropout(x.value(), &dropout, packing);
        let (source, packing) = (x.source(), packing.clone());
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.dropout(&dy, &dropout, &packing);
            backward.add(source, dx);
            Ok(())
        }))
    }
}
