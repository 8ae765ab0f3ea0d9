//! The part of a [`crate::Device`] that objectives need: a few generic kernels over small matrices, and the functions
//! that they are parameterised by.
//!
//! Values are `f32`; every kernel computes and accumulates in `f64` and rounds once, so that objectives agree with
//! references in double precision.

use crate::tensor::Tensor;

/// An elementwise function of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Unary {
    /// `scale x + shift`
    Affine {
        /// Factor.
        scale: f64,
        /// Summand.
        shift: f64,
    },
    /// `max(x, 0)`, the hinge; derivative 0 at 0.
    Relu,
    /// `e^x`
    Exp,
    /// `ln x`
    Ln,
    /// `sqrt(max(x, 0))`; derivative 0 at 0 and below, so that equal vectors give no NaN.
    Sqrt,
    /// `x^2`
    Square,
    /// `|x|`, derivative 0 at 0.
    Abs,
    /// `ln(1 + e^(scale x))`, without overflow; 0 with derivative 0 at minus infinity.
    Softplus {
        /// Factor inside the exponential.
        scale: f64,
    },
    /// 1 where `low < x < high`, else 0; derivative 0.
    Within {
        /// Lower bound, excluded.
        low: f64,
        /// Upper bound, excluded.
        high: f64,
    },
}

/// An elementwise function of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Subtract,
    /// `a b`
    Multiply,
    /// `a / b`
    Divide,
    /// The larger; on a tie each gets half of the gradient.
    Maximum,
    /// The smaller; on a tie each gets half of the gradient.
    Minimum,
}

/// How alike or how far apart two vectors are. The first two are matrix products; the last one takes longer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Similarity {
    /// `a . b`; on rows divided by `max(norm, 1e-12)` first if normalised, which is the cosine.
    Dot {
        /// Divide the rows by their Euclidean norm first.
        normalize: bool,
    },
    /// `norm(a - b)`, gradient 0 between equal vectors; or its square.
    Euclidean {
        /// Divide the rows by their Euclidean norm first.
        normalize: bool,
        /// The squared distance.
        squared: bool,
    },
    /// Any other, pair by pair.
    Measured(Measure),
}

/// A similarity that is no plain matrix product: `kind(a, b)^power` of rows that may be normalised first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// What is measured.
    pub kind: MeasureKind,
    /// The `p` of the norm that rows are divided by first, `max(norm_p, 1e-12)`; `None` leaves them as they are.
    pub normalize: Option<f64>,
    /// The power of the value; the gradient at value 0 is 0 for powers below 1.
    pub power: f64,
}

/// What a [`Measure`] measures.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum MeasureKind {
    /// `a . b`
    Dot,
    /// `(sum |a - b|^p)^(1/p)`, the largest difference for infinite `p`; gradient 0 between equal vectors.
    Lp {
        /// Greater than 0, or infinite.
        p: f64,
    },
    /// `var(a - b) / var(a)`, both unbiased and over the columns: how loud the difference is beside the first vector.
    SignalToNoise,
}

impl Similarity {
    /// The `p` of the norm that rows are divided by first, if any.
    pub fn norm(self) -> Option<f64> {
        match self {
            Similarity::Dot { normalize } | Similarity::Euclidean { normalize, .. } => normalize.then_some(2.0),
            Similarity::Measured(measure) => measure.normalize,
        }
    }
}

/// A function of each row of a matrix of similarities that is never held as a whole: how a loss sees an anchor and all
/// that it is compared with. It runs on the processor, whatever the device.
pub trait RowFunction: Send + Sync {
    /// The value of row `row` and how many terms it is made of, which has no gradient. Where `gradient` is given, adds
    /// the derivative of the value by each `x` to it.
    fn row(&self, row: usize, x: &[f64], gradient: Option<&mut [f64]>) -> (f64, f64);
}

