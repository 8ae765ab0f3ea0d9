//! The kernels of objectives on a GPU. What only rare losses ask for is computed by the processor.

use super::buffer::{Buffer, Format};
use super::{Argument, Cuda, Grid, Program, similarity};
use crate::cpu::Cpu;
use crate::device::Device;
use crate::function::{Binary, Functions, MatrixFunction, RowFunction, Similarity, TripletRule, Unary};
use crate::tensor::Tensor;

/// Elements of a sum that one block adds, where there are more than enough of them.
const PART: usize = 1 << 15;

/// The number by which the kernels know a function, and its numbers.
fn unary_kind(function: Unary) -> (i32, f64, f64) {
    match function {
        Unary::Affine { scale, shift } => (0, scale, shift),
        Unary::Relu => (1, 0.0, 0.0),
        Unary::Exp => (2, 0.0, 0.0),
        Unary::Ln => (3, 0.0, 0.0),
        Unary::Sqrt => (4, 0.0, 0.0),
        Unary::Square => (5, 0.0, 0.0),
        Unary::Abs => (6, 0.0, 0.0),
        Unary::Softplus { scale } => (7, scale, 0.0),
        Unary::Within { low, high } => (8, low, high),
    }
}

/// How the second operand of a binary function is repeated, as the kernels number it.
fn repeat(a: &Tensor, b: &Tensor) -> i32 {
    match () {
        () if a.shape() == b.shape() => 0,
        () if b.len() == 1 => 1,
        () if b.shape() == [1, a.columns()] => 2,
        () => 3,
    }
}

impl Cuda {
    /// Runs a kernel over floats with a thread for each of `count` things.
    pub(super) fn run(&self, program: Program, name: &str, count: usize, arguments: &[Argument]) {
        // SAFETY: the callers' blocks have the lengths that the kernel expects.
        unsafe { self.launch(program, name, Grid::one_each(count), arguments) };
    }

    /// `[parts, count]` doubles as `[count]` floats.
    fn summed(&self, parts: &Buffer, rows: usize, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        let y = self.stale(count, Format::Float);
        let arguments = [parts.into(), (&y).into(), (rows as u32).into(), count.into()];
        self.run(Program::Function, "sum_parts", count, &arguments);
        self.tensor(y, Format::Float, shape)
    }

    /// A tensor of floats, all written by a kernel with a thread for each element.
    fn each(&self, name: &str, shape: &[usize], arguments: impl FnOnce(&Buffer, usize) -> Vec<Argument>) -> Tensor {
        let count = shape.iter().product();
        let y = self.stale(count, Format::Float);
        self.run(Program::Function, name, count, &arguments(&y, count));
        self.tensor(y, Format::Float, shape)
    }

    fn floats_of<'t>(&'t self, tensor: Option<&'t Tensor>) -> Option<&'t Buffer> {
        tensor.map(|tensor| self.floats(tensor))
    }

    /// Runs [`Functions::copy_block`]'s kernel.
    fn copy(&self, format: Format, from: (&Tensor, [usize; 2]), to: (&Buffer, usize, [usize; 2]), extent: [usize; 2]) {
        let [rows, width] = extent;
        let address = |buffer: &Buffer, corner: [usize; 2], columns: usize| {
            buffer.at((corner[0] * columns + corner[1]) * format.bytes())
        };
        let (from, from_corner) = from;
        let (to, to_columns, to_corner) = to;
        if rows * width == 0 {
            return;
        }
        let arguments = [
            address(self.numbers(from, format), from_corner, from.columns()).into(),
            from.columns().into(),
            address(to, to_corner, to_columns).into(),
            to_columns.into(),
            (width as u32).into(),
            (rows * width).into(),
        ];
        // SAFETY: the block lies in both matrices.
        unsafe {
            self.launch_for(Program::Function, "copy_block", format, Grid::one_each(rows * width), &arguments);
        }
    }
}

/// Threads of a block that works on a row.
fn row_threads(columns: usize) -> usize {
    if columns <= 128 { 32 } else { 256 }
}

impl Functions for Cuda {
    fn unary(&self, function: Unary, x: &Tensor) -> Tensor {
        let (kind, p, q) = unary_kind(function);
        let x_of = self.floats(x);
        self.each("unary", x.shape(), |y, n| vec![kind.into(), p.into(), q.into(), x_of.into(), y.into(), n.into()])
    }

