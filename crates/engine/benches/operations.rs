//! Every heavy operation, forward and backward, with its share of what the machine can do.
//!
//! `cargo bench -p engine` prints criterion's lines (GFLOP/s as `Gelem/s`) and, at the end, a table: time, rate and the
//! share of the limit, which is measured in the same run: fused multiply-adds on registers for products, a triad
//! `a = b + s c` over main memory for passes over memory. Tensors that fit the cache may exceed the latter.
//! Threads are those of rayon (`RAYON_NUM_THREADS`).

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that reports")]

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use engine::device::Operand::{self, Plain, Transposed};
use engine::device::{Activation, AttentionOptions, Device, Pooling, UpdateKind, UpdateRule};
use engine::random::{Dropout, Key};
use engine::{Cpu, Packing, Tensor};
use rayon::prelude::*;

/// What an operation needs most.
#[derive(Clone, Copy)]
enum Work {
    /// Floating-point operations.
    Flops(usize),
    /// Those of products of bf16 numbers.
    Bf16Flops(usize),
    /// Elements of f32 read or written in main memory.
    Elements(usize),
}

struct Report {
    criterion: RefCell<Criterion>,
    /// Name, work and the fastest time seen, in seconds.
    lines: RefCell<Vec<(String, Work, f64)>>,
}

impl Report {
    fn time<T>(&self, name: &str, work: Work, mut operation: impl FnMut() -> T) {
        let mut criterion = self.criterion.borrow_mut();
        let mut group = criterion.benchmark_group("operations");
        group.throughput(match work {
            Work::Flops(count) | Work::Bf16Flops(count) => Throughput::Elements(count as u64),
            Work::Elements(count) => Throughput::Bytes(4 * count as u64),
        });
        let mut best = f64::INFINITY;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let start = Instant::now();
                    black_box(operation());
                    let elapsed = start.elapsed();
                    best = best.min(elapsed.as_secs_f64());
                    total += elapsed;
                }
                total
            });
        });
        group.finish();
        // A filter on the command line may have left it out.
        if best.is_finite() {
            self.lines.borrow_mut().push((name.to_string(), work, best));
        }
    }
}

/// Twelve independent chains hide the latency of the multiply-adds; a chain is one register of `WIDTH` numbers.
#[inline(always)]
fn multiply_adds<const WIDTH: usize, const FUSED: bool>(count: usize) -> f32 {
    let (factor, addend) = (black_box(0.999f32), black_box(0.001f32));
    let mut chains = [[1.0f32; WIDTH]; 12];
    for _ in 0..count {
        for chain in &mut chains {
            for x in chain {
                *x = if FUSED { x.mul_add(factor, addend) } else { *x * factor + addend };
            }
        }
    }
    chains.iter().flatten().sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_adds_avx2(count: usize) -> f32 {
    multiply_adds::<8, true>(count)
}

/// By vectors that are named: of so many numbers the compiler makes something else.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f")]
fn multiply_adds_avx512(count: usize) -> f32 {
    use std::arch::x86_64::*;

    let (factor, addend) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let mut chains = [_mm512_set1_ps(1.0); 12];
    for _ in 0..count {
        chains = chains.map(|chain| _mm512_fmadd_ps(chain, factor, addend));
    }
    chains.map(|chain| _mm512_reduce_add_ps(chain)).iter().sum()
}

/// Multiply-adds of pairs of bf16 numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bf16")]
fn multiply_adds_bf16(count: usize) -> f32 {
    use std::arch::x86_64::*;

    let (factor, addend) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let (factor, addend) = (_mm512_cvtne2ps_pbh(factor, factor), _mm512_cvtne2ps_pbh(addend, addend));
    let mut chains = [_mm512_setzero_ps(); 12];
    for _ in 0..count {
        chains = chains.map(|chain| _mm512_dpbf16_ps(chain, factor, addend));
    }
    chains.map(|chain| _mm512_reduce_add_ps(chain)).iter().sum()
}

/// The fastest of `times` runs on every thread at once, in seconds.
fn fastest(times: usize, run: impl Fn() + Sync) -> f64 {
    let once = || {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..times).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// FLOP/s of f32 with each instruction set that this processor has, the best one last, and those of bf16 if it has them.
fn arithmetic_limits() -> (Vec<(&'static str, f64)>, Option<f64>) {
    const COUNT: usize = 2_000_000;
    let rate = |width: usize, run: &(dyn Fn(usize) -> f32 + Sync)| {
        let seconds = fastest(5, || {
            rayon::broadcast(|_| black_box(run(black_box(COUNT))));
        });
        (rayon::current_num_threads() * COUNT * 12 * width * 2) as f64 / seconds
    };
    let mut limits = vec![("plain", rate(4, &multiply_adds::<4, { cfg!(target_arch = "aarch64") }>))];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features, as just checked.
            limits.push(("avx2", rate(8, &|count| unsafe { multiply_adds_avx2(count) })));
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: as above; every processor with AVX-512 has AVX2.
            limits.push(("avx512", rate(16, &|count| unsafe { multiply_adds_avx512(count) })));
        }
        if engine::has_bf16() {
            // SAFETY: as above; an instruction multiplies 32 pairs.
            return (limits, Some(rate(32, &|count| unsafe { multiply_adds_bf16(count) })));
        }
    }
    (limits, None)
}

/// Bytes per second of `a = b + s c` over three arrays larger than any cache.
fn memory_limit() -> f64 {
    const LENGTH: usize = 1 << 25;
    let mut a = vec![0.0f32; LENGTH];
    let (b, c) = (vec![1.0f32; LENGTH], vec![2.0f32; LENGTH]);
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        a.par_chunks_mut(1 << 16).zip(b.par_chunks(1 << 16)).zip(c.par_chunks(1 << 16)).for_each(|((a, b), c)| {
            a.iter_mut().zip(b).zip(c).for_each(|((a, b), c)| *a = b + 3.0 * c);
        });
        black_box(&mut a);
        best = best.min(start.elapsed().as_secs_f64());
    }
    (12 * LENGTH) as f64 / best
}

