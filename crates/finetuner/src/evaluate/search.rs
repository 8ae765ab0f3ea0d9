//! Exact nearest-neighbour search by blocked matrix products.
//!
//! A block of queries meets a block of documents in one matrix product; the similarity matrix as a whole never
//! exists. The product only screens: a document that might belong to a query's best `k` is scored once more, in f64 and
//! in a fixed order of additions. So scores, ties and order depend on the two vectors alone, not on block sizes,
//! threads or the processor's instruction set. Screening allows for its own rounding error, so nothing is missed.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A document found for a query. Orders by rank: higher scores first, then lower document numbers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Hit {
    /// Row of the document.
    pub document: u32,
    /// Its similarity to the query, higher is more similar.
    pub score: f32,
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.document.cmp(&other.document))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Hit {}

/// How similar two embeddings are; higher is more similar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// `a · b / (|a| |b|)`, 0 where one of them is the zero vector. The default.
    #[default]
    Cosine,
    /// `a · b`.
    Dot,
    /// `-|a - b|`: the negative distance, so that higher is still more similar.
    Euclidean,
}

impl Similarity {
    /// The similarity of two embeddings of equal length, summed in f64.
    pub fn score(self, first: &[f32], second: &[f32]) -> f32 {
        let score = match self {
            Similarity::Dot => sum(first, second, |a, b| a * b),
            Similarity::Euclidean => -sum(first, second, |a, b| (a - b) * (a - b)).sqrt(),
            Similarity::Cosine => {
                let lengths = norm(first) * norm(second);
                if lengths > 0.0 { sum(first, second, |a, b| a * b) / lengths } else { 0.0 }
            }
        };
        score as f32 + 0.0 // turns -0 into 0: they are a tie
    }

    /// The `k` most similar documents of every query, best first; equal scores by document number.
    ///
    /// `queries` is `[queries, dimension]` and `documents` `[documents, dimension]`, row-major. `exclude` names for
    /// every query one document that it must not find, as when a set is searched in itself. A query finds fewer than
    /// `k` documents only where there are fewer. Cosine works on normalised copies; where the embeddings are of unit
    /// length already, [`top_k`] finds the same without the copies.
    ///
    /// Fails where the shapes do not fit or an embedding is not finite (or longer than 1e18).
    pub fn top_k(
        self,
        queries: &[f32],
        documents: &[f32],
        dimension: usize,
        k: usize,
        exclude: Option<&[Option<u32>]>,
    ) -> Result<Vec<Vec<Hit>>> {
        let search = |similarity, queries, documents| {
            Search::new(similarity, queries, documents, dimension, k, exclude)
                .map(|search| search.run(Blocks::default()))
        };
        match self {
            Similarity::Cosine if dimension > 0 => {
                search(Similarity::Dot, &normalised(queries, dimension), &normalised(documents, dimension))
            }
            _ => search(self, queries, documents),
        }
    }
}

/// The `k` documents with the highest inner products for every query; see [`Similarity::top_k`].
pub fn top_k(
    queries: &[f32],
    documents: &[f32],
    dimension: usize,
    k: usize,
    exclude: Option<&[Option<u32>]>,
) -> Result<Vec<Vec<Hit>>> {
    Similarity::Dot.top_k(queries, documents, dimension, k, exclude)
}

/// How the work is cut; has no influence on the result.
#[derive(Clone, Copy)]
struct Blocks {
    queries: usize,
    documents: usize,
    /// Tasks to aim for, so that one query over many documents keeps every thread busy too.
    tasks: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        // 64 x 512 scores are 128 KiB: they stay in the second-level cache between product and scan.
        Blocks { queries: 64, documents: 512, tasks: 4 * rayon::current_num_threads() }
    }
}

struct Search<'a> {
    similarity: Similarity,
    queries: &'a [f32],
    documents: &'a [f32],
    dimension: usize,
    k: usize,
    exclude: Option<&'a [Option<u32>]>,
    /// Length of every query.
    query_norms: Vec<f64>,
    /// Length of the longest document.
    longest: f64,
    /// Half the squared length of every document; empty unless the similarity is Euclidean.
    halves: Vec<f32>,
}