    fn unary_backward(&self, function: Unary, x: &Tensor, dy: &Tensor) -> Tensor {
        let (kind, p, _) = unary_kind(function);
        let (x_of, dy) = (self.floats(x), self.floats(dy));
        self.each("unary_backward", x.shape(), |dx, n| {
            vec![kind.into(), p.into(), x_of.into(), dy.into(), dx.into(), n.into()]
        })
    }

    fn binary(&self, function: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        if function == Binary::Add && a.shape() == b.shape() {
            let mut y = a.clone();
            self.add_assign(&mut y, b);
            return y;
        }
        let (kind, repeat, columns) = (function as i32, repeat(a, b), a.columns() as u32);
        let (a_of, b_of) = (self.floats(a), self.floats(b));
        self.each("binary", a.shape(), |y, n| {
            vec![kind.into(), repeat.into(), a_of.into(), b_of.into(), y.into(), columns.into(), n.into()]
        })
    }

    fn binary_backward(&self, function: Binary, a: &Tensor, b: &Tensor, dy: &Tensor) -> (Tensor, Tensor) {
        if function == Binary::Add && a.shape() == b.shape() {
            return (dy.clone(), dy.clone());
        }
        let (kind, repeat, len, columns) = (function as i32, repeat(a, b), a.len(), a.columns());
        let (a_of, b_of, dy_of) = (self.floats(a), self.floats(b), self.floats(dy));
        let whole = (repeat == 0).then(|| self.stale(b.len(), Format::Float));
        let da = self.each("binary_backward", a.shape(), |da, n| {
            let arguments = [kind.into(), repeat.into(), a_of.into(), b_of.into(), dy_of.into(), da.into()];
            arguments.into_iter().chain([whole.as_ref().into(), (columns as u32).into(), n.into()]).collect()
        });
        if let Some(db) = whole {
            return (da, self.tensor(db, Format::Float, b.shape()));
        }
        // Elements that each one of `b` was repeated to, blocks that stand side by side, and parts of the sum.
        let (count, blocks, least) = match repeat {
            1 => (len, 1, PART),
            2 => (a.rows(), b.len().div_ceil(32), 256),
            _ => (columns, b.len(), PART),
        };
        let each = least.max(count.div_ceil(256));
        let parts = count.div_ceil(each).max(1);
        let sums = Buffer::stale(&self.context, 8 * parts * b.len());
        let grid = Grid { blocks: (blocks as u32, parts as u32, 1), threads: 256, shared: 0 };
        let numbers = [kind.into(), repeat.into(), a_of.into(), b_of.into(), dy_of.into(), (&sums).into()];
        let sizes = [(columns as u32).into(), count.into(), each.into(), (b.len() as u32).into()];
        let arguments: Vec<Argument> = numbers.into_iter().chain(sizes).collect();
        // SAFETY: `sums` is `[parts, elements of b]`.
        unsafe { self.launch(Program::Function, "binary_backward_sums", grid, &arguments) };
        (da, self.summed(&sums, parts, b.shape()))
    }

    fn row_sums(&self, x: &Tensor, weights: Option<&Tensor>) -> Tensor {
        let (rows, columns) = (x.rows(), x.columns());
        let each = PART.max(columns.div_ceil(256));
        let parts = columns.div_ceil(each).max(1);
        let sums = Buffer::stale(&self.context, 8 * parts * rows);
        let grid = Grid { blocks: (rows as u32, parts as u32, 1), threads: row_threads(columns) as u32, shared: 0 };
        let arguments =
            [self.floats(x).into(), self.floats_of(weights).into(), (&sums).into(), columns.into(), each.into()];
        // SAFETY: `sums` is `[parts, rows]`.
        unsafe { self.launch(Program::Function, "row_sums", grid, &arguments) };
        self.summed(&sums, parts, &[rows])
    }

    fn row_sums_backward(&self, weights: Option<&Tensor>, dy: &Tensor, shape: &[usize]) -> Tensor {
        let (weights, dy, columns) = (self.floats_of(weights), self.floats(dy), *shape.last().unwrap_or(&1));
        self.each("row_sums_backward", shape, |dx, n| {
            vec![weights.into(), dy.into(), dx.into(), columns.into(), n.into()]
        })
    }

