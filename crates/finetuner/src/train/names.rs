//! What can be said of a spec before its data and its model are there.

use super::callbacks::Callbacks;
use crate::error::{Error, Problem, Result};
use crate::objective::Objective;
use crate::optim::{Optimizer, Schedule};
use crate::spec::{Options, RunSpec};

/// Checks a spec as far as that goes without its data and its model: what [`RunSpec::check`] checks, and the names and
/// options of callbacks, losses, miners and schedules, and the names of optimisers. A run checks the rest.
///
/// # Errors
/// [`Error::Spec`] with every problem.
pub fn check_names(spec: &RunSpec) -> Result<()> {
    let mut problems: Vec<Problem> = Vec::new();
    let mut note = |checked: Result<()>, place: &str| match checked {
        Err(Error::Spec { problems: found }) => {
            let at = |found: Problem| Problem { field: format!("{place}{}", found.field), ..found };
            problems.extend(found.into_iter().map(at));
            Ok(())
        }
        other => other,
    };
    note(spec.check(), "")?;
    for (number, part) in (1..).zip(spec.parts().unwrap_or_default()) {
        // What `auto` stands for is known with the data.
        if part.loss != "auto" {
            let built = Objective::new(&part.loss, &part.loss_options, part.miner.as_deref(), &part.miner_options);
            let place = if spec.datasets.is_empty() { String::new() } else { format!("datasets[{number}].") };
            note(built.map(drop), &place)?;
        }
    }
    note(Optimizer::new(&spec.optimizer, &Options::new(), &[]).map(drop), "")?;
    if let Some(name) = &spec.loss_optimizer {
        note(Optimizer::new(name, &Options::new(), &[]).map(drop), "loss_")?;
    }
    note(Schedule::new(spec.scheduler.as_deref(), &spec.scheduler_options, 0.0, 1).map(drop), "")?;
    note(Callbacks::parse(&spec.callbacks, &spec.model).map(drop), "")?;
    if problems.is_empty() { Ok(()) } else { Err(Error::Spec { problems }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_not_known_is_told_before_a_run() {
        let spec = RunSpec {
            train_data: "train.csv".into(),
            loss: "TripletMarginLos".into(),
            optimizer: "Adm".into(),
            loss_optimizer: Some("SDG".into()),
            scheduler: Some("linaer".into()),
            callbacks: vec!["EarlyStoping()".into()],
            epochs: 0,
            ..RunSpec::default()
        };
        let Error::Spec { problems } = check_names(&spec).unwrap_err() else { panic!() };
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["epochs", "loss", "optimizer", "loss_optimizer", "scheduler", "callbacks"]);
        let spec = RunSpec { train_data: "train.csv".into(), ..RunSpec::default() };
        check_names(&spec).unwrap();
        let table = crate::spec::parse_options("train_data=a.csv,loss=CoSENTLos").unwrap();
        let error = check_names(&RunSpec { datasets: vec![table], ..RunSpec::default() }).unwrap_err().to_string();
        assert!(error.starts_with("`datasets[1].loss`:") && error.contains("did you mean"), "{error}");
    }
}
