//! What to do with data, in plain words: goals, models and efforts to choose from, the best guess first.

use serde::Serialize;
use serde_json::json;

use crate::data::{Kind, Modality};
use crate::spec::Options;

/// Rows below which nothing is held out: what is measured on two or three queries says nothing.
const FEWEST_ROWS: usize = 20;

/// Rows that are held out at most; more make measuring slow, not surer.
const MOST_HELD_OUT: usize = 2000;

/// What is known of the data that a suggestion is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) kind: Kind,
    pub(super) rows: usize,
    /// Whether there are texts, and pictures.
    pub(super) modalities: [bool; 2],
    /// Whether most of the texts are English, or too short to say.
    pub(super) english: bool,
    /// Whether data to measure with is given.
    pub(super) measured: bool,
}

/// What could be done with data. Of each list the first is the suggestion; a run is made by bringing the fields together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suggestion {
    /// What the model is to learn.
    pub goals: Vec<Goal>,
    /// What it starts from.
    pub models: Vec<ModelChoice>,
    /// How long it may take.
    pub efforts: Vec<Effort>,
    /// Fields that suit the data whatever is chosen.
    pub fields: Options,
    /// Why, a sentence each.
    pub reasons: Vec<String>,
}

/// What a model can learn from data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// For programs.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What it means.
    pub description: &'static str,
    /// Fields of a spec.
    pub fields: Options,
}

/// A model to start from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelChoice {
    /// As in the field `model`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What it is good for.
    pub description: &'static str,
    /// Whether it has to be downloaded first.
    pub download: bool,
    /// Fields of a spec.
    pub fields: Options,
}

/// How long a run takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effort {
    /// For programs.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Fields of a spec.
    pub fields: Options,
}

/// What to do with data of which this is known.
pub(super) fn suggest(known: Known) -> Suggestion {
    let batch_size = batch_size(known);
    let mut reasons = vec![format!("{} rows make batches of {batch_size}.", known.rows)];
    let mut fields = object(json!({
        "batch_size": batch_size, "optimizer": "AdamW", "scheduler": "linear", "warmup": 0.1,
    }));
    let share = held_out(known);
    if share > 0.0 {
        fields.insert("val_split".into(), json!(share));
        let rows = (share * known.rows as f64).round();
        reasons.push(format!("{rows} rows are kept aside to see whether the model got better."));
    } else if !known.measured {
        reasons.push(
            "Nothing is measured: there are too few rows to keep some aside, or their kind has no answers.".into(),
        );
    }
    if !known.english && known.modalities[0] {
        reasons.push("Most texts are not English, so a model of many languages comes first.".into());
    }
    Suggestion { goals: goals(known), models: models(known), efforts: efforts(known.rows), fields, reasons }
}