fn random(seed: u64, shape: &[usize]) -> Tensor {
    let key = Key::new(seed);
    let numbers = (0..shape.iter().product::<usize>()).map(|i| key.uniform(i as u64) as f32 - 0.5).collect();
    Tensor::from_vec(numbers, shape).unwrap()
}

fn even(sequences: usize, length: usize) -> Packing {
    let offsets: Vec<u32> = (0..=sequences).map(|i| (i * length) as u32).collect();
    Packing::new(&offsets, &(0..sequences as u32).collect::<Vec<_>>())
}

/// One layer's tokens, hidden and feed-forward size: BERT-base at 16 x 64 tokens, MiniLM-L6 at 64 x 64.
const MODELS: [(&str, usize, usize, usize); 2] = [("bert", 1024, 768, 3072), ("minilm", 4096, 384, 1536)];

fn products(report: &Report) {
    for (model, rows, hidden, inner) in MODELS {
        for (inputs, outputs) in [(hidden, inner), (inner, hidden), (hidden, hidden)] {
            let (x, weight, dy) =
                (random(1, &[rows, inputs]), random(2, &[outputs, inputs]), random(3, &[rows, outputs]));
            let product = |kind: &str, a: Operand<'_>, b: Operand<'_>, shape: [usize; 2]| {
                let mut out = Tensor::zeros(&shape);
                let flops = 2 * rows * inputs * outputs;
                for (device, format, work) in
                    [(Cpu::F32, "f32", Work::Flops(flops)), (Cpu::Bf16, "bf16", Work::Bf16Flops(flops))]
                {
                    if device == Cpu::F32 || engine::has_bf16() {
                        let name = format!("matmul_{kind}_{format}/{model}/{inputs}x{outputs}");
                        report.time(&name, work, || device.matmul(a, b, 1.0, &mut out, false));
                    }
                }
            };
            product("nt", Plain(&x), Transposed(&weight), [rows, outputs]);
            product("nn", Plain(&dy), Plain(&weight), [rows, inputs]);
            product("tn", Transposed(&dy), Plain(&x), [outputs, inputs]);
        }

        let (x, weight, dy) = (random(1, &[rows, hidden]), random(2, &[inner, hidden]), random(3, &[rows, inner]));
        let (first, second) = ((&weight, &random(4, &[inner])), (&random(5, &[hidden, inner]), &random(6, &[hidden])));
        let flops = 4 * rows * hidden * inner;
        report.time(&format!("feed_forward/{model}"), Work::Flops(flops), || {
            Cpu::F32.feed_forward(&x, first, second, Activation::Gelu, true)
        });
        let middle = &dy;
        // The gradient before the activation alone: the products for weights and input are `matmul`s.
        report.time(&format!("feed_forward_backward/{model}"), Work::Flops(flops / 2), || {
            Cpu::F32.feed_forward_backward(middle, second.0, &x, Activation::Gelu)
        });
    }
}