    fn log_sum_exp(&self, x: &Tensor, weights: Option<&Tensor>, targets: Option<&Tensor>, scale: f64) -> Tensor {
        let (rows, columns) = (x.rows(), x.columns());
        let y = self.stale(rows, Format::Float);
        let (weights, targets) = (self.floats_of(weights), self.floats_of(targets));
        let arguments =
            [self.floats(x).into(), weights.into(), targets.into(), scale.into(), (&y).into(), (columns as u32).into()];
        let grid = Grid::new(rows, row_threads(columns));
        // SAFETY: all but `y [rows]` are `[rows, columns]`.
        unsafe { self.launch(Program::Function, "log_sum_exp", grid, &arguments) };
        self.tensor(y, Format::Float, &[rows])
    }

    fn log_sum_exp_backward(
        &self,
        x: &Tensor,
        weights: Option<&Tensor>,
        targets: Option<&Tensor>,
        scale: f64,
        dy: &Tensor,
    ) -> Tensor {
        let (rows, columns) = (x.rows(), x.columns());
        let dx = self.stale(x.len(), Format::Float);
        let (weights, targets) = (self.floats_of(weights), self.floats_of(targets));
        let arguments = [
            self.floats(x).into(),
            weights.into(),
            targets.into(),
            scale.into(),
            self.floats(dy).into(),
            (&dx).into(),
            (columns as u32).into(),
        ];
        let grid = Grid::new(rows, row_threads(columns));
        // SAFETY: all but `dy [rows]` are `[rows, columns]`.
        unsafe { self.launch(Program::Function, "log_sum_exp_backward", grid, &arguments) };
        self.tensor(dx, Format::Float, x.shape())
    }

    fn gather(&self, x: &Tensor, indices: &[[u32; 2]]) -> Tensor {
        let (columns, count) = (x.columns() as u32, indices.len() as u32);
        let (x, indices) = (self.floats(x), Buffer::upload(&self.context, indices));
        self.each("gather", &[count as usize], |y, _| {
            vec![x.into(), (&indices).into(), y.into(), columns.into(), count.into()]
        })
    }

    fn gather_backward(&self, indices: &[[u32; 2]], dy: &Tensor, shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        let dx = self.stale(len, Format::Float);
        dx.clear();
        let columns = shape.last().map_or(1, |&columns| columns as u64);
        let element = |i: u32| u64::from(indices[i as usize][0]) * columns + u64::from(indices[i as usize][1]);
        // By element, each one's gradients in the order of the indices.
        let mut order: Vec<u32> = (0..indices.len() as u32).collect();
        order.sort_by_key(|&i| element(i));
        let (mut elements, mut places) = (Vec::new(), Vec::new());
        for (at, &i) in order.iter().enumerate() {
            if elements.last() != Some(&element(i)) {
                elements.push(element(i));
                places.push(at as u32);
            }
        }
        places.push(order.len() as u32);
        let upload = |words: &[u32]| Buffer::upload(&self.context, words);
        let (picked, places, order) = (Buffer::upload(&self.context, &elements), upload(&places), upload(&order));
        let count = elements.len();
        let numbers = [(&picked).into(), (&places).into(), (&order).into(), self.floats(dy).into(), (&dx).into()];
        let arguments: Vec<Argument> = numbers.into_iter().chain([(count as u32).into()]).collect();
        self.run(Program::Function, "gather_backward", count, &arguments);
        self.tensor(dx, Format::Float, shape)
    }

    fn copy_block(
        &self,
        from: &Tensor,
        from_corner: [usize; 2],
        to: &mut Tensor,
        to_corner: [usize; 2],
        extent: [usize; 2],
    ) {
        let format = to.cuda().format().or(from.cuda().format()).unwrap_or(Format::Float);
        // Nothing is kept of a tensor that is written for the first time.
        let (columns, keep) = (to.columns(), to.is_written() && extent != [to.rows(), to.columns()]);
        self.write(to, format, keep, |to| self.copy(format, (from, from_corner), (to, columns, to_corner), extent));
    }

    fn placed_block(
        &self,
        from: &Tensor,
        from_corner: [usize; 2],
        shape: &[usize],
        to_corner: [usize; 2],
        extent: [usize; 2],
    ) -> Tensor {
        let format = from.cuda().format().unwrap_or(Format::Float);
        let mut to = Tensor::stale(shape);
        let columns = to.columns();
        self.write(&mut to, format, false, |to| {
            to.clear();
            self.copy(format, (from, from_corner), (to, columns, to_corner), extent);
        });
        to
    }

