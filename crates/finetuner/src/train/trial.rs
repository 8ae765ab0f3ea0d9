//! Both models of a run tried on a query: what does each find among the run's documents, or among texts of one's own?

use std::path::{Path, PathBuf};

use engine::Device;
use serde::Serialize;

use super::inspection;
use super::page::Cell;
use super::prepare::model_options;
use crate::data::{Dataset, Example, Kind, Modality, inspect};
use crate::device;
use crate::encoder::{Model, Role, source};
use crate::error::{Error, Result};
use crate::evaluate::Similarity;
use crate::pixels::Sources;
use crate::spec::RunSpec;

/// Documents that are searched at most: embedding more takes longer than somebody waits.
pub(super) const MOST_DOCUMENTS: usize = 20_000;

/// The pretrained and the fine-tuned model of a run.
pub struct Trial {
    device: Box<dyn Device>,
    sources: Sources,
    models: [Model; 2],
    documents: Documents,
    /// Of the run's documents, by the pretrained and by the fine-tuned model.
    embeddings: [Vec<f32>; 2],
}

/// What is searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sought<'a> {
    /// A text.
    Text(&'a str),
    /// What is like the document of this number, counted from 0.
    Like(usize),
}

/// What both models found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// What was searched, in one sentence.
    pub description: String,
    /// How many documents were searched.
    pub documents: usize,
    /// What was searched for, where it was a document.
    pub like: Option<Cell>,
    /// By the untouched model, the best first.
    pub pretrained: Vec<Match>,
    /// By the trained model.
    pub finetuned: Vec<Match>,
}

/// A document that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Match {
    /// Its number, counted from 0.
    pub document: u32,
    /// Cosine similarity to the query.
    pub score: f32,
    /// The document.
    pub item: Cell,
}

/// What can be found, each once.
struct Documents {
    description: String,
    modality: Modality,
    items: Vec<String>,
    roles: [Role; 2],
}

impl Trial {
    /// Opens the model that `spec` starts from and the one in the folder `finetuned`, and embeds the documents of the run with
    /// both: those of `index_data`, else of `query_data`, else of the training data; at most 20,000.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::Download`] if a model cannot be opened, [`Error::Data`] if the documents cannot be read.
    pub fn open(spec: &RunSpec, finetuned: &Path) -> Result<Self> {
        let device = device::open(&spec.device, &spec.precision)?;
        let sources = inspection::sources(spec)?;
        let options = model_options(spec, sources.clone())?;
        let mut folder = source::resolve(&spec.model)?.open()?;
        if let Some(pictures) = &spec.image_model {
            folder = folder.with_pictures(source::resolve(pictures)?.open()?);
        }
        let pretrained = Model::open(folder, &options)?;
        let finetuned = source::resolve(&finetuned.display().to_string())?.open()?;
        // What was decided for the run is in the files of its model.
        let plain = RunSpec { max_length: spec.max_length, ..RunSpec::default() };
        let finetuned = Model::open(finetuned, &model_options(&plain, sources.clone())?)?;
        let models = [pretrained, finetuned];
        let documents = Documents::read(spec)?;
        let column = (documents.modality, documents.roles[1]);
        let embed = |model: &Model| Ok::<_, Error>(model.embed(&*device, &documents.items, column, |_| Ok(()))?.0);
        let embeddings = [embed(&models[0])?, embed(&models[1])?];
        Ok(Trial { device, sources, models, documents, embeddings })
    }

