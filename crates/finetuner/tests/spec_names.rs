//! The names that a spec allows are the ones that the modules below it know.

use finetuner::Error;
use finetuner::artifact::PoolingMode;
use finetuner::data::Kind;
use finetuner::spec::RunSpec;

/// Whether a spec with this change is refused for this field.
fn refused(field: &str, change: impl FnOnce(&mut RunSpec)) -> bool {
    let mut spec = RunSpec { train_data: "train.csv".into(), ..RunSpec::default() };
    change(&mut spec);
    match spec.check() {
        Ok(()) => false,
        Err(Error::Spec { problems }) => problems.iter().any(|problem| problem.field == field),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn kinds_of_data_are_known_to_both() {
    for name in Kind::NAMES.iter().map(|(name, _)| *name).chain(["unknown"]) {
        let by_spec = !refused("kind", |spec| spec.kind = Some(name.into()));
        assert_eq!(by_spec, name.parse::<Kind>().is_ok(), "{name}");
    }
}

#[test]
fn poolings_are_known_to_both() {
    for name in ["mean", "cls", "max", "last", "lasttoken", "gem", "GeM", "unknown"] {
        let by_spec = !refused("pooling", |spec| spec.pooling = Some(name.into()));
        assert_eq!(by_spec, PoolingMode::from_name(name).is_ok(), "{name}");
    }
}
