//! Between the tensors on disk and the parameters of the engine.

use std::ops::Range;

use engine::random::Key;
use engine::{Gradients, ParameterId, Parameters, Tensor};

use crate::artifact::Weights;
use crate::error::Result;

/// Where the first weights come from.
pub(crate) enum Origin<'a> {
    /// A checkpoint.
    Pretrained(&'a Weights),
    /// `--init random`: normal numbers of this standard deviation, norms 1, biases 0.
    Random { key: Key, deviation: f32 },
}

/// A tensor on disk: some rows of a parameter. Query, key and value are three on disk and one in the engine.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) parameter: ParameterId,
    pub(crate) elements: Range<usize>,
}

impl Stored {
    /// Its values.
    pub(crate) fn values<'a>(&self, parameters: &'a Parameters) -> &'a [f32] {
        &parameters.get(self.parameter).value.data()[self.elements.clone()]
    }

    /// Its gradient, where there is one.
    pub(crate) fn gradient<'a>(&self, gradients: &'a Gradients) -> Option<&'a [f32]> {
        gradients.get(self.parameter).map(|gradient| &gradient.data()[self.elements.clone()])
    }
}

/// Fills [`Parameters`] tensor by tensor.
pub(crate) struct Loader<'a> {
    origin: Origin<'a>,
    /// What stands before the names in this checkpoint: nothing, or the task prefix such as `bert.`.
    prefix: &'static str,
    pub(crate) parameters: Parameters,
    pub(crate) stored: Vec<Stored>,
    /// For each parameter its depth: 0 embeddings, 1… layers, then the head.
    pub(crate) depths: Vec<usize>,
    depth: usize,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(origin: Origin<'a>, task_prefix: &'static str) -> Self {
        let prefix = match &origin {
            Origin::Pretrained(weights) if weights.names().any(|name| name.starts_with(task_prefix)) => task_prefix,
            _ => "",
        };
        Loader { origin, prefix, parameters: Parameters::default(), stored: Vec::new(), depths: Vec::new(), depth: 0 }
    }

    /// Parameters added from here on have this depth.
    pub(crate) fn at_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// Reads the next tensors from another file, such as a dense module's own.
    pub(crate) fn continue_from(&mut self, origin: Origin<'a>) {
        self.origin = origin;
        self.prefix = "";
    }

    /// A matrix that lies under one or several names on disk, one below the other.
    pub(crate) fn matrix(&mut self, names: &[String], rows_each: usize, columns: usize) -> Result<ParameterId> {
        self.add(names, &[rows_each, columns], None)
    }

    /// A vector under one or several names, one after the other; `constant` is its value when weights are random.
    pub(crate) fn vector(&mut self, names: &[String], length_each: usize, constant: f32) -> Result<ParameterId> {
        self.add(names, &[length_each], Some(constant))
    }

    fn add(&mut self, names: &[String], shape: &[usize], constant: Option<f32>) -> Result<ParameterId> {
        let each: usize = shape.iter().product();
        let mut values = Vec::with_capacity(each * names.len());
        for name in names {
            match &self.origin {
                Origin::Pretrained(weights) => values.extend(self.read(weights, name, shape)?),
                Origin::Random { key, deviation } => {
                    let key = key.part(self.stored.len() as u64 + (values.len() / each.max(1)) as u64);
                    values.extend((0..each as u64).map(|i| match constant {
                        Some(constant) => constant,
                        None => *deviation * key.normal(i) as f32,
                    }));
                }
            }
        }
        let mut whole = shape.to_vec();
        whole[0] *= names.len();
        let id = self.parameters.add(names.join("+"), Tensor::from_vec(values, &whole)?);
        self.depths.push(self.depth);
        self.stored.extend(names.iter().enumerate().map(|(i, name)| Stored {
            name: name.clone(),
            shape: shape.to_vec(),
            parameter: id,
            elements: i * each..(i + 1) * each,
        }));
        Ok(id)
    }

    fn read(&self, weights: &Weights, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let name = format!("{}{name}", self.prefix);
        if weights.info(&name).is_none() {
            // TensorFlow's names for the two vectors of a layer norm, in the oldest checkpoints.
            let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
            if weights.info(&old).is_some() {
                return weights.tensor(&old, shape);
            }
        }
        weights.tensor(&name, shape)
    }
}