fn goals(known: Known) -> Vec<Goal> {
    let goal = |name, title, description, fields| Goal { name, title, description, fields: object(fields) };
    let [_, pictures] = known.modalities;
    match known.kind {
        Kind::Pairs if known.modalities == [true, true] => vec![goal(
            "describe",
            "Find pictures by their description",
            "A text finds the pictures it describes, and a picture its texts.",
            json!({"loss": "CLIPLoss"}),
        )],
        Kind::Pairs => vec![
            goal(
                "search",
                "Find the right answer for a question",
                "The first column learns to find what stands beside it, among everything else.",
                json!({"loss": "MultipleNegativesRankingLoss"}),
            ),
            goal(
                "same",
                "Recognise two wordings of the same thing",
                "Both columns mean the same, and each is to find the other.",
                json!({"loss": "MultipleNegativesSymmetricRankingLoss"}),
            ),
        ],
        Kind::Triplets => vec![
            goal(
                "search",
                "Find the right answer for a question",
                "The first column learns to find the second, and to pass over what does not match.",
                json!({"loss": "MultipleNegativesRankingLoss"}),
            ),
            goal(
                "margin",
                "Keep right and wrong answers apart",
                "Each wrong answer is pushed away from its question by a margin, other rows play no part.",
                json!({"loss": "TripletMarginLoss"}),
            ),
        ],
        Kind::Labelled => vec![
            goal(
                "group",
                if pictures { "Find pictures of the same sort" } else { "Group similar things" },
                "Items with the same label come together, others move apart. New labels work too.",
                json!({"loss": "SupConLoss"}),
            ),
            goal(
                "classes",
                "Tell exactly these classes apart",
                "Sharp borders between the classes of the data; best where no others will ever come.",
                json!({"loss": "ArcFaceLoss"}),
            ),
        ],
        Kind::Scored => vec![goal(
            "similarity",
            "Judge how similar two texts are",
            "Similarities follow the order of your scores.",
            json!({"loss": "CoSENTLoss"}),
        )],
        Kind::Single => vec![goal(
            "domain",
            if pictures { "Get used to my pictures" } else { "Get used to the language of my texts" },
            "There are no answers to learn from, so the model learns what sets your items apart.",
            json!({}),
        )],
        Kind::ScoredTriplets => vec![goal(
            "teacher",
            "Search as well as a teacher does",
            "Distances follow the scores that a larger model gave.",
            json!({"loss": "MarginMSELoss"}),
        )],
        Kind::LabelledPairs => vec![goal(
            "relation",
            "Tell how two texts relate",
            "The label of a pair is learnt from both of its texts.",
            json!({"loss": "SoftmaxLoss"}),
        )],
    }
}

fn models(known: Known) -> Vec<ModelChoice> {
    let choice = |name, title, description, rate: f64| ModelChoice {
        name,
        title,
        description,
        download: !matches!(name, "mini" | "mlp"),
        fields: object(json!({"model": name, "learning_rate": rate})),
    };
    match known.modalities {
        [true, true] => vec![
            choice("clip-ViT-B-32", "CLIP", "Texts and pictures; English.", 1e-5),
            choice("siglip-base", "SigLIP", "Texts and pictures; newer, English.", 1e-5),
            choice("clip-base-multi", "Multilingual CLIP", "Texts of 100 languages and pictures; large.", 1e-5),
        ],
        [false, true] => vec![
            choice("dinov2-small", "DINOv2 small", "Strong for similarity, learnt without labels.", 2e-5),
            choice("mobilenet-v2", "MobileNet", "Small and fast.", 1e-4),
            choice("resnet50", "ResNet-50", "The usual middle.", 5e-5),
            choice("dinov2-base", "DINOv2 base", "Larger; slow without a GPU.", 1e-5),
        ],
        [false, false] => vec![choice("mlp", "Perceptron", "Learns on top of the vectors that are there.", 1e-3)],
        [true, false] => {
            let mini =
                choice("mini", "Mini", "Inside this server: no download, minutes on any machine. English.", 1e-4);
            let english = [
                choice("all-MiniLM-L6-v2", "MiniLM", "Small and fast, the usual first choice. English.", 2e-5),
                choice("bge-small-en-v1.5", "BGE small", "Strong for its size. English.", 2e-5),
                choice("all-mpnet-base-v2", "MPNet", "Better and five times slower. English.", 2e-5),
            ];
            let multilingual = [
                choice("multilingual-e5-small", "Multilingual E5", "About 100 languages; small.", 2e-5),
                choice("bge-m3", "BGE M3", "More than 100 languages, long texts; large, slow without a GPU.", 1e-5),
            ];
            let mut models: Vec<ModelChoice> = Vec::new();
            if known.english {
                models.push(mini);
                models.extend(english);
                models.extend(multilingual);
            } else {
                models.extend(multilingual);
                models.push(mini);
                models.extend(english);
            }
            models
        }
    }
}

/// Few rows bear more epochs: what one of them can teach is small, and weights that measured best are kept.
fn efforts(rows: usize) -> Vec<Effort> {
    let balanced = match rows {
        0..1000 => 4,
        1000..10_000 => 2,
        _ => 1,
    };
    let effort = |name, title, epochs: usize| Effort { name, title, fields: object(json!({"epochs": epochs})) };
    vec![
        effort("balanced", "Balanced", balanced),
        effort("quick", "A quick look", 1),
        effort("thorough", "Thorough", balanced * 3),
    ]
}

