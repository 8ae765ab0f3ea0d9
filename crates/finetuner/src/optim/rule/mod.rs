//! The optimisers by name: their options and the update rule that these make. Names, options and defaults are torch's;
//! the learning rate is a field of the run. t counts steps from 1.

mod adam;
mod adaptive;
mod sgd;

use engine::device::UpdateKind;
use serde::Serialize;

pub use self::adam::{Adam, AdamW, Adamax, NAdam, RAdam};
pub use self::adaptive::{Adadelta, Adagrad, RmsProp};
pub use self::sgd::{Asgd, Rprop, Sgd};
use crate::error::Result;
use crate::objective::registry::{self, Entry};
use crate::spec::Options;

/// An option and what is wrong with its value, if anything.
pub type Check = Option<(&'static str, String)>;

/// An optimiser with its options.
pub trait Rule: std::fmt::Debug {
    /// What becomes of a gradient.
    fn kind(&self) -> UpdateKind;

    /// Weight decay, and whether it shrinks the weights themselves.
    fn decay(&self) -> (f32, bool) {
        (0.0, false)
    }

    /// The options looked at one by one: what is wrong with each.
    fn checks(&self) -> Vec<Check> {
        Vec::new()
    }
}

const OPTIMIZERS: &[Entry<dyn Rule>] = &[
    entry::<Adam>("Adam"),
    entry::<AdamW>("AdamW"),
    entry::<Sgd>("SGD"),
    entry::<RAdam>("RAdam"),
    entry::<NAdam>("NAdam"),
    entry::<Adamax>("Adamax"),
    entry::<Adagrad>("Adagrad"),
    entry::<Adadelta>("Adadelta"),
    entry::<RmsProp>("RMSprop"),
    entry::<Asgd>("ASGD"),
    entry::<Rprop>("Rprop"),
];

const REFUSED: &[(&str, &str)] = &[
    ("SparseAdam", "is for sparse gradients, and those of these models are not; take `Adam`, which is the same rule"),
    ("LBFGS", "evaluates a batch many times a step to search along a line, which training in batches has no use for"),
];

const fn entry<T>(name: &'static str) -> Entry<dyn Rule>
where
    T: Rule + Serialize + serde::de::DeserializeOwned + Default + 'static,
{
    Entry {
        name,
        aliases: &[],
        build: |options| {
            let rule: T = registry::parse("optimizer_options", options)?;
            registry::checked("optimizer_options", rule.checks().into_iter().flatten().collect())?;
            Ok(Box::new(rule))
        },
    }
}

/// The optimiser of this name.
///
/// # Errors
/// [`crate::Error::Spec`] for an unknown name or option, or a value outside of its range.
pub fn rule(name: &str, options: &Options) -> Result<Box<dyn Rule>> {
    registry::build("optimizer", OPTIMIZERS, REFUSED, name, options)
}

/// All known names.
pub fn names() -> Vec<&'static str> {
    OPTIMIZERS.iter().map(|entry| entry.name).collect()
}

fn below_one(key: &'static str, value: f32) -> Check {
    let problem = || (key, format!("expected a number of at least 0 and below 1, got {value}"));
    (!(0.0..1.0).contains(&value)).then(problem)
}

fn at_least_zero(key: &'static str, value: f32) -> Check {
    let valid = value >= 0.0 && value.is_finite();
    (!valid).then(|| (key, format!("expected a number of at least 0, got {value}")))
}

fn betas(betas: (f32, f32)) -> Check {
    below_one("betas", betas.0).or(below_one("betas", betas.1))
}
