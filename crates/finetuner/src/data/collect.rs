//! Rows of named cells become examples; every reader ends here.

use std::collections::HashMap;
use std::path::{Component, Path};
use std::sync::Arc;

use super::columns::Role;
use super::npy::Array;
use super::picture::is_url;
use super::vector::{is_vector, npy_row, read_vector, write_vector};
use super::{Dataset, EmptyRow, Example, ItemId, Items, Kind, Modality, VectorColumn, is_picture};
use crate::error::{Error, Result};

/// One value of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) role: Role,
    /// The column's own name, or its number where it has none.
    pub(super) column: &'a str,
    pub(super) value: &'a str,
}

/// Gathers the examples of one file.
pub(super) struct Collector<'a> {
    path: &'a Path,
    /// Pictures lie in it.
    folder: &'a Path,
    kind: Kind,
    items: Items,
    /// Arrays that rows name, by their files.
    arrays: HashMap<String, Array>,
    /// The vectors beside items of another sort, and their column.
    beside: Vec<Arc<str>>,
    beside_column: String,
    /// How many numbers the vectors have.
    width: Option<usize>,
    /// What the columns hold, as their first value says.
    columns: Vec<(Role, Modality, String)>,
    examples: Vec<Example>,
    ids: Vec<String>,
    lines: Vec<u64>,
    empty: Vec<EmptyRow>,
    labels: HashMap<String, u32>,
    label_names: Vec<String>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(path: &'a Path, kind: Kind) -> Collector<'a> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        Collector::beside(path, folder, kind)
    }

    /// Of a file whose pictures lie in this folder.
    pub(super) fn beside(path: &'a Path, folder: &'a Path, kind: Kind) -> Collector<'a> {
        Collector {
            path,
            folder,
            kind,
            items: Items::default(),
            arrays: HashMap::new(),
            beside: Vec::new(),
            beside_column: String::new(),
            width: None,
            columns: Vec::new(),
            examples: Vec::new(),
            ids: Vec::new(),
            lines: Vec::new(),
            empty: Vec::new(),
            labels: HashMap::new(),
            label_names: Vec::new(),
        }
    }

    /// Adds one row. Several positives give one example each; cells of roles that the kind does not have are ignored. A
    /// row that cannot be used because a cell is empty is noted and left out.
    pub(super) fn push(&mut self, line: u64, cells: &[Cell<'_>]) -> Result<()> {
        let before = self.examples.len();
        match self.add(line, cells) {
            Err(Error::Data { problem, .. }) if cells.iter().any(|cell| cell.value.trim().is_empty()) => {
                self.examples.truncate(before);
                self.beside.truncate(before);
                self.empty.push(EmptyRow { line, problem });
            }
            added => added?,
        }
        self.lines.resize(self.examples.len(), line);
        // Ids are for all rows or for none.
        if let Some(id) = cells.iter().find(|cell| cell.role == Role::Id).filter(|_| self.ids.len() == before) {
            self.ids.resize(self.examples.len(), id.value.trim().to_owned());
        }
        Ok(())
    }

    fn add(&mut self, line: u64, cells: &[Cell<'_>]) -> Result<()> {
        match self.kind {
            Kind::Pairs if beside_picture(cells).is_some() => {
                let (from, to) = beside_picture(cells).unwrap_or((Role::Anchor, Role::Positive));
                let positives = self.all(line, cells, to)?;
                for anchor in self.all(line, cells, from)? {
                    self.examples.extend(positives.iter().map(|&positive| Example::Pair { anchor, positive }));
                }
            }
            Kind::Pairs => {
                let anchor = self.text(line, self.one(line, cells, &[Role::Anchor])?)?;
                for positive in self.all(line, cells, Role::Positive)? {
                    self.examples.push(Example::Pair { anchor, positive });
                }
            }
            Kind::Triplets => {
                let anchor = self.text(line, self.one(line, cells, &[Role::Anchor])?)?;
                let negatives = self.all(line, cells, Role::Negative)?;
                for positive in self.all(line, cells, Role::Positive)? {
                    let negatives = negatives.clone();
                    self.examples.push(Example::Triplet { anchor, positive, negatives, scores: Vec::new() });
                }
            }
            Kind::ScoredTriplets => {
                let anchor = self.text(line, self.one(line, cells, &[Role::Anchor])?)?;
                let negatives = self.all(line, cells, Role::Negative)?;
                let positives = self.all(line, cells, Role::Positive)?;
                let scores = self.teacher_scores(line, cells, positives.len(), negatives.len())?;
                for (positive, scores) in positives.into_iter().zip(scores) {
                    self.examples.push(Example::Triplet { anchor, positive, negatives: negatives.clone(), scores });
                }
            }
            Kind::Labelled => {
                let item = self.item(line, cells)?;
                let label = self.label(line, self.one(line, cells, &[Role::Label])?)?;
                self.examples.push(Example::Labelled { item, label });
            }
            Kind::Scored => {
                let (from, to) = beside_picture(cells).unwrap_or((Role::Anchor, Role::Positive));
                let first = self.text(line, self.one(line, cells, &[from])?)?;
                let second = self.text(line, self.one(line, cells, &[to])?)?;
                let cell = self.one(line, cells, &[Role::Score, Role::Label])?;
                let score = score(self.path, line, cell.column, cell.value).map_err(|error| match error {
                    Error::Data { path, line, problem } if cell.role == Role::Label => {
                        let problem = format!("{problem}; pairs with a class are of the kind `labelled_pairs`");
                        Error::Data { path, line, problem }
                    }
                    other => other,
                })?;
                self.examples.push(Example::Scored { first, second, score });
            }
            Kind::LabelledPairs => {
                let first = self.text(line, self.one(line, cells, &[Role::Anchor])?)?;
                let second = self.text(line, self.one(line, cells, &[Role::Positive])?)?;
                let label = self.label(line, self.one(line, cells, &[Role::Label, Role::Score])?)?;
                // Exact up to 2^24 classes.
                self.examples.push(Example::Scored { first, second, score: label as f32 });
            }
            Kind::Single => {
                let item = self.item(line, cells)?;
                self.examples.push(Example::Single { item });
            }
        }
        Ok(())
    }

    /// The data set, if it can be learnt from. `how` says how the file was understood.
    pub(super) fn finish(self, how: &str) -> Result<Dataset> {
        let labelled = matches!(self.kind, Kind::Labelled | Kind::LabelledPairs);
        let too_little = self.examples.is_empty() || labelled && self.label_names.len() < 2;
        if let (true, Some(row)) = (too_little, self.empty.first()) {
            return Err(Error::data(self.path, row.line, row.problem.as_str()));
        }
        if self.examples.is_empty() {
            return Err(Error::data(self.path, None, "holds no examples"));
        }
        if labelled && self.label_names.len() < 2 {
            let problem = format!(
                "expected at least 2 classes, got only `{}`: with one class there is nothing to tell apart",
                self.label_names[0]
            );
            return Err(Error::data(self.path, None, problem));
        }
        let counts = |example: &Example| match example {
            Example::Triplet { negatives, scores, .. } if !scores.is_empty() => Some((negatives.len(), scores.len())),
            _ => None,
        };
        let mut shapes = self.examples.iter().filter_map(counts);
        if let Some((negatives, scores)) = shapes.next()
            && let Some(other) = shapes.find(|shape| *shape != (negatives, scores))
        {
            let problem = format!(
                "expected as many negatives and scores in every row as in the first, {negatives} and {scores}, got {} \
                 and {}",
                other.0, other.1
            );
            return Err(Error::data(self.path, None, problem));
        }
        let classes = match self.label_names.len() {
            0 => String::new(),
            classes => format!(" in {classes} classes"),
        };
        let of = |wanted: Modality| {
            let columns = self.columns.iter().filter(|(_, modality, _)| *modality == wanted);
            columns.map(|(.., column)| format!("`{column}`")).collect::<Vec<_>>().join(", ")
        };
        let held = [
            ("pictures".to_owned(), of(Modality::Image)),
            (format!("vectors of {} numbers", self.width.unwrap_or_default()), of(Modality::Vector)),
        ];
        let held: String = held
            .iter()
            .filter(|(_, columns)| !columns.is_empty())
            .map(|(what, columns)| format!("; {what} in {columns}"))
            .collect();
        // Vectors, too, are for all rows or for none.
        let all = !self.beside.is_empty() && self.beside.len() == self.examples.len();
        let beside = all.then_some(VectorColumn { name: self.beside_column, cells: self.beside });
        Ok(Dataset {
            decision: format!(
                "`{}`: {} examples read as {}{classes}; {how}{held}",
                self.path.display(),
                self.examples.len(),
                self.kind
            ),
            kind: self.kind,
            items: self.items,
            ids: if self.ids.len() == self.examples.len() { self.ids } else { Vec::new() },
            examples: self.examples,
            path: self.path.to_owned(),
            lines: self.lines,
            empty: self.empty,
            label_names: self.label_names,
            beside,
        })
    }

    /// The row's only cell of the first role that it has.
    fn one<'c>(&self, line: u64, cells: &[Cell<'c>], roles: &[Role]) -> Result<Cell<'c>> {
        let found = roles.iter().find_map(|role| cells.iter().find(|cell| cell.role == *role));
        let found = found.copied().ok_or_else(|| self.missing(line, cells, roles[0]))?;
        match cells.iter().filter(|cell| cell.role == found.role).count() {
            1 => Ok(found),
            several => {
                let problem = format!("{} need one `{}`, got {several}", self.kind, found.column);
                Err(Error::data(self.path, line, problem))
            }
        }
    }

    fn all(&mut self, line: u64, cells: &[Cell<'_>], role: Role) -> Result<Vec<ItemId>> {
        let found: Vec<ItemId> =
            cells.iter().filter(|cell| cell.role == role).map(|cell| self.text(line, *cell)).collect::<Result<_>>()?;
        if found.is_empty() { Err(self.missing(line, cells, role)) } else { Ok(found) }
    }

    /// What the teacher says of each positive: see [`Example::Triplet`].
    fn teacher_scores(
        &self,
        line: u64,
        cells: &[Cell<'_>],
        positives: usize,
        negatives: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let read = |role: Role| -> Result<Vec<f32>> {
            let cells = cells.iter().filter(|cell| cell.role == role);
            cells.map(|cell| score(self.path, line, cell.column, cell.value)).collect()
        };
        let wrong =
            |expected: String, got: usize| Error::data(self.path, line, format!("expected {expected}, got {got}"));
        let (of_positives, of_negatives) = (read(Role::PositiveScore)?, read(Role::NegativeScore)?);
        if !of_positives.is_empty() {
            if of_positives.len() != positives {
                return Err(wrong(format!("{positives} scores of positives"), of_positives.len()));
            }
            if of_negatives.len() != negatives {
                return Err(wrong(format!("{negatives} scores of negatives"), of_negatives.len()));
            }
            return Ok(of_positives.into_iter().map(|score| [&[score], &of_negatives[..]].concat()).collect());
        }
        let mut scores = read(Role::Score)?;
        if scores.is_empty() {
            scores = read(Role::Label)?;
        }
        if scores.is_empty() {
            return Err(self.missing(line, cells, Role::Score));
        }
        if positives != 1 {
            return Err(wrong("one positive beside its scores".into(), positives));
        }
        if scores.len() != negatives && scores.len() != negatives + 1 {
            let expected = format!(
                "{negatives} margins (positive's score - negative's) or {} scores (of the positive, then of each negative)",
                negatives + 1
            );
            return Err(wrong(expected, scores.len()));
        }
        Ok(vec![scores])
    }

    /// The text of a labelled or single row; a title is put before it, as in BEIR corpora.
    fn item(&mut self, line: u64, cells: &[Cell<'_>]) -> Result<ItemId> {
        let cell = self.one(line, cells, &[Role::Image, Role::Text, Role::Anchor, Role::Positive, Role::Vector])?;
        if let (Role::Anchor, Some(other)) = (cell.role, cells.iter().find(|cell| cell.role == Role::Positive)) {
            let file = self.path.file_name().unwrap_or_default().display();
            let problem = format!(
                "expected one text, got `{}` and `{}`; say which, as in `{file}:text={}`",
                cell.column, other.column, other.column
            );
            return Err(Error::data(self.path, line, problem));
        }
        let vector = cells.iter().find(|cell| cell.role == Role::Vector && !cell.value.trim().is_empty());
        if let Some(vector) = vector.filter(|_| cell.role != Role::Vector) {
            vector.column.clone_into(&mut self.beside_column);
            self.beside.push(vector.value.into());
        }
        if matches!(cell.role, Role::Vector | Role::Image) {
            return self.text(line, cell);
        }
        match cells.iter().find(|cell| cell.role == Role::Title) {
            Some(title) => {
                let joined = format!("{} {}", title.value.trim(), cell.value.trim());
                self.text(line, Cell { value: &joined, ..cell })
            }
            None => self.text(line, cell),
        }
    }

    fn text(&mut self, line: u64, cell: Cell<'_>) -> Result<ItemId> {
        match cell.value.trim() {
            "" => Err(Error::data(self.path, line, format!("expected a text in column `{}`, got none", cell.column))),
            value => match self.modality(cell, value) {
                Modality::Text => Ok(self.items.intern(value)),
                Modality::Image => {
                    let address = self.address(line, value)?;
                    Ok(self.items.intern_as(Modality::Image, &address))
                }
                Modality::Vector => {
                    let vector = self.vector(line, cell, value)?;
                    Ok(self.items.intern_as(Modality::Vector, &write_vector(&vector)))
                }
            },
        }
    }

    /// What the column of a cell holds: pictures if its first value is one's name, vectors if it is one.
    fn modality(&mut self, cell: Cell<'_>, value: &str) -> Modality {
        if let Some((_, modality, _)) = self.columns.iter().find(|(role, ..)| *role == cell.role) {
            return *modality;
        }
        let modality = match cell.role {
            Role::Image => Modality::Image,
            Role::Vector => Modality::Vector,
            _ if is_picture(value) => Modality::Image,
            _ if is_vector(value) => Modality::Vector,
            _ => Modality::Text,
        };
        self.columns.push((cell.role, modality, cell.column.to_owned()));
        modality
    }

    /// The numbers of a cell, or of the row of an array that it names.
    fn vector(&mut self, line: u64, cell: Cell<'_>, value: &str) -> Result<Vec<f32>> {
        let path = self.path;
        let refuse = |problem: String| Error::data(path, line, problem);
        let column = cell.column;
        let numbers = match npy_row(value) {
            Some((file, row)) => {
                let address = self.address(line, file)?;
                if !self.arrays.contains_key(&address) {
                    self.arrays.insert(address.clone(), Array::open(Path::new(&address))?);
                }
                let array = &self.arrays[&address];
                let missing =
                    || refuse(format!("`{value}` is not there: `{address}` has the rows 0 to {}", array.rows() - 1));
                array.row(row).ok_or_else(missing)?.to_vec()
            }
            None => read_vector(value).ok_or_else(|| {
                let start: String = value.chars().take(40).collect();
                let problem = format!("expected a vector in column `{column}`, as in `[0.5, -1]`, got `{start}`");
                refuse(problem)
            })?,
        };
        if let Some(place) = numbers.iter().position(|number| !number.is_finite()) {
            let problem =
                format!("expected finite numbers in column `{column}`, got {} at place {place}", numbers[place]);
            return Err(refuse(problem));
        }
        let width = *self.width.get_or_insert(numbers.len());
        if width != numbers.len() {
            let problem =
                format!("expected a vector of {width} numbers in column `{column}`, as before, got {}", numbers.len());
            return Err(refuse(problem));
        }
        Ok(numbers)
    }

    /// The address of a picture that a row names: a URL, or a file below the data's folder.
    fn address(&self, line: u64, value: &str) -> Result<String> {
        if is_url(value) {
            return Ok(value.to_owned());
        }
        let inside = Path::new(value).strip_prefix(self.folder).unwrap_or(Path::new(value));
        let mut depth = 0i32;
        for part in inside.components() {
            depth += match part {
                Component::Normal(_) => 1,
                Component::CurDir => 0,
                Component::ParentDir => -1,
                Component::RootDir | Component::Prefix(_) => i32::MIN / 2,
            };
            if depth < 0 {
                let problem = format!(
                    "`{value}` leaves the folder of the data, `{}`; put pictures into it, or the data file above them",
                    self.folder.display()
                );
                return Err(Error::data(self.path, line, problem));
            }
        }
        Ok(self.folder.join(inside).display().to_string())
    }

    fn label(&mut self, line: u64, cell: Cell<'_>) -> Result<u32> {
        let name = cell.value.trim();
        if name.is_empty() {
            return Err(Error::data(
                self.path,
                line,
                format!("expected a label in column `{}`, got none", cell.column),
            ));
        }
        if let Some(&label) = self.labels.get(name) {
            return Ok(label);
        }
        let label = self.label_names.len() as u32;
        self.labels.insert(name.to_owned(), label);
        self.label_names.push(name.to_owned());
        Ok(label)
    }

    fn missing(&self, line: u64, cells: &[Cell<'_>], role: Role) -> Error {
        let columns: Vec<String> = cells.iter().map(|cell| format!("`{}`", cell.column)).collect();
        let got = if columns.is_empty() { "no column of a known name".to_owned() } else { columns.join(", ") };
        Error::data(self.path, line, format!("{} need `{}`, got {got}", self.kind, role.name()))
    }
}

/// The roles of a text and its picture, where a row has a picture beside one text: the text is looked up.
fn beside_picture(cells: &[Cell<'_>]) -> Option<(Role, Role)> {
    let has = |role: Role| cells.iter().any(|cell| cell.role == role);
    match (has(Role::Image), has(Role::Anchor), has(Role::Positive)) {
        (false, ..) | (_, true, true) => None,
        (_, true, false) => Some((Role::Anchor, Role::Image)),
        (_, false, true) => Some((Role::Image, Role::Positive)),
        (_, false, false) => Some((Role::Text, Role::Image)),
    }
}

/// A finite number.
pub(super) fn score(path: &Path, line: u64, column: &str, value: &str) -> Result<f32> {
    match value.trim().parse::<f32>() {
        Ok(score) if score.is_finite() => Ok(score),
        _ => {
            let problem = format!("expected a finite number in column `{column}`, got `{}`", value.trim());
            Err(Error::data(path, line, problem))
        }
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
