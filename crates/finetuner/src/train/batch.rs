//! From example numbers to what a step needs: packed inputs, columns, labels and scores.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::budget::Budget;
use super::guide::Guide;
use crate::data::{Dataset, Example, ItemId, Kind, LabelGraph, Modality};
use crate::encoder::{Input, Model, Prepared, Preprocessor, Role, Wanted};
use crate::error::{Error, Result};
use crate::mesh::Share;
use crate::objective::{BatchLayout, Needs, Objective};
use crate::pixels::Draw;
use crate::spec::RunSpec;

/// One batch, ready for the encoder.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// Rows in order, in micro-batches of the token budget; where several ranks share a batch those of this one.
    pub(crate) micro_batches: Vec<Input>,
    pub(crate) layout: BatchLayout,
    /// Which of the run's data sets it is of.
    pub(crate) dataset: usize,
    /// What a guide is to embed; taken out when it has.
    pub(crate) guided: Option<Guided>,
    /// Whether the columns are views of the same texts, which only dropout makes different.
    pub(crate) views: bool,
    /// Whether the first column goes through the model's twin.
    pub(crate) twin: bool,
    pub(crate) examples: usize,
    /// Of this rank's rows.
    pub(crate) tokens: usize,
    pub(crate) truncated: usize,
}

impl Batch {
    /// Whether a micro-batch goes through the model's twin: that of the first column.
    pub(crate) fn goes_through_twin(&self, input: &Input) -> bool {
        let first = self.layout.columns.first().copied().unwrap_or(0);
        self.twin && input.examples().first().is_some_and(|&row| (row as usize) < first)
    }
}

/// The different items of a batch, ready for a guide; where several ranks share a batch those of this one.
#[derive(Debug, Clone)]
pub(crate) struct Guided {
    pub(crate) inputs: Vec<Input>,
    /// How many items there are.
    pub(crate) items: usize,
    /// The item of each row of the batch, among those of all ranks.
    pub(crate) rows: Vec<u32>,
}

/// Tokens that a guide sees at once.
const GUIDE_TOKENS: usize = 4096;

/// Makes batches of a data set; cloned into the thread that prepares them ahead.
#[derive(Debug, Clone)]
pub(crate) struct Batcher {
    dataset: Arc<Dataset>,
    graph: Arc<LabelGraph>,
    preprocessor: Preprocessor,
    /// Negatives that every example has; more are left out so that all columns are full.
    negatives: usize,
    /// Items alone are embedded twice, each time under other dropout masks (SimCSE).
    views: usize,
    /// What prepares items for a guide.
    guide: Option<Preprocessor>,
    budget: Arc<Budget>,
    /// Of random views.
    seed: u64,
    /// The first column stands in micro-batches of its own, as it goes through another encoder.
    twin: bool,
    /// Of which examples of a batch the inputs are prepared.
    share: Share,
}

impl Batcher {
    pub(crate) fn new(
        dataset: Arc<Dataset>,
        objective: &Objective,
        (model, budget): (&Model, &Arc<Budget>),
        spec: &RunSpec,
    ) -> Self {
        let negatives = dataset.examples.iter().map(|example| match example {
            Example::Triplet { negatives, .. } => negatives.len(),
            _ => 0,
        });
        Batcher {
            negatives: negatives.min().unwrap_or(0),
            twin: objective.needs_twin(),
            views: if matches!(objective.needs(), Needs::Guide | Needs::Any) { 1 } else { 2 },
            graph: Arc::new(LabelGraph::from_dataset(&dataset)),
            dataset,
            preprocessor: model.preprocessor.clone(),
            guide: None,
            budget: budget.clone(),
            seed: spec.seed,
            share: Share::WHOLE,
        }
    }

    /// Of each batch the inputs of one rank alone: of every column the rows of its share of the examples, so that all ranks
    /// have about as much of the short and of the long texts.
    pub(crate) fn shared(self, share: Share) -> Self {
        Batcher { share, ..self }
    }

