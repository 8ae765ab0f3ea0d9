use super::expect_shape;
use crate::error::{Error, Result};
use crate::function::Similarity;
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// How alike every row of `a` is to every row of `b`. Normalisation, products and gradients are computed in `f64`.
    ///
    /// # Shapes
    /// `a [m, k]`, `b [n, k]`; gives `[m, n]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the columns differ.
    pub fn similarities(&mut self, similarity: Similarity, a: &Var, b: &Var) -> Result<Var> {
        if a.value().columns() != b.value().columns() {
            let expected = format!("b of {} columns", a.value().columns());
            return Err(Error::shape("similarities", expected, format!("{:?}", b.value().shape())));
        }
        let y = self.device().similarities(similarity, a.value(), b.value());
        let (a_source, b_source, value) = (a.source(), b.source(), y.clone());
        let (a_value, b_value) = (a.value().clone(), b.value().clone());
        Ok(self.record(&[a, b], y, move |backward, dy| {
            let (da, db) = backward.device.similarities_backward(similarity, &a_value, &b_value, &value, &dy);
            backward.add(a_source, da);
            backward.add(b_source, db);
            Ok(())
        }))
    }

    /// How alike row `i` of `a` is to row `i` of `b`.
    ///
    /// # Shapes
    /// `a`, `b [m, k]`; gives `[m]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when they differ.
    pub fn paired_similarities(&mut self, similarity: Similarity, a: &Var, b: &Var) -> Result<Var> {
        expect_shape("paired_similarities", "b", b.value(), a.value().shape())?;
        let y = self.device().paired_similarities(similarity, a.value(), b.value());
        let (a_source, b_source, value) = (a.source(), b.source(), y.clone());
        let (a_value, b_value) = (a.value().clone(), b.value().clone());
        Ok(self.record(&[a, b], y, move |backward, dy| {
            let (da, db) = backward.device.paired_similarities_backward(similarity, &a_value, &b_value, &value, &dy);
            backward.add(a_source, da);
            backward.add(b_source, db);
            Ok(())
        }))
    }
}