impl<'a> Search<'a> {
    fn new(
        similarity: Similarity,
        queries: &'a [f32],
        documents: &'a [f32],
        dimension: usize,
        k: usize,
        exclude: Option<&'a [Option<u32>]>,
    ) -> Result<Self> {
        for (name, values) in [("query", queries), ("document", documents)] {
            if dimension == 0 || !values.len().is_multiple_of(dimension) {
                let problem = format!("{} numbers of {name} embeddings are not rows of {dimension}", values.len());
                return Err(Error::Evaluation(problem));
            }
        }
        let (query_count, document_count) = (queries.len() / dimension, documents.len() / dimension);
        if u32::try_from(document_count).is_err() {
            return Err(Error::Evaluation(format!("{document_count} documents, expected fewer than 2^32")));
        }
        if let Some(exclude) = exclude.filter(|exclude| exclude.len() != query_count) {
            let problem = format!("excluded documents for {} queries, expected {query_count}", exclude.len());
            return Err(Error::Evaluation(problem));
        }
        let query_norms = norms("query", queries, dimension)?;
        let document_norms = norms("document", documents, dimension)?;
        let longest = document_norms.iter().fold(0.0, |longest: f64, &norm| longest.max(norm));
        let halves = match similarity {
            Similarity::Euclidean => document_norms.iter().map(|norm| (norm * norm / 2.0) as f32).collect(),
            _ => Vec::new(),
        };
        Ok(Search { similarity, queries, documents, dimension, k, exclude, query_norms, longest, halves })
    }

    fn run(&self, blocks: Blocks) -> Vec<Vec<Hit>> {
        let (query_count, document_count) = (self.query_norms.len(), self.documents.len() / self.dimension);
        if self.k == 0 || query_count == 0 || document_count == 0 {
            return vec![Vec::new(); query_count];
        }
        let query_blocks = query_count.div_ceil(blocks.queries);
        let shares = blocks.tasks.div_ceil(query_blocks);
        let share = document_count.div_ceil(shares).next_multiple_of(blocks.documents);
        let shares = document_count.div_ceil(share);
        let found: Vec<Vec<BinaryHeap<Hit>>> = (0..query_blocks * shares)
            .into_par_iter()
            .map(|task| {
                let (query, document) = (task / shares * blocks.queries, task % shares * share);
                let queries = query..(query + blocks.queries).min(query_count);
                let documents = document..(document + share).min(document_count);
                self.search_part(queries, documents, blocks.documents)
            })
            .collect();
        let merge = |parts: &[Vec<BinaryHeap<Hit>>]| -> Vec<Vec<Hit>> {
            let merged = |query: usize| {
                let mut hits: Vec<Hit> = parts.iter().flat_map(|part| part[query].iter().copied()).collect();
                hits.sort_unstable();
                hits.truncate(self.k);
                hits
            };
            (0..parts[0].len()).map(merged).collect()
        };
        found.par_chunks(shares).flat_map_iter(merge).collect()
    }

    /// The best `k` among a range of documents, for a range of queries.
    fn search_part(&self, queries: Range<usize>, documents: Range<usize>, block: usize) -> Vec<BinaryHeap<Hit>> {
        let mut best: Vec<BinaryHeap<Hit>> = queries.clone().map(|_| BinaryHeap::new()).collect();
        let mut thresholds = vec![f32::NEG_INFINITY; queries.len()];
        let mut products = vec![0.0; queries.len() * block];
        let query_rows = &self.queries[queries.start * self.dimension..queries.end * self.dimension];
        for start in documents.clone().step_by(block) {
            let end = (start + block).min(documents.end);
            let products = &mut products[..queries.len() * (end - start)];
            engine::cpu::inner_products(
                query_rows,
                &self.documents[start * self.dimension..end * self.dimension],
                self.dimension,
                products,
            );
            for (row, products) in products.chunks_exact_mut(end - start).enumerate() {
                if !self.halves.is_empty() {
                    products.iter_mut().zip(&self.halves[start..end]).for_each(|(product, half)| *product -= half);
                }
                for (column, &product) in products.iter().enumerate() {
                    if product < thresholds[row] {
                        continue;
                    }
                    if self.consider(queries.start + row, start + column, &mut best[row]) {
                        thresholds[row] = self.threshold(queries.start + row, &best[row]);
                    }
                }
            }
        }
        best
    }