    /// With everything ready for a guide.
    pub(crate) fn guided_by(self, guide: Option<&Guide>) -> Self {
        Batcher { guide: guide.map(|guide| guide.model.preprocessor.clone()), ..self }
    }

    pub(crate) fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// One label per example, for the class sampler: its class, or the component of its anchor.
    pub(crate) fn labels(&self) -> Vec<u32> {
        self.dataset.examples.iter().map(|example| self.label(example)).collect()
    }

    fn label(&self, example: &Example) -> u32 {
        match example {
            Example::Labelled { label, .. } => *label,
            Example::Pair { anchor, .. } | Example::Triplet { anchor, .. } => self.graph.label(*anchor),
            Example::Scored { first, .. } => self.graph.label(*first),
            Example::Single { item } => self.graph.label(*item),
        }
    }

    /// The items of every example.
    pub(crate) fn items(&self) -> Vec<Vec<ItemId>> {
        self.dataset.examples.iter().map(|example| example.items().collect()).collect()
    }

    /// The batch of these examples, with the random views that pictures have in this epoch. Without an epoch pictures are seen
    /// as they are; alone, where their views are all there is to compare, in two that are always the same. Rows stand column by
    /// column: all anchors, all positives, all first negatives …
    pub(crate) fn batch(&self, examples: &[u32], epoch: Option<u64>) -> Result<Batch> {
        let epoch = epoch.or((self.dataset.kind == Kind::Single).then_some(u64::MAX));
        let mut columns: Vec<Vec<(ItemId, Role)>> = Vec::new();
        let mut labels = Vec::new();
        let mut scores = Vec::new();
        let mut put = |column: usize, item: ItemId, role: Role| {
            if columns.len() <= column {
                columns.resize(column + 1, Vec::new());
            }
            columns[column].push((item, role));
        };
        for &example in examples {
            match &self.dataset.examples[example as usize] {
                Example::Pair { anchor, positive } => {
                    put(0, *anchor, Role::Query);
                    put(1, *positive, Role::Document);
                }
                Example::Triplet { anchor, positive, negatives, scores: taught } => {
                    put(0, *anchor, Role::Query);
                    put(1, *positive, Role::Document);
                    for (place, negative) in negatives.iter().take(self.negatives).enumerate() {
                        put(2 + place, *negative, Role::Document);
                    }
                    scores.extend_from_slice(taught);
                }
                Example::Labelled { item, label } => {
                    put(0, *item, Role::Plain);
                    labels.push(*label);
                }
                Example::Scored { first, second, score } => {
                    put(0, *first, Role::Plain);
                    put(1, *second, Role::Plain);
                    scores.push(*score);
                }
                // Dropout masks are drawn by row, so the two views differ, and are the same however the batch is cut.
                Example::Single { item } => (0..self.views).for_each(|view| put(view, *item, Role::Plain)),
            }
        }
        let items: Vec<(ItemId, Role)> = columns.iter().flatten().copied().collect();
        if self.dataset.kind != Kind::Labelled {
            labels = items.iter().map(|(item, _)| self.graph.label(*item)).collect();
        }
        let places =
            columns.iter().enumerate().flat_map(|(view, column)| (0..column.len()).map(move |row| (row, view)));
        let wanted = |(&(item, role), (row, view)): (&(ItemId, Role), (usize, usize))| {
            let row = u64::from(examples[row % examples.len()]);
            self.wanted(item, role, epoch.map(|epoch| Draw { seed: self.seed, epoch, row, view: view as u64 }))
        };
        let own =
            |(_, (row, view)): &(&(ItemId, Role), (usize, usize))| self.share.of(columns[*view].len()).contains(row);
        let (rows, wanted): (Vec<u32>, Vec<_>) = (0..)
            .zip(items.iter().zip(places))
            .filter(|(_, item)| own(item))
            .map(|(row, item)| (row, wanted(item)))
            .unzip();
        let Prepared { mut inputs, mut truncated } = Prepared::default();
        let first = if self.twin { columns.first().map_or(0, |first| self.share.of(first.len()).len()) } else { 0 };
        for part in [0..first, first..rows.len()] {
            let (wanted, rows) = (&wanted[part.clone()], &rows[part]);
            let prepared = self.preprocessor.prepare(wanted, rows, &|tokens| self.budget.of(tokens))?;
            inputs.extend(prepared.inputs);
            truncated += prepared.truncated;
        }
        Ok(Batch {
            tokens: inputs.iter().map(Input::tokens).sum(),
            truncated,
            dataset: 0,
            guided: self.guide.as_ref().map(|guide| self.guided(guide, &items)).transpose()?,
            views: self.dataset.kind == Kind::Single
                && self.views > 1
                && !self.twin
                && !self.dataset.items.has(Modality::Image),
            twin: self.twin,
            micro_batches: inputs,
            layout: BatchLayout {
                columns: columns.iter().map(Vec::len).collect(),
                labels,
                scores: (!scores.is_empty()).then_some(scores),
                guide: None,
                layers: Vec::new(),
            },
            examples: examples.len(),
        })
    }

