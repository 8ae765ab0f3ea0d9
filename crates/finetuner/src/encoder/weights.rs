//! Between the tensors on disk and the parameters of the engine.

use std::ops::Range;

use engine::random::Key;
use engine::{Gradients, ParameterId, Parameters, Tensor};

use super::OwnedTensor;
use crate::artifact::Weights;
use crate::data::Modality;
use crate::error::Result;

/// Where the first weights come from.
pub(crate) enum Origin<'a> {
    /// A checkpoint.
    Pretrained(&'a Weights),
    /// `--init random`: normal numbers of this standard deviation, norms 1, biases 0.
    Random { key: Key, deviation: f32 },
}

impl Origin<'_> {
    /// Whether names of the checkpoint begin like this.
    fn names(&self, prefix: &str) -> bool {
        matches!(self, Origin::Pretrained(weights) if weights.names().any(|name| name.starts_with(prefix)))
    }
}

/// A tensor on disk: some rows of a parameter. Query, key and value are three on disk and one in the engine.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) parameter: ParameterId,
    /// Which of the model's folders it lies in; a joined pair has two.
    pub(crate) folder: usize,
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
    /// What stands before the names that follow, on disk and in what is saved: a tower's part of the checkpoint.
    scope: String,
    pub(crate) parameters: Parameters,
    pub(crate) stored: Vec<Stored>,
    /// For each parameter its depth: 0 embeddings, 1… layers, then the head.
    pub(crate) depths: Vec<usize>,
    depth: usize,
    /// For each parameter what its tower reads.
    pub(crate) modalities: Vec<Modality>,
    modality: Modality,
    /// Tensors that nothing here uses, kept as they came, so that the artifact is complete; and their folders.
    pub(crate) kept: Vec<(usize, OwnedTensor)>,
    folder: usize,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(origin: Origin<'a>, task_prefix: &'static str) -> Self {
        let prefix = if origin.names(task_prefix) { task_prefix } else { "" };
        Loader {
            origin,
            prefix,
            scope: String::new(),
            parameters: Parameters::default(),
            stored: Vec::new(),
            depths: Vec::new(),
            depth: 0,
            modalities: Vec::new(),
            modality: Modality::Text,
            kept: Vec::new(),
            folder: 0,
        }
    }

    /// The names that follow stand under this prefix, such as `vision_model.`.
    pub(crate) fn within(&mut self, scope: &str) {
        scope.clone_into(&mut self.scope);
    }

    /// Parameters added from here on have this depth.
    pub(crate) fn at_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// Parameters added from here on are of the tower that reads these.
    pub(crate) fn of_tower(&mut self, modality: Modality) {
        self.modality = modality;
    }

    /// Reads the next tensors from another model's folder; their depths begin anew.
    pub(crate) fn next_folder(&mut self, origin: Origin<'a>, task_prefix: &'static str) {
        self.continue_from(origin);
        if self.origin.names(task_prefix) {
            self.prefix = task_prefix;
        }
        self.folder += 1;
        self.depth = 0;
    }

    /// Reads the next tensors from another file, such as a dense module's own.
    pub(crate) fn continue_from(&mut self, origin: Origin<'a>) {
        self.origin = origin;
        self.prefix = "";
        self.scope.clear();
    }

    /// Whether the checkpoint has a tensor of this name; random weights have none that is optional.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.origin {
            Origin::Pretrained(weights) => weights.info(&format!("{}{}{name}", self.prefix, self.scope)).is_some(),
            Origin::Random { .. } => false,
        }
    }

    /// The shape of a tensor of the checkpoint, where it has one of this name.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.origin {
            Origin::Pretrained(weights) => {
                weights.info(&format!("{}{}{name}", self.prefix, self.scope)).map(|info| info.shape.clone())
            }
            Origin::Random { .. } => None,
        }
    }

    /// Keeps a tensor that nothing here uses, where the checkpoint has it.
    pub(crate) fn keep(&mut self, name: &str) -> Result<()> {
        if let (Origin::Pretrained(weights), Some(shape)) = (&self.origin, self.shape(name)) {
            let name = format!("{}{name}", self.scope);
            let values = weights.tensor(&format!("{}{name}", self.prefix), &shape)?;
            self.kept.push((self.folder, (name, shape, values)));
        }
        Ok(())
    }

    /// A matrix that lies under one or several names on disk, one below the other.
    pub(crate) fn matrix(&mut self, names: &[String], rows_each: usize, columns: usize) -> Result<ParameterId> {
        self.add(names, &[rows_each, columns], &[names.len() * rows_each, columns], None)
    }

    /// A tensor of several dimensions on disk that is a matrix here, such as the filters of a convolution.
    pub(crate) fn folded(&mut self, name: &str, on_disk: &[usize], rows: usize) -> Result<ParameterId> {
        let columns = on_disk.iter().product::<usize>() / rows.max(1);
        self.add(&[name.to_owned()], on_disk, &[rows, columns], None)
    }

    /// A vector on disk that is a row here, to be repeated over the rows of a matrix.
    pub(crate) fn row(&mut self, name: &str, length: usize, constant: f32) -> Result<ParameterId> {
        self.add(&[name.to_owned()], &[length], &[1, length], Some(constant))
    }

    /// A vector under one or several names, one after the other; `constant` is its value when weights are random.
    pub(crate) fn vector(&mut self, names: &[String], length_each: usize, constant: f32) -> Result<ParameterId> {
        self.add(names, &[length_each], &[names.len() * length_each], Some(constant))
    }

    /// The filters of a convolution, `[out, in / groups, height, width]`. Random ones keep the variance of their input (He et
    /// al. 2015, over the outputs).
    pub(crate) fn filters(&mut self, name: &str, shape: &[usize; 4]) -> Result<ParameterId> {
        let deviation = (2.0 / (shape[0] * shape[2] * shape[3]) as f32).sqrt();
        self.with_deviation(deviation, |loader| loader.add(&[name.to_owned()], shape, shape, None))
    }

    /// What `load` adds has this standard deviation where weights are random.
    pub(crate) fn with_deviation<T>(&mut self, deviation: f32, load: impl FnOnce(&mut Self) -> T) -> T {
        let own = match &mut self.origin {
            Origin::Random { deviation: own, .. } => Some(std::mem::replace(own, deviation)),
            Origin::Pretrained(_) => None,
        };
        let loaded = load(self);
        if let (Origin::Random { deviation, .. }, Some(own)) = (&mut self.origin, own) {
            *deviation = own;
        }
        loaded
    }

    /// A number that learns and that no checkpoint holds: the layout does.
    pub(crate) fn number(&mut self, name: &str, value: f32) -> Result<ParameterId> {
        let id = self.parameters.add(name.to_owned(), Tensor::from_vec(vec![value], &[1])?);
        self.depths.push(self.depth);
        self.modalities.push(self.modality);
        Ok(id)
    }

    /// A vector that learns without a gradient, such as a running mean.
    pub(crate) fn statistic(&mut self, name: &str, length: usize, constant: f32) -> Result<ParameterId> {
        let id = self.add(&[name.to_owned()], &[length], &[length], Some(constant))?;
        let parameter = self.parameters.get_mut(id);
        (parameter.trainable, parameter.observed) = (false, true);
        Ok(id)
    }

    fn add(
        &mut self,
        names: &[String],
        shape: &[usize],
        whole: &[usize],
        constant: Option<f32>,
    ) -> Result<ParameterId> {
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
        let names: Vec<String> = names.iter().map(|name| format!("{}{name}", self.scope)).collect();
        let id = self.parameters.add(names.join("+"), Tensor::from_vec(values, whole)?);
        self.depths.push(self.depth);
        self.modalities.push(self.modality);
        self.stored.extend(names.into_iter().enumerate().map(|(i, name)| Stored {
            name,
            shape: shape.to_vec(),
            parameter: id,
            folder: self.folder,
            elements: i * each..(i + 1) * each,
        }));
        Ok(id)
    }

    fn read(&self, weights: &Weights, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let name = format!("{}{}{name}", self.prefix, self.scope);
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
