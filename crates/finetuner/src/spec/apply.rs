//! Values from flags and the environment, and which of several values counts.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::{Field, FieldType, RunSpec};
use crate::error::{Error, Problem, Result};

impl RunSpec {
    /// Sets one field to a value written as text, as in a flag or in the environment.
    ///
    /// The field's name may have dashes. An empty value leaves an optional field open, and empties a list or options.
    ///
    /// # Errors
    /// [`Error::Spec`]: no such field (with the nearest known name), or a value of another type. The spec is unchanged.
    pub fn apply(&mut self, field: &str, value: &str) -> Result<()> {
        let field = Self::field(field)?;
        let value = field.parse(value).map_err(|problem| Error::spec(field.name, problem))?;
        self.set(field, value)
    }

    /// The spec of a run: for each field the flag, else the environment, else the file, else the default.
    ///
    /// - `environment`: all variables, as from `std::env::vars_os()`; those that are not `FINETUNER_` and a field's name
    ///   are passed over.
    /// - `flags`: names (dashes or underscores, without the leading `--`) and values. Where a flag is repeated the last
    ///   counts, but the items of a list (`callbacks`, `datasets`) are gathered.
    ///
    /// Options are replaced as a whole, not merged key by key. What `preset` fills is filled last, where none of the three
    /// sources names it. Ranges are not checked here: see [`RunSpec::check`].
    ///
    /// # Errors
    /// [`Error::Spec`] with the problems of all three sources; else what [`RunSpec::read`] returns.
    pub fn resolve(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<RunSpec> {
        let mut problems: Vec<Problem> = Vec::new();
        let mut given: HashSet<String> = HashSet::new();
        let mut spec = match file.map(RunSpec::read_with_names).transpose() {
            Ok(read) => {
                let (spec, names) = read.unwrap_or_default();
                given.extend(names);
                spec
            }
            Err(Error::Spec { problems: found }) => {
                problems.extend(found);
                RunSpec::default()
            }
            Err(error) => return Err(error),
        };
        let mut note = |result: Result<()>, origin: &str| match result {
            Err(Error::Spec { problems: found }) => {
                problems.extend(found.into_iter().map(|found| found.at(origin)));
                Ok(())
            }
            other => other,
        };
        let environment: HashMap<OsString, OsString> = environment.into_iter().collect();
        for field in Self::FIELDS {
            let variable = field.variable();
            if let Some(value) = environment.get(&OsString::from(&variable)) {
                given.insert(field.name.to_owned());
                let value = value.to_str().ok_or_else(|| Error::spec(field.name, "expected UTF-8"));
                note(value.and_then(|value| spec.apply(field.name, value)), &variable)?;
            }
        }
        let mut gathered: HashMap<&str, Vec<Value>> = HashMap::new();
        for (name, value) in flags {
            given.insert(name.replace('-', "_"));
            let set = Self::field(&name).and_then(|field| {
                let mut value = field.parse(&value).map_err(|problem| Error::spec(field.name, problem))?;
                if let (FieldType::Texts | FieldType::Tables, Value::Array(texts)) = (field.value, &mut value) {
                    let all = gathered.entry(field.name).or_default();
                    all.append(texts);
                    texts.clone_from(all);
                }
                spec.set(field, value)
            });
            note(set, &format!("--{}", name.replace('_', "-")))?;
        }
        if !problems.is_empty() {
            return Err(Error::Spec { problems });
        }
        spec.fill_preset(&|name| given.contains(name))?;
        Ok(spec)
    }

    fn set(&mut self, field: &Field, value: Value) -> Result<()> {
        let refused = |error: serde_json::Error| Error::spec(field.name, error.to_string());
        let mut fields = serde_json::to_value(&*self).map_err(refused)?;
        fields[field.name] = value;
        *self = serde_json::from_value(fields).map_err(refused)?;
        Ok(())
    }
}

impl Problem {
    /// The problem with the place it comes from: `run.toml:3`, `FINETUNER_EPOCHS`, `--epochs`.
    pub(super) fn at(self, origin: &str) -> Problem {
        Problem { problem: format!("{} ({origin})", self.problem), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: Option<&Path>, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<RunSpec> {
        RunSpec::resolve(
            file,
            environment.iter().map(|(name, value)| (name.into(), value.into())),
            flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, "epochs = 2\nbatch_size = 2\nseed = 2\n").unwrap();
        let environment =
            [("FINETUNER_BATCH_SIZE", "3"), ("FINETUNER_SEED", "3"), ("SEED", "9"), ("FINETUNER_HOME", "x")];
        let spec = resolve(Some(&file), &environment, &[("seed", "4")]).unwrap();
        assert_eq!((spec.num_items_per_class, spec.epochs, spec.batch_size, spec.seed), (4, 2, 3, 4));
        assert_eq!(resolve(None, &[], &[]).unwrap(), RunSpec::default());
    }

    #[test]
    fn every_type_of_field_is_read_from_text() {
        let mut spec = RunSpec::default();
        for (field, value) in [
            ("model", "bert-base-cased"),
            ("train-data", "a b.csv"),
            ("learning-rate", "1e-5"),
            ("micro_batch_tokens", "8_192"),
            ("resume", "true"),
            ("seed", "18446744073709551615"),
            ("output-dim", "64"),
            ("miner-options", "margin=0.3,type_of_triplets=hard"),
            ("callbacks", "EarlyStopping(patience=2),BestModelCheckpoint()"),
        ] {
            spec.apply(field, value).unwrap();
        }
        let expected = RunSpec {
            model: "bert-base-cased".into(),
            train_data: "a b.csv".into(),
            micro_batch_tokens: Some(8192),
            resume: true,
            seed: u64::MAX,
            output_dim: Some(64),
            miner_options: crate::spec::parse_options("margin=0.3,type_of_triplets=hard").unwrap(),
            callbacks: vec!["EarlyStopping(patience=2)".into(), "BestModelCheckpoint()".into()],
            ..RunSpec::default()
        };
        assert_eq!(spec, expected);
        spec.apply("output_dim", "").unwrap();
        assert_eq!(spec.output_dim, None);
    }

    #[test]
    fn repeated_callbacks_are_gathered_and_replace_those_of_the_environment() {
        let flags = [("callbacks", "A(x=1,y=2)"), ("callbacks", "B()"), ("epochs", "1"), ("epochs", "2")];
        let spec = resolve(None, &[("FINETUNER_CALLBACKS", "C()")], &flags).unwrap();
        assert_eq!((spec.callbacks, spec.epochs), (vec!["A(x=1,y=2)".to_owned(), "B()".to_owned()], 2));
    }

    #[test]
    fn a_value_of_another_type_leaves_the_spec_as_it_was() {
        let mut spec = RunSpec::default();
        for (field, value, expected) in [
            ("epochs", "many", "`epochs`: expected a whole number, got `many`"),
            ("epochs", "-1", "`epochs`: expected a whole number, got `-1`"),
            ("epochs", "", "`epochs`: expected a whole number, got ``"),
            ("learning_rate", "inf", "`learning_rate`: expected a number, got `inf`"),
            ("resume", "maybe", "`resume`: expected `true` or `false`, got `maybe`"),
            ("loss_options", "margin", "`loss_options`: expected `key=value`, got `margin`"),
            ("learning-rat", "1", "`learning-rat`: is no field of a run, did you mean `learning_rate`?"),
        ] {
            assert_eq!(spec.apply(field, value).unwrap_err().to_string(), expected);
        }
        assert_eq!(spec, RunSpec::default());
    }

    #[test]
    fn the_problems_of_all_sources_are_listed_with_their_origin() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, "# a run\nepoch = 2\n").unwrap();
        let error = resolve(Some(&file), &[("FINETUNER_SEED", "x")], &[("batch_size", "y"), ("los", "z")]).unwrap_err();
        let expected = [
            format!("`epoch`: is no field of a run, did you mean `epochs`? ({}:2)", file.display()),
            "`seed`: expected a whole number, got `x` (FINETUNER_SEED)".into(),
            "`batch_size`: expected a whole number, got `y` (--batch-size)".into(),
            "`los`: is no field of a run, did you mean `loss`? (--los)".into(),
        ];
        assert_eq!(error.to_string(), expected.join("\n"));
    }
}