/// A function of each row of a matrix that looks at other rows, too. It runs on the processor, whatever the device.
pub trait MatrixFunction: Send + Sync {
    /// The value of row `row` and how many terms it is made of, which has no gradient.
    fn row(&self, row: usize, x: &Tensor) -> (f64, f64);

    /// Adds to `gradient` the derivative, by each element of row `row`, of the values of all rows times `dy`.
    fn gradient(&self, row: usize, x: &Tensor, dy: &[f32], gradient: &mut [f64]);
}

/// What one triplet of an anchor, a positive and a negative adds, with `v = d_ap - d_an + margin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TripletShape {
    /// `max(v, 0)`
    Hinge,
    /// `ln(1 + e^v)`
    Softplus,
    /// `v` itself: the gradient counts in how many triplets each pair takes part.
    Linear,
}

/// Which triplets of a distance matrix count, and what each adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TripletRule {
    /// A triplet is mined if `low < d_an - d_ap <= high` in the mining distances.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Margin of the loss.
    pub margin: f64,
    /// Shape of the loss.
    pub shape: TripletShape,
    /// Use `min(d_an, d_pn)` in place of `d_an` in the loss; needs a square matrix.
    pub swap: bool,
    /// A mined triplet counts if its loss lies strictly between these.
    pub above: f64,
    /// See `above`.
    pub below: f64,
}

impl TripletRule {
    /// All triplets with `low < d_an - d_ap <= high`, without margin or swap, each counting whatever its loss.
    pub fn mined(low: f64, high: f64, shape: TripletShape) -> Self {
        TripletRule { low, high, margin: 0.0, shape, swap: false, above: f64::NEG_INFINITY, below: f64::INFINITY }
    }
}

/// The kernels of objectives. Shapes are checked by the operations.
pub trait Functions {
    /// `function(x)`, element by element.
    fn unary(&self, function: Unary, x: &Tensor) -> Tensor;

    /// `dy * function'(x)`.
    fn unary_backward(&self, function: Unary, x: &Tensor, dy: &Tensor) -> Tensor;

    /// `function(a, b)`, element by element; `b` has the shape of `a` or is repeated to it: one element, a row
    /// `[1, columns]`, or a column `[rows]`.
    fn binary(&self, function: Binary, a: &Tensor, b: &Tensor) -> Tensor;

    /// The gradients of `a` and of `b`, summed over the repetitions.
    fn binary_backward(&self, function: Binary, a: &Tensor, b: &Tensor, dy: &Tensor) -> (Tensor, Tensor);

    /// `y[r] = sum_c weights[r, c] x[r, c]`; elements of weight 0 are not read.
    fn row_sums(&self, x: &Tensor, weights: Option<&Tensor>) -> Tensor;

    /// `dx[r, c] = weights[r, c] dy[r]`.
    fn row_sums_backward(&self, weights: Option<&Tensor>, dy: &Tensor, shape: &[usize]) -> Tensor;

    /// `y[r] = ln sum_c weights[r, c] exp(scale x[r, c]) - scale sum_c targets[r, c] x[r, c]`, weights not negative; minus
    /// infinity where all weights are 0.
    fn log_sum_exp(&self, x: &Tensor, weights: Option<&Tensor>, targets: Option<&Tensor>, scale: f64) -> Tensor;

    /// The gradient of `x`; 0 in rows whose weights are all 0.
    fn log_sum_exp_backward(
        &self,
        x: &Tensor,
        weights: Option<&Tensor>,
        targets: Option<&Tensor>,
        scale: f64,
        dy: &Tensor,
    ) -> Tensor;

    /// `y[i] = x[row, column]` of the i-th index pair.
    fn gather(&self, x: &Tensor, indices: &[[u32; 2]]) -> Tensor;

    /// `dx[row, column] += dy[i]` into zeros.
    fn gather_backward(&self, indices: &[[u32; 2]], dy: &Tensor, shape: &[usize]) -> Tensor;