    /// Scores a document exactly and keeps it if it is among the best so far. Returns whether the best changed.
    fn consider(&self, query: usize, document: usize, best: &mut BinaryHeap<Hit>) -> bool {
        let number = document as u32;
        if self.exclude.is_some_and(|exclude| exclude[query] == Some(number)) {
            return false;
        }
        let row = |values: &'a [f32], row: usize| &values[row * self.dimension..(row + 1) * self.dimension];
        let score = self.similarity.score(row(self.queries, query), row(self.documents, document));
        let hit = Hit { document: number, score };
        if best.len() < self.k {
            best.push(hit);
            return true;
        }
        match best.peek_mut() {
            Some(mut worst) if hit < *worst => {
                *worst = hit;
                true
            }
            _ => false,
        }
    }

    /// The screening product below which a document's exact score cannot reach the best `k`.
    ///
    /// A sum of `d` products in f32, in any order, is off by at most about `d * epsilon / 2 * |q| |d|`
    /// (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); twice that and a little more is allowed.
    fn threshold(&self, query: usize, best: &BinaryHeap<Hit>) -> f32 {
        let worst = match best.peek() {
            Some(worst) if best.len() == self.k => f64::from(worst.score),
            _ => return f32::NEG_INFINITY,
        };
        let norm = self.query_norms[query];
        let relative = (self.dimension + 8) as f64 * f64::from(f32::EPSILON);
        let threshold = match self.similarity {
            // -|q - d| >= worst  <=>  q·d - |d|²/2 >= (|q|² - worst²) / 2
            Similarity::Euclidean => {
                (norm * norm - worst * worst) / 2.0 - relative * (norm + self.longest) * (norm + self.longest)
            }
            _ => worst - relative * norm * self.longest - f64::from(f32::MIN_POSITIVE),
        };
        threshold as f32
    }
}

/// The sum of `term(a, b)` over two vectors, in f64, in eight interleaved partial sums.
fn sum(first: &[f32], second: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let (first, first_rest) = first.as_chunks::<8>();
    let (second, second_rest) = second.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (first, second) in first.iter().zip(second) {
        for lane in 0..8 {
            sums[lane] += term(f64::from(first[lane]), f64::from(second[lane]));
        }
    }
    let rest: f64 = first_rest.iter().zip(second_rest).map(|(&a, &b)| term(f64::from(a), f64::from(b))).sum();
    sums.iter().sum::<f64>() + rest
}

/// The length of every row, or which row is not finite or so long that products of two might overflow.
fn norms(name: &str, values: &[f32], dimension: usize) -> Result<Vec<f64>> {
    let norms: Vec<f64> = values.par_chunks(dimension).map(norm).collect();
    match norms.iter().position(|norm| norm.is_nan() || *norm > 1e18) {
        Some(row) => Err(Error::Evaluation(format!(
            "the embedding of {name} {row} has the length {}, expected a finite number of at most 1e18; \
             has training diverged?",
            norms[row]
        ))),
        None => Ok(norms),
    }
}

fn norm(vector: &[f32]) -> f64 {
    sum(vector, vector, |a, b| a * b).sqrt()
}

