//! Retrieval metrics in the standard definition, computed from one ranking at a time.
//!
//! Notation: `r_i` is 1 where the document at rank `i` (from 1) is relevant, else 0; `g_i` its grade; `R` the number of
//! relevant documents in the whole index; a document is relevant if its grade is above 0. Ranks beyond the end of the
//! ranking count as not relevant. All values lie in [0, 1], and all are 0 where `R` is 0.

use std::collections::HashMap;

/// Defines a struct of measures that can be averaged field by field. `T` is f64, or what is said about each measure.
macro_rules! measures {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        pub struct $name<T = f64> {
            $($(#[$doc])* pub $field: T,)*
        }

        impl $name {
            /// How many measures there are.
            pub const COUNT: usize = Self::NAMES.len();

            /// Their names, as in JSON.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// The unweighted mean; all 0 where there is nothing.
            pub fn mean<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
                let (mut sums, mut count) = ([0.0; Self::COUNT], 0.0);
                for measures in all {
                    sums.iter_mut().zip(measures.values()).for_each(|(sum, value)| *sum += value);
                    count += 1.0;
                }
                Self::from_values(sums.map(|sum| if count > 0.0 { sum / count } else { 0.0 }))
            }

            /// `after - before`, field by field.
            pub fn delta(before: &Self, after: &Self) -> Self {
                let (before, after) = (before.values(), after.values());
                Self::from_values(std::array::from_fn(|index| after[index] - before[index]))
            }
        }

        impl<T: Copy> $name<T> {
            /// The values in the order of the names.
            pub fn values(&self) -> [T; $name::<f64>::COUNT] {
                [$(self.$field),*]
            }

            /// The measures from their values in the order of the names.
            pub fn from_values([$($field),*]: [T; $name::<f64>::COUNT]) -> Self {
                $name { $($field),* }
            }
        }
    };
}
pub(super) use measures;

measures! {
    /// The standard metrics at `k`, of one query or as means over queries.
    Metrics {
        /// Reciprocal rank: [`Judged::reciprocal_rank`].
        mrr,
        /// [`Judged::recall`].
        recall,
        /// Average precision: [`Judged::average_precision`] divided by `min(R, k)`.
        map,
        /// [`Judged::ndcg`] at `k`.
        ndcg,
        /// [`Judged::ndcg`] at 10, whatever `k` is.
        ndcg_at_10,
        /// [`Judged::precision`].
        precision,
        /// [`Judged::hit_rate`].
        hit_rate,
        /// [`Judged::f1`].
        f1,
        /// [`Judged::r_precision`].
        r_precision,
        /// Whether the first document is relevant.
        accuracy_at_1,
    }
}

impl Metrics {
    /// All metrics of one query.
    pub fn of(judged: &Judged, k: usize) -> Self {
        Metrics {
            mrr: judged.reciprocal_rank(k),
            recall: judged.recall(k),
            map: judged.average_precision(k, judged.relevant().min(k)),
            ndcg: judged.ndcg(k),
            ndcg_at_10: judged.ndcg(10),
            precision: judged.precision(k),
            hit_rate: judged.hit_rate(k),
            f1: judged.f1(k),
            r_precision: judged.r_precision(),
            accuracy_at_1: judged.hit_rate(1),
        }
    }
}

/// One query's ranking with the grade of every document in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Grade at each rank, 0 where the document is not relevant.
    gains: Vec<f64>,
    /// Grades of all relevant documents of the index, highest first.
    ideal: Vec<f64>,
}

impl Judged {
    /// Judges a ranking, best first, of distinct documents. A document listed as relevant twice keeps its last grade.
    pub fn new(ranking: impl IntoIterator<Item = u32>, relevant: &[(u32, f32)]) -> Self {
        let grades: HashMap<u32, f64> =
            relevant.iter().map(|&(document, grade)| (document, f64::from(grade))).collect();
        let mut ideal: Vec<f64> = grades.values().copied().filter(|grade| *grade > 0.0).collect();
        ideal.sort_unstable_by(|a, b| b.total_cmp(a));
        let gain = |document| grades.get(&document).copied().unwrap_or(0.0).max(0.0);
        Judged { gains: ranking.into_iter().map(gain).collect(), ideal }
    }

    /// `R`: how many documents of the index are relevant.
    pub fn relevant(&self) -> usize {
        self.ideal.len()
    }

    /// The grades of the first `k` documents, fewer where the ranking is shorter.
    pub fn gains(&self, k: usize) -> &[f64] {
        &self.gains[..k.min(self.gains.len())]
    }

    /// `Σ_{i≤k} r_i`.
    pub fn found(&self, k: usize) -> usize {
        self.gains(k).iter().filter(|gain| **gain > 0.0).count()
    }

    /// Rank, from 1, of the first relevant document among the first `k`.
    pub fn first_relevant(&self, k: usize) -> Option<usize> {
        self.gains(k).iter().position(|gain| *gain > 0.0).map(|index| index + 1)
    }

