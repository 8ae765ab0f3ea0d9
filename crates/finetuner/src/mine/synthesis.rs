//! Rows for MarginMSELoss out of queries and a corpus that nobody has judged.

use std::collections::HashMap;

use engine::Device;
use serde_json::json;

use super::Table;
use crate::data::Modality;
use crate::data::random::Random;
use crate::encoder::{CrossEncoder, Model, Role};
use crate::error::{Error, Result};
use crate::evaluate::Similarity;

/// Queries searched at once.
const QUERIES_AT_ONCE: usize = 2048;

/// The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).
const RANK_CONSTANT: f64 = 60.0;

/// Options of [`synthesize`].
#[derive(Debug, Clone, PartialEq)]
pub struct SynthesisOptions {
    /// Documents related to a query: one that is similar, the others not. Default 10.
    pub num_relations: usize,
    /// Similar documents of each encoder that the dissimilar ones are drawn from. Default 50.
    pub candidates: usize,
    /// What is drawn from. Default 42.
    pub seed: u64,
}

impl Default for SynthesisOptions {
    fn default() -> Self {
        SynthesisOptions { num_relations: 10, candidates: 50, seed: 42 }
    }
}

/// A row for MarginMSELoss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relation {
    /// The query's place.
    pub query: u32,
    /// The document that is most similar to it.
    pub positive: u32,
    /// One that is less.
    pub negative: u32,
    /// `f(query, positive) - f(query, negative)` with the cross-encoder's score `f`.
    pub margin: f32,
}

/// Relates queries to documents (generative pseudo-labelling without generation: Wang et al. 2022, arXiv 2112.07577;
/// `synthesize` of Finetuner 0.7.7).
///
/// 1. Every encoder ranks the `candidates` most similar documents of a query by cosine; a document equal to the query is
///    passed over. With several encoders the rankings are fused: `Σ 1 / (60 + rank)`.
/// 2. The first document is the positive; `num_relations - 1` of the others, drawn at random, are negatives.
/// 3. The cross-encoder scores all of them. A false negative does no harm: its margin is small.
///
/// Gives `queries (num_relations - 1)` rows, fewer where there are not enough documents. `progress` as in
/// [`super::mine`].
///
/// # Errors
/// [`Error::Spec`] without an encoder, or for options that leave no row; those of the models; that of `progress`.
pub fn synthesize(
    queries: &[&str],
    documents: &[&str],
    encoders: &[Model],
    cross_encoder: &CrossEncoder,
    device: &dyn Device,
    options: &SynthesisOptions,
    progress: &mut dyn FnMut(&str, usize, usize) -> Result<()>,
) -> Result<Vec<Relation>> {
    if encoders.is_empty() {
        return Err(Error::spec("model", "expected one encoder or more that relate documents to queries"));
    }
    if options.num_relations < 2 {
        let problem =
            format!("expected 2 or more, one similar and one dissimilar document, got {}", options.num_relations);
        return Err(Error::spec("num_relations", problem));
    }
    if options.candidates < options.num_relations {
        let problem =
            format!("expected `num_relations` ({}) or more, got {}", options.num_relations, options.candidates);
        return Err(Error::spec("candidates", problem));
    }
    let related = relate(queries, documents, encoders, device, options, progress)?;

    // The teacher's scores of every pair, then the margins.
    let pairs: Vec<(&str, &str)> = queries
        .iter()
        .zip(&related)
        .flat_map(|(query, related)| related.iter().map(|row| (*query, documents[*row as usize])))
        .collect();
    let total = pairs.len();
    let scores = cross_encoder.scores(device, &pairs, |done| progress("score", done, total))?;
    let mut scores = scores.into_iter();
    let mut relations = Vec::new();
    for (query, related) in (0..).zip(&related) {
        let mut scored = related.iter().zip(&mut scores);
        let Some((&positive, best)) = scored.next() else { continue };
        relations.extend(scored.map(|(&negative, score)| Relation { query, positive, negative, margin: best - score }));
    }
    Ok(relations)
}

/// For each query the positive, then the negatives.
fn relate(
    queries: &[&str],
    documents: &[&str],
    encoders: &[Model],
    device: &dyn Device,
    options: &SynthesisOptions,
    progress: &mut dyn FnMut(&str, usize, usize) -> Result<()>,
) -> Result<Vec<Vec<u32>>> {
    let mut fused: Vec<HashMap<u32, f64>> = vec![HashMap::new(); queries.len()];
    for encoder in encoders {
        let dimension = encoder.encoder.dimension();
        let total = documents.len();
        let (index, _) = encoder.embed(device, documents, (Modality::Text, Role::Document), |done| {
            progress("embed documents", done, total)
        })?;
        let (own, _) = encoder.embed(device, queries, (Modality::Text, Role::Query), |done| {
            progress("embed queries", done, queries.len())
        })?;
        for (block, start) in own.chunks(QUERIES_AT_ONCE * dimension).zip((0..).step_by(QUERIES_AT_ONCE)) {
            let hits = Similarity::Cosine.top_k(block, &index, dimension, options.candidates + 1, None)?;
            for (query, hits) in (start..).zip(hits) {
                let others = hits.iter().filter(|hit| documents[hit.document as usize] != queries[query]);
                for (rank, hit) in (1..=options.candidates).zip(others) {
                    *fused[query].entry(hit.document).or_default() += 1.0 / (RANK_CONSTANT + rank as f64);
                }
            }
        }
    }
    let mut random = Random::new(options.seed, 0);
    let choose = |ranks: HashMap<u32, f64>| {
        let mut ranks: Vec<(u32, f64)> = ranks.into_iter().collect();
        ranks.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut related: Vec<u32> = ranks.into_iter().take(options.candidates).map(|(document, _)| document).collect();
        if let Some((_, others)) = related.split_first_mut() {
            random.shuffle(others);
        }
        related.truncate(options.num_relations);
        related
    };
    Ok(fused.into_iter().map(choose).collect())
}

/// The rows under `query, positive, negative, margin`.
pub fn relations_table(queries: &[&str], documents: &[&str], relations: &[Relation]) -> Table {
    let row = |relation: &Relation| {
        vec![
            json!(queries[relation.query as usize]),
            json!(documents[relation.positive as usize]),
            json!(documents[relation.negative as usize]),
            json!(relation.margin),
        ]
    };
    Table { columns: vec!["query", "positive", "negative", "margin"], rows: relations.iter().map(row).collect() }
}
