//! The kernels of encoders on a GPU.

use super::buffer::{Buffer, Format};
use super::nccl::Group;
use super::{Argument, Cuda, Grid, Product, Program, Side, attention, update};
use crate::device::{
    Activation, AttentionOptions, Communicator, Device, Memory, NormGradients, Operand, Pooling, UpdateRule,
};
use crate::error::{Error, Result};
use crate::packing::Packing;
use crate::random::Dropout;
use crate::tensor::Tensor;

/// Rows that one block of a column sum adds, at least.
const ROWS_EACH: usize = 128;
/// Rows of equal ids whose gradients one block adds.
const EMBEDDING_PART: usize = 64;

/// The number by which the kernels know an activation.
pub(super) fn activation_kind(activation: Activation) -> i32 {
    activation as i32
}

impl Cuda {
    /// `out = alpha a b (+ out)`, see [`Product`]; `a` and `b` in one format.
    fn product(
        &self,
        (a, b): ((&Buffer, bool), (&Buffer, bool)),
        extents: (usize, usize, usize),
        format: Format,
        (out, out_format): (&Buffer, Format),
        bias: Option<&Buffer>,
        (alpha, accumulate): (f32, bool),
    ) {
        let product = Product {
            extents,
            a: Side::of(a.0, a.1),
            b: Side::of(b.0, b.1),
            format,
            out: out.address(),
            out_format,
            bias: bias.map(Buffer::address),
            alpha,
            accumulate,
        };
        // SAFETY: the callers' matrices have these extents.
        unsafe { self.context.multiply(&product) };
    }

    /// The places of a packing's rows, the key, the threshold and the factor of a dropout; none without.
    pub(super) fn dropout_arguments(&self, dropout: Option<(&Dropout, &Packing)>) -> [Argument; 4] {
        match dropout {
            None => [0u64.into(), 0u64.into(), 0u32.into(), 0f32.into()],
            Some((dropout, packing)) => [
                (&self.layout(packing).rows).into(),
                dropout.key.word().into(),
                dropout.threshold().into(),
                dropout.scale().into(),
            ],
        }
    }

    /// Into how many tiles of so many columns and how many parts of its rows a matrix is divided where columns are added.
    fn column_parts(&self, width: usize, rows: usize, columns: usize) -> (usize, usize) {
        let tiles = columns.div_ceil(width);
        let room = (8 * self.context.multiprocessors as usize / tiles.max(1)).max(1);
        (tiles, rows.div_ceil(ROWS_EACH).clamp(1, room))
    }

    /// `out[c] (+)= the sum over rows of x[r, c]`: parts of the rows first, then the parts.
    pub(super) fn sum_columns(
        &self,
        x: &Buffer,
        format: Format,
        (rows, columns): (usize, usize),
        out: &Buffer,
        accumulate: bool,
    ) {
        let (tiles, parts) = self.column_parts(128, rows, columns);
        let run = |x: &Buffer, format: Format, rows: usize, parts: usize, out: &Buffer, accumulate: bool| {
            let grid = Grid { blocks: (tiles as u32, parts as u32, 1), threads: 256, shared: 0 };
            let each = rows.div_ceil(parts);
            let sizes = [rows as u32, columns as u32, each as u32, u32::from(accumulate)];
            let arguments: Vec<Argument> =
                [x.into(), out.into()].into_iter().chain(sizes.map(Argument::from)).collect();
            // SAFETY: `x` is `[rows, columns]`, `out [parts, columns]`.
            unsafe { self.launch_for(Program::Elementwise, "column_sums", format, grid, &arguments) };
        };
        if parts == 1 {
            return run(x, format, rows, 1, out, accumulate);
        }
        let partial = self.stale(parts * columns, Format::Float);
        run(x, format, rows, parts, &partial, false);
        run(&partial, Format::Float, parts, 1, out, accumulate);
    }

    fn elementwise(&self, name: &str, format: Format, len: usize, arguments: &[Argument]) {
        // SAFETY: the callers' blocks have `len` numbers of the format.
        unsafe { self.launch_for(Program::Elementwise, name, format, Grid::one_each(len.div_ceil(8)), arguments) };
    }

