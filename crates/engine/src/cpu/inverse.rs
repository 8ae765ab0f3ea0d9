//! The inverse of a small matrix, in f64.

use rayon::prelude::*;

/// Gauss and Jordan's elimination with the largest pivot of each column.
pub(super) fn inverse(x: &[f32], n: usize, y: &mut [f32]) {
    let width = 2 * n;
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let mut row: Vec<f64> = x[i * n..(i + 1) * n].iter().map(|x| f64::from(*x)).collect();
            row.resize(width, 0.0);
            row[n + i] = 1.0;
            row
        })
        .collect();
    for column in 0..n {
        let size = |row: &usize| rows[*row][column].abs();
        let pivot = (column..n).reduce(|best, next| if size(&next) > size(&best) { next } else { best });
        rows.swap(column, pivot.unwrap_or(column));
        let scale = 1.0 / rows[column][column];
        rows[column].iter_mut().for_each(|x| *x *= scale);
        let (above, rest) = rows.split_at_mut(column);
        let Some((pivot, below)) = rest.split_first_mut() else { continue };
        above.par_iter_mut().chain(below.par_iter_mut()).for_each(|row| {
            let factor = row[column];
            row[column..].iter_mut().zip(&pivot[column..]).for_each(|(x, p)| *x -= factor * p);
        });
    }
    for (y, row) in y.chunks_mut(n.max(1)).zip(&rows) {
        y.iter_mut().zip(&row[n..]).for_each(|(y, x)| *y = *x as f32);
    }
}

/// `dx = -y^T dy y^T`
pub(super) fn inverse_backward(y: &[f32], dy: &[f32], n: usize, dx: &mut [f32]) {
    // half[i, k] = sum over j of dy[i, j] y[k, j], then dx[i, k] = -sum over j of y[j, i] half[j, k].
    let half: Vec<f64> = (0..n * n)
        .into_par_iter()
        .map(|at| {
            let (dy, y) = (&dy[at / n * n..at / n * n + n], &y[at % n * n..at % n * n + n]);
            dy.iter().zip(y).map(|(dy, y)| f64::from(*dy) * f64::from(*y)).sum()
        })
        .collect();
    dx.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, dx)| {
        let mut sums = vec![0.0f64; n];
        for (j, half) in half.chunks(n).enumerate() {
            let factor = f64::from(y[j * n + i]);
            sums.iter_mut().zip(half).for_each(|(sum, half)| *sum -= factor * half);
        }
        dx.iter_mut().zip(sums).for_each(|(dx, sum)| *dx = sum as f32);
    });
}
