//! How well similarities follow the scores of scored pairs: Pearson and Spearman correlation.

use serde::{Deserialize, Serialize};

/// Both correlations of predicted similarities with given scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// [`pearson`].
    pub pearson: Option<f64>,
    /// [`spearman`]; the main figure of semantic textual similarity.
    pub spearman: Option<f64>,
    /// Number of pairs.
    pub pairs: usize,
}

impl Correlation {
    /// The correlations of `(similarity, score)` pairs.
    pub fn new(pairs: &[(f64, f64)]) -> Self {
        Correlation { pearson: pearson(pairs), spearman: spearman(pairs), pairs: pairs.len() }
    }
}

/// `Σ (x - x̄)(y - ȳ) / sqrt(Σ (x - x̄)² Σ (y - ȳ)²)`, in [-1, 1]. None where it is undefined: fewer than two pairs, a
/// side on which all values are equal, or a value that is not finite.
pub fn pearson(pairs: &[(f64, f64)]) -> Option<f64> {
    let constant = |side: fn(&(f64, f64)) -> f64| pairs.windows(2).all(|two| side(&two[0]) == side(&two[1]));
    if constant(|pair| pair.0) || constant(|pair| pair.1) {
        return None;
    }
    let count = pairs.len() as f64;
    let mean_x = pairs.iter().map(|pair| pair.0).sum::<f64>() / count;
    let mean_y = pairs.iter().map(|pair| pair.1).sum::<f64>() / count;
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        xy += (x - mean_x) * (y - mean_y);
        xx += (x - mean_x) * (x - mean_x);
        yy += (y - mean_y) * (y - mean_y);
    }
    let correlation = xy / (xx.sqrt() * yy.sqrt());
    correlation.is_finite().then(|| correlation.clamp(-1.0, 1.0))
}

/// The [`pearson`] correlation of the ranks; equal values share the average of their ranks (as `scipy.stats.spearmanr`).
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return None;
    }
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let ranked: Vec<(f64, f64)> = ranks(&x).into_iter().zip(ranks(&y)).collect();
    pearson(&ranked)
}

/// The rank of every value, from 1; equal values share the average of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut done = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let average = done as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&position| ranks[position] = average);
        done += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_the_average_of_their_ranks() {
        assert_eq!(ranks(&[0.3, 0.1, 0.3, 0.7, -0.0, 0.0]), [4.5, 3.0, 4.5, 6.0, 1.5, 1.5]);
    }

    #[test]
    fn a_rising_curve_has_spearman_one_and_a_straight_line_pearson_one() {
        let curve: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), f64::from(i).exp())).collect();
        assert!((spearman(&curve).unwrap() - 1.0).abs() < 1e-12);
        assert!(pearson(&curve).unwrap() < 0.9);
        let line: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), 3.0 - 2.0 * f64::from(i))).collect();
        assert!((pearson(&line).unwrap() + 1.0).abs() < 1e-12);
    }

    #[test]
    fn undefined_correlations_are_none() {
        for pairs in [&[][..], &[(1.0, 2.0)], &[(1.0, 2.0), (1.0, 3.0)], &[(1.0, 2.0), (f64::NAN, 3.0)]] {
            assert_eq!((pearson(pairs), spearman(pairs)), (None, None));
        }
    }
}
