use super::*;

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f64 / 504.5 - 1.0).collect()
}

/// `out = alpha a b (+ out)`, one element at a time.
fn naive(a: Matrix<'_, f64>, b: Matrix<'_, f64>, alpha: f64, out: &mut [f64], stride: usize, accumulate: bool) {
    for (i, j) in (0..a.rows).flat_map(|i| (0..b.columns).map(move |j| (i, j))) {
        let term =
            |p: usize| a.data[i * a.row_stride + p * a.column_stride] * b.data[p * b.row_stride + j * b.column_stride];
        let sum: f64 = alpha * (0..a.columns).map(term).sum::<f64>();
        let out = &mut out[i * stride + j];
        *out = if accumulate { *out + sum } else { sum };
    }
}

/// `[rows, columns]`, stored as such or transposed, with a gap after each stored row.
fn view<T>(data: &[T], rows: usize, columns: usize, gap: usize, transposed: bool) -> Matrix<'_, T> {
    match transposed {
        false => Matrix::strided(data, rows, columns, columns + gap),
        true => Matrix::strided(data, columns, rows, rows + gap).transposed(),
    }
}

/// Sizes around the edges of tiles, blocks and slabs.
const SIZES: &[(usize, usize, usize)] = &[
    (1, 1, 1),
    (1, 500, 3),
    (5, 7, 17),
    (12, 8, 32),
    (13, 449, 33),
    (64, 32, 64),
    (97, 900, 65),
    (193, 64, 300),
    (3, 1350, 4700),
    (2, 0, 3),
];

/// Those that an interpreter multiplies in a moment: edges of tiles, of blocks, of tasks.
const SMALL_SIZES: &[(usize, usize, usize)] = &[(1, 17, 3), (7, 9, 17), (2, 0, 3)];

fn sizes() -> impl Iterator<Item = (usize, usize, usize)> {
    if cfg!(miri) { SMALL_SIZES } else { SIZES }.iter().copied()
}

/// Both operands plain and transposed, whether the product is added, and how far rows are apart in all three.
const LAYOUTS: [(bool, bool, bool, usize); 4] =
    [(false, false, false, 0), (true, false, true, 5), (false, true, true, 0), (true, true, false, 3)];

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

#[test]
fn products_of_every_shape_equal_the_naive_sum() {
    for (m, k, n) in sizes() {
        for (a_transposed, b_transposed, accumulate, gap) in LAYOUTS {
            let a = numbers((m + gap) * (k + gap), 1);
            let b = numbers((k + gap) * (n + gap), 2);
            let mut expected = numbers(m * (n + gap), 3);
            let (a32, b32) = (narrow(&a), narrow(&b));
            let (mut out, mut out32) = (expected.clone(), narrow(&expected));
            let (a, b) = (view(&a, m, k, gap, a_transposed), view(&b, k, n, gap, b_transposed));
            naive(a, b, 0.5, &mut expected, n + gap, accumulate);
            matmul(a, b, 0.5, &mut out, n + gap, accumulate, Threads::All);
            let (a, b) = (view(&a32, m, k, gap, a_transposed), view(&b32, k, n, gap, b_transposed));
            matmul(a, b, 0.5, &mut out32, n + gap, accumulate, Threads::One);
            let scale = (k as f64).max(1.0);
            for (i, &expected) in expected.iter().enumerate() {
                assert!((out[i] - expected).abs() < 1e-14 * scale, "{m} {k} {n} [{i}]: {} {expected}", out[i]);
                let off = (f64::from(out32[i]) - expected).abs();
                assert!(off < 1e-6 * scale, "{m} {k} {n} [{i}]: {} {expected} in f32", out32[i]);
            }
        }
    }
}

/// Rounded operands, exact terms, sums in f32: by the instruction where the processor has it, else as tests see it.
#[test]
fn products_of_bf16_equal_the_naive_sum_of_rounded_numbers() {
    for (m, k, n) in sizes() {
        for (a_transposed, b_transposed, accumulate, gap) in LAYOUTS {
            let a = narrow(&numbers((m + gap) * (k + gap), 1));
            let b = narrow(&numbers((k + gap) * (n + gap), 2));
            let round = |x: &[f32]| x.iter().map(|&x| half::bf16::from_f32(x).to_f64()).collect::<Vec<_>>();
            let (rounded_a, rounded_b) = (round(&a), round(&b));
            let mut expected = numbers(m * (n + gap), 3);
            let mut out = narrow(&expected);
            let (x, y) = (view(&rounded_a, m, k, gap, a_transposed), view(&rounded_b, k, n, gap, b_transposed));
            naive(x, y, 0.5, &mut expected, n + gap, accumulate);
            let (x, y) = (view(&a, m, k, gap, a_transposed), view(&b, k, n, gap, b_transposed));
            product::<Bf16>(x.into(), y, 0.5, (&mut out, n + gap), accumulate, Threads::All, &mut [], |_, _, _| {});
            for (i, &expected) in expected.iter().enumerate() {
                let off = (f64::from(out[i]) - expected).abs();
                assert!(off < 1e-6 * (k as f64).max(1.0), "{m} {k} {n} [{i}]: {} {expected}", out[i]);
            }
        }
    }
}