    /// Which kernels of a norm take rows of so many columns: how many fours a lane holds, or none.
    fn norm_variant(columns: usize) -> Option<usize> {
        let fours = columns.div_ceil(128);
        [1, 2, 3, 4, 6, 8].into_iter().find(|&variant| variant >= fours).filter(|_| columns.is_multiple_of(4))
    }
}

impl Device for Cuda {
    fn name(&self) -> String {
        format!("cuda:{} ({}, {:?})", self.context.ordinal, self.context.name, self.precision).to_lowercase()
    }

    fn check(&self) -> Result<()> {
        self.context.check()
    }

    fn activation_bytes(&self) -> usize {
        self.format().bytes()
    }

    fn wait(&self) {
        self.context.wait();
    }

    fn memory(&self) -> Option<Memory> {
        let (free_bytes, total_bytes) = self.context.memory();
        Some(Memory { free_bytes, total_bytes, peak_bytes: self.peak_bytes() })
    }

    fn busy(&self) -> Option<f64> {
        self.context.busy()
    }

    fn group_name(&self) -> Option<Result<Vec<u8>>> {
        Some(Group::name(self))
    }

    fn join_group(&self, name: &[u8], (rank, size): (usize, usize)) -> Result<Box<dyn Communicator>> {
        Ok(Box::new(Group::join(self, name, (rank, size))?))
    }

    fn matmul(&self, a: Operand<'_>, b: Operand<'_>, alpha: f32, out: &mut Tensor, accumulate: bool) {
        let side = |operand| match operand {
            Operand::Plain(tensor) => (tensor, false),
            Operand::Transposed(tensor) => (tensor, true),
        };
        let ((a, a_transposed), (b, b_transposed)) = (side(a), side(b));
        // A product over the rows of a batch is a parameter's gradient, one of two plain matrices an activation's.
        let out_format = if a_transposed || b_transposed { Format::Float } else { self.format() };
        let inner = if a_transposed { a.rows() } else { a.columns() };
        let extents = (out.rows(), out.columns(), inner);
        let sides = ((self.activations(a), a_transposed), (self.activations(b), b_transposed));
        self.write(out, out_format, accumulate, |out| {
            self.product(sides, extents, self.format(), (out, out_format), None, (alpha, accumulate));
        });
    }

    fn add_assign(&self, sum: &mut Tensor, x: &Tensor) {
        let format = sum.cuda().format().or(x.cuda().format()).unwrap_or(Format::Float);
        let (len, x) = (x.len(), self.numbers(x, format));
        self.write(sum, format, true, |sum| self.elementwise("add", format, len, &[sum.into(), x.into(), len.into()]));
    }

    fn scale_assign(&self, x: &mut Tensor, factor: f32) {
        let (format, len) = (x.cuda().format().unwrap_or(Format::Float), x.len());
        self.write(x, format, true, |x| self.elementwise("scale", format, len, &[x.into(), factor.into(), len.into()]));
    }

    fn column_sums(&self, x: &Tensor, out: &mut Tensor, accumulate: bool) {
        let format = x.cuda().format().unwrap_or(Format::Float);
        let extents = (x.rows(), x.columns());
        let x = self.numbers(x, format);
        self.write(out, Format::Float, accumulate, |out| self.sum_columns(x, format, extents, out, accumulate));
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let format = self.format();
        let (rows, inputs, outputs) = (x.rows(), x.columns(), weight.rows());
        let y = self.stale(rows * outputs, format);
        let sides = ((self.activations(x), false), (self.activations(weight), true));
        let bias = bias.map(|bias| self.activations(bias));
        self.product(sides, (rows, outputs, inputs), format, (&y, format), bias, (1.0, false));
        self.tensor(y, format, &[rows, outputs])
    }

