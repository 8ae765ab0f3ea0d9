//! Retrieval metrics as the first Finetuner defined them (`docarray/math/evaluation.py`), for comparison with its
//! published numbers. Several flatter: average precision divides by what was found, precision by what was returned.

use super::metrics::{Judged, harmonic_mean, measures, ratio};

measures! {
    /// The original's metrics, under its names. `n` is the number of hits returned, at most `k`; `h = Σ_{i≤k} r_i`.
    Original {
        /// `h / n`.
        precision_at_k,
        /// `h / R`.
        recall_at_k,
        /// `2 p r / (p + r)` of the two above, 0 if both are 0.
        f1_score_at_k,
        /// 1 if `h > 0`, else 0.
        hit_at_k,
        /// `(1 / h) Σ_{i≤k} r_i P@i`, 0 if nothing was found.
        average_precision,
        /// `1 / rank` of the first relevant document, else 0.
        reciprocal_rank,
        /// `r_1 + Σ_{i≥2} r_i / log2 i` (Järvelin and Kekäläinen 2002), without grades.
        dcg_at_k,
        /// `dcg_at_k` divided by that of the same hits, relevant ones first.
        ndcg_at_k,
        /// `(1 / h) Σ_{i≤h} r_i`, 0 if nothing was found.
        r_precision,
    }
}

impl Original {
    /// All metrics of one query. The original failed where nothing was returned or relevant; here that scores 0.
    pub fn of(judged: &Judged, k: usize) -> Self {
        let found = judged.found(k);
        let precision = ratio(found, judged.gains(k).len());
        let dcg = discounted(judged.gains(k).iter().map(|gain| *gain > 0.0));
        Original {
            precision_at_k: precision,
            recall_at_k: judged.recall(k),
            f1_score_at_k: harmonic_mean(precision, judged.recall(k)),
            hit_at_k: judged.hit_rate(k),
            average_precision: judged.average_precision(k, found),
            reciprocal_rank: judged.reciprocal_rank(k),
            dcg_at_k: dcg,
            ndcg_at_k: if found == 0 { 0.0 } else { dcg / discounted(std::iter::repeat_n(true, found)) },
            r_precision: ratio(judged.found(found), found),
        }
    }
}

/// The sum of the relevant ranks' weights 1, 1, 1 / log2 3, 1 / log2 4, …
fn discounted(relevant: impl Iterator<Item = bool>) -> f64 {
    let weight = |index: usize| 1.0 / (index as f64 + 1.0).log2().max(1.0);
    relevant.enumerate().filter(|(_, relevant)| *relevant).map(|(index, _)| weight(index)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_vector_0_1_1_0_with_three_relevant_gives_the_published_original_values() {
        let judged = Judged::new([10, 1, 2, 11], &[(1, 1.0), (2, 1.0), (3, 1.0)]);
        let expected = [0.5, 0.6667, 0.5714, 1.0, 0.5833, 0.5, 1.6309, 0.8155, 0.5];
        for (got, expected) in Original::of(&judged, 4).values().into_iter().zip(expected) {
            assert!((got - expected).abs() < 5e-5, "{got} {expected}");
        }
    }

    #[test]
    fn short_lists_are_flattered_as_they_were_and_nothing_returned_scores_zero() {
        let judged = Judged::new([1], &[(1, 1.0), (2, 1.0)]);
        let original = Original::of(&judged, 20);
        assert_eq!((original.precision_at_k, original.average_precision, original.r_precision), (1.0, 1.0, 1.0));
        assert_eq!(judged.precision(20), 0.05);
        assert_eq!(Original::of(&Judged::new([], &[(1, 1.0)]), 20), Original::default());
        assert_eq!(Original::of(&Judged::new([5], &[]), 20), Original::default());
    }

    #[test]
    fn with_one_relevant_document_average_precision_is_the_reciprocal_rank() {
        for rank in 0..6 {
            let judged =
                Judged::new((0..5).map(|document| document + 100 * u32::from(document != rank)), &[(rank, 1.0)]);
            let original = Original::of(&judged, 5);
            assert_eq!(original.average_precision, original.reciprocal_rank);
            assert_eq!(judged.average_precision(5, 1), original.reciprocal_rank);
        }
    }
}
