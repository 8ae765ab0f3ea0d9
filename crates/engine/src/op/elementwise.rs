use crate::error::{Error, Result};
use crate::function::{Binary, Unary};
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// An elementwise function of one number.
    ///
    /// # Shapes
    /// Any; gives the same.
    pub fn unary(&mut self, function: Unary, x: &Var) -> Result<Var> {
        let y = self.device().unary(function, x.value());
        let (source, value) = (x.source(), x.value().clone());
        Ok(self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.unary_backward(function, &value, &dy);
            backward.add(source, dx);
            Ok(())
        }))
    }

    /// `scale x + shift`
    pub fn affine(&mut self, x: &Var, scale: f64, shift: f64) -> Result<Var> {
        self.unary(Unary::Affine { scale, shift }, x)
    }

    /// An elementwise function of two numbers; `b` is repeated to the shape of `a`.
    ///
    /// # Shapes
    /// `a` any, seen as `[rows, columns]`; `b` the same shape, one element, a row `[1, columns]` or a column `[rows]`.
    /// Gives the shape of `a`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `b` is none of these.
    pub fn binary(&mut self, function: Binary, a: &Var, b: &Var) -> Result<Var> {
        let (rows, columns, shape) = (a.value().rows(), a.value().columns(), b.value().shape());
        if shape != a.value().shape() && b.value().len() != 1 && shape != [1, columns] && shape != [rows] {
            let expected = format!("b of shape {:?}, [1], [1, {columns}] or [{rows}]", a.value().shape());
            return Err(Error::shape("binary", expected, format!("{shape:?}")));
        }
        let y = self.device().binary(function, a.value(), b.value());
        let (a_source, b_source) = (a.source(), b.source());
        let (a_value, b_value) = (a.value().clone(), b.value().clone());
        Ok(self.record(&[a, b], y, move |backward, dy| {
            let (da, db) = backward.device.binary_backward(function, &a_value, &b_value, &dy);
            backward.add(a_source, da);
            backward.add(b_source, db);
            Ok(())
        }))
    }

    /// `a + b`, with `b` repeated as in [`Tape::binary`].
    pub fn add(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.binary(Binary::Add, a, b)
    }

    /// `a - b`, with `b` repeated as in [`Tape::binary`].
    pub fn subtract(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.binary(Binary::Subtract, a, b)
    }

    /// `a b` element by element, with `b` repeated as in [`Tape::binary`].
    pub fn multiply(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.binary(Binary::Multiply, a, b)
    }

    /// `a / b` element by element, with `b` repeated as in [`Tape::binary`].
    pub fn divide(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.binary(Binary::Divide, a, b)
    }
}