    fn activation(&self, activation: Activation, x: &Tensor) -> Tensor {
        let (format, len) = (self.format(), x.len());
        let y = self.stale(len, format);
        let arguments = [activation_kind(activation).into(), self.activations(x).into(), (&y).into(), len.into()];
        self.elementwise("activation", format, len, &arguments);
        self.tensor(y, format, x.shape())
    }

    fn activation_backward(&self, activation: Activation, x: &Tensor, dy: &Tensor) -> Tensor {
        let (format, len) = (self.format(), x.len());
        let dx = self.stale(len, format);
        let (x_numbers, dy) = (self.activations(x), self.activations(dy));
        let arguments = [activation_kind(activation).into(), x_numbers.into(), dy.into(), (&dx).into(), len.into()];
        self.elementwise("activation_backward", format, len, &arguments);
        self.tensor(dx, format, x.shape())
    }

    fn feed_forward(
        &self,
        x: &Tensor,
        (first_weight, first_bias): (&Tensor, &Tensor),
        (second_weight, second_bias): (&Tensor, &Tensor),
        activation: Activation,
        keep_middle: bool,
    ) -> (Tensor, Tensor) {
        let middle = self.linear(x, first_weight, Some(first_bias));
        let active = self.activation(activation, &middle);
        let inner = middle.columns();
        let middle = if keep_middle { middle } else { Tensor::stale(&[0, inner]) };
        (self.linear(&active, second_weight, Some(second_bias)), middle)
    }

    fn feed_forward_backward(
        &self,
        middle: &Tensor,
        second_weight: &Tensor,
        dy: &Tensor,
        activation: Activation,
    ) -> (Tensor, Tensor, Tensor) {
        let (format, len) = (self.format(), middle.len());
        let (rows, inner) = (middle.rows(), middle.columns());
        let (active, gradient) = (self.stale(len, format), self.stale(len, format));
        let sides = ((self.activations(dy), false), (self.activations(second_weight), false));
        self.product(sides, (rows, inner, dy.columns()), format, (&gradient, format), None, (1.0, false));
        let (kind, before) = (activation_kind(activation), self.activations(middle));
        let sums = self.stale(inner, Format::Float);
        if inner.is_multiple_of(8) {
            let (tiles, parts) = self.column_parts(256, rows, inner);
            let partial = self.stale(parts * inner, Format::Float);
            let grid = Grid { blocks: (tiles as u32, parts as u32, 1), threads: 256, shared: 0 };
            let mut arguments: Vec<Argument> =
                vec![kind.into(), before.into(), (&active).into(), (&gradient).into(), (&partial).into()];
            arguments.extend([rows, inner, rows.div_ceil(parts)].map(|size| Argument::from(size as u32)));
            // SAFETY: all matrices are `[rows, inner]`, and `partial` is `[parts, inner]`.
            unsafe { self.launch_for(Program::Elementwise, "active_and_gradient", format, grid, &arguments) };
            self.sum_columns(&partial, Format::Float, (parts, inner), &sums, false);
        } else {
            let arguments = [kind.into(), before.into(), (&active).into(), len.into()];
            self.elementwise("activation", format, len, &arguments);
            let arguments = [kind.into(), before.into(), (&gradient).into(), (&gradient).into(), len.into()];
            self.elementwise("activation_backward", format, len, &arguments);
            self.sum_columns(&gradient, format, (rows, inner), &sums, false);
        }
        let of_middle = |numbers| self.tensor(numbers, format, middle.shape());
        (of_middle(active), of_middle(gradient), self.tensor(sums, Format::Float, &[inner]))
    }