    fn add_columns(&self, x: &Tensor, scale: f32, out: &mut Tensor, first: usize) {
        let format = out.cuda().format().or(x.cuda().format()).unwrap_or(Format::Float);
        let (count, width, columns, x) = (x.len(), x.columns() as u32, out.columns(), self.numbers(x, format));
        self.write(out, format, true, |out| {
            let to = out.at(first * format.bytes());
            let arguments = [x.into(), scale.into(), to.into(), width.into(), columns.into(), count.into()];
            // SAFETY: the columns lie in `out`.
            unsafe {
                self.launch_for(Program::Function, "add_columns", format, Grid::one_each(count), &arguments);
            }
        });
    }

    fn similarities(&self, similarity: Similarity, a: &Tensor, b: &Tensor) -> Tensor {
        match similarity::Rule::of(similarity) {
            Some(rule) => self.similarity_matrix(rule, a, b),
            None => Cpu::F32.similarities(similarity, a, b),
        }
    }

    fn similarities_backward(
        &self,
        similarity: Similarity,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        match similarity::Rule::of(similarity) {
            Some(rule) => self.similarity_matrix_backward(rule, a, b, y, dy),
            None => Cpu::F32.similarities_backward(similarity, a, b, y, dy),
        }
    }

    fn paired_similarities(&self, similarity: Similarity, a: &Tensor, b: &Tensor) -> Tensor {
        match similarity::Rule::of(similarity) {
            Some(rule) => self.similarity_pairs(rule, a, b),
            None => Cpu::F32.paired_similarities(similarity, a, b),
        }
    }

    fn paired_similarities_backward(
        &self,
        similarity: Similarity,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        match similarity::Rule::of(similarity) {
            Some(rule) => self.similarity_pairs_backward(rule, a, b, y, dy),
            None => Cpu::F32.paired_similarities_backward(similarity, a, b, y, dy),
        }
    }

    fn triplets(
        &self,
        rule: &TripletRule,
        distances: &Tensor,
        mining: Option<&Tensor>,
        positives: &Tensor,
        negatives: &Tensor,
    ) -> (Tensor, Tensor) {
        Cpu::F32.triplets(rule, distances, mining, positives, negatives)
    }

    fn triplets_backward(
        &self,
        rule: &TripletRule,
        distances: &Tensor,
        mining: Option<&Tensor>,
        positives: &Tensor,
        negatives: &Tensor,
        dy: &Tensor,
    ) -> Tensor {
        Cpu::F32.triplets_backward(rule, distances, mining, positives, negatives, dy)
    }

    fn transpose(&self, x: &Tensor) -> Tensor {
        let format = x.cuda().format().unwrap_or(Format::Float);
        let (rows, columns) = (x.rows(), x.columns());
        let y = self.stale(x.len(), format);
        let blocks = (columns.div_ceil(32) as u32, rows.div_ceil(32) as u32, 1);
        let arguments = [self.numbers(x, format).into(), (&y).into(), (rows as u32).into(), (columns as u32).into()];
        let grid = Grid { blocks, threads: 256, shared: 0 };
        // SAFETY: `x` is `[rows, columns]`, `y` as large.
        unsafe { self.launch_for(Program::Function, "transpose", format, grid, &arguments) };
        self.tensor(y, format, &[columns, rows])
    }

    fn similarity_rows(
        &self,
        similarity: Similarity,
        scale: f64,
        a: &Tensor,
        b: &Tensor,
        function: &dyn RowFunction,
    ) -> (Tensor, Tensor) {
        Cpu::F32.similarity_rows(similarity, scale, a, b, function)
    }

    fn similarity_rows_backward(
        &self,
        similarity: Similarity,
        scale: f64,
        a: &Tensor,
        b: &Tensor,
        function: &dyn RowFunction,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        Cpu::F32.similarity_rows_backward(similarity, scale, a, b, function, dy)
    }

    fn matrix_rows(&self, x: &Tensor, function: &dyn MatrixFunction) -> (Tensor, Tensor) {
        Cpu::F32.matrix_rows(x, function)
    }

    fn matrix_rows_backward(&self, x: &Tensor, function: &dyn MatrixFunction, dy: &Tensor) -> Tensor {
        Cpu::F32.matrix_rows_backward(x, function, dy)
    }

    fn inverse(&self, x: &Tensor) -> Tensor {
        Cpu::F32.inverse(x)
    }

    fn inverse_backward(&self, y: &Tensor, dy: &Tensor) -> Tensor {
        Cpu::F32.inverse_backward(y, dy)
    }

    fn ranked_pairs(&self, x: &Tensor, targets: &[f32], scale: f64) -> (Tensor, Tensor) {
        Cpu::F32.ranked_pairs(x, targets, scale)
    }
}