    fn wanted(&self, item: ItemId, role: Role, draw: Option<Draw>) -> Wanted<'_> {
        let items = &self.dataset.items;
        Wanted { modality: items.modality(item), content: items.get(item), role, draw }
    }

    fn guided(&self, guide: &Preprocessor, items: &[(ItemId, Role)]) -> Result<Guided> {
        let mut places = HashMap::new();
        let mut contents = Vec::new();
        let mut rows = Vec::with_capacity(items.len());
        for &(item, role) in items {
            let place = match places.entry((item, role)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    contents.push(self.wanted(item, role, None));
                    *new.insert(contents.len() as u32 - 1)
                }
            };
            rows.push(place);
        }
        let own = &contents[self.share.of(contents.len())];
        let places: Vec<u32> = (0..own.len() as u32).collect();
        let inputs = guide.prepare(own, &places, &|_| GUIDE_TOKENS)?.inputs;
        Ok(Guided { inputs, items: own.len(), rows })
    }
}

impl Batcher {
    /// Whether a loss with these needs has something to compare in this batch: a match and something that does not
    /// match, different scores where their order counts, or else an example.
    pub(crate) fn teaches(&self, examples: &[u32], needs: Needs) -> bool {
        let label = |example: &u32| self.label(&self.dataset.examples[*example as usize]);
        let labels: HashSet<u32> = examples.iter().map(label).collect();
        let matches = self.dataset.kind != Kind::Labelled || labels.len() < examples.len();
        let score = |example: &u32| match &self.dataset.examples[*example as usize] {
            Example::Scored { score, .. } => Some(score.to_bits()),
            _ => None,
        };
        match needs {
            Needs::Scores
            | Needs::BinaryScores
            | Needs::TeacherScores
            | Needs::Triplets
            | Needs::Guide
            | Needs::Any
            | Needs::PairClasses
            | Needs::Classes => !examples.is_empty(),
            Needs::RankedScores => {
                let scores: HashSet<Option<u32>> = examples.iter().map(score).collect();
                scores.len() > 1 || scores.contains(&None)
            }
            Needs::Labels | Needs::Pairs => matches && (labels.len() > 1 || self.negatives > 0) && !examples.is_empty(),
        }
    }

