//! ResNet-50 on random weights: the time of its 53 convolutions and batch norms, forward and backward.
//!
//! `cargo run --release -p engine --example resnet50 [images] [steps]`; `benchmarks/peers/resnet50.py` is PyTorch's side.
//! Threads are those of rayon (`RAYON_NUM_THREADS`). With `PARTS=1` it also prints the time of each kind of convolution and
//! how much of the rate of a large matrix product it reaches.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::cell::RefCell;
use std::time::Instant;

use engine::device::Operand::Plain;
use engine::device::{Activation, Device, Pooling};
use engine::map::{BatchNormOptions, ConvolutionOptions, Map, Maps, Padding, Statistics};
use engine::op::{RunningStatistics, WindowOptions};
use engine::random::Key;
use engine::{Cpu, Gradients, ParameterId, Parameters, Result, Tape, Tensor, Var};

fn random(seed: u64, shape: &[usize], scale: f64) -> Result<Tensor> {
    let key = Key::new(seed);
    let numbers = (0..shape.iter().product::<usize>()).map(|i| (scale * key.normal(i as u64)) as f32).collect();
    Tensor::from_vec(numbers, shape)
}

/// A convolution and the batch norm behind it.
struct Layer {
    weight: ParameterId,
    scale: ParameterId,
    shift: ParameterId,
    running: RunningStatistics,
    options: ConvolutionOptions,
}

impl Layer {
    fn new(parameters: &mut Parameters, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Result<Self> {
        let seed = parameters.len() as u64;
        let scale = (2.0 / (inputs * kernel * kernel) as f64).sqrt();
        let options = ConvolutionOptions { stride, padding: Padding::all(kernel / 2), ..Default::default() };
        Ok(Layer {
            weight: parameters.add(format!("{seed}.weight"), random(seed, &[outputs, inputs, kernel, kernel], scale)?),
            scale: parameters.add(format!("{seed}.scale"), Tensor::full(&[outputs], 1.0)),
            shift: parameters.add(format!("{seed}.shift"), Tensor::zeros(&[outputs])),
            running: RunningStatistics { mean: Tensor::zeros(&[outputs]), variance: Tensor::full(&[outputs], 1.0) },
            options,
        })
    }

    fn forward(
        &self,
        tape: &mut Tape<'_>,
        x: &Var,
        map: Map,
        residual: Option<&Var>,
        activation: Activation,
    ) -> Result<(Var, Map)> {
        let (y, map) = tape.conv2d(x, map, &tape.parameter(self.weight), None, self.options)?;
        let options = BatchNormOptions { eps: 1e-5, statistics: Statistics::Batch { momentum: 0.1 }, activation };
        let (scale, shift) = (tape.parameter(self.scale), tape.parameter(self.shift));
        Ok((tape.batch_norm(&y, residual, &scale, &shift, &self.running, options)?.0, map))
    }
}

struct Bottleneck {
    layers: [Layer; 3],
    shortcut: Option<Layer>,
}

struct ResNet {
    stem: Layer,
    blocks: Vec<Bottleneck>,
}

impl ResNet {
    fn new(parameters: &mut Parameters) -> Result<Self> {
        let stem = Layer::new(parameters, 3, 64, 7, 2)?;
        let (mut blocks, mut inputs) = (Vec::new(), 64);
        for (stage, count) in [3, 4, 6, 3].into_iter().enumerate() {
            for block in 0..count {
                let (width, stride) = (64 << stage, if stage > 0 && block == 0 { 2 } else { 1 });
                let layers = [
                    Layer::new(parameters, inputs, width, 1, 1)?,
                    Layer::new(parameters, width, width, 3, stride)?,
                    Layer::new(parameters, width, 4 * width, 1, 1)?,
                ];
                let shortcut = (block == 0).then(|| Layer::new(parameters, inputs, 4 * width, 1, stride));
                blocks.push(Bottleneck { layers, shortcut: shortcut.transpose()? });
                inputs = 4 * width;
            }
        }
        Ok(ResNet { stem, blocks })
    }

