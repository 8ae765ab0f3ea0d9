//! How sure a mean over queries is: percentile bootstrap intervals.
//!
//! Queries are drawn with replacement, as many as there are, and the mean is taken anew; the interval holds the middle
//! 95 % of those means (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). A difference of two models
//! is *paired*: both are measured on the same drawn queries, so what makes a query hard cancels out.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A 95 % interval; `[low, high]` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Interval {
    /// The 2.5 % quantile.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
}

impl From<[f64; 2]> for Interval {
    fn from([low, high]: [f64; 2]) -> Self {
        Interval { low, high }
    }
}

impl From<Interval> for [f64; 2] {
    fn from(interval: Interval) -> Self {
        [interval.low, interval.high]
    }
}

/// How intervals are drawn. Equal seeds give equal bits, on any number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Resamples, at least 1. Default 2,000.
    pub resamples: usize,
    /// Decides which queries are drawn. Default 42.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { resamples: 2000, seed: 42 }
    }
}

impl Bootstrap {
    /// The interval of the mean of `values`, one value a query. Zero width at 0 where there are none.
    pub fn mean(&self, values: &[f64]) -> Interval {
        let rows: Vec<[f64; 1]> = values.iter().map(|&value| [value]).collect();
        self.means(&rows)[0]
    }

    /// The interval of the mean of `after - before`, both measured on the same queries in the same order.
    pub fn paired_difference(&self, before: &[f64], after: &[f64]) -> Interval {
        assert_eq!(before.len(), after.len(), "a paired difference needs the same queries on both sides");
        let rows: Vec<[f64; 1]> = before.iter().zip(after).map(|(before, after)| [after - before]).collect();
        self.means(&rows)[0]
    }

    /// The interval of the mean of every column; each row is a query. All columns see the same drawn queries.
    pub fn means<const COLUMNS: usize>(&self, rows: &[[f64; COLUMNS]]) -> [Interval; COLUMNS] {
        if rows.is_empty() {
            return [Interval::default(); COLUMNS];
        }
        let means: Vec<[f64; COLUMNS]> = (0..self.resamples.max(1) as u64)
            .into_par_iter()
            .map(|resample| {
                let mut state = mix(self.seed ^ mix(resample));
                let mut sums = [0.0; COLUMNS];
                for _ in rows {
                    state = state.wrapping_add(GOLDEN);
                    let row = (u128::from(mix(state)) * rows.len() as u128) >> 64;
                    sums.iter_mut().zip(&rows[row as usize]).for_each(|(sum, value)| *sum += value);
                }
                sums.map(|sum| sum / rows.len() as f64)
            })
            .collect();
        std::array::from_fn(|column| {
            let mut means: Vec<f64> = means.iter().map(|means| means[column]).collect();
            means.sort_unstable_by(f64::total_cmp);
            Interval { low: quantile(&means, 0.025), high: quantile(&means, 0.975) }
        })
    }
}

/// The quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` numbers uniform in [0, 1).
    fn uniform(count: usize, seed: u64) -> Vec<f64> {
        (0..count as u64)
            .map(|i| (mix(mix(seed).wrapping_add(i.wrapping_mul(GOLDEN))) >> 11) as f64 / (1u64 << 53) as f64)
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_on_any_number_of_threads_and_another_seed_does_not() {
        let values = uniform(100, 1);
        let with = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Bootstrap { seed, ..Bootstrap::default() }.mean(&values))
        };
        assert_eq!(with(1, 7), with(3, 7));
        assert_ne!(with(1, 7), with(1, 8));
    }

    #[test]
    fn the_interval_of_a_mean_is_about_as_wide_as_theory_says() {
        let values = uniform(400, 2);
        let mean = values.iter().sum::<f64>() / 400.0;
        let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 400.0).sqrt();
        let Interval { low, high } = Bootstrap { resamples: 10_000, seed: 3 }.mean(&values);
        let expected = 1.96 * deviation / 20.0;
        assert!((mean - low - expected).abs() < 0.05 * expected, "{low} {mean} {high} {expected}");
        assert!((high - mean - expected).abs() < 0.05 * expected, "{low} {mean} {high} {expected}");
    }

    #[test]
    fn about_95_of_100_intervals_hold_the_true_mean() {
        let covers = |seed: &u64| {
            let Interval { low, high } = Bootstrap { resamples: 1000, seed: *seed }.mean(&uniform(80, 1000 + seed));
            low <= 0.5 && 0.5 <= high
        };
        let covered = (0..400).filter(covers).count();
        assert!((368..=392).contains(&covered), "{covered} of 400"); // 0.95 +- 3 standard errors, a little less: 0.92 .. 0.98
    }

    #[test]
    fn pairing_sees_a_small_gain_that_two_separate_intervals_cannot() {
        let before = uniform(100, 4);
        let after: Vec<f64> = before.iter().zip(uniform(100, 5)).map(|(value, noise)| value + 0.02 * noise).collect();
        let bootstrap = Bootstrap::default();
        assert!(bootstrap.paired_difference(&before, &after).low > 0.0);
        assert!(bootstrap.mean(&before).high > bootstrap.mean(&after).low);
        assert_eq!(bootstrap.paired_difference(&before, &before), Interval::default());
        assert_eq!(bootstrap.mean(&[]), Interval::default());
        assert_eq!(bootstrap.mean(&[0.5]), Interval { low: 0.5, high: 0.5 });
    }

    #[test]
    fn quantiles_are_linear_between_neighbours_as_numpy_takes_them() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0, 2.0], 0.025), 1.025);
        assert_eq!(quantile(&[3.0], 0.975), 3.0);
    }

    #[test]
    fn columns_share_the_drawn_queries() {
        let values = uniform(50, 6);
        let rows: Vec<[f64; 3]> = values.iter().map(|&value| [value, value, 1.0]).collect();
        let [first, second, constant] = Bootstrap::default().means(&rows);
        assert_eq!(first, second);
        assert_eq!(first, Bootstrap::default().mean(&values));
        assert_eq!(constant, Interval { low: 1.0, high: 1.0 });
    }
}
