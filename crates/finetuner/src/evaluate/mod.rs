//! How good is a model at search: exact nearest neighbours, metrics per query, intervals, before and after.
//!
//! 1. [`search`]: the best documents of every query, exactly
//! 2. [`metrics`]: the standard definitions; [`original`]: those of the first Finetuner, where they differ
//! 3. [`bootstrap`]: how sure a mean over queries is
//! 4. [`report`]: before and after, as data; its `Display` is the text for a terminal
//! 5. [`correlation`]: for scored pairs, which have no ranking
//!
//! ```
//! use finetuner::evaluate::{Evaluation, depth, top_k};
//!
//! let (queries, documents) = ([1.0, 0.0], [0.0, 1.0, 1.0, 0.0, 0.6, 0.8]);
//! let relevant = vec![vec![(2, 1.0)]]; // the query should find document 2
//! let hits = top_k(&queries, &documents, 2, depth(&relevant, 20), None)?;
//! let evaluation = Evaluation::new(&hits, &relevant, 20)?;
//! assert_eq!(evaluation.summary().metrics.mrr, 0.5);
//! # Ok::<(), finetuner::Error>(())
//! ```

pub mod bootstrap;
pub mod correlation;
pub mod metrics;
pub mod original;
pub mod report;
pub mod search;
mod table;

pub use bootstrap::{Bootstrap, Interval};
pub use correlation::Correlation;
pub use metrics::{Judged, Metrics};
pub use original::Original;
pub use report::{Changes, Columns, Comparison, Verdict};
pub use search::{Hit, Similarity, top_k};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The number of hits that metrics look at unless told otherwise.
pub const K: usize = 20;

/// The deepest search that [`depth`] asks for.
pub const DEPTH_LIMIT: usize = 1000;

/// How many hits to search for so that every metric at `k` can be taken: `k`, 10 for nDCG@10, or the largest number of
/// relevant documents of one query, which R-precision needs, but for its sake no more than [`DEPTH_LIMIT`].
///
/// A query with more relevant documents than hits counts those beyond as not found, so its R-precision is a lower bound.
pub fn depth(relevant: &[Vec<(u32, f32)>], k: usize) -> usize {
    let largest = relevant.iter().map(|relevant| relevant.iter().filter(|(_, grade)| *grade > 0.0).count()).max();
    k.max(10).max(largest.unwrap_or(0).min(DEPTH_LIMIT))
}

/// Hits of each query that are kept, to be looked at.
const KEPT: usize = 5;

/// One model's hits, measured query by query.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The number of hits that the metrics look at.
    pub k: usize,
    /// One entry for every query that has a relevant document, in the order of the queries.
    pub queries: Vec<PerQuery>,
    /// Queries left out because nothing is relevant to them.
    pub without_relevant: usize,
}

/// The measures of one query.
#[derive(Debug, Clone, PartialEq)]
pub struct PerQuery {
    /// Row of the query.
    pub query: usize,
    /// Rank, from 1, of the first relevant document among the first `k` hits.
    pub rank: Option<usize>,
    /// The document that stood first.
    pub first: Option<u32>,
    /// The documents that stood first, at most five.
    pub top: Vec<u32>,
    /// The most relevant document: the highest grade, then the first listed.
    pub expected: u32,
    /// Standard definitions.
    pub metrics: Metrics,
    /// The original's definitions.
    pub original: Original,
}

impl PerQuery {
    /// None where nothing is relevant to the query.
    fn new(query: usize, hits: &[Hit], relevant: &[(u32, f32)], k: usize) -> Option<Self> {
        let judged = Judged::new(hits.iter().map(|hit| hit.document), relevant);
        let graded = relevant.iter().filter(|(_, grade)| *grade > 0.0);
        let (expected, _) = graded.rev().max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(PerQuery {
            query,
            rank: judged.first_relevant(k),
            first: hits.first().map(|hit| hit.document),
            top: hits.iter().take(KEPT).map(|hit| hit.document).collect(),
            expected: *expected,
            metrics: Metrics::of(&judged, k),
            original: Original::of(&judged, k),
        })
    }
}