    fn embedding_sum(&self, tables: &[(&Tensor, &[u32])], columns: usize) -> Tensor {
        let rows = tables.first().map_or(0, |(_, ids)| ids.len());
        let y = self.stale(rows * columns, self.format());
        if tables.len() > 4 {
            let operation = format!("a sum of {} tables", tables.len());
            self.context.fail(Error::Device { device: self.name(), operation, reason: "it adds four at most".into() });
        }
        let ids: Vec<Buffer> = tables.iter().map(|(_, ids)| Buffer::upload(&self.context, ids)).collect();
        let mut arguments: Vec<Argument> = Vec::new();
        for index in 0..4 {
            let pair = tables.get(index).zip(ids.get(index));
            arguments.push(pair.map(|((table, _), _)| self.floats(table)).into());
            arguments.push(pair.map(|(_, ids)| ids).into());
        }
        arguments.extend([Argument::from(&y), (rows as u32).into(), (columns as u32).into()]);
        let grid = Grid::warp_each(rows);
        // SAFETY: the ids lie within their tables, as the operation has checked; `y` has a row for each.
        unsafe { self.launch_for(Program::Embedding, "embedding_sum", self.format(), grid, &arguments) };
        self.tensor(y, self.format(), &[rows, columns])
    }

    fn embedding_backward(&self, ids: &[u32], dy: &Tensor, out: &mut Tensor, accumulate: bool) {
        let (columns, entries) = (dy.columns(), out.rows());
        let rows = Rows::by_id(ids, entries);
        let format = dy.cuda().format().unwrap_or(Format::Float);
        let dy = self.numbers(dy, format);
        self.write(out, Format::Float, accumulate, |out| {
            if !accumulate {
                out.clear();
            }
            let upload = |words: &[u32]| Buffer::upload(&self.context, words);
            let (order, parts) = (upload(&rows.order), upload(&rows.parts));
            let (entries, firsts) = (upload(&rows.entries), upload(&rows.firsts));
            let count = rows.parts.len() - 1;
            let sums = self.stale(count * columns, Format::Float);
            let threads = columns.next_multiple_of(32).min(256);
            let arguments = [dy.into(), (&order).into(), (&parts).into(), (&sums).into(), (columns as u32).into()];
            // SAFETY: the lists name rows of `dy`, parts of `sums` and rows of `out`.
            unsafe {
                self.launch_for(Program::Embedding, "embedding_parts", format, Grid::new(count, threads), &arguments);
            }
            let arguments = [(&sums).into(), (&entries).into(), (&firsts).into(), out.into(), (columns as u32).into()];
            let grid = Grid::new(rows.entries.len(), threads);
            // SAFETY: see above.
            unsafe { self.launch(Program::Embedding, "embedding_entries", grid, &arguments) };
        });
    }

    fn add_norm(
        &self,
        x: &Tensor,
        residual: Option<&Tensor>,
        weight: &Tensor,
        bias: &Tensor,
        eps: f32,
        dropout: Option<(&Dropout, &Packing)>,
    ) -> (Tensor, Tensor, Tensor) {
        let (format, rows, columns) = (self.format(), x.rows(), x.columns());
        let (y, normalised) = (self.stale(x.len(), format), self.stale(x.len(), format));
        let deviations = self.stale(rows, Format::Float);
        let residual = residual.map(|residual| self.activations(residual));
        let mut arguments = vec![
            self.activations(x).into(),
            residual.into(),
            self.floats(weight).into(),
            self.floats(bias).into(),
            (&y).into(),
            (&normalised).into(),
            (&deviations).into(),
            (rows as u32).into(),
            (columns as u32).into(),
            eps.into(),
        ];
        arguments.extend(self.dropout_arguments(dropout));
        let variant = Self::norm_variant(columns);
        let sums = self.stale(if variant.is_none() { x.len() } else { 0 }, Format::Float);
        let name = variant.map_or("add_norm_any".into(), |fours| format!("add_norm_{fours}"));
        if variant.is_none() {
            arguments.push((&sums).into());
        }
        // SAFETY: the operation has checked that all of them fit `x`.
        unsafe { self.launch_for(Program::Norm, &name, format, Grid::warp_each(rows), &arguments) };
        let (y, normalised) = (self.tensor(y, format, x.shape()), self.tensor(normalised, format, x.shape()));
        (y, normalised, self.tensor(deviations, Format::Float, &[rows]))
    }

