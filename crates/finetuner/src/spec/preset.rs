//! `preset`: fields filled together for a purpose, where nobody has set them.

use std::collections::HashSet;

use super::RunSpec;
use crate::error::{Error, Result, nearest};

/// The presets.
const NAMES: [&str; 1] = ["small"];

/// A field that a preset fills: its name, its value as in a flag, and why.
type Filled = (&'static str, &'static str, &'static str);

/// For a few hundred examples and a model that knows more than they say: it moves little, its lower layers less, stops in
/// time, and is mixed with what it was.
const FINE_TUNING: [Filled; 2] = [
    ("learning_rate", "2e-5", "large steps on few examples undo what pretraining taught, and embeddings fall together"),
    (
        "optimizer_options",
        "weight_decay=0.01,layer_wise_lr_decay=0.9",
        "lower layers hold what is general, so each learns at nine tenths of the rate of the one above",
    ),
];

/// For two models that are joined: only the new projection learns.
const JOINED: [Filled; 3] = [
    (
        "learning_rate",
        "1e-3",
        "what learns is a new projection from random weights, which a low rate would leave there",
    ),
    ("optimizer_options", "weight_decay=0.01", "a projection of few examples is kept small"),
    (
        "freeze",
        "text,image",
        "both models stay as they are: few pairs can place one space in another, not teach either",
    ),
];

/// For a network from random weights.
const FROM_RANDOM: [Filled; 2] = [
    ("learning_rate", "1e-3", "random weights have far to go, and nothing to lose"),
    ("optimizer_options", "weight_decay=0.1", "weights that few examples do not need are kept small"),
];

/// What all of them share.
const COMMON: [Filled; 6] = [
    ("optimizer", "AdamW", "its weight decay does not depend on the size of gradients"),
    ("scheduler", "cosine", "the rate falls towards the end, where few examples are seen again and again"),
    ("warmup", "0.1", "the first steps, whose gradients are the largest, are small"),
    ("epochs", "20", "few examples make few steps; early stopping ends the run before"),
    ("batch_size", "32", "few examples make more steps so"),
    ("val_split", "0.15", "what stops the run and mixes the weights must not be what it learns from"),
];

const STOP: Filled = (
    "callbacks",
    "EarlyStopping(patience=3),BestModelCheckpoint()",
    "the run ends where held-out examples no longer get better, and the weights that suit them best are kept",
);

const STOP_AND_MIX: Filled = (
    "callbacks",
    "EarlyStopping(patience=3),WiSEFTCallback(alpha=auto)",
    "the run ends where held-out examples no longer get better, and the weights are mixed with the pretrained ones as \
     suits them best",
);

impl RunSpec {
    /// What the preset fills in this spec.
    fn preset_fields(&self) -> Vec<Filled> {
        let own: &[Filled] = match (self.model == "mlp" || self.init == "random", &self.image_model) {
            (true, _) => &FROM_RANDOM,
            (false, Some(_)) => &JOINED,
            (false, None) => &FINE_TUNING,
        };
        // New weights have no pretrained ones to be mixed with.
        let mixed = self.init == "pretrained" && self.model != "mlp" && self.image_model.is_none();
        let stop = if mixed { STOP_AND_MIX } else { STOP };
        let split = |field: &&Filled| field.0 != "val_split" || self.eval_data.is_none();
        let mut fields: Vec<Filled> = own.iter().chain(COMMON.iter().filter(split)).copied().chain([stop]).collect();
        // Random pictures must learn, so only the texts stay.
        let random = fields.iter_mut().filter(|(name, ..)| *name == "freeze" && self.init == "random:image");
        random.for_each(|(_, value, _)| *value = "text");
        fields
    }

    /// Fills what `preset` says and `given` does not name. From then on `preset` names what was filled, as in
    /// `small:epochs+warmup`, and filling again changes nothing.
    ///
    /// # Errors
    /// [`Error::Spec`] for a preset that there is not.
    pub(super) fn fill_preset(&mut self, given: &dyn Fn(&str) -> bool) -> Result<()> {
        let Some(preset) = self.preset.clone().filter(|preset| !preset.contains(':')) else { return Ok(()) };
        self.check_preset().map_err(|problem| Error::spec("preset", problem))?;
        let fields: Vec<Filled> = self.preset_fields().into_iter().filter(|(name, ..)| !given(name)).collect();
        for (name, value, _) in &fields {
            self.apply(name, value)?;
        }
        let names: Vec<&str> = fields.iter().map(|(name, ..)| *name).collect();
        self.preset = Some(format!("{preset}:{}", names.join("+")));
        Ok(())
    }

    /// With everything that its preset fills: of a spec that was not made by [`RunSpec::resolve`], and so does not know what
    /// was set, all that is at its default.
    ///
    /// # Errors
    /// [`Error::Spec`] for a preset that there is not.
    pub fn with_preset(&self) -> Result<RunSpec> {
        let mut spec = self.clone();
        let same = |name: &str| {
            let [own, default] = [self, &RunSpec::default()].map(|spec| serde_json::to_value(spec).unwrap_or_default());
            own[name] == default[name]
        };
        spec.fill_preset(&|name| !same(name))?;
        Ok(spec)
    }

    /// One sentence for each field that the preset filled: its value and the reason.
    pub fn preset_sentences(&self) -> Vec<String> {
        let Some((preset, names)) = self.preset.as_deref().and_then(|preset| preset.split_once(':')) else {
            return Vec::new();
        };
        let names: HashSet<&str> = names.split('+').collect();
        let fields = self.preset_fields().into_iter().filter(|(name, ..)| names.contains(name));
        fields.map(|(name, value, why)| format!("preset `{preset}`: `{name}` is {value}, as {why}")).collect()
    }

    /// The problem with the name of the preset.
    pub(super) fn check_preset(&self) -> std::result::Result<(), String> {
        let Some(preset) = &self.preset else { return Ok(()) };
        let name = preset.split_once(':').map_or(preset.as_str(), |(name, _)| name);
        if NAMES.contains(&name) { Ok(()) } else { Err(format!("unknown preset `{name}`{}", nearest(name, NAMES))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(flags: &[(&str, &str)]) -> RunSpec {
        let flags = [("preset", "small")].iter().chain(flags).map(|(name, value)| ((*name).into(), (*value).into()));
        RunSpec::resolve(None, [], flags.collect::<Vec<(String, String)>>()).unwrap()
    }

    #[test]
    fn only_what_nobody_set_is_filled_even_where_it_was_set_to_the_default() {
        let spec = resolved(&[("learning_rate", "1e-5"), ("callbacks", "EarlyStopping(patience=9)")]);
        assert_eq!((spec.learning_rate, spec.epochs, spec.val_split), (1e-5, 20, 0.15));
        assert_eq!(spec.callbacks, ["EarlyStopping(patience=9)"]);
        let sentences = spec.preset_sentences();
        assert_eq!(sentences.len(), 7, "{sentences:?}");
        assert!(sentences.iter().all(|sentence| !sentence.contains("`learning_rate` is")), "{sentences:?}");
        let epochs =
            "preset `small`: `epochs` is 20, as few examples make few steps; early stopping ends the run before";
        assert!(sentences.iter().any(|sentence| sentence == epochs), "{sentences:?}");
    }

    #[test]
    fn what_is_filled_follows_what_learns() {
        let joined = resolved(&[("image_model", "tower")]);
        assert_eq!((joined.freeze.as_deref(), joined.learning_rate), (Some("text,image"), 1e-3));
        let random = resolved(&[("image_model", "tower"), ("init", "random:image")]);
        assert_eq!(random.freeze.as_deref(), Some("text"));
        let vectors = resolved(&[("model", "mlp"), ("eval_data", "e.csv")]);
        assert_eq!((vectors.learning_rate, vectors.val_split), (1e-3, 0.0));
        for new in [joined, random, vectors] {
            assert_eq!(new.callbacks[1], "BestModelCheckpoint()");
        }
        assert_eq!(resolved(&[]).callbacks[1], "WiSEFTCallback(alpha=auto)");
    }

    #[test]
    fn a_spec_that_was_filled_stays_as_it_is() {
        let spec = resolved(&[("epochs", "5")]);
        assert_eq!(spec.with_preset().unwrap(), spec);
        // What was never resolved is filled where it is at its default.
        let direct = RunSpec { preset: Some("small".into()), warmup: 3.0, ..RunSpec::default() }.with_preset().unwrap();
        assert_eq!((direct.warmup, direct.learning_rate), (3.0, 2e-5));
        assert_eq!(RunSpec::default().with_preset().unwrap(), RunSpec::default());
    }

    #[test]
    fn fields_of_a_file_are_given_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, "preset = \"small\"\nepochs = 5\n").unwrap();
        let spec = RunSpec::resolve(Some(&file), [("FINETUNER_WARMUP".into(), "0".into())], []).unwrap();
        assert_eq!((spec.epochs, spec.warmup, spec.learning_rate), (5, 0.0, 2e-5));
    }

    #[test]
    fn an_unknown_preset_is_refused_with_the_known_one() {
        let problem = |preset: &str| RunSpec { preset: Some(preset.into()), ..RunSpec::default() }.check();
        assert!(problem("smal").unwrap_err().to_string().contains("unknown preset `smal`, did you mean `small`?"));
        assert!(!problem("small:epochs").unwrap_err().to_string().contains("preset"));
    }
}