/// The means over all queries; `{"k", "metrics", "original", "queries", "without_relevant"}` in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The number of hits that the metrics look at.
    pub k: usize,
    /// Standard definitions.
    pub metrics: Metrics,
    /// The original's definitions.
    pub original: Original,
    /// The number of queries in the means.
    pub queries: usize,
    /// Queries left out because nothing is relevant to them.
    pub without_relevant: usize,
}

impl Evaluation {
    /// Measures the hits of every query, best first, against its relevant documents `(document, grade)`.
    ///
    /// A grade of 0 or less means judged and not relevant. A query to which nothing is relevant is left out and
    /// counted; a query that found nothing scores 0. `hits` should reach as deep as [`depth`] says.
    ///
    /// Fails where the numbers of queries differ or no query has a relevant document.
    pub fn new(hits: &[Vec<Hit>], relevant: &[Vec<(u32, f32)>], k: usize) -> Result<Self> {
        if hits.len() != relevant.len() {
            let problem = format!("hits of {} queries, but relevant documents of {}", hits.len(), relevant.len());
            return Err(Error::Evaluation(problem));
        }
        let of = |query| PerQuery::new(query, &hits[query], &relevant[query], k);
        let queries: Vec<PerQuery> = (0..hits.len()).filter_map(of).collect();
        if queries.is_empty() {
            let problem = format!("none of the {} queries has a relevant document", hits.len());
            return Err(Error::Evaluation(problem));
        }
        Ok(Evaluation { k, without_relevant: hits.len() - queries.len(), queries })
    }

    /// The unweighted means over all queries.
    pub fn summary(&self) -> Summary {
        Summary {
            k: self.k,
            metrics: Metrics::mean(self.queries.iter().map(|query| &query.metrics)),
            original: Original::mean(self.queries.iter().map(|query| &query.original)),
            queries: self.queries.len(),
            without_relevant: self.without_relevant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(documents: &[u32]) -> Vec<Hit> {
        documents.iter().enumerate().map(|(rank, &document)| Hit { document, score: -(rank as f32) }).collect()
    }

    #[test]
    fn queries_without_relevant_documents_are_left_out_and_queries_that_found_nothing_score_zero() {
        let relevant = vec![vec![(0, 1.0)], vec![], vec![(3, 0.0)], vec![(1, 1.0), (2, 2.0), (4, 2.0)]];
        let evaluation = Evaluation::new(&[hits(&[7, 0]), hits(&[1]), hits(&[3]), hits(&[])], &relevant, 20).unwrap();
        let summary = evaluation.summary();
        assert_eq!((summary.queries, summary.without_relevant), (2, 2));
        assert_eq!(summary.metrics.mrr, 0.25);
        assert_eq!(evaluation.queries[0].rank, Some(2));
        assert_eq!(evaluation.queries[0].first, Some(7));
        assert_eq!((evaluation.queries[1].query, evaluation.queries[1].rank), (3, None));
        assert_eq!(evaluation.queries[1].expected, 2);
    }

    #[test]
    fn nothing_to_measure_is_an_error() {
        assert!(Evaluation::new(&[hits(&[1])], &[vec![]], 20).unwrap_err().to_string().contains("none of the 1"));
        assert!(Evaluation::new(&[], &[vec![]], 20).is_err());
    }

    #[test]
    fn the_search_is_deep_enough_for_r_precision_up_to_a_limit() {
        let relevant = |count: u32| vec![(0..count).map(|document| (document, 1.0)).collect::<Vec<_>>()];
        assert_eq!(depth(&relevant(3), 20), 20);
        assert_eq!(depth(&relevant(3), 5), 10);
        assert_eq!(depth(&relevant(130), 20), 130);
        assert_eq!(depth(&relevant(5000), 20), DEPTH_LIMIT);
        assert_eq!(depth(&[vec![(1, 0.0)]], 20), 20);
    }

    #[test]
    fn the_summary_has_the_documented_keys() {
        let evaluation = Evaluation::new(&[hits(&[0])], &[vec![(0, 1.0)]], 20).unwrap();
        let json = serde_json::to_value(evaluation.summary()).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&json), ["k", "metrics", "original", "queries", "without_relevant"]);
        let expected = "mrr recall map ndcg ndcg_at_10 precision hit_rate f1 r_precision accuracy_at_1".split(' ');
        assert_eq!(keys(&json["metrics"]), expected.collect::<Vec<_>>());
    }
}