    fn scale_shift(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let format = self.format();
        let y = self.stale(x.len(), format);
        let (weight, bias) = (self.floats(weight), self.floats(bias));
        let sizes = [(x.rows() as u32).into(), (x.columns() as u32).into()];
        let arguments = [self.activations(x).into(), weight.into(), bias.into(), (&y).into(), sizes[0], sizes[1]];
        // SAFETY: weight and bias have a number for each column of `x`.
        unsafe { self.launch_for(Program::Norm, "scale_shift", format, Grid::warp_each(x.rows()), &arguments) };
        self.tensor(y, format, x.shape())
    }

    fn add_norm_backward(
        &self,
        normalised: &Tensor,
        deviation: &Tensor,
        weight: &Tensor,
        dy: &Tensor,
        dropout: Option<(&Dropout, &Packing)>,
    ) -> NormGradients {
        let (format, rows, columns) = (self.format(), dy.rows(), dy.columns());
        let variant = Self::norm_variant(columns);
        let dz = self.stale(dy.len(), format);
        // Where the kernel applies it.
        let within = dropout.filter(|_| variant.is_some());
        let dx = within.map(|_| self.stale(dy.len(), format));
        let (before, upstream) = (self.activations(normalised), self.activations(dy));
        let (deviation, scale) = (self.floats(deviation), self.floats(weight));
        let sizes: [Argument; 2] = [(rows as u32).into(), (columns as u32).into()];
        let blocks = rows.div_ceil(8).clamp(1, 4 * self.context.multiprocessors as usize);
        let partial = self.stale(blocks * 2 * columns, Format::Float);
        let common = [before.into(), deviation.into(), scale.into(), upstream.into(), (&dz).into()];
        // SAFETY: the operation has checked that all of them fit `dy`; `partial` is `[blocks, 2, columns]`.
        unsafe {
            match variant {
                Some(fours) => {
                    let grid = Grid { shared: (8 * 32 * fours * 16) as u32, ..Grid::new(blocks, 256) };
                    let results = [dx.as_ref().into(), (&partial).into()];
                    let dropout = self.dropout_arguments(within);
                    let arguments: Vec<Argument> =
                        common.into_iter().chain(results).chain(sizes).chain(dropout).collect();
                    let name = format!("add_norm_backward_{fours}");
                    self.launch_for(Program::Norm, &name, format, grid, &arguments);
                }
                None => {
                    let arguments: Vec<Argument> = common.into_iter().chain(sizes).collect();
                    self.launch_for(Program::Norm, "add_norm_backward_any", format, Grid::warp_each(rows), &arguments);
                    let each = rows.div_ceil(blocks) as u32;
                    let arguments =
                        [before.into(), upstream.into(), (&partial).into(), sizes[0], sizes[1], each.into()];
                    self.launch_for(Program::Norm, "norm_parameters_any", format, Grid::new(blocks, 256), &arguments);
                }
            }
        }
        // The sums of both, side by side.
        let both = self.stale(2 * columns, Format::Float);
        self.sum_columns(&partial, Format::Float, (blocks, 2 * columns), &both, false);
        let half = |which: usize| {
            let part = self.stale(columns, Format::Float);
            self.context.copy(both.at(which * columns * 4), part.address(), columns * 4);
            self.tensor(part, Format::Float, weight.shape())
        };
        let sum = self.tensor(dz, format, dy.shape());
        let x = match (dx, dropout) {
            (Some(dx), _) => self.tensor(dx, format, dy.shape()),
            (None, Some((dropout, packing))) => self.dropout(&sum, dropout, packing),
            (None, None) => sum.clone(),
        };
        NormGradients { sum, x, weight: half(0), bias: half(1) }
    }

    fn dropout(&self, x: &Tensor, dropout: &Dropout, packing: &Packing) -> Tensor {
        let (format, rows, columns) = (self.format(), x.rows(), x.columns());
        let y = self.stale(x.len(), format);
        let mut arguments = vec![self.activations(x).into(), (&y).into()];
        arguments.extend(self.dropout_arguments(Some((dropout, packing))));
        arguments.extend([Argument::from(rows as u32), (columns as u32).into()]);
        // SAFETY: `y` is as large as `x`, and the packing has its rows.
        unsafe { self.launch_for(Program::Elementwise, "dropout", format, Grid::warp_each(rows), &arguments) };
        self.tensor(y, format, x.shape())
    }