fn normalised(rows: &[f32], dimension: usize) -> Vec<f32> {
    let mut rows = rows.to_vec();
    rows.par_chunks_mut(dimension).for_each(|row| {
        let norm = norm(row);
        if norm > 0.0 {
            row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
        }
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [-1, 1) from a linear congruential generator.
    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn naive(
        similarity: Similarity,
        queries: &[f32],
        documents: &[f32],
        dimension: usize,
        k: usize,
        exclude: Option<&[Option<u32>]>,
    ) -> Vec<Vec<Hit>> {
        let score = |query: &[f32], document: &[f32]| similarity.score(query, document);
        queries
            .chunks(dimension)
            .enumerate()
            .map(|(number, query)| {
                let mut hits: Vec<Hit> = documents
                    .chunks(dimension)
                    .enumerate()
                    .map(|(document, values)| Hit { document: document as u32, score: score(query, values) })
                    .filter(|hit| exclude.is_none_or(|exclude| exclude[number] != Some(hit.document)))
                    .collect();
                hits.sort();
                hits.truncate(k);
                hits
            })
            .collect()
    }

    #[test]
    fn equals_the_naive_loop_for_every_similarity_with_exclusions_and_k_above_the_number_of_documents() {
        for (queries, documents, dimension, k) in
            [(1, 1, 1, 1), (70, 1100, 33, 7), (3, 40, 8, 50), (130, 513, 16, 20), (1, 3000, 5, 10), (5, 600, 64, 600)]
        {
            let query_rows = random(queries * dimension, 1);
            let document_rows = random(documents * dimension, 2);
            let exclude: Vec<_> = (0..queries).map(|q| (q % 3 != 0).then_some((q * 7 % documents) as u32)).collect();
            for similarity in [Similarity::Dot, Similarity::Euclidean] {
                for exclude in [None, Some(&exclude[..])] {
                    let found = similarity.top_k(&query_rows, &document_rows, dimension, k, exclude).unwrap();
                    assert_eq!(found, naive(similarity, &query_rows, &document_rows, dimension, k, exclude));
                }
            }
            let unit = (normalised(&query_rows, dimension), normalised(&document_rows, dimension));
            let found = Similarity::Cosine.top_k(&query_rows, &document_rows, dimension, k, None).unwrap();
            assert_eq!(found, naive(Similarity::Dot, &unit.0, &unit.1, dimension, k, None));
        }
    }

    #[test]
    fn equal_documents_come_in_the_order_of_their_numbers_wherever_they_lie() {
        let dimension = 48;
        let distinct = random(5 * dimension, 3);
        let documents: Vec<f32> =
            (0..1537).flat_map(|d| distinct[d % 5 * dimension..][..dimension].iter().copied()).collect();
        let queries = random(9 * dimension, 4);
        for similarity in [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean] {
            for hits in similarity.top_k(&queries, &documents, dimension, 310, None).unwrap() {
                assert!(hits.is_sorted());
                let class = hits[0].document % 5;
                let expected: Vec<u32> = (0..1537).filter(|document| document % 5 == class).collect();
                let found: Vec<u32> = hits.iter().map(|hit| hit.document).take(expected.len()).collect();
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn neither_blocks_nor_threads_change_a_bit() {
        let (dimension, k) = (96, 13);
        let (mut queries, mut documents) = (random(50 * dimension, 5), random(900 * dimension, 6));
        queries.extend_from_within(..dimension);
        documents.extend_from_within(..50 * dimension);
        let search = Search::new(Similarity::Dot, &queries, &documents, dimension, k, None).unwrap();
        let bits = |blocks| -> Vec<(u32, u32)> {
            search.run(blocks).iter().flatten().map(|hit| (hit.document, hit.score.to_bits())).collect()
        };
        let expected = bits(Blocks::default());
        for (queries, documents, tasks) in [(1, 1, 1), (7, 13, 40), (64, 64, 3), (1000, 5000, 1)] {
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| bits(Blocks { queries, documents, tasks })), expected);
            }
        }
    }

    #[test]
    fn a_vector_finds_itself_first_and_very_large_or_tiny_numbers_do_no_harm() {
        for scale in [1e-30, 1.0, 1e17] {
            let rows: Vec<f32> = random(200 * 20, 7).iter().map(|value| value * scale).collect();
            let found = Similarity::Cosine.top_k(&rows, &rows, 20, 3, None).unwrap();
            assert!(found.iter().enumerate().all(|(row, hits)| hits[0].document == row as u32));
            assert_eq!(top_k(&rows, &rows, 20, 3, None).unwrap(), naive(Similarity::Dot, &rows, &rows, 20, 3, None));
        }
    }

    #[test]
    fn embeddings_that_are_not_finite_or_do_not_fit_are_errors_that_say_where() {
        let message = |queries: &[f32], documents: &[f32], dimension, exclude| {
            top_k(queries, documents, dimension, 1, exclude).unwrap_err().to_string()
        };
        assert!(message(&[0.0, 1.0], &[0.0, 1.0, f32::NAN, 2.0], 2, None).contains("document 1"));
        assert!(message(&[f32::INFINITY, 1.0], &[0.0, 1.0], 2, None).contains("query 0"));
        assert!(message(&[0.0, 1.0, 2.0], &[0.0, 1.0], 2, None).contains("3 numbers of query"));
        assert!(message(&[], &[], 0, None).contains("rows of 0"));
        assert!(message(&[0.0, 1.0], &[0.0, 1.0], 2, Some(&[])).contains("expected 1"));
        assert_eq!(top_k(&[0.0, 1.0], &[], 2, 5, None).unwrap(), vec![vec![]]);
        assert!(top_k(&[], &[0.0, 1.0], 2, 5, None).unwrap().is_empty());
    }
}