fn attention(report: &Report) {
    for (name, sequences, length, heads, size) in
        [("minilm/64x64", 64, 64, 12, 32), ("minilm/16x256", 16, 256, 12, 32), ("bert/16x64", 16, 64, 12, 64)]
    {
        let packing = even(sequences, length);
        let hidden = heads * size;
        let qkv = random(1, &[packing.rows(), 3 * hidden]);
        let dy = random(2, &[packing.rows(), hidden]);
        let distance = random(3, &[2 * length - 1, heads]);
        let dropout = Some(Dropout { probability: 0.1, key: Key::new(1) });
        let plain = AttentionOptions { heads, causal: false, window: None, dropout: None };
        // Two products of length x length x size per head forward, five backward.
        let flops = 4 * sequences * length * length * hidden;
        for (kind, options, bias) in [
            ("", plain, None),
            ("_dropout", AttentionOptions { dropout, ..plain }, None),
            ("_bias", plain, Some(&distance)),
        ] {
            let (y, log_sum_exp) = Cpu::F32.attention(&qkv, &packing, bias, &options);
            report.time(&format!("attention{kind}/{name}"), Work::Flops(flops), || {
                Cpu::F32.attention(&qkv, &packing, bias, &options)
            });
            report.time(&format!("attention{kind}_backward/{name}"), Work::Flops(flops / 2 * 5), || {
                Cpu::F32.attention_backward(&qkv, &packing, bias, &options, &y, &log_sum_exp, &dy)
            });
        }
    }
}

/// Passes over the activations of MiniLM-L6 at 64 x 64 tokens.
fn passes(report: &Report) {
    let (packing, columns) = (even(64, 64), 384);
    let count = packing.rows() * columns;
    let [x, residual, dy] = [1, 2, 3].map(|seed| random(seed, &[packing.rows(), columns]));
    let [weight, bias] = [4, 5].map(|seed| random(seed, &[columns]));
    let site = Dropout { probability: 0.1, key: Key::new(1) };
    for (name, dropout) in [("add_norm", None), ("add_norm_dropout", Some((&site, &packing)))] {
        report.time(name, Work::Elements(4 * count), || {
            Cpu::F32.add_norm(&x, Some(&residual), &weight, &bias, 1e-12, dropout)
        });
    }
    let (_, normalised, deviation) = Cpu::F32.add_norm(&x, Some(&residual), &weight, &bias, 1e-12, None);
    report.time("add_norm_backward", Work::Elements(3 * count), || {
        Cpu::F32.add_norm_backward(&normalised, &deviation, &weight, &dy, None)
    });
    report.time("dropout", Work::Elements(2 * count), || Cpu::F32.dropout(&x, &site, &packing));
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
        let name = format!("{kind:?}").to_lowercase();
        report.time(&name, Work::Elements(2 * count), || Cpu::F32.activation(kind, &x));
        report.time(&format!("{name}_backward"), Work::Elements(3 * count), || {
            Cpu::F32.activation_backward(kind, &x, &dy)
        });
    }
    let mut sums = Tensor::zeros(&[columns]);
    report.time("column_sums", Work::Elements(count), || Cpu::F32.column_sums(&x, &mut sums, true));

    let [word, position, kind] = [30_522, 512, 2].map(|entries| random(6, &[entries, columns]));
    let ids = |entries: u32| -> Vec<u32> {
        (0..packing.rows() as u64).map(|i| Key::new(2).bits(i) as u32 % entries).collect()
    };
    let (words, positions, kinds) = (ids(30_522), ids(64), vec![0; packing.rows()]);
    report.time("embedding_sum", Work::Elements(4 * count), || {
        Cpu::F32.embedding_sum(&[(&word, &words), (&position, &positions), (&kind, &kinds)], columns)
    });
    for (name, table, ids) in [("words", &word, &words), ("positions", &position, &positions), ("kinds", &kind, &kinds)]
    {
        let mut gradient = Tensor::zeros(table.shape());
        report.time(&format!("embedding_backward/{name}"), Work::Elements(3 * count), || {
            Cpu::F32.embedding_backward(ids, &dy, &mut gradient, true);
        });
    }
    let mut gradient = Tensor::zeros(word.shape());
    report.time("embedding_backward/words, cleared", Work::Elements(3 * count + gradient.len()), || {
        Cpu::F32.embedding_backward(&words, &dy, &mut gradient, false);
    });
    for (name, pooling) in [("mean", Pooling::Mean), ("max", Pooling::Max), ("gem", Pooling::Gem { p: 3.0, eps: 1e-6 })]
    {
        let pooled = Cpu::F32.pool(pooling, &x, &packing);
        report.time(&format!("pool/{name}"), Work::Elements(count), || Cpu::F32.pool(pooling, &x, &packing));
        report.time(&format!("pool_backward/{name}"), Work::Elements(count), || {
            Cpu::F32.pool_backward(pooling, &x, &pooled, &packing, &pooled)
        });
    }
    let (y, norms) = Cpu::F32.normalize(&x, 1e-12);
    report.time("normalize", Work::Elements(2 * count), || Cpu::F32.normalize(&x, 1e-12));
    report
        .time("normalize_backward", Work::Elements(3 * count), || Cpu::F32.normalize_backward(&y, &norms, 1e-12, &dy));
}