    fn attention(
        &self,
        qkv: &Tensor,
        packing: &Packing,
        bias: Option<&Tensor>,
        options: &AttentionOptions,
    ) -> (Tensor, Tensor) {
        attention::attention(self, qkv, packing, bias, options)
    }

    fn attention_backward(
        &self,
        qkv: &Tensor,
        packing: &Packing,
        bias: Option<&Tensor>,
        options: &AttentionOptions,
        output: &Tensor,
        log_sum_exp: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Option<Tensor>) {
        attention::attention_backward(self, qkv, packing, bias, options, output, log_sum_exp, dy)
    }

    fn pool(&self, pooling: Pooling, x: &Tensor, packing: &Packing) -> Tensor {
        let (format, sequences, columns) = (self.format(), packing.sequences(), x.columns());
        let y = self.stale(sequences * columns, Format::Float);
        let (kind, p, eps) = pooling_arguments(pooling);
        let offsets = &self.layout(packing).offsets;
        let columns_argument = (columns as u32).into();
        let arguments = [kind, self.activations(x).into(), (&y).into(), offsets.into(), columns_argument, p, eps];
        let grid = pooling_grid(sequences, columns);
        // SAFETY: the packing has the rows of `x`; `y` has a row for each sequence.
        unsafe { self.launch_for(Program::Pooling, "pool", format, grid, &arguments) };
        self.tensor(y, Format::Float, &[sequences, columns])
    }

    fn pool_backward(&self, pooling: Pooling, x: &Tensor, pooled: &Tensor, packing: &Packing, dy: &Tensor) -> Tensor {
        let (format, columns) = (self.format(), x.columns());
        let dx = self.stale(x.len(), format);
        let (kind, p, eps) = pooling_arguments(pooling);
        let (pooled, dy) = (self.floats(pooled), self.floats(dy));
        let arguments = [
            kind,
            self.activations(x).into(),
            pooled.into(),
            dy.into(),
            (&dx).into(),
            (&self.layout(packing).offsets).into(),
            (columns as u32).into(),
            p,
            eps,
        ];
        let grid = pooling_grid(packing.sequences(), columns);
        // SAFETY: as for the forward pass.
        unsafe { self.launch_for(Program::Pooling, "pool_backward", format, grid, &arguments) };
        self.tensor(dx, format, x.shape())
    }

    fn normalize(&self, x: &Tensor, eps: f32) -> (Tensor, Tensor) {
        let (rows, columns) = (x.rows(), x.columns());
        let (y, norms) = (self.stale(x.len(), Format::Float), self.stale(rows, Format::Float));
        let x_numbers = self.floats(x);
        let sizes = [(rows as u32).into(), (columns as u32).into()];
        let arguments = [x_numbers.into(), (&y).into(), (&norms).into(), sizes[0], sizes[1], eps.into()];
        // SAFETY: `y` is as large as `x`, and `norms` has a number for each row.
        unsafe { self.launch(Program::Pooling, "normalize", Grid::warp_each(rows), &arguments) };
        (self.tensor(y, Format::Float, x.shape()), self.tensor(norms, Format::Float, &[rows]))
    }

    fn normalize_backward(&self, y: &Tensor, norms: &Tensor, eps: f32, dy: &Tensor) -> Tensor {
        let (rows, columns) = (y.rows(), y.columns());
        let dx = self.stale(y.len(), Format::Float);
        let (y_numbers, norms, dy) = (self.floats(y), self.floats(norms), self.floats(dy));
        let sizes = [(rows as u32).into(), (columns as u32).into()];
        let arguments = [y_numbers.into(), norms.into(), dy.into(), (&dx).into(), sizes[0], sizes[1], eps.into()];
        // SAFETY: as for the forward pass.
        unsafe { self.launch(Program::Pooling, "normalize_backward", Grid::warp_each(rows), &arguments) };
        self.tensor(dx, Format::Float, y.shape())
    }