#[test]
fn what_follows_a_product_sees_each_row_once() {
    let (m, k, n) = if cfg!(miri) { (27, 4, 19) } else { (201, 40, 50) };
    let (a, b) = (vec![1.0f32; m * k], vec![2.0f32; k * n]);
    let (mut out, mut side) = (vec![0.0; m * n], vec![-1.0; m * n]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
    pool.install(|| {
        matmul_then::<f32>(Matrix::new(&a, m, k), Matrix::new(&b, k, n), &mut out, &mut side, |first, out, side| {
            for (i, (out, side)) in out.iter_mut().zip(side).enumerate() {
                *side = *out;
                *out += (first * n + i) as f32;
            }
        });
    });
    assert!(side.iter().all(|&side| side == 2.0 * k as f32));
    assert!(out.iter().enumerate().all(|(i, &out)| out == 2.0 * k as f32 + i as f32));
}

#[test]
fn tasks_cover_all_rows_and_every_thread_gets_as_much() {
    for (threads, rows) in [(1, 1), (2, 5), (2, 1024), (3, 4096), (4, 100), (7, 12_345)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let ranges = pool.install(|| task_rows(rows));
        let tasks: Vec<usize> = ranges.iter().map(ExactSizeIterator::len).collect();
        let (height, _) = f32::tile();
        assert_eq!(tasks.iter().sum::<usize>(), rows);
        assert!(tasks.iter().all(|&own| 0 < own && own <= TASK_ROWS), "{tasks:?}");
        let whole = &tasks[..tasks.len() - 1];
        assert!(whole.iter().all(|own| own.is_multiple_of(height)) && tasks.is_sorted_by(|a, b| a >= b), "{tasks:?}");
        // Tasks are as many for each thread, and differ by a tile.
        assert!(tasks.len().is_multiple_of(threads) || tasks.len() < 4 * threads, "{tasks:?}");
        assert!(whole.iter().all(|own| own + height >= tasks[0]), "{tasks:?}");

        let mut numbers: Vec<usize> = (0..3 * rows - 1).collect();
        let parts = cut(&mut numbers, &ranges, 3);
        let starts = parts.iter().map(|part| part[0]).collect::<Vec<_>>();
        assert_eq!(starts, ranges.iter().map(|range| 3 * range.start).collect::<Vec<_>>());
        assert!(ranges.is_sorted_by(|a, b| a.end == b.start));
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), 3 * rows - 1);
        assert!(cut(&mut [0u8; 0], &ranges, 3).iter().all(|part| part.is_empty()));
    }
}

/// Rows of every panel's width side by side, by every way of turning squares that this processor has.
#[test]
fn rows_lie_side_by_side_whatever_the_width() {
    fn check<T: Spare + PartialEq + std::fmt::Debug + From<u16>, const WIDTH: usize>(turn: impl Turn<T>) {
        // An interpreter has time for a square and a rest.
        let lengths: &[usize] = if cfg!(miri) { &[9] } else { &[0, 1, 8, 19, 32] };
        for &len in lengths {
            let sources: Vec<Vec<T>> =
                (0..WIDTH).map(|row| (0..len).map(|i| T::from((100 * row + i) as u16)).collect()).collect();
            let mut rows = vec![[T::default(); WIDTH]; len];
            interleave(std::array::from_fn(|row| &sources[row][..]), &mut rows, turn);
            for (i, row) in (0..len).flat_map(|i| (0..WIDTH).map(move |row| (i, row))) {
                assert_eq!(rows[i][row], sources[row][i], "number {i} of row {row} of {WIDTH}");
            }
        }
    }
    fn widths<T: Spare + PartialEq + std::fmt::Debug + From<u16>>(turn: impl Turn<T>) {
        check::<T, 4>(turn);
        check::<T, 6>(turn);
        check::<T, 8>(turn);
        check::<T, 12>(turn);
        check::<T, 16>(turn);
        check::<T, 32>(turn);
    }
    widths::<f32>(turn_plain);
    widths::<f64>(turn_plain);
    widths::<u32>(turn_plain);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has the instructions.
        widths::<f32>(|square| unsafe { turn_avx2(square) });
        // SAFETY: as above.
        widths::<f64>(|square| unsafe { turn_avx2(square) });
        // SAFETY: as above.
        widths::<u32>(|square| unsafe { turn_avx2(square) });
    }
}
