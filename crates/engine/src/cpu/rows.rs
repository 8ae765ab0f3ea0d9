//! Row-wise building blocks: reductions in a fixed order of 16 lanes, so that the bits depend neither on the
//! instruction set nor on the number of threads.

pub(crate) const LANES: usize = 16;

/// Lanes of a sum of squares.
pub(crate) const SQUARES: usize = 8;

/// Rows that one parallel task works on. Fixed, so that partial sums are the same on any number of threads.
pub(crate) const TASK_ROWS: usize = 64;

#[inline(always)]
pub(crate) fn fold(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = value;
    }
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    fold(lanes)
}

#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks_x, chunks_y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    for ((lane, &a), &b) in lanes.iter_mut().zip(chunks_x.remainder()).zip(chunks_y.remainder()) {
        *lane = a * b;
    }
    for (a, b) in chunks_x.zip(chunks_y) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    fold(lanes)
}

/// The sum of `(x - centre)^2`.
#[inline(always)]
pub(crate) fn squared_deviations(x: &[f32], centre: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = (value - centre) * (value - centre);
    }
    for chunk in chunks {
        for i in 0..LANES {
            let deviation = chunk[i] - centre;
            lanes[i] += deviation * deviation;
        }
    }
    fold(lanes)
}

#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = value;
    }
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

kernel! {
    /// `y += x`
    pub(crate) fn add(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

kernel! {
    /// `y += factor x`
    pub(crate) fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += factor * x;
        }
    }
}

kernel! {
    pub(crate) fn scale(y: &mut [f32], factor: f32) {
        for y in y {
            *y *= factor;
        }
    }
}

kernel! {
    /// The sum of the squares of all parts in f64.
    pub(crate) fn sum_of_squares(parts: &[&[f32]]) -> f64 {
        let mut lanes = [0.0f64; SQUARES];
        for part in parts {
            let chunks = part.chunks_exact(SQUARES);
            for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
                *lane += f64::from(value) * f64::from(value);
            }
            for chunk in chunks {
                for i in 0..SQUARES {
                    lanes[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
                }
            }
        }
        lanes.into_iter().sum()
    }
}

kernel! {
    /// Adds the sum over the rows of `x` to `sums`.
    pub(crate) fn add_column_sums(x: &[f32], sums: &mut [f32]) {
        for row in x.chunks_exact(sums.len()) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
    }
}