    /// The `k` nearest documents of each model: of the run, or of `texts` where they are given.
    ///
    /// # Errors
    /// [`Error::Model`] for a text without tokens or a model that reads none, [`Error::Spec`] for the number of a document
    /// that is not there.
    pub fn search(&self, sought: Sought<'_>, k: usize, texts: Option<&[String]>) -> Result<Found> {
        let own = texts.map(|texts| Documents {
            description: format!("{} texts of your own", texts.len()),
            modality: Modality::Text,
            items: texts.to_vec(),
            roles: self.documents.roles,
        });
        let documents = own.as_ref().unwrap_or(&self.documents);
        if let Sought::Like(number) = sought
            && number >= documents.items.len()
        {
            let problem =
                format!("expected less than {}, the number of documents, got {number}", documents.items.len());
            return Err(Error::spec("like", problem));
        }
        let mut found = Vec::new();
        for (model, embeddings) in self.models.iter().zip(&self.embeddings) {
            let embedded;
            let embeddings = match &own {
                None => embeddings,
                Some(own) => {
                    embedded = model.embed(&*self.device, &own.items, (own.modality, own.roles[1]), |_| Ok(()))?.0;
                    &embedded
                }
            };
            let dimension = model.encoder.dimension();
            let (query, exclude) = match sought {
                Sought::Text(text) => {
                    let column = (Modality::Text, documents.roles[0]);
                    (model.embed(&*self.device, &[text], column, |_| Ok(()))?.0, None)
                }
                Sought::Like(number) => {
                    (embeddings[number * dimension..][..dimension].to_vec(), Some([Some(number as u32)]))
                }
            };
            let exclude = exclude.as_ref().map(|own| &own[..]);
            let hits = Similarity::Cosine.top_k(&query, embeddings, dimension, k, exclude)?;
            found.push(hits.into_iter().flatten().map(|hit| Match {
                document: hit.document,
                score: hit.score,
                item: self.cell(documents, hit.document as usize),
            }));
        }
        let mut found = found.into_iter();
        let mut next = || found.next().into_iter().flatten().collect();
        Ok(Found {
            description: documents.description.clone(),
            documents: documents.items.len(),
            like: match sought {
                Sought::Text(_) => None,
                Sought::Like(number) => Some(self.cell(documents, number)),
            },
            pretrained: next(),
            finetuned: next(),
        })
    }

    fn cell(&self, documents: &Documents, number: usize) -> Cell {
        Cell::new((documents.modality, &documents.items[number]), Some(&self.sources))
    }
}

impl Documents {
    fn read(spec: &RunSpec) -> Result<Self> {
        let kind = spec.kind.as_deref().map(str::parse::<Kind>).transpose()?;
        let train_data = spec.parts()?.first().map(|part| part.train_data.clone()).unwrap_or_default();
        let (name, path, kind): (_, PathBuf, _) = match (&spec.index_data, &spec.query_data) {
            (Some(index), _) => ("index_data", index.clone(), None),
            (None, Some(queries)) => ("query_data", queries.clone(), kind),
            (None, None) => ("train_data", train_data, kind),
        };
        let dataset = inspect(&path, kind)?;
        let alone = matches!(dataset.kind, Kind::Labelled | Kind::Scored | Kind::LabelledPairs);
        let mut documents = Documents::of(&dataset);
        if alone && spec.index_data.is_none() {
            documents.roles = [Role::Plain; 2];
        }
        let first = if documents.items.len() == MOST_DOCUMENTS { "the first " } else { "" };
        documents.description = format!("{first}{} {}s of `{name}`", documents.items.len(), documents.modality.noun());
        Ok(documents)
    }

    /// What of a data set can be found: of pairs the second column, of others every item.
    fn of(dataset: &Dataset) -> Self {
        let mut seen = std::collections::HashSet::new();
        let ids = dataset.examples.iter().flat_map(|example| {
            let skip = usize::from(matches!(example, Example::Pair { .. } | Example::Triplet { .. }));
            example.items().skip(skip)
        });
        let ids: Vec<_> = ids.filter(|id| seen.insert(*id)).take(MOST_DOCUMENTS).collect();
        let modality = ids.first().map_or(Modality::Text, |id| dataset.items.modality(*id));
        // Of a column that holds both there is none: readers refuse it.
        let ids = ids.iter().filter(|id| dataset.items.modality(**id) == modality);
        let items = ids.map(|id| dataset.items.get(*id).to_owned()).collect();
        Documents { description: String::new(), modality, items, roles: [Role::Query, Role::Document] }
    }
}
