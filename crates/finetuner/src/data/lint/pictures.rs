//! Pictures that cannot be used, occur again, leak, or show little.

use std::collections::HashMap;

use super::{Dataset, Finding, Place, Severity, Tally, count};
use crate::data::{ItemId, PictureFact, Pictures};

/// The shorter edge, in pixels, below which a picture shows little.
const SMALL: u32 = 32;

/// Every picture of a data set once, with the first row that holds it.
fn each<'a>(dataset: &Dataset, pictures: &'a Pictures) -> Vec<(usize, ItemId, &'a PictureFact)> {
    let mut seen = std::collections::HashSet::new();
    let rows =
        dataset.examples.iter().enumerate().flat_map(|(row, example)| example.items().map(move |item| (row, item)));
    rows.filter(|(_, item)| seen.insert(*item))
        .filter_map(|(row, item)| Some((row, item, pictures.get(item)?)))
        .collect()
}

/// What the pictures of a run's data are found guilty of, the worst first.
///
/// | rule | found | severity |
/// |---|---|---|
/// | `broken_pictures` | missing, not a picture, truncated, damaged, too large | error |
/// | `picture_leakage` | training pictures among the evaluation items, by their contents | warning |
/// | `equal_pictures` | files of equal contents under several names | note |
/// | `small_pictures` | an edge below 32 pixels | note |
/// | `animated_pictures` | animations, of which the first frame is used | note |
pub fn pictures(train: (&Dataset, &Pictures), evaluation: Option<(&Dataset, &Pictures)>) -> Vec<Finding> {
    let mut found: Vec<Finding> = broken(train).into_iter().collect();
    if let Some(evaluation) = evaluation {
        found.extend(broken(evaluation));
        found.extend(leakage(train, evaluation));
    }
    found.extend(equal(train));
    let noted = |rule, of: &dyn Fn(&PictureFact) -> Option<String>, message: &str, consequence| {
        let mut tally = Tally::default();
        for (row, item, fact) in each(train.0, train.1) {
            if let Some(note) = of(fact) {
                tally.add(|| Place::of(train.0, row, item, note));
            }
        }
        let all = train.1.len();
        let message = |found: usize| format!("{} {message}, of {all}", count(found, "picture", "pictures"));
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

fn broken((dataset, pictures): (&Dataset, &Pictures)) -> Option<Finding> {
    let mut tally = Tally::default();
    for (row, item, fact) in each(dataset, pictures) {
        if let Some(problem) = &fact.problem {
            tally.add(|| Place::of(dataset, row, item, problem.as_str()));
        }
    }
    let all = pictures.len();
    let message = |found: usize| format!("{} cannot be used, of {all}", count(found, "picture", "pictures"));
    let consequence = "A run refuses them; repair or remove them, or leave their rows out (`--skip-bad`).";
    tally.finding("broken_pictures", Severity::Error, message, consequence)
}

fn equal((dataset, pictures): (&Dataset, &Pictures)) -> Option<Finding> {
    let (mut tally, mut first) = (Tally::default(), HashMap::new());
    for (row, item, fact) in each(dataset, pictures) {
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

fn leakage(train: (&Dataset, &Pictures), evaluation: (&Dataset, &Pictures)) -> Option<Finding> {
    let trained: HashMap<u64, (usize, ItemId)> =
        each(train.0, train.1).into_iter().filter_map(|(row, item, fact)| Some((fact.hash?, (row, item)))).collect();
    let mut tally = Tally::default();
    for (row, item, fact) in each(evaluation.0, evaluation.1) {
        if let Some((trained, same)) = fact.hash.and_then(|hash| trained.get(&hash)) {
            tally.add(|| {
                let (path, line) = (train.0.path.display(), train.0.lines[*trained]);
                let note = format!("the same as `{}`, {path}:{line}", train.0.items.get(*same));
                Place::of(evaluation.0, row, item, note)
            });
        }
    }
    let all = evaluation.1.len();
    let message = |found: usize| {
        format!(
            "{} also in the training data, of {all}",
            count(found, "evaluation picture is", "evaluation pictures are")
        )
    };
    let consequence = "What the model has seen in training it will find in the evaluation too, so the result looks better than it \
        is; remove these rows from one of the two.";
    tally.finding("picture_leakage", Severity::Warning, message, consequence)
}
