//! Whether the decisions of a run make sense, each by itself and together.

use super::RunSpec;
use crate::error::{Error, Problem, Result, nearest};

/// Samplers by their own names, then as other libraries call them.
const SAMPLERS: [&str; 11] = [
    "auto",
    "class",
    "random",
    "m_per_class",
    "group_by_label",
    "hierarchical",
    "no_duplicates",
    "ClassSampler",
    "MPerClassSampler",
    "HierarchicalSampler",
    "no_duplicates_hashed",
];

/// Those of other libraries that do not fit, with the reason.
const REFUSED_SAMPLERS: [(&str, &str); 3] = [
    (
        "TuplesToWeightsSampler",
        "draws by what the model finds hard at that moment, and the order of a run is a function of its seed, so that it can \
         be resumed; take a miner, which chooses within the batch",
    ),
    ("FixedSetOfTriplets", "makes a data set of triplets; write them to a file of the kind `triplets`"),
    ("SessionSampler", "is for anchors with their matches; data of the kind `triplets` brings both along"),
];

impl RunSpec {
    /// Checks ranges, names and what contradicts itself, and lists every problem at once, in the order of the fields.
    ///
    /// What needs other modules is checked by them: that files exist and fit, the names and options of losses, miners,
    /// optimisers, schedulers and callbacks.
    ///
    /// # Errors
    /// [`Error::Spec`]
    pub fn check(&self) -> Result<()> {
        let mut found = Found(Vec::new());
        let missing = |text: &str| text.trim().is_empty();

        found.unless(!missing(&self.model), "model", || {
            "expected a model: a folder, a repository id or an alias".into()
        });
        if let Err(problem) = self.check_preset() {
            found.add("preset", problem);
        }
        found.unless(self.model == "mlp" || self.model_options.is_empty(), "model_options", || {
            format!("is for `mlp`, not for `{}`", self.model)
        });
        let several = !self.datasets.is_empty();
        found.unless(several || !self.train_data.as_os_str().is_empty(), "train_data", || {
            "expected the examples to learn from: a CSV, JSONL or Parquet file, lines of text, or a BEIR folder".into()
        });
        found.unless(!several || self.train_data.as_os_str().is_empty(), "train_data", || {
            "is given beside `datasets`; make it one of them".into()
        });
        found.0.extend(self.check_datasets());
        found.name("dataset_sampler", Some(&self.dataset_sampler), &["proportional", "round_robin"]);
        found.unless(!several || self.eval_data.is_none(), "eval_data", || {
            "is given beside `datasets`; give it in the table of its data set, or as `query_data`".into()
        });
        found.unless((0.0..1.0).contains(&self.val_split), "val_split", || {
            format!("expected a share of at least 0 and less than 1, got {}", self.val_split)
        });
        found.unless(self.eval_data.is_none() || self.val_split == 0.0, "val_split", || {
            format!("is {}, but `eval_data` is given too; leave one out", self.val_split)
        });
        found.unless(self.index_data.is_none() || self.query_data.is_some(), "index_data", || {
            "is searched by `query_data`, which is not given".into()
        });
        found.name(
            "kind",
            self.kind.as_deref(),
            &["pairs", "triplets", "labelled", "scored", "single", "scored_triplets", "labelled_pairs"],
        );
        found.unless(!missing(&self.loss), "loss", || "expected a loss, as in `TripletMarginLoss`".into());
        found.unless(self.guide.as_deref().is_none_or(|guide| !missing(guide)), "guide", || {
            "expected a model: a folder, a repository id or an alias".into()
        });
        match REFUSED_SAMPLERS.iter().find(|(name, _)| *name == self.sampler) {
            Some((_, reason)) => found.add("sampler", format!("`{}` {reason}", self.sampler)),
            None => found.name("sampler", Some(&self.sampler), &SAMPLERS),
        }
        if !self.sampler_options.is_empty() && !["hierarchical", "HierarchicalSampler"].contains(&self.sampler.as_str())
        {
            found.add("sampler_options", format!("given for `{}`, which has none", self.sampler));
        }
        found.unless(self.num_items_per_class > 1, "num_items_per_class", || {
            format!("expected 2 or more, so that an item has a match in its batch, got {}", self.num_items_per_class)
        });
        found.unless(self.learning_rate > 0.0 && self.learning_rate.is_finite(), "learning_rate", || {
            format!("expected a number above 0, got {}", self.learning_rate)
        });
        found.at_least_one("epochs", Some(self.epochs));
        found.at_least_one("batch_size", Some(self.batch_size));
        found.at_least_one("micro_batch_tokens", self.micro_batch_tokens);
        found.unless(self.warmup >= 0.0 && self.warmup.is_finite(), "warmup", || {
            format!("expected steps (1 or more) or a share of the run (less than 1), got {}", self.warmup)
        });
        found.unless(self.max_grad_norm >= 0.0 && self.max_grad_norm.is_finite(), "max_grad_norm", || {
            format!("expected 0 (off) or a number above, got {}", self.max_grad_norm)
        });
        found.at_least_one("max_length", self.max_length);
        found.name("pooling", self.pooling.as_deref(), &["mean", "cls", "max", "last", "lasttoken", "gem", "GeM"]);
        let gem = matches!(self.pooling.as_deref(), Some("gem" | "GeM"));
        found.unless(gem || self.pooling_options.is_empty(), "pooling_options", || {
            "is for `pooling` of `gem`, which is not given".into()
        });
        found.at_least_one("output_dim", self.output_dim);
        found.name("init", Some(&self.init), &["pretrained", "random", "random:image"]);
        found.unless(self.init != "random:image" || self.image_model.is_some(), "init", || {
            "`random:image` is for the pictures of a joined pair; give `image_model`, or take `random`".into()
        });
        found.name("precision", Some(&self.precision), &["f32", "bf16", "auto"]);
        if let Err(problem) = self.device.parse::<super::DeviceChoice>() {
            found.add("device", problem);
        }
        found.at_least_one("threads", self.threads);
        if let Some(Err(problem)) = self.max_time.as_deref().map(super::parse_duration) {
            found.add("max_time", problem);
        }
        found.unless(!self.resume || self.output.is_some(), "resume", || {
            "needs `output`, the folder of the run to go on with".into()
        });
        found.name("keep", self.keep.as_deref(), &["best", "last", "interpolate"]);
        if found.0.is_empty() { Ok(()) } else { Err(Error::Spec { problems: found.0 }) }
    }
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, field: &str, problem: String) {
        self.0.push(Problem { field: field.into(), problem });
    }

    fn unless(&mut self, holds: bool, field: &str, problem: impl FnOnce() -> String) {
        if !holds {
            self.add(field, problem());
        }
    }

    fn at_least_one(&mut self, field: &str, number: Option<usize>) {
        self.unless(number != Some(0), field, || "expected 1 or more, got 0".into());
    }

    fn name(&mut self, field: &str, name: Option<&str>, known: &[&str]) {
        if let Some(name) = name.filter(|name| !known.contains(name)) {
            self.add(field, format!("`{name}` is not known{}", nearest(name, known.iter().copied())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> RunSpec {
        RunSpec { train_data: "train.csv".into(), ..RunSpec::default() }
    }

    #[test]
    fn only_the_training_data_has_no_default() {
        valid().check().unwrap();
        let error = RunSpec::default().check().unwrap_err().to_string();
        assert!(error.starts_with("`train_data`: expected the examples to learn from"), "{error}");
    }

    #[test]
    fn every_problem_is_listed_in_the_order_of_the_fields() {
        let spec = RunSpec {
            model: " ".into(),
            train_data: "".into(),
            eval_data: Some("eval.csv".into()),
            val_split: 1.0,
            index_data: Some("index.csv".into()),
            kind: Some("pair".into()),
            loss: String::new(),
            sampler: "clas".into(),
            num_items_per_class: 1,
            learning_rate: f64::NAN,
            epochs: 0,
            batch_size: 0,
            micro_batch_tokens: Some(0),
            warmup: -1.0,
            max_grad_norm: f64::INFINITY,
            max_length: Some(0),
            pooling: Some("maen".into()),
            output_dim: Some(0),
            init: "none".into(),
            precision: "fp8".into(),
            device: "gpu:0".into(),
            threads: Some(0),
            max_time: Some("soon".into()),
            resume: true,
            keep: Some("first".into()),
            ..RunSpec::default()
        };
        let Error::Spec { problems } = spec.check().unwrap_err() else { panic!() };
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "model",
                "train_data",
                "val_split",
                "val_split",
                "index_data",
                "kind",
                "loss",
                "sampler",
                "num_items_per_class",
                "learning_rate",
                "epochs",
                "batch_size",
                "micro_batch_tokens",
                "warmup",
                "max_grad_norm",
                "max_length",
                "pooling",
                "output_dim",
                "init",
                "precision",
                "device",
                "threads",
                "max_time",
                "resume",
                "keep"
            ]
        );
        let mut ordered = fields.clone();
        ordered.sort_by_key(|name| RunSpec::FIELDS.iter().position(|field| field.name == *name));
        assert_eq!(fields, ordered);
    }

    #[test]
    fn a_problem_says_what_was_expected_and_the_nearest_name() {
        let problem = |spec: RunSpec| spec.check().unwrap_err().to_string();
        for (spec, expected) in [
            (RunSpec { sampler: "clas".into(), ..valid() }, "`sampler`: `clas` is not known, did you mean `class`?"),
            (RunSpec { device: "gpu".into(), ..valid() }, "`device`: `gpu` is not known"),
            (RunSpec { learning_rate: 0.0, ..valid() }, "`learning_rate`: expected a number above 0, got 0"),
            (
                RunSpec { val_split: -0.1, ..valid() },
                "`val_split`: expected a share of at least 0 and less than 1, got -0.1",
            ),
            (
                RunSpec { eval_data: Some("eval.csv".into()), val_split: 0.1, ..valid() },
                "`val_split`: is 0.1, but `eval_data` is given too; leave one out",
            ),
        ] {
            let problem = problem(spec);
            assert!(problem.starts_with(expected) && !problem.contains('\n'), "{problem}");
        }
    }
}