    /// Why no batch teaches anything.
    pub(crate) fn unusable(&self, path: &Path, batch_size: usize, needs: Needs) -> Error {
        let labels: HashSet<u32> = self.labels().into_iter().collect();
        let (examples, groups) = (self.dataset.examples.len(), labels.len());
        let labelled = self.dataset.kind == Kind::Labelled;
        if needs == Needs::RankedScores {
            let all: Vec<u32> = (0..examples as u32).collect();
            if self.teaches(&all, needs) {
                let problem = format!(
                    "expected 2 or more: only the order of the scores of a batch is learnt; got {batch_size}, of which no \
                     batch teaches anything"
                );
                return Error::spec("batch_size", problem);
            }
            let problem = format!(
                "expected different scores, got {examples} examples of one score: the loss learns their order; take \
                 `CosineSimilarityLoss`, which learns the scores themselves"
            );
            return Error::data(path, None, problem);
        }
        if groups < 2 && self.negatives == 0 {
            let problem = match self.dataset.kind {
                Kind::Labelled => format!(
                    "expected training examples of at least 2 classes, got {examples} of one: there is nothing to tell \
                     apart; add examples of other classes"
                ),
                Kind::Single => format!(
                    "expected at least 2 different texts, got {examples} examples of one text: there is nothing to tell \
                     apart; add texts"
                ),
                _ => format!(
                    "expected at least 2 pairs that do not match each other, got {examples}, all matching through \
                     equal texts: the negatives of a pair are the other pairs of its batch; add pairs, or a column of \
                     negatives"
                ),
            };
            return Error::data(path, None, problem);
        }
        if labelled && groups == examples {
            let problem = format!(
                "expected classes of at least 2 examples, got {groups} classes of one each: there is nothing to bring \
                 together; add examples, or take the `class` sampler, which repeats them"
            );
            return Error::data(path, None, problem);
        }
        let expected = match labelled {
            true => "4 or more, for 2 classes of 2 items (the `random` sampler needs more to find two of a class)",
            false => "2 or more: the negatives of a pair are the other pairs of its batch",
        };
        Error::spec("batch_size", format!("expected {expected}; got {batch_size}, of which no batch teaches anything"))
    }
}

/// Refuses data that the loss cannot learn from.
pub(crate) fn check_data(loss: &str, needs: Needs, dataset: &Dataset) -> Result<()> {
    let kind = dataset.kind;
    let (fits, wanted) = match needs {
        Needs::Labels => {
            (!matches!(kind, Kind::Scored | Kind::LabelledPairs), "labelled items, pairs, triplets or texts alone")
        }
        Needs::Pairs => {
            (!matches!(kind, Kind::Labelled | Kind::Scored | Kind::LabelledPairs), "pairs, triplets or texts alone")
        }
        Needs::PairClasses => (kind == Kind::LabelledPairs, "pairs with a class (labelled_pairs)"),
        Needs::Scores | Needs::BinaryScores => (kind == Kind::Scored, "scored pairs"),
        Needs::RankedScores => {
            (matches!(kind, Kind::Scored | Kind::Triplets | Kind::ScoredTriplets), "scored pairs or triplets")
        }
        Needs::Triplets => (matches!(kind, Kind::Triplets | Kind::ScoredTriplets), "triplets"),
        Needs::TeacherScores => (kind == Kind::ScoredTriplets, "triplets with a teacher's scores (scored_triplets)"),
        Needs::Guide | Needs::Any => (true, "texts"),
        Needs::Classes => (kind == Kind::Labelled, "labelled items"),
    };
    if !fits {
        return Err(Error::spec("loss", format!("`{loss}` learns from {wanted}, but the training data holds {kind}")));
    }
    if needs == Needs::BinaryScores {
        for example in &dataset.examples {
            if let Example::Scored { first, second, score } = example
                && *score != 0.0
                && *score != 1.0
            {
                let problem = format!(
                    "`{loss}` learns from pairs scored 0 or 1, but `{}` and `{}` are scored {score}; `CoSENTLoss` and \
                     `CosineSimilarityLoss` learn from any scores",
                    dataset.items.get(*first),
                    dataset.items.get(*second)
                );
                return Err(Error::spec("loss", problem));
            }
        }
    }
    Ok(())
}
