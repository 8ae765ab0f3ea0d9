//! The operations of objectives: values against naive formulas in f64, gradients against central differences of those
//! formulas.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]
#![allow(clippy::type_complexity, reason = "tables of cases")]

#[path = "common/devices.rs"]
mod devices;
#[path = "common/emulated.rs"]
mod emulated;
#[path = "common/formula.rs"]
mod formula;

use std::sync::Arc;

use engine::function::{Binary, TripletRule, TripletShape, Unary};
use engine::{Cpu, Device, Error, Gradients, Parameters, Tape, Tensor};

use self::devices::devices;
use self::formula::{Matrices, check, numbers};

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
    let run = |device: &dyn Device, function, x: &[f32]| {
        let parameters = Parameters::default();
        let mut tape = Tape::recording(device, &parameters);
        let leaf = tape.leaf(Tensor::from_vec(x.to_vec(), &[x.len()]).unwrap());
        let y = tape.unary(function, &leaf).unwrap();
        let upstream = Tensor::full(&[x.len()], 1.0);
        let mut found = tape.backward(&y, upstream, &mut Gradients::new(&parameters)).unwrap();
        (y.value().data().to_vec(), found.take(&leaf).unwrap().data().to_vec())
    };
    for device in devices() {
        let run = |function, x| run(device, function, x);
        assert_eq!(run(Unary::Sqrt, &[0.0, -1.0]), (vec![0.0, 0.0], vec![0.0, 0.0]));
        assert_eq!(run(Unary::Relu, &[0.0]), (vec![0.0], vec![0.0]));
        assert_eq!(run(Unary::Abs, &[0.0]), (vec![0.0], vec![0.0]));
        let softplus = Unary::Softplus { scale: 20.0 };
        assert_eq!(run(softplus, &[f32::NEG_INFINITY, 100.0]), (vec![0.0, 2000.0], vec![0.0, 20.0]));
        assert_eq!(run(Unary::Within { low: 0.0, high: 1.0 }, &[0.0, 0.5, 1.0]), (vec![0.0, 1.0, 0.0], vec![0.0; 3]));
    }
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
    let (device, parameters) = (Cpu::F32, Parameters::default());
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
    for device in devices() {
        let parameters = Parameters::default();
        let mut tape = Tape::recording(device, &parameters);
        let x = tape.leaf(Tensor::from_vec(vec![1.0, 0.25], &[1, 2]).unwrap());
        let targets = Tensor::from_vec(vec![1.0, 0.0], &[1, 2]).unwrap();
        let y = tape.cross_entropy(&x, None, &targets, 20.0).unwrap();
        let odds = (-15.0f64).exp();
        let close =
            |got: f32, expected: f64| assert!((f64::from(got) / expected - 1.0).abs() < 1e-7, "{got}, {expected}");
        close(y.value().item(), odds.ln_1p());
        let mut found = tape.backward(&y, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
        let gradient = found.take(&x).unwrap();
        close(gradient.data()[0], -20.0 * odds / (1.0 + odds));
        close(gradient.data()[1], 20.0 * odds / (1.0 + odds));
    }
}

#[test]
fn log_sum_exp_of_nothing_is_minus_infinity_without_gradient() {
    for device in devices() {
        let parameters = Parameters::default();
        let mut tape = Tape::recording(device, &parameters);
        let x = tape.leaf(Tensor::from_vec(vec![f32::NAN, 1.0, 2.0, 3.0], &[2, 2]).unwrap());
        let weights = Tensor::from_vec(vec![0.0, 0.0, 1.0, 0.0], &[2, 2]).unwrap();
        let y = tape.log_sum_exp(&x, Some(&weights), 1.0).unwrap();
        assert_eq!(y.value().data(), [f32::NEG_INFINITY, 2.0]);
        let mut found = tape.backward(&y, Tensor::full(&[2], 1.0), &mut Gradients::new(&parameters)).unwrap();
        assert_eq!(found.take(&x).unwrap().data(), [0.0, 0.0, 1.0, 0.0]);
    }
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
    let (device, parameters) = (Cpu::F32, Parameters::default());
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
    let (device, parameters) = (Cpu::F32, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let x = tape.constant(Tensor::zeros(&[4, 6]));
    assert!(matches!(tape.inverse(&x), Err(Error::Shape { operation: "inverse", .. })));
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
                    let expected = naive(&[distances.iter().map(|&d| f64::from(d)).collect()]).1;
                    for device in devices() {
                        let parameters = Parameters::default();
                        let mut tape = Tape::inference(device, &parameters);
                        let x = tape.constant(Tensor::from_vec(distances.clone(), &[n, n]).unwrap());
                        let (_, counts) = tape.triplets(rule, &x, given, &positives, &negatives).unwrap();
                        assert!(
                            counts.value().data().iter().zip(&expected).all(|(&got, &count)| f64::from(got) == count)
                        );
                    }
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
            let (expected, count) = listed(&rule, &d, &d, &labels);
            for device in devices() {
                let parameters = Parameters::default();
                let mut tape = Tape::inference(device, &parameters);
                let x = tape.constant(Tensor::from_vec(distances.clone(), &[n, n]).unwrap());
                let (sums, counts) = tape.triplets(rule, &x, None, &positives, &negatives).unwrap();
                assert!(
                    sums.value().data().iter().zip(&expected).all(|(&got, &sum)| f64::from(got) == sum),
                    "{rule:?}"
                );
                assert!(
                    counts.value().data().iter().zip(&count).all(|(&got, &count)| f64::from(got) == count),
                    "{rule:?}"
                );
            }
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
fn a_sum_of_parts_equals_the_whole_with_its_gradients() {
    // Sum over all elements of s x^2, and of s x[i] for the first row, block by block.
    for ends in [&[0, 7][..], &[0, 2, 5, 7]] {
        let parts: Vec<_> = ends.windows(2).map(|ends| ends[0]..ends[1]).collect();
        check(
            &[&[7, 3], &[1]],
            vec![numbers(1, 21), numbers(2, 1)],
            |tape, inputs| {
                tape.sum_of_parts(&[&inputs[0], &inputs[1]], parts.clone(), |tape, inputs, rows| {
                    let x = tape.row_range(&inputs[0], rows.clone())?;
                    let squares = tape.unary(Unary::Square, &x)?;
                    let squares = match rows.start {
                        0 => tape.add(&squares, &x)?,
                        _ => squares,
                    };
                    let scaled = tape.multiply(&squares, &inputs[1])?;
                    tape.sum(&scaled, None)
                })
            },
            |x| {
                let first: f64 = x[0][..3 * ends[1]].iter().sum();
                vec![x[1][0] * (x[0].iter().map(|x| x * x).sum::<f64>() + first)]
            },
        );
    }
}
