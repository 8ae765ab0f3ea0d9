//! The one seam between operations and hardware.
//!
//! [`crate::Cpu`] is the reference implementation. Another device implements the same trait and passes the same tests;
//! operations, models and losses call a device and never ask which it is. Shapes are checked by the operations, so a
//! kernel may rely on them. `accumulate` means: add to what `out` holds; otherwise overwrite all of it.

use crate::error::Result;
use crate::function::Functions;
use crate::map::Maps;
use crate::packing::Packing;
use crate::random::Dropout;
use crate::tensor::Tensor;

/// A matrix operand of [`Device::matmul`], possibly read transposed.
#[derive(Debug, Clone, Copy)]
pub enum Operand<'a> {
    /// As stored.
    Plain(&'a Tensor),
    /// Rows and columns exchanged.
    Transposed(&'a Tensor),
}

/// An elementwise function between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x`
    Identity,
    /// `x (1 + erf(x / sqrt 2)) / 2`, the exact form (BERT, RoBERTa, MPNet). Never the tanh form.
    Gelu,
    /// `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2` (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `x sigmoid(x)`
    Silu,
    /// `x sigmoid(1.702 x)` (CLIP)
    QuickGelu,
    /// `tanh(x)`
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `min(max(x, 0), 6)` (MobileNet)
    Relu6,
    /// `x min(max(x + 3, 0), 6) / 6` (MobileNetV3)
    HardSwish,
    /// `min(max(x + 3, 0), 6) / 6`
    HardSigmoid,
}

/// How the rows of a sequence become one embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pooling {
    /// The mean of all rows.
    Mean,
    /// The first row.
    Cls,
    /// The largest value of each column.
    Max,
    /// The last row.
    Last,
    /// Generalised mean `(mean max(x, eps)^p)^(1/p)` (Radenovic, Tolias, Chum 2018).
    Gem {
        /// The power `p`; 1 is the mean of the positive parts, infinity the maximum.
        p: f32,
        /// Values are clamped to at least this.
        eps: f32,
    },
}

/// How attention treats a sequence.
#[derive(Debug, Clone, Copy)]
pub struct AttentionOptions {
    /// Number of heads; the hidden size is a multiple of it.
    pub heads: usize,
    /// A row attends to itself and earlier rows only.
    pub causal: bool,
    /// A row attends to rows at most this far away.
    pub window: Option<usize>,
    /// Dropout of the attention probabilities.
    pub dropout: Option<Dropout>,
}

impl AttentionOptions {
    /// How many pairs of rows of a sequence attend.
    pub(crate) fn pairs(&self, length: usize) -> usize {
        let reach = self.window.unwrap_or(length).min(length.saturating_sub(1));
        let earlier = reach * (reach + 1) / 2 + length.saturating_sub(1 + reach) * reach;
        length + if self.causal { earlier } else { 2 * earlier }
    }
}

/// The gradients of what [`Device::add_norm`] takes.
#[derive(Debug)]
pub struct NormGradients {
    /// Of the sum `dropout(x) + residual`, and so of the residual, `[rows, columns]`.
    pub sum: Tensor,
    /// Of `x`; without dropout that of the sum.
    pub x: Tensor,
    /// Of the weight, `[columns]`.
    pub weight: Tensor,
    /// Of the bias, `[columns]`.
    pub bias: Tensor,
}

/// An optimiser step: its rule and what every rule has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateRule {
    /// What becomes of a gradient.
    pub kind: UpdateKind,
    /// Weight decay coefficient.
    pub weight_decay: f32,
    /// Shrink the weight itself by `1 - learning_rate weight_decay` first, as AdamW does (Loshchilov and Hutter 2019), and
    /// not add `weight_decay weight` to the gradient.
    pub decoupled: bool,
    /// Step count from 1, for bias corrections.
    pub step: u64,
}

