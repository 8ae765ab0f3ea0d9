//! The operations of objectives: values against naive formulas in f64, gradients against central differences of those
//! formulas.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]
#![allow(clippy::type_complexity, reason = "tables of cases")]

use std::sync::Arc;

use engine::function::{
    Binary, MatrixFunction, Measure, MeasureKind, RowFunction, Similarity, TripletRule, TripletShape, Unary,
};
use engine::random::Key;
use engine::{Cpu, Error, Gradients, Parameters, Result, Tape, Tensor, Var};

type Matrices = [Vec<f64>];

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| Key::new(seed).normal(i) as f32).collect()
}

/// Checks value and gradients of `operation` on inputs of these shapes.
fn check(
    shapes: &[&[usize]],
    inputs: Vec<Vec<f32>>,
    operation: impl Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    naive: impl Fn(&Matrices) -> Vec<f64>,
) {
    let (device, parameters) = (Cpu, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let leaves: Vec<Var> = inputs
        .iter()
        .zip(shapes)
        .map(|(data, shape)| tape.leaf(Tensor::from_vec(data.clone(), shape).unwrap()))
        .collect();
    let y = operation(&mut tape, &leaves).unwrap();
    let mut exact: Vec<Vec<f64>> = inputs.iter().map(|x| x.iter().map(|&x| f64::from(x)).collect()).collect();
    let expected = naive(&exact);
    let close = |got: f32, expected: f64, tolerance: f64, what: &str| {
        let error = (f64::from(got) - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "{what}: got {got}, expected {expected}");
    };
    assert_eq!(y.value().len(), expected.len());
    y.value().data().iter().zip(&expected).for_each(|(&got, &expected)| close(got, expected, 2e-7, "value"));

    let upstream = numbers(99, expected.len());
    let shape = y.value().shape().to_vec();
    let mut gradients = Gradients::new(&parameters);
    let mut found = tape.backward(&y, Tensor::from_vec(upstream.clone(), &shape).unwrap(), &mut gradients).unwrap();
    let total = |x: &Matrices| naive(x).iter().zip(&upstream).map(|(y, &up)| y * f64::from(up)).sum::<f64>();
    for (input, leaf) in leaves.iter().enumerate() {
        let gradient = found.take(leaf).unwrap();
        assert_eq!(gradient.shape(), leaf.value().shape());
        for i in 0..gradient.len() {
            let (x, step) = (exact[input][i], 1e-6);
            exact[input][i] = x + step;
            let above = total(&exact);
            exact[input][i] = x - step;
            let below = total(&exact);
            exact[input][i] = x;
            close(gradient.data()[i], (above - below) / (2.0 * step), 1e-6, &format!("gradient {i} of input {input}"));
        }
    }
}

#[test]
fn elementwise_functions_of_one_number() {
    let cases: [(Unary, fn(f64) -> f64); 8] = [
        (Unary::Affine { scale: -2.5, shift: 0.3 }, |x| -2.5 * x + 0.3),
        (Unary::Relu, |x| x.max(0.0)),
        (Unary::Exp, f64::exp),
        (Unary::Square, |x| x * x),
        (Unary::Abs, f64::abs),
        (Unary::Softplus { scale: 3.0 }, |x| (1.0 + (3.0 * x).exp()).ln()),
        (Unary::Ln, f64::ln),
        (Unary::Sqrt, f64::sqrt),
    ];
    for (function, naive) in cases {
        let mut x = numbers(1, 40);
        if matches!(function, Unary::Ln | Unary::Sqrt) {
            x.iter_mut().for_each(|x| *x = x.abs() + 0.3);
        }
        check(&[&[8, 5]], vec![x], |tape, x| tape.unary(function, &x[0]), |x| x[0].iter().map(|&x| naive(x)).collect());
    }
}

#[test]
fn elementwise_functions_at_their_edges() {
    let run = |function, x: &[f32]| {
        let (device, parameters) = (Cpu, Parameters::default());
        let mut tape = Tape::recording(&device, &parameters);
        let leaf = tape.leaf(Tensor::from_vec(x.to_vec(), &[x.len()]).unwrap());
        let y = tape.unary(function, &leaf).unwrap();
        let upstream = Tensor::full(&[x.len()], 1.0);
        let mut found = tape.backward(&y, upstream, &mut Gradients::new(&parameters)).unwrap();
        (y.value().data().to_vec(), found.take(&leaf).unwrap().data().to_vec())
    };
    assert_eq!(run(Unary::Sqrt, &[0.0, -1.0]), (vec![0.0, 0.0], vec![0.0, 0.0]));
    assert_eq!(run(Unary::Relu, &[0.0]), (vec![0.0], vec![0.0]));
    assert_eq!(run(Unary::Abs, &[0.0]), (vec![0.0], vec![0.0]));
    let softplus = Unary::Softplus { scale: 20.0 };
    assert_eq!(run(softplus, &[f32::NEG_INFINITY, 100.0]), (vec![0.0, 2000.0], vec![0.0, 20.0]));
    assert_eq!(run(Unary::Within { low: 0.0, high: 1.0 }, &[0.0, 0.5, 1.0]), (vec![0.0, 1.0, 0.0], vec![0.0; 3]));
}

#[test]
fn elementwise_functions_of_two_numbers_repeat_the_second() {
    let cases: [(Binary, fn(f64, f64) -> f64); 6] = [
        (Binary::Add, |a, b| a + b),
        (Binary::Subtract, |a, b| a - b),
        (Binary::Multiply, |a, b| a * b),
        (Binary::Divide, |a, b| a / b),
        (Binary::Maximum, f64::max),
        (Binary::Minimum, f64::min),
    ];
    type Index = fn(usize, usize) -> usize;
    let repeats: [(&[usize], Index); 4] =
        [(&[4, 6], |r, c| 6 * r + c), (&[1], |_, _| 0), (&[1, 6], |_, c| c), (&[4], |r, _| r)];
    for (function, naive) in cases {
        for (shape, index) in repeats {
            let mut b = numbers(3, shape.iter().product());
            b.iter_mut().for_each(|b| *b += 0.5 * b.signum());
            check(
                &[&[4, 6], shape],
                vec![numbers(2, 24), b],
                |tape, x| tape.binary(function, &x[0], &x[1]),
                |x| (0..24).map(|i| naive(x[0][i], x[1][index(i / 6, i % 6)])).collect(),
            );
        }
    }
    let (device, parameters) = (Cpu, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let (a, b) = (tape.constant(Tensor::zeros(&[4, 6])), tape.constant(Tensor::zeros(&[6])));
    assert!(matches!(tape.add(&a, &b), Err(Error::Shape { .. })));
}

fn mask(seed: u64, count: usize) -> Vec<f32> {
    numbers(seed, count).into_iter().map(|x| if x > 0.0 { 0.5 + x } else { 0.0 }).collect()
}

#[test]
fn weighted_row_sums() {
    for weights in [None, Some(mask(5, 24))] {
        let tensor = weights.clone().map(|weights| Tensor::from_vec(weights, &[4, 6]).unwrap());
        let weight = |i: usize| weights.as_ref().map_or(1.0, |weights| f64::from(weights[i]));
        let row = |x: &[f64], r: usize| (6 * r..6 * r + 6).map(|i| weight(i) * x[i]).sum::<f64>();
        check(
            &[&[4, 6]],
            vec![numbers(4, 24)],
            |tape, x| tape.row_sums(&x[0], tensor.as_ref()),
            |x| (0..4).map(|r| row(&x[0], r)).collect(),
        );
        check(
            &[&[4, 6]],
            vec![numbers(4, 24)],
            |tape, x| tape.sum(&x[0], tensor.as_ref()),
            |x| vec![(0..4).map(|r| row(&x[0], r)).sum()],
        );
    }
}

#[test]
fn log_sum_exp_and_cross_entropy_of_weighted_rows() {
    for weights in [vec![1.0; 24], mask(5, 24)] {
        let tensor = Tensor::from_vec(weights.clone(), &[4, 6]).unwrap();
        let targets = Tensor::from_vec(mask(7, 24), &[4, 6]).unwrap();
        let naive = |x: &[f64], target: &dyn Fn(usize) -> f32| -> Vec<f64> {
            let row = |r: usize| 6 * r..6 * r + 6;
            let sum = |r: usize| row(r).map(|i| f64::from(weights[i]) * (3.0 * x[i]).exp()).sum::<f64>();
            (0..4).map(|r| sum(r).ln() - row(r).map(|i| 3.0 * f64::from(target(i)) * x[i]).sum::<f64>()).collect()
        };
        check(
            &[&[4, 6]],
            vec![numbers(6, 24)],
            |tape, x| tape.log_sum_exp(&x[0], Some(&tensor), 3.0),
            |x| naive(&x[0], &|_| 0.0),
        );
        check(
            &[&[4, 6]],
            vec![numbers(6, 24)],
            |tape, x| tape.cross_entropy(&x[0], Some(&tensor), &targets, 3.0),
            |x| naive(&x[0], &|i| targets.data()[i]),
        );
    }
}

#[test]
fn a_small_cross_entropy_keeps_its_relative_precision() {
    let (device, parameters) = (Cpu, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let x = tape.leaf(Tensor::from_vec(vec![1.0, 0.25], &[1, 2]).unwrap());
    let targets = Tensor::from_vec(vec![1.0, 0.0], &[1, 2]).unwrap();
    let y = tape.cross_entropy(&x, None, &targets, 20.0).unwrap();
    let odds = (-15.0f64).exp();
    let close = |got: f32, expected: f64| assert!((f64::from(got) / expected - 1.0).abs() < 1e-7, "{got}, {expected}");
    close(y.value().item(), odds.ln_1p());
    let mut found = tape.backward(&y, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
    let gradient = found.take(&x).unwrap();
    close(gradient.data()[0], -20.0 * odds / (1.0 + odds));
    close(gradient.data()[1], 20.0 * odds / (1.0 + odds));
}

#[test]
fn log_sum_exp_of_nothing_is_minus_infinity_without_gradient() {
    let (device, parameters) = (Cpu, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let x = tape.leaf(Tensor::from_vec(vec![f32::NAN, 1.0, 2.0, 3.0], &[2, 2]).unwrap());
    let weights = Tensor::from_vec(vec![0.0, 0.0, 1.0, 0.0], &[2, 2]).unwrap();
    let y = tape.log_sum_exp(&x, Some(&weights), 1.0).unwrap();
    assert_eq!(y.value().data(), [f32::NEG_INFINITY, 2.0]);
    let mut found = tape.backward(&y, Tensor::full(&[2], 1.0), &mut Gradients::new(&parameters)).unwrap();
    assert_eq!(found.take(&x).unwrap().data(), [0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn selections_and_concatenations() {
    let indices: Arc<[[u32; 2]]> = Arc::new([[0, 5], [3, 1], [0, 5], [2, 2]]);
    check(
        &[&[4, 6]],
        vec![numbers(8, 24)],
        |tape, x| tape.gather(&x[0], indices.clone()),
        |x| vec![x[0][5], x[0][19], x[0][5], x[0][14]],
    );
    let x = || vec![numbers(8, 24)];
    check(&[&[4, 6]], x(), |tape, x| tape.diagonal(&x[0]), |x| (0..4).map(|i| x[0][7 * i]).collect());
    check(&[&[4, 6]], x(), |tape, x| tape.row_range(&x[0], 1..3), |x| x[0][6..18].to_vec());
    let columns = |x: &Matrices| x[0].chunks(6).flat_map(|row| row[2..5].to_vec()).collect();
    check(&[&[4, 6]], x(), |tape, x| tape.column_range(&x[0], 2..5), columns);
    check(
        &[&[2, 3], &[4, 3]],
        vec![numbers(9, 6), numbers(10, 12)],
        |tape, x| tape.stacked(&[&x[0], &x[1]]),
        |x| [&x[0][..], &x[1][..]].concat(),
    );
    check(
        &[&[2, 3], &[2, 1]],
        vec![numbers(9, 6), numbers(10, 2)],
        |tape, x| tape.side_by_side(&[&x[0], &x[1]]),
        |x| [&x[0][..3], &x[1][..1], &x[0][3..], &x[1][1..]].concat(),
    );
    let (device, parameters) = (Cpu, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let x = tape.constant(Tensor::zeros(&[4, 6]));
    assert!(matches!(tape.gather(&x, Arc::new([[0, 6]])), Err(Error::Index { limit: 6, .. })));
    let other = tape.constant(Tensor::zeros(&[3, 5]));
    assert!(matches!(tape.stacked(&[&x, &other]), Err(Error::Shape { operation: "stacked", .. })));
    assert!(matches!(tape.side_by_side(&[&x, &other]), Err(Error::Shape { operation: "side_by_side", .. })));
    assert!(matches!(tape.row_range(&x, 2..5), Err(Error::Index { limit: 4, .. })));
    let added = tape.add_columns(x.clone(), &x, 1.0, 1);
    assert!(matches!(added, Err(Error::Shape { operation: "add_columns", .. })));
    assert!(matches!(tape.column_range(&x, 2..7), Err(Error::Index { limit: 6, .. })));
}

#[test]
fn the_inverse_of_a_matrix() {
    // By cofactors; the largest elements stand off the diagonal, so that pivots are exchanged.
    let naive = |x: &Matrices| {
        let at = |row: usize, column: usize| x[0][3 * (row % 3) + column % 3];
        let minor = |i: usize, j: usize| at(i + 1, j + 1) * at(i + 2, j + 2) - at(i + 1, j + 2) * at(i + 2, j + 1);
        let determinant: f64 = (0..3).map(|j| at(0, j) * minor(0, j)).sum();
        (0..9).map(|k| minor(k % 3, k / 3) / determinant).collect()
    };
    let x = vec![0.0, 1.5, 0.2, -0.3, 0.1, 1.25, 2.0, -0.4, 0.5];
    check(&[&[3, 3]], vec![x], |tape, x| tape.inverse(&x[0]), naive);
    let (device, parameters) = (Cpu, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let x = tape.constant(Tensor::zeros(&[4, 6]));
    assert!(matches!(tape.inverse(&x), Err(Error::Shape { operation: "inverse", .. })));
}

const fn measured(kind: MeasureKind, normalize: Option<f64>, power: f64) -> Similarity {
    Similarity::Measured(Measure { kind, normalize, power })
}

const SIMILARITIES: [Similarity; 14] = [
    Similarity::Dot { normalize: true },
    Similarity::Dot { normalize: false },
    Similarity::Euclidean { normalize: true, squared: false },
    Similarity::Euclidean { normalize: true, squared: true },
    Similarity::Euclidean { normalize: false, squared: false },
    Similarity::Euclidean { normalize: false, squared: true },
    measured(MeasureKind::Dot, Some(2.0), 3.0),
    measured(MeasureKind::Lp { p: 1.0 }, None, 1.0),
    measured(MeasureKind::Lp { p: 1.0 }, Some(1.0), 2.0),
    measured(MeasureKind::Lp { p: 3.0 }, Some(3.0), 1.0),
    measured(MeasureKind::Lp { p: f64::INFINITY }, Some(f64::INFINITY), 1.0),
    measured(MeasureKind::Lp { p: 2.0 }, Some(2.0), 0.5),
    measured(MeasureKind::SignalToNoise, Some(2.0), 1.0),
    measured(MeasureKind::SignalToNoise, None, 2.0),
];

fn alike(similarity: Similarity, a: &[f64], b: &[f64]) -> f64 {
    let power_norm = |x: &mut dyn Iterator<Item = f64>, p: f64| match p.is_infinite() {
        true => x.fold(0.0, |largest, x| x.abs().max(largest)),
        false => x.map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p),
    };
    let norm = |x: &[f64]| similarity.norm().map_or(1.0, |p| power_norm(&mut x.iter().copied(), p));
    let variance = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (x.len() - 1) as f64
    };
    let (a_norm, b_norm) = (norm(a), norm(b));
    let pairs = a.iter().zip(b).map(|(a, b)| (a / a_norm, b / b_norm));
    match similarity {
        Similarity::Dot { .. } => pairs.map(|(a, b)| a * b).sum(),
        Similarity::Euclidean { squared, .. } => {
            let square: f64 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
            if squared { square } else { square.sqrt() }
        }
        Similarity::Measured(Measure { kind, power, .. }) => {
            let noise: Vec<f64> = pairs.clone().map(|(a, b)| a - b).collect();
            let value = match kind {
                MeasureKind::Dot => pairs.map(|(a, b)| a * b).sum(),
                MeasureKind::Lp { p } => power_norm(&mut noise.into_iter(), p),
                MeasureKind::SignalToNoise => variance(&noise) / variance(&pairs.map(|(a, _)| a).collect::<Vec<_>>()),
                _ => unreachable!(),
            };
            value.powf(power)
        }
        _ => unreachable!(),
    }
}

#[test]
fn similarities_of_all_pairs_and_of_paired_rows() {
    for similarity in SIMILARITIES {
        check(
            &[&[4, 5], &[3, 5]],
            vec![numbers(11, 20), numbers(12, 15)],
            |tape, x| tape.similarities(similarity, &x[0], &x[1]),
            |x| {
                let pairs = (0..12).map(|i| (&x[0][5 * (i / 3)..][..5], &x[1][5 * (i % 3)..][..5]));
                pairs.map(|(a, b)| alike(similarity, a, b)).collect()
            },
        );
        check(
            &[&[4, 5], &[4, 5]],
            vec![numbers(11, 20), numbers(12, 20)],
            |tape, x| tape.paired_similarities(similarity, &x[0], &x[1]),
            |x| x[0].chunks(5).zip(x[1].chunks(5)).map(|(a, b)| alike(similarity, a, b)).collect(),
        );
    }
}

#[test]
fn near_and_equal_vectors_keep_exact_distances_and_finite_gradients() {
    let (device, parameters) = (Cpu, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 1.0, 2.0, 1.0, 2.0003, 0.0, 0.0], &[4, 2]).unwrap());
    let euclidean = Similarity::Euclidean { normalize: false, squared: false };
    let y = tape.similarities(euclidean, &x, &x).unwrap();
    assert_eq!(y.value().data()[1], 0.0);
    assert_eq!(y.value().data()[2], 2.0003 - 2.0);
    let paired = tape.paired_similarities(Similarity::Euclidean { normalize: true, squared: false }, &x, &x).unwrap();
    let (total, other) = (tape.sum(&y, None).unwrap(), tape.sum(&paired, None).unwrap());
    let total = tape.add(&total, &other).unwrap();
    let mut found = tape.backward(&total, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
    assert!(found.take(&x).unwrap().data().iter().all(|g| g.is_finite()));
}

#[test]
fn transposed_matrices() {
    check(
        &[&[2, 3]],
        vec![numbers(9, 6)],
        |tape, x| tape.transpose(&x[0]),
        |x| (0..6).map(|i| x[0][i % 2 * 3 + i / 2]).collect(),
    );
}

/// Per row the sum of squares of even columns, and of this row's number times the odd ones.
struct Squares;

impl RowFunction for Squares {
    fn row(&self, row: usize, x: &[f64], gradient: Option<&mut [f64]>) -> (f64, f64) {
        let factor = |c: usize| if c.is_multiple_of(2) { 1.0 } else { row as f64 };
        if let Some(gradient) = gradient {
            (0..x.len()).for_each(|c| gradient[c] += 2.0 * factor(c) * x[c]);
        }
        (x.iter().enumerate().map(|(c, x)| factor(c) * x * x).sum(), x.len() as f64)
    }
}

/// Per row its product with the next one.
struct Next;

impl MatrixFunction for Next {
    fn row(&self, row: usize, x: &Tensor) -> (f64, f64) {
        let at = |r: usize, c: usize| f64::from(x.data()[r % x.rows() * x.columns() + c]);
        ((0..x.columns()).map(|c| at(row, c) * at(row + 1, c)).sum(), 1.0)
    }

    fn gradient(&self, row: usize, x: &Tensor, dy: &[f32], gradient: &mut [f64]) {
        let before = (row + x.rows() - 1) % x.rows();
        let at = |r: usize, c: usize| f64::from(x.data()[r % x.rows() * x.columns() + c]);
        for (c, gradient) in gradient.iter_mut().enumerate() {
            *gradient += f64::from(dy[row]) * at(row + 1, c) + f64::from(dy[before]) * at(before, c);
        }
    }
}

#[test]
fn functions_of_rows_that_are_never_held_equal_those_of_the_whole_matrix() {
    // More rows than fit a block.
    for (similarity, rows) in SIMILARITIES.into_iter().map(|s| (s, 4)).chain([(SIMILARITIES[2], 700)]) {
        let naive = |x: &Matrices| {
            let of_row = |r: usize| {
                let x = (0..3).map(|j| -2.0 * alike(similarity, &x[0][5 * r..5 * r + 5], &x[1][5 * j..5 * j + 5]));
                x.enumerate().map(|(c, x)| if c == 1 { r as f64 * x * x } else { x * x }).sum::<f64>()
            };
            (0..rows).map(of_row).collect()
        };
        if rows == 4 {
            check(
                &[&[rows, 5], &[3, 5]],
                vec![numbers(11, 5 * rows), numbers(12, 15)],
                |tape, x| Ok(tape.similarity_rows(similarity, -2.0, &x[0], &x[1], Arc::new(Squares))?.0),
                naive,
            );
        } else {
            let (device, parameters) = (Cpu, Parameters::default());
            let (a, b) = (numbers(11, 5 * rows), numbers(12, 15));
            let exact = [&a, &b].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
            let mut tape = Tape::recording(&device, &parameters);
            let a = tape.leaf(Tensor::from_vec(a, &[rows, 5]).unwrap());
            let b = tape.leaf(Tensor::from_vec(b, &[3, 5]).unwrap());
            let (y, counts) = tape.similarity_rows(similarity, -2.0, &a, &b, Arc::new(Squares)).unwrap();
            assert!(counts.value().data().iter().all(|&count| count == 3.0));
            let close = |(got, expected): (&f32, f64)| (f64::from(*got) / expected - 1.0).abs() < 2e-7;
            assert!(y.value().data().iter().zip(naive(&exact)).all(close));
            let upstream = Tensor::full(&[rows], 1.0);
            let mut found = tape.backward(&y, upstream.clone(), &mut Gradients::new(&parameters)).unwrap();
            // The same from the matrix as a whole.
            let mut tape = Tape::recording(&device, &parameters);
            let (c, d) = (tape.leaf(a.value().clone()), tape.leaf(b.value().clone()));
            let whole = tape.similarities(similarity, &c, &d).unwrap();
            let weights = (0..3 * rows).map(|i| if i % 3 == 1 { 4.0 * (i / 3) as f32 } else { 4.0 }).collect();
            let squares = tape.unary(Unary::Square, &whole).unwrap();
            let y = tape.row_sums(&squares, Some(&Tensor::from_vec(weights, &[rows, 3]).unwrap())).unwrap();
            let mut other = tape.backward(&y, upstream, &mut Gradients::new(&parameters)).unwrap();
            for (one, two) in [(&a, &c), (&b, &d)] {
                let (one, two) = (found.take(one).unwrap(), other.take(two).unwrap());
                assert!(one.data().iter().zip(two.data()).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0)));
            }
        }
    }
    check(
        &[&[4, 3]],
        vec![numbers(11, 12)],
        |tape, x| Ok(tape.matrix_rows(&x[0], Arc::new(Next))?.0),
        |x| (0..4).map(|r| (0..3).map(|c| x[0][3 * r + c] * x[0][(3 * r + 3) % 12 + c]).sum()).collect(),
    );
}

/// Every triplet of the rule, listed: per anchor the sum and the count.
fn listed(rule: &TripletRule, d: &[f64], mining: &[f64], labels: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let n = labels.len();
    let (mut sums, mut counts) = (vec![0.0; n], vec![0.0; n]);
    for (a, p, q) in (0..n * n * n).map(|i| (i / (n * n), i / n % n, i % n)) {
        let apart = mining[a * n + q] - mining[a * n + p];
        if a == p || labels[a] != labels[p] || labels[a] == labels[q] || !(apart > rule.low && apart <= rule.high) {
            continue;
        }
        let negative = if rule.swap { d[a * n + q].min(d[p * n + q]) } else { d[a * n + q] };
        let v = d[a * n + p] - negative + rule.margin;
        let loss = match rule.shape {
            TripletShape::Hinge => v.max(0.0),
            TripletShape::Softplus => v.exp().ln_1p(),
            TripletShape::Linear => v,
        };
        if rule.above < loss && loss < rule.below {
            sums[a] += loss;
            counts[a] += 1.0;
        }
    }
    (sums, counts)
}

#[test]
fn triplets_equal_the_listed_ones_under_every_rule() {
    const INFINITE: f64 = f64::INFINITY;
    // One class of one item; the distances are not symmetric, so that rows and columns cannot be confused.
    let labels = [0, 0, 1, 1, 2, 0, 1, 3, 2, 0];
    let n = labels.len();
    let same = |i: usize| labels[i / n] == labels[i % n];
    let of = |condition: &dyn Fn(usize) -> bool| {
        Tensor::from_vec((0..n * n).map(|i| f32::from(u8::from(condition(i)))).collect(), &[n, n]).unwrap()
    };
    let (positives, negatives) = (of(&|i| same(i) && i / n != i % n), of(&|i| !same(i)));
    let distances: Vec<f32> = numbers(13, n * n).iter().map(|d| d.abs()).collect();
    let others: Vec<f32> = numbers(14, n * n).iter().map(|d| d.abs()).collect();
    let mining_tensor = Tensor::from_vec(others.clone(), &[n, n]).unwrap();
    let mining: Vec<f64> = others.iter().map(|&d| f64::from(d)).collect();
    let (mut tried, mut seen) = (0, 0.0);
    for (low, high) in [(-INFINITE, INFINITE), (-INFINITE, 0.3), (-INFINITE, 0.0), (0.0, 0.3), (0.3, INFINITE)] {
        for shape in [TripletShape::Hinge, TripletShape::Softplus, TripletShape::Linear] {
            for (above, below) in [(-INFINITE, INFINITE), (0.0, INFINITE), (0.2, 0.9)] {
                for (swap, separate) in [(false, false), (true, false), (false, true), (true, true)] {
                    let rule = TripletRule { low, high, margin: 0.25, shape, swap, above, below };
                    let naive = |x: &Matrices| listed(&rule, &x[0], if separate { &mining } else { &x[0] }, &labels);
                    let given = separate.then_some(&mining_tensor);
                    check(
                        &[&[n, n]],
                        vec![distances.clone()],
                        |tape, x| Ok(tape.triplets(rule, &x[0], given, &positives, &negatives)?.0),
                        |x| naive(x).0,
                    );
                    let (device, parameters) = (Cpu, Parameters::default());
                    let mut tape = Tape::inference(&device, &parameters);
                    let x = tape.constant(Tensor::from_vec(distances.clone(), &[n, n]).unwrap());
                    let (_, counts) = tape.triplets(rule, &x, given, &positives, &negatives).unwrap();
                    let expected = naive(&[distances.iter().map(|&d| f64::from(d)).collect()]).1;
                    assert!(counts.value().data().iter().zip(&expected).all(|(&got, &count)| f64::from(got) == count));
                    tried += 1;
                    seen += expected.iter().sum::<f64>();
                }
            }
        }
    }
    assert!(tried == 180 && seen > 5000.0, "{tried} rules, {seen} triplets");
}

#[test]
fn triplets_with_tied_distances_equal_the_listed_ones() {
    let labels = [0, 0, 0, 1, 1, 1, 2, 2];
    let n = labels.len();
    // Quarters: exact, and many of them equal.
    let distances: Vec<f32> = numbers(15, n * n).iter().map(|d| (d.abs() * 4.0).round() / 4.0).collect();
    let d: Vec<f64> = distances.iter().map(|&d| f64::from(d)).collect();
    let same = |i: usize| labels[i / n] == labels[i % n];
    let of = |condition: &dyn Fn(usize) -> bool| {
        Tensor::from_vec((0..n * n).map(|i| f32::from(u8::from(condition(i)))).collect(), &[n, n]).unwrap()
    };
    let (positives, negatives) = (of(&|i| same(i) && i / n != i % n), of(&|i| !same(i)));
    for (low, high) in [(f64::NEG_INFINITY, 0.0), (0.0, 0.25), (0.25, f64::INFINITY)] {
        for (swap, above) in [(false, -1.0), (true, -1.0), (false, 0.0), (true, 0.25)] {
            let shape = TripletShape::Hinge;
            let rule = TripletRule { low, high, margin: 0.5, shape, swap, above, below: 1.0 };
            let (device, parameters) = (Cpu, Parameters::default());
            let mut tape = Tape::inference(&device, &parameters);
            let x = tape.constant(Tensor::from_vec(distances.clone(), &[n, n]).unwrap());
            let (sums, counts) = tape.triplets(rule, &x, None, &positives, &negatives).unwrap();
            let (expected, count) = listed(&rule, &d, &d, &labels);
            assert!(sums.value().data().iter().zip(&expected).all(|(&got, &sum)| f64::from(got) == sum), "{rule:?}");
            assert!(counts.value().data().iter().zip(&count).all(|(&got, &count)| f64::from(got) == count), "{rule:?}");
        }
    }
}

#[test]
fn ranked_pairs_with_ties_among_the_targets() {
    let targets: Arc<[f32]> = Arc::new([0.5, 0.0, 1.0, 0.5, 0.0, 0.5, 0.25]);
    for scale in [2.0, 20.0] {
        check(
            &[&[7]],
            vec![numbers(16, 7).iter().map(|x| x * 0.5).collect()],
            |tape, x| tape.ranked_pairs(&x[0], &targets, scale),
            |x| {
                let pairs = (0..49).map(|i| (i / 7, i % 7)).filter(|&(i, j)| targets[i] < targets[j]);
                vec![(1.0 + pairs.map(|(i, j)| (scale * (x[0][i] - x[0][j])).exp()).sum::<f64>()).ln()]
            },
        );
    }
    let equal: Arc<[f32]> = Arc::new([1.0; 3]);
    check(&[&[3]], vec![numbers(17, 3)], |tape, x| tape.ranked_pairs(&x[0], &equal, 20.0), |_| vec![0.0]);
}

#[test]
fn similarities_have_the_same_bits_on_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (device, parameters) = (Cpu, Parameters::default());
            let mut tape = Tape::recording(&device, &parameters);
            let x = tape.leaf(Tensor::from_vec(numbers(18, 150 * 70), &[150, 70]).unwrap());
            let y = tape.similarities(SIMILARITIES[2], &x, &x).unwrap();
            let upstream = Tensor::from_vec(numbers(19, 150 * 150), &[150, 150]).unwrap();
            let mut found = tape.backward(&y, upstream, &mut Gradients::new(&parameters)).unwrap();
            let bits = |tensor: &Tensor| tensor.data().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            (bits(y.value()), bits(&found.take(&x).unwrap()))
        })
    };
    assert!(run(1) == run(2) && run(1) == run(3));
}
