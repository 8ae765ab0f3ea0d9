//! Training data out of data: hard negatives for pairs ([`mine`]), and rows with a teacher's margin for queries without
//! any match ([`synthesize`]).

mod options;
mod pool;
mod synthesis;
mod table;

use std::ops::Range;

use engine::Device;

pub use self::options::{MineOptions, Sampling};
pub use self::pool::Pool;
pub use self::synthesis::{Relation, SynthesisOptions, relations_table, synthesize};
pub use self::table::{Format, Table, table};
use crate::data::Modality;
use crate::data::random::Random;
use crate::encoder::{CrossEncoder, Model, Role};
use crate::error::Result;
use crate::evaluate::{Hit, Similarity};

/// Queries searched at once: their hits, not the whole matrix of scores, are in memory.
const QUERIES_AT_ONCE: usize = 2048;

/// What was mined for one query.
#[derive(Debug, Clone, PartialEq)]
pub struct Mined {
    /// Its row in the pool.
    pub query: u32,
    /// The scores of its positives, in the order of the pool.
    pub positive_scores: Vec<f32>,
    /// Negatives, the most similar first; fewer than asked for where not enough passed the filters.
    pub negatives: Vec<Hit>,
}

/// What the filters left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// By `absolute_margin`.
    pub absolute_margin: usize,
    /// By `relative_margin`.
    pub relative_margin: usize,
    /// By `max_score`.
    pub max_score: usize,
    /// By `min_score`.
    pub min_score: usize,
    /// Because they are known to match the query.
    pub known: usize,
}

/// Finds hard negatives: for every query of the pool the most similar documents that are not known to match it, by
/// cosine similarity, as `mine_hard_negatives` of sentence-transformers 6.2 does.
///
/// ```text
/// candidates = the range_max + m most similar documents, m = the query's known matches, at least the most
///                                                                          positives that any query has
///              without those known to match, and without
///              s + absolute_margin > s₊,   s > s₊ - relative_margin |s₊|,   s > max_score,   s < min_score
/// negatives  = num_negatives of candidates[range_min..range_max]: the first ones, or at random
/// ```
///
/// `s₊` is the lowest score among the query's own positives. A document is known to match if the pairs connect it with
/// the query, directly or through others ([`crate::data::LabelGraph`]), or if it is the query itself; the peer leaves
/// out the query's own positives only. With a cross-encoder, its scores take the place of the cosine in the filters, in
/// the order and in the result. Search is exact and never holds more than the hits of 2,048 queries.
///
/// `progress` hears a phase, how much of it is done and how much there is; it ends the work with its error.
///
/// # Errors
/// [`crate::Error::Spec`] for options that contradict each other; those of the models; that of `progress`.
pub fn mine(
    pool: &Pool,
    model: &Model,
    cross_encoder: Option<&CrossEncoder>,
    device: &dyn Device,
    options: &MineOptions,
    progress: &mut dyn FnMut(&str, usize, usize) -> Result<()>,
) -> Result<(Vec<Mined>, Skipped)> {
    options.check(cross_encoder.is_some())?;
    let dimension = model.encoder.dimension();
    let total = pool.documents.len();
    let (documents, _) = model.embed(device, &pool.documents, (Modality::Text, Role::Document), |done| {
        progress("embed documents", done, total)
    })?;
    let total = pool.queries.len();
    let (queries, _) = model
        .embed(device, &pool.queries, (Modality::Text, Role::Query), |done| progress("embed queries", done, total))?;

    let range = options.range(pool.most_positives(), cross_encoder.is_some())?;
    let mut random = Random::new(options.seed, 0);
    let mut skipped = Skipped::default();
    let mut mined = Vec::with_capacity(total);
    for start in (0..total).step_by(QUERIES_AT_ONCE) {
        let rows = start..(start + QUERIES_AT_ONCE).min(total);
        // Deep enough that a whole range is left when those known to match are out.
        let depths: Vec<usize> =
            rows.clone().map(|query| range.end + pool.known(query).max(pool.most_positives())).collect();
        let depth = depths.iter().copied().max().unwrap_or(0);
        let block = &queries[rows.start * dimension..rows.end * dimension];
        let mut hits = Similarity::Cosine.top_k(block, &documents, dimension, depth, None)?;
        hits.iter_mut().zip(depths).for_each(|(hits, depth)| hits.truncate(depth));
        let mut positive_scores: Vec<Vec<f32>> = rows
            .clone()
            .map(|query| {
                let own = &queries[query * dimension..][..dimension];
                let positives = pool.positives[query].iter();
                positives
                    .map(|&row| Similarity::Cosine.score(own, &documents[row as usize * dimension..][..dimension]))
                    .collect()
            })
            .collect();
        if let Some(cross_encoder) = cross_encoder {
            let done = |pairs: usize, all: usize| {
                progress("rescore", start * all / rows.len().max(1) + pairs, total * all / rows.len().max(1))
            };
            rescore(pool, cross_encoder, device, rows.clone(), &mut hits, &mut positive_scores, done)?;
        }
        for ((query, hits), positive_scores) in rows.zip(hits).zip(positive_scores) {
            let negatives = negatives(pool, query, hits, &positive_scores, options, &range, &mut random, &mut skipped);
            mined.push(Mined { query: query as u32, positive_scores, negatives });
        }
        progress("mine", mined.len(), total)?;
    }
    Ok((mined, skipped))
}