/// The update rules with their hyper-parameters, torch's definitions. g is the gradient, w the weight, lr the rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UpdateKind {
    /// Adam (Kingma and Ba 2015): `w -= lr m^ / (sqrt(v^) + eps)`, two moments.
    Adam {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the denominator.
        eps: f32,
        /// Divide by the largest second moment so far (Reddi et al. 2018): a third moment.
        amsgrad: bool,
    },
    /// Stochastic gradient descent: `v = momentum v + (1 - dampening) g`, `w -= lr v`; one moment unless momentum is 0.
    Sgd {
        /// Momentum factor; 0 keeps no state.
        momentum: f32,
        /// Dampening of the gradient's contribution to the momentum; the first step sets the momentum to the gradient.
        dampening: f32,
        /// Nesterov's look-ahead.
        nesterov: bool,
    },
    /// Adam with rectified variance (Liu et al. 2020); two moments.
    RAdam {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the denominator.
        eps: f32,
    },
    /// Adam with Nesterov's momentum (Dozat 2016); two moments.
    NAdam {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the denominator.
        eps: f32,
        /// How fast the momentum rises to `beta1`.
        momentum_decay: f32,
    },
    /// Adam by the largest gradient (Kingma and Ba 2015): `u = max(beta2 u, abs(g) + eps)`, `w -= lr m^ / u`; two moments.
    Adamax {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the norm.
        beta2: f32,
        /// Added to the gradient's absolute value.
        eps: f32,
    },
    /// `G += g^2`, `w -= lr / (1 + (step - 1) lr_decay) g / (sqrt(G) + eps)` (Duchi et al. 2011); one moment.
    Adagrad {
        /// Decay of the rate.
        lr_decay: f32,
        /// Where G starts.
        initial_accumulator_value: f32,
        /// Added to the denominator.
        eps: f32,
    },
    /// `w -= lr sqrt(D + eps) / sqrt(E + eps) g`, with E and D the means of the squared gradients and of the squared
    /// changes (Zeiler 2012); two moments.
    Adadelta {
        /// Decay of both means.
        rho: f32,
        /// See above.
        eps: f32,
    },
    /// `v = alpha v + (1 - alpha) g^2`, `w -= lr g / (sqrt(v) + eps)` (Hinton 2012); one moment, one more for the mean
    /// gradient if centred, one more with momentum.
    RmsProp {
        /// Decay of the second moment.
        alpha: f32,
        /// Added to the denominator.
        eps: f32,
        /// Momentum factor.
        momentum: f32,
        /// Take the square of the mean gradient off.
        centered: bool,
    },
    /// `w = w (1 - lambd eta) - eta g`, `eta = lr / (1 + lambd lr (step - 1))^alpha` (Polyak and Juditsky 1992). The average
    /// of the weights, which torch keeps beside them and nothing reads, is not kept.
    Asgd {
        /// Decay.
        lambd: f32,
        /// Power of the falling rate.
        alpha: f32,
    },
    /// A step of its own for every weight, longer while its gradient keeps its sign, shorter when that changes, which also
    /// skips the step (Riedmiller and Braun 1993); two moments. Weight decay does not apply.
    Rprop {
        /// Factors of the step on a change of sign and without one.
        etas: (f32, f32),
        /// The shortest and the longest step.
        step_sizes: (f32, f32),
    },
}

impl UpdateKind {
    /// What each moment of a weight is before its first gradient; as many as the rule keeps.
    pub fn initial_moments(self, learning_rate: f32) -> Vec<f32> {
        match self {
            UpdateKind::Adam { amsgrad, .. } => vec![0.0; 2 + usize::from(amsgrad)],
            UpdateKind::Sgd { momentum, .. } => vec![0.0; usize::from(momentum != 0.0)],
            UpdateKind::RAdam { .. }
            | UpdateKind::NAdam { .. }
            | UpdateKind::Adamax { .. }
            | UpdateKind::Adadelta { .. } => vec![0.0; 2],
            UpdateKind::Adagrad { initial_accumulator_value, .. } => vec![initial_accumulator_value],
            UpdateKind::RmsProp { momentum, centered, .. } => {
                vec![0.0; 1 + usize::from(centered) + usize::from(momentum > 0.0)]
            }
            UpdateKind::Asgd { .. } => Vec::new(),
            UpdateKind::Rprop { .. } => vec![0.0, learning_rate],
        }
    }
}

