//! Similarities of vectors on a GPU, in double, a block of rows at a time.

use std::ops::Range;

use super::buffer::{Buffer, Format};
use super::{Argument, Cuda, Grid, Program};
use crate::function::Similarity;
use crate::tensor::Tensor;

/// Doubles of a block of rows beside all others: 256 MB.
const BLOCK: usize = 1 << 25;
/// Rows and columns of a product that one block of threads computes.
const TILE: usize = 64;

/// How the kernels number the plain product.
const DOT: i32 = 0;

/// A similarity that is a matrix product, as the kernels know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    kind: i32,
    normalize: u32,
}

impl Rule {
    pub(super) fn of(similarity: Similarity) -> Option<Self> {
        let rule = |kind, normalize| Some(Rule { kind, normalize: u32::from(normalize) });
        match similarity {
            Similarity::Dot { normalize } => rule(DOT, normalize),
            Similarity::Euclidean { normalize, squared: false } => rule(1, normalize),
            Similarity::Euclidean { normalize, squared: true } => rule(2, normalize),
            Similarity::Measured(_) => None,
        }
    }
}

/// All rows of `a` beside all rows of `b`.
pub(super) struct Sides<'a> {
    cuda: &'a Cuda,
    rule: Rule,
    a: &'a Buffer,
    b: &'a Buffer,
    a_norms: Buffer,
    b_norms: Buffer,
    /// Rows of both, and their columns.
    extents: (usize, usize, usize),
}

/// The gradients of both sides as they are added up: weighted sums of the other side's rows, and sums of the weights.
pub(super) struct Gradients {
    weighted: (Buffer, Buffer),
    sums: (Buffer, Buffer),
}

fn doubles(cuda: &Cuda, count: usize) -> Buffer {
    Buffer::stale(&cuda.context, 8 * count)
}

impl<'a> Sides<'a> {
    pub(super) fn new(cuda: &'a Cuda, rule: Rule, a: &'a Tensor, b: &'a Tensor) -> Self {
        let norms = |x: &Tensor| {
            let norms = doubles(cuda, x.rows());
            let arguments =
                [cuda.floats(x).into(), (&norms).into(), (x.rows() as u32).into(), (x.columns() as u32).into()];
            // SAFETY: a norm for each row.
            unsafe { cuda.launch(Program::Similarity, "row_norms", Grid::warp_each(x.rows()), &arguments) };
            norms
        };
        let (a_norms, b_norms) = (norms(a), norms(b));
        let extents = (a.rows(), b.rows(), a.columns());
        Sides { cuda, rule, a: cuda.floats(a), b: cuda.floats(b), a_norms, b_norms, extents }
    }

    /// Rows of `a` that are worked on at once.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (m, n, _) = self.extents;
        let rows = (BLOCK / n.max(1)).max(TILE) / TILE * TILE;
        (0..if n == 0 { 0 } else { m }).step_by(rows).map(move |start| start..m.min(start + rows))
    }

    /// Runs a kernel that computes a product of these extents.
    fn product(&self, name: &str, (rows, columns): (usize, usize), arguments: &[Argument]) {
        let blocks = (columns.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32, 1);
        // SAFETY: the callers' matrices have these extents.
        unsafe { self.cuda.launch(Program::Similarity, name, Grid { blocks, threads: 256, shared: 0 }, arguments) };
    }

    /// Where the rows of a block of `a` and their norms begin.
    fn starts(&self, rows: &Range<usize>) -> (u64, u64) {
        (self.a.at(4 * rows.start * self.extents.2), self.a_norms.at(8 * rows.start))
    }

    /// `scale` times the similarities of a block, `[rows, n]` doubles, and as floats into `y`, the whole matrix.
    pub(super) fn values(&self, rows: &Range<usize>, scale: f64, y: Option<&Buffer>) -> Buffer {
        let (_, n, k) = self.extents;
        let values = doubles(self.cuda, rows.len() * n);
        let (a, norms) = self.starts(rows);
        let sizes = [rows.len() as u32, n as u32, k as u32].map(Argument::from);
        let operands = [a.into(), self.b.into(), (&values).into()];
        let arguments: Vec<Argument> = operands.into_iter().chain(sizes).collect();
        self.product("products", (rows.len(), n), &arguments);
        let y = y.map_or(0, |y| y.at(4 * rows.start * n));
        let rule = [self.rule.kind.into(), self.rule.normalize.into(), scale.into()];
        let operands = [a.into(), self.b.into(), norms.into(), (&self.b_norms).into(), (&values).into(), y.into()];
        let arguments: Vec<Argument> = rule.into_iter().chain(operands).chain(sizes).collect();
        self.cuda.run(Program::Similarity, "similarities", rows.len() * n, &arguments);
        values
    }

    pub(super) fn gradients(&self) -> Gradients {
        let (m, n, k) = self.extents;
        let room = |count| doubles(self.cuda, count);
        Gradients { weighted: (room(m * k), room(n * k)), sums: (room(m), room(n)) }
    }

    /// Adds what the slopes `[rows, n]` of a block give, which are used up.
    pub(super) fn add(&self, rows: &Range<usize>, slopes: &Buffer, gradients: &Gradients) {
        let (_, n, k) = self.extents;
        let (a, norms) = self.starts(rows);
        let (count, later) = (rows.len() as u32, u32::from(rows.start > 0));
        let (weighted, sums) = (&gradients.weighted, &gradients.sums);
        let program = Program::Similarity;
        if self.rule.kind != DOT {
            let arguments = [slopes.into(), (&sums.1).into(), count.into(), (n as u32).into(), later.into()];
            // SAFETY: a sum for each column.
            unsafe { self.cuda.launch(program, "slope_column_sums", Grid::new(n.div_ceil(32), 256), &arguments) };
        }
        let normalize = self.rule.normalize.into();
        let own = sums.0.at(8 * rows.start).into();
        let arguments = [norms.into(), (&self.b_norms).into(), normalize, slopes.into(), own, (n as u32).into()];
        // SAFETY: a block and a sum for each row.
        unsafe { self.cuda.launch(program, "slope_row_sums", Grid::new(rows.len(), 256), &arguments) };
        let sizes = [count, n as u32, k as u32].map(Argument::from);
        let to = weighted.0.at(8 * rows.start * k);
        let arguments: Vec<Argument> = [slopes.into(), self.b.into(), to.into()].into_iter().chain(sizes).collect();
        self.product("weighted_rows", (rows.len(), k), &arguments);
        let operands = [slopes.into(), a.into(), (&weighted.1).into()];
        let arguments: Vec<Argument> = operands.into_iter().chain(sizes).chain([later.into()]).collect();
        self.product("weighted_columns", (n, k), &arguments);
    }

    /// The gradients of both sides.
    pub(super) fn finish(&self, gradients: &Gradients, shapes: (&[usize], &[usize])) -> (Tensor, Tensor) {
        let (m, n, k) = self.extents;
        let side = |x: &Buffer, norms: &Buffer, weighted: &Buffer, sums: &Buffer, rows: usize, shape: &[usize]| {
            let dx = self.cuda.stale(rows * k, Format::Float);
            if m * n == 0 {
                dx.clear();
                return self.cuda.tensor(dx, Format::Float, shape);
            }
            let rule = [self.rule.kind.into(), self.rule.normalize.into()];
            let numbers = [x.into(), norms.into(), weighted.into(), sums.into(), (&dx).into()];
            let sizes = [rows as u32, k as u32].map(Argument::from);
            let arguments: Vec<Argument> = rule.into_iter().chain(numbers).chain(sizes).collect();
            // SAFETY: a warp for each row of the extents.
            unsafe {
                let grid = Grid::warp_each(rows);
                self.cuda.launch(Program::Similarity, "similarity_gradient", grid, &arguments);
            }
            self.cuda.tensor(dx, Format::Float, shape)
        };
        let (weighted, sums) = (&gradients.weighted, &gradients.sums);
        let da = side(self.a, &self.a_norms, &weighted.0, &sums.0, m, shapes.0);
        (da, side(self.b, &self.b_norms, &weighted.1, &sums.1, n, shapes.1))
    }
}