/// Puts the cross-encoder's scores in the place of the cosine, best first.
fn rescore(
    pool: &Pool,
    cross_encoder: &CrossEncoder,
    device: &dyn Device,
    rows: Range<usize>,
    hits: &mut [Vec<Hit>],
    positive_scores: &mut [Vec<f32>],
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (query, hits) in rows.clone().zip(hits.iter()) {
        let text = pool.queries[query].as_str();
        let positives = pool.positives[query].iter().copied();
        let documents = hits.iter().map(|hit| hit.document).chain(positives);
        pairs.extend(documents.map(|document| (text, pool.documents[document as usize].as_str())));
    }
    let all = pairs.len();
    let scores = cross_encoder.scores(device, &pairs, |done| progress(done, all))?;
    let mut scores = scores.into_iter();
    for (hits, positives) in hits.iter_mut().zip(positive_scores) {
        hits.iter_mut().zip(&mut scores).for_each(|(hit, score)| hit.score = score);
        hits.sort_unstable();
        positives.iter_mut().zip(&mut scores).for_each(|(positive, score)| *positive = score);
    }
    Ok(())
}

/// The negatives of one query among its hits.
fn negatives(
    pool: &Pool,
    query: usize,
    hits: Vec<Hit>,
    positive_scores: &[f32],
    options: &MineOptions,
    range: &Range<usize>,
    random: &mut Random,
    skipped: &mut Skipped,
) -> Vec<Hit> {
    let lowest = positive_scores.iter().copied().fold(f32::INFINITY, f32::min);
    let mut passes = |hit: &Hit| {
        if !options.include_positives && pool.matches(query, hit.document) {
            skipped.known += 1;
            return false;
        }
        let score = hit.score;
        let reasons = [
            (options.absolute_margin.is_some_and(|margin| score + margin > lowest), &mut skipped.absolute_margin),
            (
                options.relative_margin.is_some_and(|margin| score > lowest - lowest.abs() * margin),
                &mut skipped.relative_margin,
            ),
            (options.max_score.is_some_and(|most| score > most), &mut skipped.max_score),
            (options.min_score.is_some_and(|least| score < least), &mut skipped.min_score),
        ];
        for (applies, count) in reasons {
            if applies {
                *count += 1;
                return false;
            }
        }
        true
    };
    let mut left: Vec<Hit> = hits.into_iter().filter(|hit| passes(hit)).take(range.end).skip(range.start).collect();
    if options.sampling == Sampling::Random && left.len() > options.num_negatives {
        random.shuffle(&mut left);
        left.truncate(options.num_negatives);
        left.sort_unstable();
    }
    left.truncate(options.num_negatives);
    left
}