/// The memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that can still be had; other programs on the device have theirs.
    pub free_bytes: u64,
    /// Bytes of the device.
    pub total_bytes: u64,
    /// The most bytes that tensors have had at once.
    pub peak_bytes: u64,
}

/// A device's place in a group of devices that sum tensors among themselves.
pub trait Communicator: Send + std::fmt::Debug {
    /// Sums tensors over the group in place: every device calls this with tensors of the same shapes in the same order, and has
    /// the same bits afterwards. A failure shows in [`Device::check`].
    fn sum(&self, tensors: &mut [&mut Tensor]);
}

/// The kernels that a device provides. `rows` of a packed matrix are tokens.
pub trait Device: Functions + Maps + Send + Sync {
    /// Short name for reports, such as `cpu (avx2)`.
    fn name(&self) -> String;

    /// What went wrong since the last call. A device that computes later than it is asked says so here; until then
    /// everything else that it is asked for is worthless. Callers look before they use what they read.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] and [`crate::Error::Device`]; never on the processor.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Bytes of each number of an activation.
    fn activation_bytes(&self) -> usize {
        4
    }

    /// Waits for everything that was asked for, for taking the time.
    fn wait(&self) {}

    /// The device's own memory; none where tensors lie in the processor's.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// The share of the last moments, a second at most, in which the device computed; none where nobody measures it. Asking costs
    /// the driver some time: a few times a second is enough.
    fn busy(&self) -> Option<f64> {
        None
    }

    /// The name of a new group of devices, for one of them to make and to tell the others; none where such devices have no way of
    /// their own to sum tensors.
    fn group_name(&self) -> Option<Result<Vec<u8>>> {
        None
    }

    /// Joins the group of a name as one of so many; waits for the others.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] with what is missing.
    fn join_group(&self, _name: &[u8], _place: (usize, usize)) -> Result<Box<dyn Communicator>> {
        let reason = "it has no way of its own to sum tensors with others";
        Err(crate::Error::Unavailable { device: self.name(), reason: reason.into() })
    }

    /// `out = alpha a b (+ out)`, `a [m, k]`, `b [k, n]`, `out [m, n]` after transposition.
    fn matmul(&self, a: Operand<'_>, b: Operand<'_>, alpha: f32, out: &mut Tensor, accumulate: bool);

    /// `sum += x`, same shape.
    fn add_assign(&self, sum: &mut Tensor, x: &Tensor);

    /// `x *= factor`.
    fn scale_assign(&self, x: &mut Tensor, factor: f32);

    /// `out[c] (+)= sum over rows of x[r, c]`.
    fn column_sums(&self, x: &Tensor, out: &mut Tensor, accumulate: bool);

    /// `x weight^T + bias`: `x [rows, in]`, `weight [out, in]`, `bias [out]`.
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor;

    /// Elementwise activation.
    fn activation(&self, activation: Activation, x: &Tensor) -> Tensor;

    /// `dy * activation'(x)`.
    fn activation_backward(&self, activation: Activation, x: &Tensor, dy: &Tensor) -> Tensor;

    /// `activation(x w1^T + b1) w2^T + b2` and the value before the activation, which is all that the backward pass
    /// needs: `x [rows, in]`, `w1 [middle, in]`, `w2 [out, middle]`. With `keep_middle` false the second is empty.
    fn feed_forward(
        &self,
        x: &Tensor,
        first: (&Tensor, &Tensor),
        second: (&Tensor, &Tensor),
        activation: Activation,
        keep_middle: bool,
    ) -> (Tensor, Tensor);

    /// From the upstream gradient `dy [rows, out]` and the value before the activation: the activation's value and the
    /// gradient before the activation, both `[rows, middle]`, and the sums of the latter's columns `[middle]`, which are
    /// the gradient of the first bias.
    fn feed_forward_backward(
        &self,
        middle: &Tensor,
        second_weight: &Tensor,
        dy: &Tensor,
        activation: Activation,
    ) -> (Tensor, Tensor, Tensor);