    fn sum_of_squares(&self, tensors: &[&Tensor]) -> f64 {
        // Some partial sums of each, then all of them at once: one wait, however many tensors there are.
        let blocks =
            |tensor: &Tensor| tensor.len().div_ceil(1 << 14).clamp(1, 4 * self.context.multiprocessors as usize);
        let count: usize = tensors.iter().map(|tensor| blocks(tensor)).sum();
        let (partial, sum) = (Buffer::stale(&self.context, count * 8), Buffer::stale(&self.context, 8));
        let mut first = 0;
        for tensor in tensors {
            let format = tensor.cuda().format().unwrap_or(Format::Float);
            let arguments = [self.numbers(tensor, format).into(), partial.at(first * 8).into(), tensor.len().into()];
            let grid = Grid::new(blocks(tensor), 256);
            first += blocks(tensor);
            // SAFETY: each writes as many sums as it has blocks.
            unsafe { self.launch_for(Program::Elementwise, "squares", format, grid, &arguments) };
        }
        let arguments = [(&partial).into(), (&sum).into(), count.into()];
        // SAFETY: `partial` holds `count` numbers.
        unsafe { self.launch(Program::Elementwise, "total", Grid::new(1, 256), &arguments) };
        let mut total = [f64::NAN];
        sum.download(&mut total);
        total[0]
    }

    fn update(
        &self,
        rule: &UpdateRule,
        learning_rate: f32,
        gradient_scale: f32,
        weight: &mut Tensor,
        gradient: &Tensor,
        state: &mut [Tensor],
    ) {
        update::update(self, rule, learning_rate, gradient_scale, weight, gradient, state);
    }
}

fn pooling_arguments(pooling: Pooling) -> (Argument, Argument, Argument) {
    let (kind, p, eps) = match pooling {
        Pooling::Mean => (0, 0.0, 0.0),
        Pooling::Cls => (1, 0.0, 0.0),
        Pooling::Max => (2, 0.0, 0.0),
        Pooling::Last => (3, 0.0, 0.0),
        Pooling::Gem { p, eps } => (4, p, eps),
    };
    (kind.into(), p.into(), eps.into())
}

/// One block for each sequence and 128 columns.
fn pooling_grid(sequences: usize, columns: usize) -> Grid {
    Grid { blocks: (sequences as u32, columns.div_ceil(128) as u32, 1), threads: 128, shared: 0 }
}

/// Rows in the order of their ids, for adding up those of one id in a fixed order.
struct Rows {
    order: Vec<u32>,
    /// Where each part of at most [`EMBEDDING_PART`] rows of one id begins in `order`, and the end.
    parts: Vec<u32>,
    /// The ids that occur.
    entries: Vec<u32>,
    /// The first part of each of them, and the number of parts.
    firsts: Vec<u32>,
}

impl Rows {
    fn by_id(ids: &[u32], entries: usize) -> Self {
        let mut ends = vec![0u32; entries + 1];
        ids.iter().for_each(|&id| ends[id as usize + 1] += 1);
        (0..entries).for_each(|id| ends[id + 1] += ends[id]);
        let mut next = ends.clone();
        let mut order = vec![0; ids.len()];
        for (row, &id) in (0..).zip(ids) {
            order[next[id as usize] as usize] = row;
            next[id as usize] += 1;
        }
        let mut rows = Rows { order, parts: Vec::new(), entries: Vec::new(), firsts: Vec::new() };
        for id in (0..entries).filter(|&id| ends[id] < ends[id + 1]) {
            rows.entries.push(id as u32);
            rows.firsts.push(rows.parts.len() as u32);
            rows.parts.extend((ends[id]..ends[id + 1]).step_by(EMBEDDING_PART));
        }
        rows.firsts.push(rows.parts.len() as u32);
        rows.parts.push(ids.len() as u32);
        rows
    }
}
