//! The cross-entropy of each row with its class, in f64 from the similarities on.

use engine::function::RowFunction;

/// Logits of the classes from the similarities of a row to the vectors of all classes.
pub(super) trait Logits: Send + Sync {
    /// One logit a class; `class` is the row's own.
    fn logits(&self, class: usize, x: &[f64]) -> Vec<f64>;

    /// Adds to `dx` the gradient of the similarities from that of the logits.
    fn backward(&self, class: usize, x: &[f64], dz: &[f64], dx: &mut [f64]);
}

/// `ln sum_c e^z_c - z_own` of each row.
pub(super) struct CrossEntropy<L> {
    /// One per row.
    pub(super) classes: Vec<u32>,
    pub(super) logits: L,
}

impl<L: Logits> RowFunction for CrossEntropy<L> {
    fn row(&self, row: usize, x: &[f64], gradient: Option<&mut [f64]>) -> (f64, f64) {
        let class = self.classes[row] as usize;
        let mut z = self.logits.logits(class, x);
        let loss = cross_entropy(&mut z, class);
        if let Some(gradient) = gradient {
            self.logits.backward(class, x, &z, gradient);
        }
        (loss, 1.0)
    }
}

/// The cross-entropy of logits, which become its gradient. Neither suffers from cancellation where it is small.
fn cross_entropy(z: &mut [f64], class: usize) -> f64 {
    let own = z[class];
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    z.iter_mut().for_each(|z| *z = (*z - largest).exp());
    let sum: f64 = z.iter().sum();
    let others: f64 = z.iter().enumerate().filter(|(c, _)| *c != class).map(|(_, e)| e).sum();
    let loss = if own == largest { others.ln_1p() } else { sum.ln() + largest - own };
    z.iter_mut().for_each(|e| *e /= sum);
    z[class] = -others / sum;
    loss
}

/// What stands in the place of the own class's similarity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// The similarity itself.
    Plain,
    /// `c - margin`
    Cosine(f64),
    /// `cos(arccos c + margin)` where the sum is at most pi, else `c - margin sin margin`; the margin in radians.
    Angle(f64),
}

impl Target {
    /// Value and derivative.
    fn of(self, cosine: f64) -> (f64, f64) {
        match self {
            Target::Plain => (cosine, 1.0),
            Target::Cosine(margin) => (cosine - margin, 1.0),
            Target::Angle(margin) => {
                let cosine = cosine.clamp(-1.0, 1.0);
                let angle = cosine.acos();
                if angle > std::f64::consts::PI - margin {
                    return (cosine - margin * margin.sin(), 1.0);
                }
                // At angle 0 the slope is infinite; embeddings of f32 cannot tell angles below 1e-4 apart.
                ((angle + margin).cos(), (angle + margin).sin() / angle.sin().max(1e-4))
            }
        }
    }
}

/// `scale` times the similarity of the nearest of a class's vectors, the own class's changed by its target.
pub(super) struct Margin {
    pub(super) scale: f64,
    pub(super) target: Target,
    /// Vectors of each class, one after the other.
    pub(super) vectors: usize,
}

impl Margin {
    /// The place of a class's nearest vector; the first of equal ones.
    fn nearest(&self, class: usize, x: &[f64]) -> usize {
        let start = class * self.vectors;
        (start + 1..start + self.vectors).fold(start, |best, next| if x[next] > x[best] { next } else { best })
    }
}

impl Logits for Margin {
    fn logits(&self, class: usize, x: &[f64]) -> Vec<f64> {
        let mut logits: Vec<f64> = (0..x.len() / self.vectors).map(|c| self.scale * x[self.nearest(c, x)]).collect();
        logits[class] = self.scale * self.target.of(x[self.nearest(class, x)]).0;
        logits
    }

    fn backward(&self, class: usize, x: &[f64], dz: &[f64], dx: &mut [f64]) {
        for (c, dz) in dz.iter().enumerate() {
            let nearest = self.nearest(c, x);
            let slope = if c == class { self.target.of(x[nearest]).1 } else { 1.0 };
            dx[nearest] += self.scale * slope * dz;
        }
    }
}
