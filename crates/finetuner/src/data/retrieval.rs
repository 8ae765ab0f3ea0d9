//! What the before and after measurement searches: queries, an index, and what is relevant.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::address::Address;
use super::beir::Beir;
use super::random::Random;
use super::{Dataset, Example, ItemId, Items, Kind, LabelGraph, Modality, read};
use crate::error::{Error, Result};

/// In a description, where queries do not find themselves.
const EXCLUDED: &str = ", the query itself excluded";

/// Queries, the documents they search, and the documents relevant to each.
#[derive(Debug, Clone, Default)]
pub struct RetrievalSet {
    /// One id a query: the data's own, else its number from 1.
    pub query_ids: Vec<String>,
    /// The queries that have at least one relevant document: texts, or addresses of pictures.
    pub queries: Vec<String>,
    /// What the queries are.
    pub query_modality: Modality,
    /// The file of the queries; of a BEIR folder the judgements.
    pub query_path: PathBuf,
    /// The line on which each query first occurs.
    pub query_lines: Vec<u64>,
    /// One id a document: the data's own, else its number from 1.
    pub document_ids: Vec<String>,
    /// The index. A BEIR corpus may hold empty documents; they stay, so that figures compare.
    pub documents: Vec<String>,
    /// What the documents are.
    pub document_modality: Modality,
    /// For each query: (document, grade above 0), by document.
    pub relevant: Vec<Vec<(u32, f32)>>,
    /// For each query: the document that is the query itself and must not be returned. Where it is given at all,
    /// queries and documents are items of one sort.
    pub exclude: Option<Vec<Option<u32>>>,
    /// Queries left out because nothing in the index is relevant to them.
    pub without_relevant: usize,
    /// One sentence on what is searched and what counts as relevant.
    pub description: String,
}

/// Reads queries and what they search.
///
/// - BEIR `DIR:split`: the judged queries over the whole corpus; it brings its own index.
/// - Labelled: items of the query's class are relevant. Without `index_data` the queries search each other, self
///   excluded.
/// - Pairs and triplets: see [`RetrievalSet::from_pairs`]. `index_data` adds documents: single texts, or every text but
///   the anchors of pairs and triplets.
///
/// `kind` is that of the query data, as in [`read`].
///
/// # Errors
/// As [`read`]; and if the data has no notion of relevance (scored or single), the index is of another kind, or no query has
/// a relevant document.
pub fn read_retrieval(query_data: &Path, index_data: Option<&Path>, kind: Option<Kind>) -> Result<RetrievalSet> {
    read_retrieval_with(query_data, index_data, kind, Ok)
}

/// As [`read_retrieval`]; what is read goes through `look` first, which may leave rows out. Folders of BEIR do not: they hold
/// texts only.
///
/// # Errors
/// As [`read_retrieval`]; those of `look`.
pub fn read_retrieval_with(
    query_data: &Path,
    index_data: Option<&Path>,
    kind: Option<Kind>,
    mut look: impl FnMut(Dataset) -> Result<Dataset>,
) -> Result<RetrievalSet> {
    if let Address::Beir { folder, split } = Address::of(query_data)? {
        return match index_data {
            Some(_) => Err(Error::spec("index_data", "a BEIR folder brings its own index; leave `index_data` out")),
            None => RetrievalSet::from_beir(&folder, split.as_deref()),
        };
    }
    let queries = look(read(query_data, kind)?)?;
    match (queries.kind, index_data) {
        (_, None) => RetrievalSet::from_dataset(&queries),
        (Kind::Labelled, Some(index)) => {
            RetrievalSet::from_labelled(&queries, Some(&look(read(index, Some(Kind::Labelled))?)?))
        }
        (_, Some(index)) => RetrievalSet::from_pairs(&queries, Some(&look(read(index, None)?)?)),
    }
}

impl RetrievalSet {
    /// The judged queries of a BEIR split over its whole corpus; relevant is what has a grade above 0.
    pub fn from_beir(folder: &Path, split: Option<&str>) -> Result<RetrievalSet> {
        let beir = Beir::read(folder, split, true)?;
        let mut relevant: Vec<BTreeMap<u32, f32>> = vec![BTreeMap::new(); beir.queries.len()];
        for &(query, document, grade) in beir.judgements.iter().filter(|(.., grade)| *grade > 0.0) {
            relevant[query as usize].insert(document, grade);
        }
        let mut query_lines = vec![0; beir.queries.len()];
        for (&(query, ..), line) in beir.judgements.iter().zip(&beir.lines).rev() {
            query_lines[query as usize] = *line;
        }
        let set = RetrievalSet {
            query_ids: beir.query_ids,
            queries: beir.queries,
            query_path: beir.qrels,
            query_lines,
            document_ids: beir.document_ids,
            documents: beir.documents,
            relevant: relevant.into_iter().map(|grades| grades.into_iter().collect()).collect(),
            ..RetrievalSet::default()
        };
        set.finish("relevant: judged with a grade above 0")
    }

