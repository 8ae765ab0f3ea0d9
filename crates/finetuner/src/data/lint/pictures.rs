//! Pictures that cannot be used, occur again, leak, or show little.

use std::collections::HashMap;

use super::{Dataset, Finding, Place, Severity, Tally, count};
use crate::data::{ItemId, Modality, PictureFact, Pictures};

/// The shorter edge, in pixels, below which a picture shows little.
const SMALL: u32 = 32;

/// What the pictures of a run's data are found guilty of, the worst first.
///
/// | rule | found | severity |
/// |---|---|---|
/// | `broken_pictures` | missing, not a picture, truncated, damaged, too large | error |
/// | `picture_leakage` | training pictures among the evaluation items, by their contents | warning |
/// | `equal_pictures` | files of equal contents under several names | note |
/// | `small_pictures` | an edge below 32 pixels | note |
/// | `animated_pictures` | animations, of which the first frame is used | note |
pub fn pictures(pictures: &Pictures, train: &Dataset, evaluation: Option<&Dataset>) -> Vec<Finding> {
    let mut found: Vec<Finding> = broken_pictures(pictures, train).into_iter().collect();
    if let Some(evaluation) = evaluation {
        found.extend(broken_pictures(pictures, evaluation));
        found.extend(leakage(pictures, train, evaluation));
    }
    found.extend(equal(pictures, train));
    let noted = |rule, of: &dyn Fn(&PictureFact) -> Option<String>, message: &str, consequence| {
        let mut tally = Tally::default();
        for (row, item, fact) in pictures.first_rows(train) {
            if let Some(note) = of(fact) {
                tally.add(|| Place::of(train, row, item, note));
            }
        }
        let message = |found: usize| format!("{} {message}, of {}", count(found, "picture", "pictures"), all(train));
        tally.finding(rule, Severity::Note, message, consequence)
    };
    let small = |fact: &PictureFact| {
        let (width, height) = fact.size;
        (fact.problem.is_none() && width.min(height) < SMALL).then(|| format!("{width} x {height}"))
    };
    let animated = |fact: &PictureFact| fact.animated.then(String::new);
    found.extend(noted(
        "small_pictures",
        &small,
        "with an edge below 32 pixels",
        "They are enlarged to what the model reads and show little; icons and placeholders are often among them.",
    ));
    found.extend(noted("animated_pictures", &animated, "with several frames", "The first frame is used."));
    found.sort_by_key(|finding| finding.severity);
    found
}

/// How many pictures a data set has.
fn all(dataset: &Dataset) -> usize {
    dataset.items.ids(Modality::Image).count()
}

/// The pictures of a data set that cannot be used.
pub fn broken_pictures(pictures: &Pictures, dataset: &Dataset) -> Option<Finding> {
    let mut tally = Tally::default();
    for (row, item, problem) in pictures.broken(dataset) {
        tally.add(|| Place::of(dataset, row, item, problem));
    }
    let message = |found: usize| format!("{} cannot be used, of {}", count(found, "picture", "pictures"), all(dataset));
    let consequence = "A run refuses them; repair or remove them, or leave their rows out (`--skip-bad`).";
    tally.finding("broken_pictures", Severity::Error, message, consequence)
}

fn equal(pictures: &Pictures, dataset: &Dataset) -> Option<Finding> {
    let (mut tally, mut first) = (Tally::default(), HashMap::new());
    for (row, item, fact) in pictures.first_rows(dataset) {
        let Some(hash) = fact.hash else { continue };
        let earlier = *first.entry(hash).or_insert(item);
        if earlier != item {
            tally.add(|| Place::of(dataset, row, item, format!("the same as `{}`", dataset.items.get(earlier))));
        }
    }
    let message =
        |found: usize| format!("{} the contents of an earlier one", count(found, "picture has", "pictures have"));
    let consequence = "They count twice in training, under different classes they contradict each other, and as each other's \
        negatives they mislead.";
    tally.finding("equal_pictures", Severity::Note, message, consequence)
}

/// Equal contents under other names; equal names are `leakage`.
fn leakage(pictures: &Pictures, train: &Dataset, evaluation: &Dataset) -> Option<Finding> {
    let rows = pictures.first_rows(train).into_iter();
    let trained: HashMap<u64, (usize, ItemId)> =
        rows.filter_map(|(row, item, fact)| Some((fact.hash?, (row, item)))).collect();
    let mut tally = Tally::default();
    for (row, item, fact) in pictures.first_rows(evaluation) {
        let same = fact.hash.and_then(|hash| trained.get(&hash));
        let same = same.map(|(row, item)| (row, train.items.get(*item)));
        if let Some((trained, same)) = same.filter(|(_, same)| *same != evaluation.items.get(item)) {
            tally.add(|| {
                let (path, line) = (train.path.display(), train.lines[*trained]);
                Place::of(evaluation, row, item, format!("the same as `{same}`, {path}:{line}"))
            });
        }
    }
    let message = |found: usize| {
        format!(
            "{} also in the training data, of {}",
            count(found, "evaluation picture is", "evaluation pictures are"),
            all(evaluation)
        )
    };
    let consequence = "What the model has seen in training it will find in the evaluation too, so the result looks better than it \
        is; remove these rows from one of the two.";
    tally.finding("picture_leakage", Severity::Warning, message, consequence)
}
