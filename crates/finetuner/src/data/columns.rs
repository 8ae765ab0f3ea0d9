//! What a column means: by its name, by its place, or as the user says.

use std::path::Path;

use super::{Kind, is_picture};
use crate::error::{Error, Result, nearest};

/// The part a column plays in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Id,
    Title,
    Anchor,
    Positive,
    Negative,
    Text,
    Image,
    Vector,
    Label,
    Score,
    PositiveScore,
    NegativeScore,
}

/// The names that stand for each role; case, spaces and dashes do not matter. Negatives and scores may be numbered.
const NAMES: [(Role, &str); 12] = [
    (Role::Id, "id _id"),
    (Role::Title, "title"),
    (Role::Anchor, "anchor query question prompt premise sentence1 sentence_1 text1 text_1"),
    (
        Role::Positive,
        "positive pos document passage answer completion response hypothesis sentence2 sentence_2 text2 text_2",
    ),
    (Role::Negative, "negative neg"),
    (Role::Text, "text item sentence caption captions"),
    (Role::Image, "image picture photo img image_path image_file image_url images pictures"),
    (Role::Vector, "vector vectors embedding embeddings"),
    (Role::Label, "label category class"),
    (Role::Score, "score scores similarity margin margins"),
    (Role::PositiveScore, "positive_score pos_score pos_scores"),
    (Role::NegativeScore, "negative_score neg_score neg_scores"),
];

/// Names that stand for pictures where what stands below them looks like one.
const FILES: &[&str] = &["file", "file_name", "filename", "file_path", "path", "url", "uri"];

/// How to name columns, for messages.
pub(super) const ADVICE: &str = "name the columns in a header: `anchor,positive` (pairs), \
    `anchor,positive,negative` (triplets), `text,label` (labelled), `sentence1,sentence2,score` (scored), \
    `anchor,positive,negative,score` (scored_triplets), \
    `sentence1,sentence2,label` (labelled_pairs, where asked for), `text` (single), or `image` beside or instead of `text`, or `vector` instead of it; \
    or say which column is what, as in `products.csv:anchor=name,positive=description`";

impl Role {
    /// The role a column's name stands for.
    pub(super) fn of(name: &str) -> Option<Role> {
        let name = name.trim().to_lowercase().replace([' ', '-'], "_");
        let known = |name: &str| {
            NAMES.iter().find(|(_, names)| names.split(' ').any(|known| known == name)).map(|(role, _)| *role)
        };
        known(&name).or_else(|| {
            let stem = name.trim_end_matches(|digit: char| digit.is_ascii_digit()).trim_end_matches('_');
            known(stem).filter(|role| matches!(role, Role::Negative | Role::Score | Role::NegativeScore))
        })
    }

    /// As [`Role::of`], and pictures in columns such as `file` and `url`, known by one of their values.
    pub(super) fn of_values(name: &str, value: &str) -> Option<Role> {
        let file = || FILES.contains(&name.trim().to_lowercase().replace([' ', '-'], "_").as_str());
        Role::of(name).or_else(|| (is_picture(value.trim()) && file()).then_some(Role::Image))
    }

    /// The first of the role's names.
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(role, _)| *role == self).and_then(|(_, names)| names.split(' ').next()).unwrap_or_default()
    }
}

/// What the columns of a file mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Columns {
    /// What their names stand for.
    #[default]
    Known,
    /// What the user says; no other column is looked at.
    Told(Vec<(Role, String)>),
}

impl Columns {
    /// Reads `role=column,role=column`; any name of a role will do.
    ///
    /// # Errors
    /// [`Error::Data`] for a part of another form, and for a role that there is not.
    pub(super) fn parse(path: &Path, told: Option<&str>) -> Result<Columns> {
        let Some(told) = told else { return Ok(Columns::Known) };
        let pair = |part: &str| {
            let refuse = |problem: String| Error::data(path, None, problem);
            let pair = part.split_once('=').map(|(role, column)| (role.trim(), column.trim()));
            let (role, column) = pair.filter(|(_, column)| !column.is_empty()).ok_or_else(|| {
                refuse(format!("expected its columns as in `anchor=name,positive=description`, got `{part}`"))
            })?;
            let role = Role::of(role).ok_or_else(|| {
                let known = NAMES.map(|(role, _)| role.name());
                refuse(format!("a column cannot be `{role}`{}", nearest(role, known)))
            })?;
            Ok((role, column.to_owned()))
        };
        told.split(',').map(pair).collect::<Result<_>>().map(Columns::Told)
    }

