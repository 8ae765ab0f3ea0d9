use engine::random::Key;
use engine::{Tape, Var};
use serde_json::Value;

use super::{Batch, Loss, Miner};
use crate::error::{Error, Problem, Result};
use crate::objective::initial::VectorInitial;
use crate::objective::{LossParameter, Needs, Regularizer, Role, Sampler, Sizes};
use crate::spec::Options;

/// Which penalties stand beside a loss, with their factors, and how the vectors that it learns start.
#[derive(Debug, Default)]
pub(super) struct Regularization {
    embedding: Option<(Regularizer, f64)>,
    weight: Option<(Regularizer, f64)>,
    initial: Option<VectorInitial>,
}

impl Regularization {
    /// Takes the options of penalties and of initial vectors out of a loss's options.
    pub(super) fn take(options: &mut Options) -> Result<Self> {
        let mut problems = Vec::new();
        let mut take = |name: &str, factor: &str| {
            let mut problem = |key: &str, problem: String| {
                problems.push(Problem { field: format!("loss_options.{key}"), problem });
            };
            let given = options.remove(name).filter(|value| !value.is_null());
            let regularizer =
                given.and_then(|value| Regularizer::try_from(value).map_err(|wrong| problem(name, wrong)).ok());
            let weight = match options.remove(factor) {
                None => 1.0,
                Some(Value::Number(number)) => number.as_f64().unwrap_or(1.0),
                Some(other) => {
                    problem(factor, format!("expected a number, got {other}"));
                    1.0
                }
            };
            regularizer.map(|regularizer| (regularizer, weight))
        };
        let embedding = take("embedding_regularizer", "embedding_reg_weight");
        let weight = take("weight_regularizer", "weight_reg_weight");
        let initial = options.remove("weight_init_func").filter(|value| !value.is_null());
        let initial = initial.map(VectorInitial::parse).transpose().unwrap_or_else(|problem| {
            problems.push(Problem { field: "loss_options.weight_init_func".into(), problem });
            None
        });
        if problems.is_empty() {
            Ok(Regularization { embedding, weight, initial })
        } else {
            Err(Error::Spec { problems })
        }
    }

    /// The loss with its penalties.
    pub(super) fn over(self, name: &str, loss: Box<dyn Loss>) -> Result<Box<dyn Loss>> {
        // Sizes that contradict the options say that there are vectors, too.
        let of_vectors = [("weight_regularizer", self.weight.is_some()), ("weight_init_func", self.initial.is_some())];
        if let Some((option, _)) = of_vectors.iter().find(|(_, given)| *given)
            && matches!(vectors(&*loss, &Sizes { dimension: 1, classes: 1, layers: 1 }), Ok(None))
        {
            let use_of = if *option == "weight_regularizer" { "regularise" } else { "start" };
            let problem = format!("`{name}` learns no vectors to {use_of}; leave it out");
            return Err(Error::spec(format!("loss_options.{option}"), problem));
        }
        match (&self.embedding, &self.weight, &self.initial) {
            (None, None, None) => Ok(loss),
            _ => Ok(Box::new(Regularized { loss, regularization: self })),
        }
    }
}

/// The place of the vectors that a loss learns among its parameters.
fn vectors(loss: &dyn Loss, sizes: &Sizes) -> Result<Option<usize>> {
    let spans = |parameter: &LossParameter| matches!(parameter.role, Role::Learned { spans_embedding: true, .. });
    Ok(loss.parameters(sizes)?.iter().position(spans))
}

/// A loss and penalties beside it, its vectors started as asked: `loss + embedding_reg_weight penalty(embeddings) + weight_reg_weight penalty(vectors)`.
#[derive(Debug)]
struct Regularized {
    loss: Box<dyn Loss>,
    regularization: Regularization,
}

impl Loss for Regularized {
    fn needs(&self) -> Needs {
        self.loss.needs()
    }

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        self.loss.matrices(miner)
    }

    fn mines(&self) -> bool {
        self.loss.mines()
    }

    fn needs_guide(&self) -> bool {
        self.loss.needs_guide()
    }

    fn sampler(&self) -> Sampler {
        self.loss.sampler()
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let mut parameters = self.loss.parameters(sizes)?;
        if let (Some(initial), Some(place)) = (self.regularization.initial, vectors(&*self.loss, sizes)?) {
            let vectors = &mut parameters[place];
            vectors.initial = initial.of(vectors.shape[0], sizes.dimension);
        }
        Ok(parameters)
    }

    fn needs_twin(&self) -> bool {
        self.loss.needs_twin()
    }

    fn draw_layers(&self, sizes: &Sizes, key: Key) -> Vec<usize> {
        self.loss.draw_layers(sizes, key)
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let mut total = self.loss.compute(tape, batch)?;
        let mut add = |(regularizer, weight): &(Regularizer, f64), x: &Var| -> Result<()> {
            let penalty = regularizer.penalty(tape, x)?;
            let penalty = tape.affine(&penalty, *weight, 0.0)?;
            total = tape.add(&total, &penalty)?;
            Ok(())
        };
        if let Some(embedding) = &self.regularization.embedding {
            add(embedding, batch.embeddings)?;
        }
        if let (Some(weight), Some(place)) = (&self.regularization.weight, vectors(&*self.loss, batch.sizes)?) {
            add(weight, batch.parameter(place)?)?;
        }
        Ok(total)
    }
}