    /// Draws queries and index from one data set, such as evaluation data: labelled, pairs or triplets.
    pub fn from_dataset(dataset: &Dataset) -> Result<RetrievalSet> {
        match dataset.kind {
            Kind::Labelled => RetrievalSet::from_labelled(dataset, None),
            _ => RetrievalSet::from_pairs(dataset, None),
        }
    }

    /// Every labelled item is a query; relevant are the items of the index with the same class name. Without an
    /// index the items search each other, self excluded.
    pub fn from_labelled(queries: &Dataset, index: Option<&Dataset>) -> Result<RetrievalSet> {
        let documents = index.unwrap_or(queries);
        let mut of_class: HashMap<&str, Vec<(u32, f32)>> = HashMap::new();
        for (place, (_, class)) in (0..).zip(labelled(documents, "index_data")?) {
            of_class.entry(class).or_default().push((place, 1.0));
        }
        let items = labelled(queries, "query_data")?;
        let itself = |place: u32| index.is_none().then_some(place);
        let relevant = (0..).zip(&items).map(|(place, (_, class))| {
            let mut relevant = of_class.get(class).cloned().unwrap_or_default();
            relevant.retain(|(document, _)| Some(*document) != itself(place));
            relevant
        });
        let set = RetrievalSet {
            query_ids: ids(queries),
            queries: items.iter().map(|(text, _)| (*text).to_owned()).collect(),
            query_modality: only_modality(queries, "query_data", |example| example.items().next())?,
            document_modality: only_modality(documents, "index_data", |example| example.items().next())?,
            query_path: queries.path.clone(),
            query_lines: queries.lines.clone(),
            document_ids: ids(documents),
            documents: labelled(documents, "index_data")?.into_iter().map(|(text, _)| text.to_owned()).collect(),
            relevant: relevant.collect(),
            exclude: index.is_none().then(|| (0..items.len() as u32).map(Some).collect()),
            ..RetrievalSet::default()
        };
        set.finish("relevant: items of the query's class")
    }

    /// Queries are the distinct anchors of pairs or triplets; the index is the distinct texts of `index` (but anchors),
    /// then the positives and negatives that are not among them. Relevant is every document that the pairs connect with the
    /// query ([`LabelGraph`]); documents are the same if their texts are equal. A document equal to the query is excluded.
    pub fn from_pairs(queries: &Dataset, index: Option<&Dataset>) -> Result<RetrievalSet> {
        if !matches!(queries.kind, Kind::Pairs | Kind::Triplets | Kind::ScoredTriplets) {
            let problem =
                format!("expected labelled, pairs or triplets, which say what is relevant, got {}", queries.kind);
            return Err(Error::spec("query_data", problem));
        }
        let graph = LabelGraph::from_dataset(queries);
        let mut documents = Documents::default();
        if let Some(index) = index {
            let ids = ids(index);
            for (place, example) in index.examples.iter().enumerate() {
                for item in searched(example) {
                    documents.add(&index.items, item, || ids[place].clone())?;
                }
            }
        }
        for (place, example) in queries.examples.iter().enumerate() {
            for item in searched(example) {
                let number = documents.contents.len() + 1;
                let own = queries.ids.get(place).filter(|_| !matches!(example, Example::Triplet { .. }));
                documents.add(&queries.items, item, || own.cloned().unwrap_or_else(|| number.to_string()))?;
            }
        }

        let mut of_label: HashMap<u32, Vec<u32>> = HashMap::new();
        let modality = documents.modality.unwrap_or_default();
        for (document, content) in (0..).zip(&documents.contents) {
            if let Some(known) = queries.items.find_as(modality, content) {
                of_label.entry(graph.label(known)).or_default().push(document);
            }
        }
        let mut set = RetrievalSet {
            query_path: queries.path.clone(),
            query_modality: only_modality(queries, "query_data", |example| example.items().next())?,
            document_modality: modality,
            ..RetrievalSet::default()
        };
        let mut exclude = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (place, example) in queries.examples.iter().enumerate() {
            let (Example::Pair { anchor, .. } | Example::Triplet { anchor, .. }) = example else { continue };
            if !seen.insert(*anchor) {
                continue;
            }
            let content = queries.items.get(*anchor);
            let itself = documents.places.get(content).copied().filter(|_| set.query_modality == modality);
            let of_label = of_label.get(&graph.label(*anchor)).map(Vec::as_slice).unwrap_or_default();
            let relevant = of_label.iter().filter(|document| Some(**document) != itself);
            set.relevant.push(relevant.map(|document| (*document, 1.0)).collect());
            set.query_ids.push(queries.ids.get(place).cloned().unwrap_or_else(|| (set.queries.len() + 1).to_string()));
            set.queries.push(content.to_owned());
            set.query_lines.push(queries.lines[place]);
            exclude.push(itself);
        }
        set.exclude = exclude.iter().any(Option::is_some).then_some(exclude);
        set.document_ids = documents.ids;
        set.documents = documents.contents;
        set.finish("relevant: documents that the pairs connect with the query")
    }