    /// Whether the user says what they mean.
    pub(super) fn told(&self) -> bool {
        *self != Columns::Known
    }

    /// The role of a column, which its name and one of its values tell.
    pub(super) fn role(&self, name: &str, value: &str) -> Option<Role> {
        match self {
            Columns::Known => Role::of_values(name, value),
            Columns::Told(told) => told.iter().find(|(_, column)| column == name.trim()).map(|(role, _)| *role),
        }
    }

    /// Whether all that the user says is among these columns of a file.
    ///
    /// # Errors
    /// [`Error::Data`] with the nearest name for a column that is not there.
    pub(super) fn check(&self, path: &Path, line: impl Into<Option<u64>>, names: &[&str]) -> Result<()> {
        let Columns::Told(told) = self else { return Ok(()) };
        let Some((_, missing)) = told.iter().find(|(_, column)| names.iter().all(|name| name.trim() != column)) else {
            return Ok(());
        };
        let there = nearest(missing, names.iter().map(|name| name.trim()));
        Err(Error::data(path, line, format!("has no column `{missing}`{there}")))
    }
}

/// The kind of rows with these roles, where they make one. `label` beside two or more texts is their score.
pub(super) fn kind_of(roles: &[Role]) -> Option<Kind> {
    let has = |role| roles.contains(&role);
    let scored = has(Role::Score) || has(Role::Label);
    // A vector beside other items was computed from them.
    if has(Role::Vector) && ![Role::Anchor, Role::Positive, Role::Text, Role::Image].into_iter().any(has) {
        return Some(if has(Role::Label) { Kind::Labelled } else { Kind::Single });
    }
    // A picture beside one text is its match.
    if has(Role::Image) && !(has(Role::Anchor) && has(Role::Positive)) {
        return Some(match has(Role::Text) || has(Role::Anchor) || has(Role::Positive) {
            true if has(Role::Score) => Kind::Scored,
            true => Kind::Pairs,
            false if has(Role::Label) => Kind::Labelled,
            false => Kind::Single,
        });
    }
    match (has(Role::Anchor), has(Role::Positive)) {
        (true, true) if has(Role::Negative) && (scored || has(Role::PositiveScore)) => Some(Kind::ScoredTriplets),
        (true, true) if scored => Some(Kind::Scored),
        (true, true) if has(Role::Negative) => Some(Kind::Triplets),
        (true, true) => Some(Kind::Pairs),
        (false, false) if !has(Role::Text) => None,
        _ if has(Role::Label) => Some(Kind::Labelled),
        _ => Some(Kind::Single),
    }
}

/// What is wrong where two columns of these names have one role. Negatives may be several, and so may their scores.
pub(super) fn twins(names: &[&str], roles: &[Option<Role>]) -> Option<String> {
    let several = |role: &Role| match role {
        Role::Negative | Role::NegativeScore => true,
        Role::Score => roles.contains(&Some(Role::Negative)),
        _ => false,
    };
    roles.iter().enumerate().find_map(|(at, role)| {
        let role = role.filter(|role| !several(role))?;
        let before = roles[..at].iter().position(|earlier| *earlier == Some(role))?;
        Some(format!("columns `{}` and `{}` both mean `{}`; rename one", names[before], names[at], role.name()))
    })
}

/// The roles of columns without names, in order; `None` if a kind cannot have so many columns.
pub(super) fn by_place(kind: Kind, columns: usize) -> Option<Vec<Role>> {
    let roles: &[Role] = match kind {
        Kind::Pairs => &[Role::Anchor, Role::Positive],
        Kind::Triplets => &[Role::Anchor, Role::Positive, Role::Negative],
        Kind::Labelled => &[Role::Text, Role::Label],
        Kind::Scored => &[Role::Anchor, Role::Positive, Role::Score],
        Kind::LabelledPairs => &[Role::Anchor, Role::Positive, Role::Label],
        Kind::Single => &[Role::Text],
        // With n negatives, n margins or n + 1 scores: the number of columns says which.
        Kind::ScoredTriplets if columns >= 4 => {
            let negatives = (columns - 2) / 2;
            let texts =
                [Role::Anchor, Role::Positive].into_iter().chain(std::iter::repeat_n(Role::Negative, negatives));
            return Some(texts.chain(std::iter::repeat(Role::Score)).take(columns).collect());
        }
        Kind::ScoredTriplets => return None,
    };
    let mut roles = roles.to_vec();
    if kind == Kind::Triplets && columns > 3 {
        roles.resize(columns, Role::Negative);
    }
    (roles.len() == columns).then_some(roles)
}

