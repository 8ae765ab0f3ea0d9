//! Several data sets in one run: each a table of the fields that are its own.

use super::RunSpec;
use crate::error::{Error, Problem, Result, nearest};

/// The fields that a table of `datasets` may have.
pub const DATASET_FIELDS: [&str; 12] = [
    "train_data",
    "eval_data",
    "val_split",
    "kind",
    "loss",
    "loss_options",
    "miner",
    "miner_options",
    "sampler",
    "sampler_options",
    "num_items_per_class",
    "batch_size",
];

impl RunSpec {
    /// One spec for each data set: the run's, with the fields of the data set's table in their place. Without `datasets`
    /// the run itself.
    ///
    /// A table with a `loss` of its own takes no `loss_options`, `miner` and `miner_options` from the run.
    ///
    /// # Errors
    /// [`Error::Spec`] with every problem of every table, as in `datasets[2].loss`; tables are counted from 1.
    pub fn parts(&self) -> Result<Vec<RunSpec>> {
        if self.datasets.is_empty() {
            return Ok(vec![self.clone()]);
        }
        let mut problems = Vec::new();
        let mut parts = Vec::new();
        for (number, table) in (1..).zip(&self.datasets) {
            let place = |name: &str| format!("datasets[{number}].{name}");
            let mut part = RunSpec { datasets: Vec::new(), ..self.clone() };
            if table.contains_key("loss") {
                (part.loss_options, part.miner, part.miner_options) = Default::default();
            }
            let mut fields = serde_json::to_value(&part).unwrap_or_default();
            for (name, value) in table {
                let field =
                    Self::FIELDS.iter().find(|field| field.name == name && DATASET_FIELDS.contains(&field.name));
                let problem = match field {
                    None => format!("is no field of a data set{}", nearest(name, DATASET_FIELDS)),
                    Some(field) if !field.accepts(value) => format!("expected {}, got `{value}`", field.value),
                    Some(field) => {
                        fields[field.name] = value.clone();
                        continue;
                    }
                };
                problems.push(Problem { field: place(name), problem });
            }
            match serde_json::from_value(fields) {
                Ok(part) => parts.push(part),
                Err(error) => {
                    problems.push(Problem { field: format!("datasets[{number}]"), problem: error.to_string() })
                }
            }
            if !table.contains_key("train_data") {
                problems.push(Problem {
                    field: place("train_data"),
                    problem: "expected the examples to learn from".into(),
                });
            }
        }
        if problems.is_empty() { Ok(parts) } else { Err(Error::Spec { problems }) }
    }

    /// The problems of [`RunSpec::parts`] and of each part, in the order of the tables.
    pub(super) fn check_datasets(&self) -> Vec<Problem> {
        let parts = match self.parts() {
            Ok(parts) if !self.datasets.is_empty() => parts,
            Ok(_) => return Vec::new(),
            Err(Error::Spec { problems }) => return problems,
            Err(error) => return vec![Problem { field: "datasets".into(), problem: error.to_string() }],
        };
        let of_part = |(number, part): (usize, &RunSpec)| match part.check() {
            Err(Error::Spec { problems }) => {
                let own = problems.into_iter().filter(|problem| DATASET_FIELDS.contains(&problem.field.as_str()));
                own.map(|found| Problem { field: format!("datasets[{number}].{}", found.field), ..found }).collect()
            }
            _ => Vec::new(),
        };
        (1..).zip(&parts).flat_map(of_part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> RunSpec {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_table_takes_the_runs_fields_where_it_has_none() {
        let spec = read(
            "loss = \"TripletMarginLoss\"\nbatch_size = 32\n[loss_options]\nmargin = 0.3\n\n\
             [[datasets]]\ntrain_data = \"a.csv\"\n\n[[datasets]]\ntrain_data = \"b.csv\"\nloss = \"CoSENTLoss\"\nbatch_size = 8\n",
        );
        spec.check().unwrap();
        let parts = spec.parts().unwrap();
        assert_eq!(
            (parts[0].loss.as_str(), parts[0].batch_size, parts[0].loss_options.len()),
            ("TripletMarginLoss", 32, 1)
        );
        assert_eq!((parts[1].loss.as_str(), parts[1].batch_size, parts[1].loss_options.len()), ("CoSENTLoss", 8, 0));
        assert_eq!(parts[1].train_data, std::path::Path::new("b.csv"));
        assert!(parts.iter().all(|part| part.datasets.is_empty()));
        let alone = read("train_data = \"a.csv\"");
        assert_eq!(alone.parts().unwrap(), [alone]);
    }

    #[test]
    fn every_problem_of_every_table_is_named() {
        let problems = |toml: &str| read(toml).check().unwrap_err().to_string();
        let found =
            problems("[[datasets]]\ntrain_dat = \"a.csv\"\n[[datasets]]\ntrain_data = \"b.csv\"\nbatch_size = \"x\"\n");
        assert!(
            found.contains("`datasets[1].train_dat`: is no field of a data set, did you mean `train_data`?"),
            "{found}"
        );
        assert!(found.contains("`datasets[1].train_data`: expected"), "{found}");
        assert!(found.contains("`datasets[2].batch_size`: expected a whole number, got `\"x\"`"), "{found}");
        let found = problems("[[datasets]]\ntrain_data = \"a.csv\"\nbatch_size = 0\nsampler = \"clas\"\n");
        assert!(found.contains("`datasets[1].batch_size`: expected 1 or more"), "{found}");
        assert!(found.contains("`datasets[1].sampler`: `clas` is not known, did you mean `class`?"), "{found}");
        let found = problems("train_data = \"a.csv\"\neval_data = \"e.csv\"\n[[datasets]]\ntrain_data = \"b.csv\"\n");
        assert!(found.contains("`train_data`: ") && found.contains("`eval_data`: "), "{found}");
    }
}