/// The largest of 8, 16, 32 and 64 of which an epoch has eight batches; more answers in a batch are more wrong answers to
/// learn from.
fn batch_size(known: Known) -> usize {
    let most = if known.modalities[Modality::Image as usize] { 32 } else { 64 };
    [64, 32, 16].into_iter().find(|size| *size <= most && size * 8 <= known.rows).unwrap_or(8)
}

/// A fifth of few rows, 2,000 of many.
fn held_out(known: Known) -> f64 {
    let measurable = !matches!(known.kind, Kind::Single | Kind::LabelledPairs);
    if known.measured || !measurable || known.rows < FEWEST_ROWS {
        return 0.0;
    }
    let share = (MOST_HELD_OUT as f64 / known.rows as f64).min(0.2);
    // Two digits are enough, and read better.
    ((share * 1000.0).round() / 1000.0).max(0.001)
}

fn object(value: serde_json::Value) -> Options {
    match value {
        serde_json::Value::Object(fields) => fields,
        _ => Options::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::RunSpec;

    fn known(kind: Kind, rows: usize, modalities: [bool; 2]) -> Known {
        Known { kind, rows, modalities, english: true, measured: false }
    }

    #[test]
    fn every_combination_of_choices_is_a_spec_that_may_run() {
        for (_, kind) in Kind::NAMES {
            for modalities in [[true, false], [false, true], [true, true]] {
                let own = suggest(known(kind, 500, modalities));
                for goal in &own.goals {
                    for (model, effort) in own.models.iter().zip(own.efforts.iter().cycle()) {
                        let mut spec = own.fields.clone();
                        for fields in [&goal.fields, &model.fields, &effort.fields] {
                            spec.extend(fields.clone());
                        }
                        spec.insert("train_data".into(), json!("train.csv"));
                        let spec: RunSpec = serde_json::from_value(serde_json::Value::Object(spec)).unwrap();
                        spec.check().unwrap();
                        assert!(model.name == "mini" || crate::encoder::alias::find(model.name).is_some());
                    }
                }
            }
        }
    }

    #[test]
    fn batches_epochs_and_what_is_held_out_follow_the_number_of_rows() {
        let of = |rows: usize| {
            let own = suggest(known(Kind::Pairs, rows, [true, false]));
            let number = |fields: &Options, name: &str| fields.get(name).and_then(serde_json::Value::as_f64);
            let epochs = number(&own.efforts[0].fields, "epochs").unwrap();
            (number(&own.fields, "batch_size").unwrap(), epochs, number(&own.fields, "val_split"))
        };
        assert_eq!(of(10), (8.0, 4.0, None));
        assert_eq!(of(200), (16.0, 4.0, Some(0.2)));
        assert_eq!(of(3200), (64.0, 2.0, Some(0.2)));
        assert_eq!(of(100_000), (64.0, 1.0, Some(0.02)));
    }

    #[test]
    fn nothing_is_held_out_where_data_to_measure_with_is_given_or_could_not_be_used() {
        let measured = Known { measured: true, ..known(Kind::Pairs, 1000, [true, false]) };
        assert_eq!(suggest(measured).fields.get("val_split"), None);
        assert_eq!(suggest(known(Kind::Single, 1000, [true, false])).fields.get("val_split"), None);
    }

    #[test]
    fn the_first_model_reads_what_the_data_holds() {
        let first = |own: Known| suggest(own).models[0].name;
        assert_eq!(first(known(Kind::Pairs, 100, [true, false])), "mini");
        assert_eq!(first(Known { english: false, ..known(Kind::Pairs, 100, [true, false]) }), "multilingual-e5-small");
        assert_eq!(first(known(Kind::Labelled, 100, [false, true])), "dinov2-small");
        assert_eq!(first(known(Kind::Pairs, 100, [true, true])), "clip-ViT-B-32");
    }
}