    /// `1 / rank` of the first relevant document, 0 if there is none among the first `k`.
    pub fn reciprocal_rank(&self, k: usize) -> f64 {
        self.first_relevant(k).map_or(0.0, |rank| 1.0 / rank as f64)
    }

    /// `Σ_{i≤k} r_i / k`, also where fewer than `k` documents were found.
    pub fn precision(&self, k: usize) -> f64 {
        ratio(self.found(k), k)
    }

    /// `Σ_{i≤k} r_i / R`.
    pub fn recall(&self, k: usize) -> f64 {
        ratio(self.found(k), self.relevant())
    }

    /// `2 p r / (p + r)` of precision and recall, 0 if both are 0.
    pub fn f1(&self, k: usize) -> f64 {
        harmonic_mean(self.precision(k), self.recall(k))
    }

    /// 1 if one of the first `k` documents is relevant, else 0. Also called success@k or accuracy@k.
    pub fn hit_rate(&self, k: usize) -> f64 {
        f64::from(self.first_relevant(k).is_some())
    }

    /// `(1 / divisor) Σ_{i≤k} r_i P@i`.
    ///
    /// Tools differ in the divisor: `min(R, k)` (sentence-transformers, and [`Metrics::map`]), `R` (trec_eval, ranx,
    /// BEIR), or the number found (the first Finetuner).
    pub fn average_precision(&self, k: usize, divisor: usize) -> f64 {
        let (mut found, mut sum) = (0, 0.0);
        for (index, gain) in self.gains(k).iter().enumerate() {
            if *gain > 0.0 {
                found += 1;
                sum += ratio(found, index + 1);
            }
        }
        if divisor == 0 { 0.0 } else { sum / divisor as f64 }
    }

    /// `Σ_{i≤k} g_i / log2(i + 1)` divided by the same sum over all relevant documents, highest grades first.
    ///
    /// The gain is the grade itself, as in trec_eval, BEIR and ranx's `ndcg`; not `2^g - 1`.
    pub fn ndcg(&self, k: usize) -> f64 {
        let discounted = |gains: &[f64]| -> f64 {
            gains.iter().take(k).enumerate().map(|(index, gain)| gain / (index as f64 + 2.0).log2()).sum()
        };
        if self.ideal.is_empty() {
            0.0
        } else {
            discounted(&self.gains) / discounted(&self.ideal).max(f64::MIN_POSITIVE)
        }
    }

    /// `Σ_{i≤R} r_i / R`: precision at the number of relevant documents, whatever `k` is. A ranking shorter than `R`
    /// gives a lower bound; [`depth`](super::depth) says how deep to search.
    pub fn r_precision(&self) -> f64 {
        ratio(self.found(self.relevant()), self.relevant())
    }
}

/// `part / whole`, 0 where the whole is 0.
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// `2 a b / (a + b)`, 0 where both are 0.
pub(super) fn harmonic_mean(a: f64, b: f64) -> f64 {
    if a + b > 0.0 { 2.0 * a * b / (a + b) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_vector_0_1_1_0_with_three_relevant_gives_the_published_standard_values() {
        let judged = Judged::new([10, 1, 2, 11], &[(1, 1.0), (2, 1.0), (3, 1.0)]);
        let metrics = Metrics::of(&judged, 4);
        for (got, expected) in [
            (metrics.precision, 0.5),
            (metrics.recall, 0.6667),
            (metrics.f1, 0.5714),
            (metrics.hit_rate, 1.0),
            (metrics.mrr, 0.5),
            (metrics.map, 0.3889),
            (metrics.ndcg, 0.5307),
            (metrics.ndcg_at_10, 0.5307),
            (metrics.r_precision, 0.6667),
            (metrics.accuracy_at_1, 0.0),
            (judged.average_precision(3, 3), 0.3889),
        ] {
            assert!((got - expected).abs() < 5e-5, "{got} {expected}");
        }
    }

    #[test]
    fn an_ideal_ranking_scores_one_and_an_empty_one_zero() {
        let relevant = [(4, 2.0), (5, 3.0), (6, 1.0)];
        let ideal = Metrics::of(&Judged::new([5, 4, 6], &relevant), 3);
        assert_eq!(ideal.values(), [1.0; Metrics::COUNT]);
        assert_eq!(Metrics::of(&Judged::new([], &relevant), 3), Metrics::default());
        assert_eq!(Metrics::of(&Judged::new([1, 2], &[]), 3), Metrics::default());
        assert_eq!(Metrics::of(&Judged::new([5], &relevant), 0).precision, 0.0);
    }

    #[test]
    fn means_and_values_keep_every_field_in_its_place() {
        let numbered = Metrics::from_values(std::array::from_fn(|index| index as f64));
        assert_eq!(numbered.recall, 1.0);
        assert_eq!(Metrics::mean([&numbered, &Metrics::default()]).accuracy_at_1, 4.5);
        assert_eq!(Metrics::mean([]), Metrics::default());
        assert_eq!(Metrics::delta(&numbered, &Metrics::default()).map, -2.0);
        assert_eq!(Metrics::NAMES[2], "map");
    }
}