    fn forward(&self, tape: &mut Tape<'_>, pictures: Tensor, map: Map) -> Result<Var> {
        let examples: Vec<u32> = (0..map.images as u32).collect();
        let pictures = tape.constant(pictures);
        let (x, map) = self.stem.forward(tape, &pictures, map, None, Activation::Relu)?;
        let options = WindowOptions { padding: Padding::all(1), ..WindowOptions::square(3, 2) };
        let (mut x, mut map) = tape.max_pool2d(&x, map, options)?;
        for block in &self.blocks {
            let [first, second, third] = &block.layers;
            let (y, middle) = first.forward(tape, &x, map, None, Activation::Relu)?;
            let (y, middle) = second.forward(tape, &y, middle, None, Activation::Relu)?;
            if let Some(shortcut) = &block.shortcut {
                x = shortcut.forward(tape, &x, map, None, Activation::Identity)?.0;
            }
            (x, map) = third.forward(tape, &y, middle, Some(&x), Activation::Relu)?;
        }
        tape.pool(Pooling::Mean, &x, &map.packing(&examples))
    }
}

fn seconds(call: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}

/// The fastest of a few calls, and the median share of the rate of a large matrix product that runs by turns with it, so
/// that a machine whose speed changes does not matter.
fn timed(flops: f64, mut product: impl FnMut(), product_flops: f64, mut call: impl FnMut()) -> (f64, f64) {
    let pairs: Vec<(f64, f64)> = (0..9).map(|_| (seconds(&mut product), seconds(&mut call))).collect();
    let fastest = pairs.iter().map(|pair| pair.1).fold(f64::INFINITY, f64::min);
    let mut shares: Vec<f64> = pairs.iter().map(|(product, call)| flops / call / (product_flops / product)).collect();
    shares.sort_by(f64::total_cmp);
    (fastest, shares[shares.len() / 2])
}

/// Every kind of convolution of ResNet-50, how often it is there, and its times.
fn parts(images: usize) -> Result<()> {
    let kinds = [
        (224, 3, 64, 7, 2, 1),
        (56, 64, 64, 1, 1, 1),
        (56, 256, 64, 1, 1, 2),
        (56, 64, 64, 3, 1, 3),
        (56, 64, 256, 1, 1, 4),
        (56, 256, 128, 1, 1, 1),
        (56, 128, 128, 3, 2, 1),
        (28, 128, 512, 1, 1, 4),
        (56, 256, 512, 1, 2, 1),
        (28, 512, 128, 1, 1, 3),
        (28, 128, 128, 3, 1, 3),
        (28, 512, 256, 1, 1, 1),
        (28, 256, 256, 3, 2, 1),
        (14, 256, 1024, 1, 1, 6),
        (28, 512, 1024, 1, 2, 1),
        (14, 1024, 256, 1, 1, 5),
        (14, 256, 256, 3, 1, 5),
        (14, 1024, 512, 1, 1, 1),
        (14, 512, 512, 3, 2, 1),
        (7, 512, 2048, 1, 1, 3),
        (14, 1024, 2048, 1, 2, 1),
        (7, 2048, 512, 1, 1, 2),
        (7, 512, 512, 3, 1, 2),
    ];
    let square = random(3, &[768, 768], 1.0)?;
    let (out, square_flops) = (RefCell::new(square.clone()), 2.0 * 768f64.powi(3));
    let (mut totals, mut ideal) = ([0.0; 3], [0.0; 3]);
    for (side, inputs, outputs, kernel, stride, count) in kinds {
        let map = Map { images, height: side, width: side };
        let options = ConvolutionOptions { stride, padding: Padding::all(kernel / 2), ..Default::default() };
        let (x, weight) = (random(1, &[map.rows(), inputs], 1.0)?, random(2, &[outputs, inputs, kernel, kernel], 0.1)?);
        let y = Cpu::F32.convolution(&x, map, &weight, None, &options);
        let (mut dx, mut dweight) = (x.clone(), weight.clone());
        let flops = 2.0 * (y.len() * inputs * kernel * kernel) as f64;
        let product = || Cpu::F32.matmul(Plain(&square), Plain(&square), 1.0, &mut out.borrow_mut(), false);
        let found = [
            timed(flops, product, square_flops, || drop(Cpu::F32.convolution(&x, map, &weight, None, &options))),
            timed(flops, product, square_flops, || {
                Cpu::F32.convolution_backward_input(&y, map, &weight, &options, &mut dx, false);
            }),
            timed(flops, product, square_flops, || {
                Cpu::F32.convolution_backward_weight(&x, map, &y, &options, &mut dweight, false);
            }),
        ];
        let columns = found.map(|(time, share)| format!("{:7.2} ms {:3.0} %", 1e3 * time, 100.0 * share));
        println!(
            "{count} x {side:3} {inputs:4} -> {outputs:4} {kernel} x {kernel} / {stride}: forward {} dx {} dw {}",
            columns[0], columns[1], columns[2]
        );
        // The gradient of the pictures is not asked for.
        let wanted = [1.0, if side == 224 { 0.0 } else { 1.0 }, 1.0];
        (0..3).for_each(|i| totals[i] += f64::from(count) * flops / found[i].1 * wanted[i]);
        (0..3).for_each(|i| ideal[i] += f64::from(count) * flops * wanted[i]);
    }
    for (i, name) in ["forward", "dx", "dw"].iter().enumerate() {
        println!("{name} of all: {:.0} % of the rate of a large product", 100.0 * ideal[i] / totals[i]);
    }
    println!("all of all: {:.0} %", 100.0 * ideal.iter().sum::<f64>() / totals.iter().sum::<f64>());
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (images, steps) = (arguments.next().unwrap_or(8), arguments.next().unwrap_or(10));
    if std::env::var_os("PARTS").is_some() {
        parts(images)?;
    }
    let mut parameters = Parameters::default();
    let network = ResNet::new(&mut parameters)?;
    let map = Map { images, height: 224, width: 224 };
    let pictures = random(100, &[map.rows(), 3], 1.0)?;
    let mut gradients = Gradients::new(&parameters);
    let (mut forward, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..steps + 2 {
        gradients.clear();
        let start = Instant::now();
        let mut tape = Tape::recording(&Cpu::F32, &parameters);
        let y = network.forward(&mut tape, pictures.clone(), map)?;
        forward.push(start.elapsed().as_secs_f64());
        let upstream = Tensor::full(y.value().shape(), 1.0);
        tape.backward(&y, upstream, &mut gradients)?;
        whole.push(start.elapsed().as_secs_f64());
    }
    let median = |times: &mut Vec<f64>| {
        times.drain(..2);
        times.sort_by(f64::total_cmp);
        1e3 * times[times.len() / 2]
    };
    let (forward, fastest) = (median(&mut forward), 1e3 * whole[2..].iter().copied().fold(f64::INFINITY, f64::min));
    println!(
        "{{\"pictures\": {images}, \"forward_ms\": {forward:.1}, \"step_ms\": {:.1}, \"fastest_ms\": {fastest:.1}}}",
        median(&mut whole)
    );
    Ok(())
}
