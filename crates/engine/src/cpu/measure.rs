//! Similarities that are no matrix products, pair by pair in f64.

use rayon::prelude::*;

use crate::function::{Measure, MeasureKind};

const EPS: f64 = 1e-12;

/// `(sum |x|^p)^(1/p)`
pub(super) fn norm(x: &[f64], p: f64) -> f64 {
    if p == 2.0 {
        return x.iter().map(|x| x * x).sum::<f64>().sqrt();
    }
    if p.is_infinite() {
        return x.iter().fold(0.0, |largest, x| x.abs().max(largest));
    }
    x.iter().map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p)
}

/// The derivative of the norm by an element `x`.
pub(super) fn norm_slope(x: f64, norm: f64, p: f64) -> f64 {
    if x == 0.0 || norm == 0.0 {
        return 0.0;
    }
    if p.is_infinite() {
        return if x.abs() == norm { x.signum() } else { 0.0 };
    }
    x.signum() * (x.abs() / norm).powf(p - 1.0)
}

fn mean(x: impl Iterator<Item = f64>, count: usize) -> f64 {
    x.sum::<f64>() / count as f64
}

/// Mean and unbiased variance, the latter not below what divides safely.
fn moments(x: &[f64]) -> (f64, f64) {
    let centre = mean(x.iter().copied(), x.len());
    let squares: f64 = x.iter().map(|x| (x - centre) * (x - centre)).sum();
    (centre, squares / (x.len() as f64 - 1.0).max(1.0))
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

impl Measure {
    /// Of rows that are normalised already.
    pub(super) fn value(&self, a: &[f64], b: &[f64]) -> f64 {
        let value = self.kind.value(a, b);
        if self.power == 1.0 { value } else { value.powf(self.power) }
    }

    /// Adds the gradients in `a` and `b`, times `dy`.
    pub(super) fn gradient(&self, a: &[f64], b: &[f64], dy: f64, da: &mut [f64], db: &mut [f64]) {
        if dy == 0.0 {
            return;
        }
        let value = self.kind.value(a, b);
        let slope = match self.power {
            1.0 => 1.0,
            power if value == 0.0 && power < 1.0 => 0.0,
            power => power * value.powf(power - 1.0),
        };
        self.kind.gradient(a, b, value, slope * dy, da, db);
    }

    /// The gradients of a block of rows `a [m, k]`, which is overwritten, and of all rows `b [n, k]`, which is added to.
    pub(super) fn block_gradient(&self, a: &[f64], b: &[f64], k: usize, dy: &[f64], da: &mut [f64], db: &mut [f64]) {
        let n = b.len() / k;
        da.par_chunks_mut(k).enumerate().for_each(|(i, da)| {
            let mut unused = vec![0.0; k];
            da.fill(0.0);
            for (j, b) in b.chunks_exact(k).enumerate() {
                self.gradient(&a[i * k..(i + 1) * k], b, dy[i * n + j], da, &mut unused);
            }
        });
        db.par_chunks_mut(k).enumerate().for_each(|(j, db)| {
            let mut unused = vec![0.0; k];
            for (i, a) in a.chunks_exact(k).enumerate() {
                self.gradient(a, &b[j * k..(j + 1) * k], dy[i * n + j], &mut unused, db);
            }
        });
    }
}

impl MeasureKind {
    fn value(self, a: &[f64], b: &[f64]) -> f64 {
        match self {
            MeasureKind::Dot => a.iter().zip(b).map(|(a, b)| a * b).sum(),
            MeasureKind::Lp { p } => norm(&difference(a, b), p),
            MeasureKind::SignalToNoise => moments(&difference(a, b)).1 / moments(a).1.max(EPS * EPS),
        }
    }

    fn gradient(self, a: &[f64], b: &[f64], value: f64, dy: f64, da: &mut [f64], db: &mut [f64]) {
        let columns = a.len();
        match self {
            MeasureKind::Dot => {
                for c in 0..columns {
                    da[c] += dy * b[c];
                    db[c] += dy * a[c];
                }
            }
            MeasureKind::Lp { p } => {
                for c in 0..columns {
                    let slope = dy * norm_slope(a[c] - b[c], value, p);
                    da[c] += slope;
                    db[c] -= slope;
                }
            }
            MeasureKind::SignalToNoise => {
                let noise = difference(a, b);
                let ((noise_mean, _), (mean, variance)) = (moments(&noise), moments(a));
                let factor = 2.0 * dy / ((columns as f64 - 1.0).max(1.0) * variance.max(EPS * EPS));
                for c in 0..columns {
                    let slope = factor * (noise[c] - noise_mean);
                    da[c] += slope - factor * value * (a[c] - mean);
                    db[c] -= slope;
                }
            }
        }
    }
}