    /// `out[r] = sum over tables of table[ids[r]]`; each table `[entries, columns]`.
    fn embedding_sum(&self, tables: &[(&Tensor, &[u32])], columns: usize) -> Tensor;

    /// `out[ids[r]] += dy[r]`, after clearing `out [entries, columns]` unless accumulating.
    fn embedding_backward(&self, ids: &[u32], dy: &Tensor, out: &mut Tensor, accumulate: bool);

    /// `y = norm(dropout(x) + residual) * weight + bias` row by row, with `norm(z) = (z - mean) / sqrt(var + eps)` and
    /// the biased variance. Gives `y`, the normalised rows and `1 / sqrt(var + eps)` per row.
    fn add_norm(
        &self,
        x: &Tensor,
        residual: Option<&Tensor>,
        weight: &Tensor,
        bias: &Tensor,
        eps: f32,
        dropout: Option<(&Dropout, &Packing)>,
    ) -> (Tensor, Tensor, Tensor);

    /// `x * weight + bias` row by row, the last step of [`Device::add_norm`] with the same bits.
    fn scale_shift(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor;

    /// The gradients of what [`Device::add_norm`] took.
    fn add_norm_backward(
        &self,
        normalised: &Tensor,
        deviation: &Tensor,
        weight: &Tensor,
        dy: &Tensor,
        dropout: Option<(&Dropout, &Packing)>,
    ) -> NormGradients;

    /// `x` with dropped elements zeroed and the others scaled; the same call on a gradient is its backward pass.
    fn dropout(&self, x: &Tensor, dropout: &Dropout, packing: &Packing) -> Tensor;

    /// Scaled dot-product attention per sequence and head over packed rows: `qkv [rows, 3 hidden]` holds queries, keys
    /// and values side by side. `bias [2 reach - 1, heads]` is added to the score of row i and column j at index
    /// `j - i + reach - 1`. Gives the output `[rows, hidden]` and the log-sum-exp of the scores `[rows, heads]`.
    fn attention(
        &self,
        qkv: &Tensor,
        packing: &Packing,
        bias: Option<&Tensor>,
        options: &AttentionOptions,
    ) -> (Tensor, Tensor);

    /// The gradients of `qkv` and, if there is one, of the bias.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        qkv: &Tensor,
        packing: &Packing,
        bias: Option<&Tensor>,
        options: &AttentionOptions,
        output: &Tensor,
        log_sum_exp: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Option<Tensor>);

    /// One embedding `[sequences, columns]` per sequence.
    fn pool(&self, pooling: Pooling, x: &Tensor, packing: &Packing) -> Tensor;

    /// The gradient of `x` from that of the pooled rows.
    fn pool_backward(&self, pooling: Pooling, x: &Tensor, pooled: &Tensor, packing: &Packing, dy: &Tensor) -> Tensor;

    /// `x / max(norm(x), eps)` row by row, and the norms `[rows]`.
    fn normalize(&self, x: &Tensor, eps: f32) -> (Tensor, Tensor);

    /// The gradient of `x` from that of the normalised rows `y`.
    fn normalize_backward(&self, y: &Tensor, norms: &Tensor, eps: f32, dy: &Tensor) -> Tensor;

    /// The sum of the squares of all their elements, accumulated in f64.
    fn sum_of_squares(&self, tensors: &[&Tensor]) -> f64;

    /// One optimiser update of `weight`; the gradient is multiplied by `gradient_scale` first (clipping). `state` holds
    /// the rule's moments, of the weight's shape, before the first step as [`UpdateKind::initial_moments`] says.
    fn update(
        &self,
        rule: &UpdateRule,
        learning_rate: f32,
        gradient_scale: f32,
        weight: &mut Tensor,
        gradient: &Tensor,
        state: &mut [Tensor],
    );
}