impl Cuda {
    pub(super) fn similarity_matrix(&self, rule: Rule, a: &Tensor, b: &Tensor) -> Tensor {
        let sides = Sides::new(self, rule, a, b);
        let y = self.stale(a.rows() * b.rows(), Format::Float);
        sides.blocks().for_each(|rows| drop(sides.values(&rows, 1.0, Some(&y))));
        self.tensor(y, Format::Float, &[a.rows(), b.rows()])
    }

    pub(super) fn similarity_matrix_backward(
        &self,
        rule: Rule,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        let sides = Sides::new(self, rule, a, b);
        let (gradients, n) = (sides.gradients(), b.rows());
        let (y, dy) = (self.floats(y), self.floats(dy));
        for rows in sides.blocks() {
            let count = rows.len() * n;
            let slopes = doubles(self, count);
            let at = 4 * rows.start * n;
            let arguments = [rule.kind.into(), y.at(at).into(), dy.at(at).into(), (&slopes).into(), count.into()];
            self.run(Program::Similarity, "similarity_slopes", count, &arguments);
            sides.add(&rows, &slopes, &gradients);
        }
        sides.finish(&gradients, (a.shape(), b.shape()))
    }

    pub(super) fn similarity_pairs(&self, rule: Rule, a: &Tensor, b: &Tensor) -> Tensor {
        let (sides, y) = (Sides::new(self, rule, a, b), self.stale(a.rows(), Format::Float));
        self.of_pairs(&sides, "paired_similarities", &[(&y).into()]);
        self.tensor(y, Format::Float, &[a.rows()])
    }

    pub(super) fn similarity_pairs_backward(
        &self,
        rule: Rule,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        let sides = Sides::new(self, rule, a, b);
        let (da, db) = (self.stale(a.len(), Format::Float), self.stale(b.len(), Format::Float));
        let gradients = [self.floats(y).into(), self.floats(dy).into(), (&da).into(), (&db).into()];
        self.of_pairs(&sides, "paired_similarities_backward", &gradients);
        (self.tensor(da, Format::Float, a.shape()), self.tensor(db, Format::Float, b.shape()))
    }

    /// Runs a kernel with a warp for each pair of rows.
    fn of_pairs(&self, sides: &Sides<'_>, name: &str, rest: &[Argument]) {
        let rule = [sides.rule.kind.into(), sides.rule.normalize.into()];
        let operands = [sides.a.into(), sides.b.into(), (&sides.a_norms).into(), (&sides.b_norms).into()];
        let sizes = [sides.extents.0 as u32, sides.extents.2 as u32].map(Argument::from);
        let arguments: Vec<Argument> =
            rule.into_iter().chain(operands).chain(rest.iter().copied()).chain(sizes).collect();
        // SAFETY: the callers' blocks hold a number, or a row, for each pair.
        unsafe { self.launch(Program::Similarity, name, Grid::warp_each(sides.extents.0), &arguments) };
    }
}