/// The kind of columns without names: one text, two texts that match, two with a score, or a triplet.
pub(super) fn kind_by_count(columns: usize, third_is_number: bool) -> Option<Kind> {
    match columns {
        1 => Some(Kind::Single),
        2 => Some(Kind::Pairs),
        3 if third_is_number => Some(Kind::Scored),
        3 => Some(Kind::Triplets),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_negatives_may_be_numbered() {
        assert_eq!(Role::of(" Anchor "), Some(Role::Anchor));
        assert_eq!(Role::of("Sentence 2"), Some(Role::Positive));
        assert_eq!(Role::of("negative_12"), Some(Role::Negative));
        assert_eq!(Role::of("Negative3"), Some(Role::Negative));
        assert_eq!(Role::of("score_2"), Some(Role::Score));
        assert_eq!(Role::of("neg_scores"), Some(Role::NegativeScore));
        assert_eq!(Role::of("label2"), None);
        assert_eq!(Role::of("Quality"), None);
    }

    #[test]
    fn the_page_on_data_lists_every_name() {
        let page = include_str!("../../../../docs/data.md");
        for (role, names) in NAMES {
            let row = format!("\n| {} | `{}` |\n", role.name().trim_start_matches('_'), names.replace(' ', "`, `"));
            assert!(page.contains(&row), "docs/data.md lacks{row}");
        }
    }

    #[test]
    fn every_kind_is_recognised_by_its_names() {
        let kind = |names: &str| kind_of(&names.split(',').filter_map(Role::of).collect::<Vec<_>>());
        assert_eq!(kind("package,anchor,positive"), Some(Kind::Pairs));
        assert_eq!(kind("query,document,negative1,negative2"), Some(Kind::Triplets));
        assert_eq!(kind("text,category"), Some(Kind::Labelled));
        assert_eq!(kind("question,label"), Some(Kind::Labelled));
        assert_eq!(kind("sentence1,sentence2,score"), Some(Kind::Scored));
        assert_eq!(kind("sentence1,sentence2,label"), Some(Kind::Scored));
        assert_eq!(kind("query,positive,negative,score"), Some(Kind::ScoredTriplets));
        assert_eq!(kind("query,positive,negative1,negative2,score1,score2,score3"), Some(Kind::ScoredTriplets));
        assert_eq!(kind("query,pos,neg,pos_scores,neg_scores"), Some(Kind::ScoredTriplets));
        assert_eq!(kind("id,text"), Some(Kind::Single));
        assert_eq!(kind("image,caption"), Some(Kind::Pairs));
        assert_eq!(kind("photo,query,label"), Some(Kind::Pairs));
        assert_eq!(kind("image,text,score"), Some(Kind::Scored));
        assert_eq!(kind("image,class"), Some(Kind::Labelled));
        assert_eq!(kind("image"), Some(Kind::Single));
        assert_eq!(kind("id,text,embedding"), Some(Kind::Single));
        assert_eq!(kind("vector,label"), Some(Kind::Labelled));
        assert_eq!(kind("query,document,embedding"), Some(Kind::Pairs));
        assert_eq!(Role::of_values("File", "a.jpg"), Some(Role::Image));
        assert_eq!(Role::of_values("file", "a.txt"), None);
        assert_eq!(kind("id,label"), None);
        assert_eq!(kind("Quality,#1 ID,#2 ID,#1 String,#2 String"), None);
    }

    #[test]
    fn the_number_of_columns_tells_margins_from_scores() {
        let count = |columns, role| {
            let roles = by_place(Kind::ScoredTriplets, columns).unwrap();
            assert_eq!(roles.len(), columns);
            roles.iter().filter(|found| **found == role).count()
        };
        for (columns, negatives, scores) in [(4, 1, 1), (5, 1, 2), (6, 2, 2), (7, 2, 3)] {
            assert_eq!((count(columns, Role::Negative), count(columns, Role::Score)), (negatives, scores), "{columns}");
        }
        assert_eq!(by_place(Kind::ScoredTriplets, 3), None);
    }
}
