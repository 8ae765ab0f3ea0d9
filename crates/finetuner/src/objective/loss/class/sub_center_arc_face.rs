use engine::{Device, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::softmax::{CrossEntropy, Margin, Target};
use super::{STANDARD_NORMAL, class_count, classes, reduce, rows};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{Distance, LossParameter, Needs, Reducer, Sizes, registry};

/// [`ArcFaceLoss`](super::ArcFaceLoss) with several vectors per class, of which the nearest counts, so that noisy items
/// gather at another than the dominant one.
///
/// ```text
/// c_k = max over sub-centres j of cos(x, w_kj), then as ArcFaceLoss
/// ```
///
/// The vectors `[num_classes sub_centers, dimension]`, those of a class one after the other, start normally distributed
/// and are learned by `loss_optimizer`; a miner's tuples become weights of the rows.
///
/// Use it as `ArcFaceLoss` on noisy classes: wrong items gather around centres of their own.
///
/// Reference: `SubCenterArcFaceLoss` of pytorch-metric-learning; Deng et al. 2020 (ECCV).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubCenterArcFaceLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    /// In degrees. Default 28.6.
    pub margin: f64,
    /// Default 64.
    pub scale: f64,
    /// Vectors of each class. Default 3.
    pub sub_centers: usize,
    /// Over the rows. Default `mean`.
    pub reducer: Reducer,
}

impl Default for SubCenterArcFaceLoss {
    fn default() -> Self {
        SubCenterArcFaceLoss {
            num_classes: None,
            embedding_size: None,
            margin: 28.6,
            scale: 64.0,
            sub_centers: 3,
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for SubCenterArcFaceLoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, self.embedding_size, sizes)? * self.sub_centers;
        Ok(vec![LossParameter::vectors("sub_centers", count, sizes, STANDARD_NORMAL)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let vectors = batch.parameter(0)?;
        let target = Target::Angle(self.margin.to_radians());
        let logits = Margin { scale: self.scale, target, vectors: self.sub_centers };
        let classes = classes(batch, vectors.value().rows() / self.sub_centers)?;
        let losses = rows(tape, Distance::Cosine, batch.embeddings, vectors, CrossEntropy { classes, logits })?;
        reduce(tape, batch, &losses, &self.reducer)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let none = (self.sub_centers == 0).then(|| ("sub_centers", "expected 1 or more, got 0".to_owned()));
        let margin = registry::angle("margin", self.margin);
        [registry::positive("scale", self.scale), margin, none].into_iter().flatten().collect()
    }
}

/// Items far from the dominant vector of their class: probably labelled wrongly.
#[derive(Debug, Clone)]
pub struct Outliers {
    /// Their rows, class by class.
    pub rows: Vec<usize>,
    /// The vector that most items of each class are nearest to, `[classes, dimension]`; 0 for a class without items.
    pub dominant: Tensor,
}

impl SubCenterArcFaceLoss {
    /// The rows of `embeddings [rows, dimension]` that lie more than `threshold` degrees (75 in the paper) from the
    /// dominant one of their class's vectors, `vectors` being the learned ones.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] when the shapes do not fit.
    pub fn outliers(
        &self,
        device: &dyn Device,
        embeddings: &Tensor,
        labels: &[u32],
        vectors: &Tensor,
        threshold: f64,
    ) -> Result<Outliers> {
        let (dimension, per_class) = (vectors.columns(), self.sub_centers);
        let classes = vectors.rows() / per_class;
        let fits = embeddings.columns() == dimension && embeddings.rows() == labels.len();
        if !fits || labels.iter().any(|label| *label as usize >= classes) {
            let expected = format!("embeddings of {dimension} columns with labels below {classes}");
            let got = format!("{:?} and {} labels", embeddings.shape(), labels.len());
            return Err(engine::Error::shape("outliers", expected, got).into());
        }
        let cosines = Distance::Cosine.measure(device, embeddings, vectors);
        // Distances, smaller is closer: negated cosines.
        let at = |row: usize, vector: usize| -f64::from(cosines.data()[row * vectors.rows() + vector]);
        let mut found = Outliers { rows: Vec::new(), dominant: Tensor::zeros(&[classes, dimension]) };
        for class in 0..classes {
            let items: Vec<usize> = (0..labels.len()).filter(|&row| labels[row] as usize == class).collect();
            if items.is_empty() {
                continue;
            }
            let own = class * per_class..(class + 1) * per_class;
            let mut votes = vec![0usize; per_class];
            for &item in &items {
                let nearest =
                    own.clone().reduce(|best, next| if at(item, next) > at(item, best) { next } else { best });
                votes[nearest.unwrap_or(own.start) - own.start] += 1;
            }
            let most = votes.iter().copied().max().unwrap_or(0);
            let dominant = own.start + votes.iter().position(|&count| count == most).unwrap_or(0);
            let vector = &vectors.data()[dominant * dimension..(dominant + 1) * dimension];
            found.dominant.data_mut()[class * dimension..(class + 1) * dimension].copy_from_slice(vector);
            let limit = threshold.to_radians().cos();
            found.rows.extend(items.into_iter().filter(|&item| at(item, dominant) < limit));
        }
        Ok(found)
    }
}
