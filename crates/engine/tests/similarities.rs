//! Similarities of rows, and functions of them: values against naive formulas in f64, gradients against central
//! differences of those formulas.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

#[path = "common/devices.rs"]
mod devices;
#[path = "common/emulated.rs"]
mod emulated;
#[path = "common/formula.rs"]
mod formula;

use std::sync::Arc;

use engine::function::{MatrixFunction, Measure, MeasureKind, RowFunction, Similarity, Unary};
use engine::{Cpu, Gradients, Parameters, Tape, Tensor};

use self::devices::devices;
use self::formula::{Matrices, check, numbers};

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
    for device in devices() {
        let parameters = Parameters::default();
        let mut tape = Tape::recording(device, &parameters);
        let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 1.0, 2.0, 1.0, 2.0003, 0.0, 0.0], &[4, 2]).unwrap());
        let euclidean = Similarity::Euclidean { normalize: false, squared: false };
        let y = tape.similarities(euclidean, &x, &x).unwrap();
        assert_eq!(y.value().data()[1], 0.0);
        assert_eq!(y.value().data()[2], 2.0003 - 2.0);
        let paired =
            tape.paired_similarities(Similarity::Euclidean { normalize: true, squared: false }, &x, &x).unwrap();
        let (total, other) = (tape.sum(&y, None).unwrap(), tape.sum(&paired, None).unwrap());
        let total = tape.add(&total, &other).unwrap();
        let mut found = tape.backward(&total, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
        assert!(found.take(&x).unwrap().data().iter().all(|g| g.is_finite()));
    }
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
            continue;
        }
        for device in devices() {
            let parameters = Parameters::default();
            let (a, b) = (numbers(11, 5 * rows), numbers(12, 15));
            let exact = [&a, &b].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
            let mut tape = Tape::recording(device, &parameters);
            let a = tape.leaf(Tensor::from_vec(a, &[rows, 5]).unwrap());
            let b = tape.leaf(Tensor::from_vec(b, &[3, 5]).unwrap());
            let (y, counts) = tape.similarity_rows(similarity, -2.0, &a, &b, Arc::new(Squares)).unwrap();
            assert!(counts.value().data().iter().all(|&count| count == 3.0));
            let close = |(got, expected): (&f32, f64)| (f64::from(*got) / expected - 1.0).abs() < 2e-7;
            assert!(y.value().data().iter().zip(naive(&exact)).all(close));
            let upstream = Tensor::full(&[rows], 1.0);
            let mut found = tape.backward(&y, upstream.clone(), &mut Gradients::new(&parameters)).unwrap();
            // The same from the matrix as a whole.
            let mut tape = Tape::recording(device, &parameters);
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

#[test]
fn similarities_have_the_same_bits_on_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (device, parameters) = (Cpu::F32, Parameters::default());
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