/// The parameters of MiniLM-L6.
fn update(report: &Report) {
    const COUNT: usize = 22_000_000;
    let (mut weight, gradient) = (Tensor::full(&[COUNT], 0.1), Tensor::full(&[COUNT], 0.01));
    let mut state = [Tensor::zeros(&[COUNT]), Tensor::zeros(&[COUNT])];
    let kind = UpdateKind::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, amsgrad: false };
    let adam = UpdateRule { kind, weight_decay: 0.01, decoupled: true, step: 10 };
    report.time("adamw/22M", Work::Elements(7 * COUNT), || {
        Cpu::F32.update(&adam, 1e-6, 1.0, &mut weight, &gradient, &mut state);
    });
    report.time("sum_of_squares/22M", Work::Elements(COUNT), || Cpu::F32.sum_of_squares(&[&gradient]));
}

fn main() {
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
        .configure_from_args();
    let report = Report { criterion: RefCell::new(criterion), lines: RefCell::default() };
    products(&report);
    attention(&report);
    passes(&report);
    update(&report);

    let ((arithmetic, bf16), memory) = (arithmetic_limits(), memory_limit());
    println!("\n{}", Cpu::F32.name());
    for (name, rate) in arithmetic.iter().copied().chain(bf16.map(|rate| ("bf16", rate))) {
        println!("limit {name}: {:.0} GFLOP/s", rate / 1e9);
    }
    println!("limit memory: {:.1} GB/s\n", memory / 1e9);
    let flops = arithmetic.last().map_or(f64::NAN, |(_, rate)| *rate);
    for (name, work, seconds) in report.lines.borrow().iter() {
        let (rate, unit, limit) = match *work {
            Work::Flops(count) => (count as f64 / seconds, "GFLOP/s", flops),
            Work::Bf16Flops(count) => (count as f64 / seconds, "GFLOP/s", bf16.unwrap_or(f64::NAN)),
            Work::Elements(count) => (4.0 * count as f64 / seconds, "GB/s", memory),
        };
        let (milliseconds, share) = (1e3 * seconds, 100.0 * rate / limit);
        println!("{name:42} {milliseconds:9.3} ms {:8.1} {unit:8} {share:5.0} % of the limit", rate / 1e9);
    }
    report.criterion.into_inner().final_summary();
}