    /// The same with every query among its own documents: where it is one of them, it may be found and counts as
    /// relevant (the original's `exclude_self=False`). Queries to which nothing else is relevant stay left out.
    pub fn include_self(mut self) -> RetrievalSet {
        let Some(exclude) = &mut self.exclude else { return self };
        for (relevant, itself) in self.relevant.iter_mut().zip(exclude) {
            if let Some(itself) = itself.take() {
                let place = relevant.partition_point(|(document, _)| *document < itself);
                relevant.insert(place, (itself, 1.0));
            }
        }
        self.description = self.description.replace(EXCLUDED, ", the query itself among them");
        self
    }

    /// A random sample of `count` queries, in their order, over all the documents; all of them where there are no more.
    pub fn sample(mut self, count: usize, seed: u64) -> RetrievalSet {
        let all = self.queries.len();
        if count >= all {
            return self;
        }
        let mut places: Vec<usize> = (0..all).collect();
        // A stream of its own: epochs count from 0, and the split has the last one.
        Random::new(seed, u64::MAX - 1).shuffle(&mut places);
        let mut keep = vec![false; all];
        places[..count].iter().for_each(|place| keep[*place] = true);
        self.keep_queries(&keep);
        self.description = format!("{count} of {}", self.description);
        self
    }

    fn keep_queries(&mut self, keep: &[bool]) {
        keep_only(&mut self.query_ids, keep);
        keep_only(&mut self.queries, keep);
        keep_only(&mut self.query_lines, keep);
        keep_only(&mut self.relevant, keep);
        if let Some(exclude) = &mut self.exclude {
            keep_only(exclude, keep);
        }
    }

    /// Leaves out the queries without relevant documents, and says what there is.
    fn finish(mut self, rule: &str) -> Result<RetrievalSet> {
        let keep: Vec<bool> = self.relevant.iter().map(|relevant| !relevant.is_empty()).collect();
        self.without_relevant = keep.iter().filter(|keep| !**keep).count();
        if self.without_relevant == keep.len() {
            return Err(Error::spec("query_data", "no query has a relevant document in the index"));
        }
        self.keep_queries(&keep);
        let left_out = match self.without_relevant {
            0 => String::new(),
            count => format!("; {count} queries left out, as nothing in the index is relevant to them"),
        };
        let without_self = if self.exclude.is_some() { EXCLUDED } else { "" };
        self.description = format!(
            "{} queries over {} documents{without_self}; {rule}{left_out}",
            self.queries.len(),
            self.documents.len()
        );
        Ok(self)
    }
}

/// Distinct documents in order of first appearance.
#[derive(Default)]
struct Documents {
    contents: Vec<String>,
    /// That of all of them.
    modality: Option<Modality>,
    ids: Vec<String>,
    places: HashMap<String, u32>,
}

impl Documents {
    fn add(&mut self, items: &Items, item: ItemId, id: impl FnOnce() -> String) -> Result<()> {
        let (modality, content) = (items.modality(item), items.get(item));
        if *self.modality.get_or_insert(modality) != modality {
            return Err(mixed("index_data"));
        }
        if !self.places.contains_key(content) {
            self.places.insert(content.to_owned(), self.contents.len() as u32);
            self.contents.push(content.to_owned());
            self.ids.push(id());
        }
        Ok(())
    }
}

/// What these items of all examples are.
///
/// # Errors
/// [`Error::Spec`] where some are texts and some pictures.
fn only_modality(dataset: &Dataset, field: &str, item: impl Fn(&Example) -> Option<ItemId>) -> Result<Modality> {
    let mut modalities = dataset.examples.iter().filter_map(item).map(|item| dataset.items.modality(item));
    let first = modalities.next().unwrap_or_default();
    if modalities.all(|modality| modality == first) { Ok(first) } else { Err(mixed(field)) }
}

fn mixed(field: &str) -> Error {
    Error::spec(field, "expected texts, pictures or vectors in a column, got several of them")
}

/// The items of an example that are searched: all but an anchor.
fn searched(example: &Example) -> Vec<ItemId> {
    match example {
        Example::Pair { positive, .. } => vec![*positive],
        Example::Triplet { positive, negatives, .. } => std::iter::once(positive).chain(negatives).copied().collect(),
        Example::Labelled { item, .. } | Example::Single { item } => vec![*item],
        Example::Scored { first, second, .. } => vec![*first, *second],
    }
}

fn labelled<'a>(dataset: &'a Dataset, field: &str) -> Result<Vec<(&'a str, &'a str)>> {
    let item = |example: &Example| match example {
        Example::Labelled { item, label } => {
            Ok((dataset.items.get(*item), dataset.label_names[*label as usize].as_str()))
        }
        _ => Err(Error::spec(field, format!("expected labelled data, got {}", dataset.kind))),
    };
    dataset.examples.iter().map(item).collect()
}

fn ids(dataset: &Dataset) -> Vec<String> {
    if dataset.ids.is_empty() {
        (1..=dataset.examples.len()).map(|number| number.to_string()).collect()
    } else {
        dataset.ids.clone()
    }
}

fn keep_only<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| keep.next().copied().unwrap_or(true));
}

#[cfg(test)]
#[path = "retrieval_tests.rs"]
mod tests;