    /// Copies the block `[rows, columns]` of `from` at `from_corner` to `to_corner` of `to`.
    fn copy_block(
        &self,
        from: &Tensor,
        from_corner: [usize; 2],
        to: &mut Tensor,
        to_corner: [usize; 2],
        extent: [usize; 2],
    );

    /// Zeros of a shape, and in them the block that [`Functions::copy_block`] copies.
    fn placed_block(
        &self,
        from: &Tensor,
        from_corner: [usize; 2],
        shape: &[usize],
        to_corner: [usize; 2],
        extent: [usize; 2],
    ) -> Tensor {
        let mut to = Tensor::zeros(shape);
        self.copy_block(from, from_corner, &mut to, to_corner, extent);
        to
    }

    /// `out[r, first + c] += scale x[r, c]`, for all columns of `x`.
    fn add_columns(&self, x: &Tensor, scale: f32, out: &mut Tensor, first: usize);

    /// `y[i, j]` of every row of `a` with every row of `b`.
    fn similarities(&self, similarity: Similarity, a: &Tensor, b: &Tensor) -> Tensor;

    /// The gradients of `a` and `b`, given also the values `y`.
    fn similarities_backward(
        &self,
        similarity: Similarity,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor);

    /// `y[i]` of row `i` of `a` with row `i` of `b`.
    fn paired_similarities(&self, similarity: Similarity, a: &Tensor, b: &Tensor) -> Tensor;

    /// The gradients of `a` and `b`, given also the values `y`.
    fn paired_similarities_backward(
        &self,
        similarity: Similarity,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor);

    /// For each anchor the sum of its triplets' losses and how many count: `distances`, `positives` and `negatives`
    /// `[anchors, candidates]`, the latter two nonzero where a pair is one. Mined by `mining` in place of `distances`
    /// where given.
    fn triplets(
        &self,
        rule: &TripletRule,
        distances: &Tensor,
        mining: Option<&Tensor>,
        positives: &Tensor,
        negatives: &Tensor,
    ) -> (Tensor, Tensor);

    /// The gradient of the distances from that of the sums.
    fn triplets_backward(
        &self,
        rule: &TripletRule,
        distances: &Tensor,
        mining: Option<&Tensor>,
        positives: &Tensor,
        negatives: &Tensor,
        dy: &Tensor,
    ) -> Tensor;

    /// Rows and columns exchanged.
    fn transpose(&self, x: &Tensor) -> Tensor;

    /// The value and the number of terms of each row of `scale similarities(a, b)`, without holding that matrix.
    fn similarity_rows(
        &self,
        similarity: Similarity,
        scale: f64,
        a: &Tensor,
        b: &Tensor,
        function: &dyn RowFunction,
    ) -> (Tensor, Tensor);

    /// The gradients of `a` and `b` from that of the values.
    fn similarity_rows_backward(
        &self,
        similarity: Similarity,
        scale: f64,
        a: &Tensor,
        b: &Tensor,
        function: &dyn RowFunction,
        dy: &Tensor,
    ) -> (Tensor, Tensor);

    /// The value and the number of terms of each row.
    fn matrix_rows(&self, x: &Tensor, function: &dyn MatrixFunction) -> (Tensor, Tensor);

    /// The gradient of `x` from that of the values.
    fn matrix_rows_backward(&self, x: &Tensor, function: &dyn MatrixFunction, dy: &Tensor) -> Tensor;

    /// The inverse of a square matrix; not finite where there is none.
    fn inverse(&self, x: &Tensor) -> Tensor;

    /// `dx = -y^T dy y^T`, given also the inverse `y`.
    fn inverse_backward(&self, y: &Tensor, dy: &Tensor) -> Tensor;

    /// `ln(1 + sum over i, j with targets[i] < targets[j] of exp(scale (x[i] - x[j])))`, one number; and its gradient.
    fn ranked_pairs(&self, x: &Tensor, targets: &[f32], scale: f64) -> (Tensor, Tensor);
}
