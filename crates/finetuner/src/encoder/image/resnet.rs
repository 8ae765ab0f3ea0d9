//! ResNet 18 to 152 (He et al. 2016), as torchvision, timm and transformers name it, and ResNet 20 to 110 for CIFAR.

use engine::device::Activation;
use engine::map::Padding;
use engine::op::WindowOptions;
use engine::{Tape, Tensor};
use serde_json::Value;

use super::convolution::{Features, Filters, Norm, Unit};
use crate::encoder::config::Reader;
use crate::encoder::weights::Loader;
use crate::error::{Error, Result, nearest};

/// The shape of a ResNet.
#[derive(Debug, Clone)]
pub(crate) struct ResNetConfig {
    library: Library,
    /// Blocks of each stage.
    depths: Vec<usize>,
    /// Channels that each stage gives.
    widths: Vec<usize>,
    /// Channels of the stem.
    stem: usize,
    /// Three convolutions a block, the middle one a quarter as wide, instead of two.
    bottleneck: bool,
    /// The stem's filter is small and nothing is pooled after it; shortcuts between stages are padded with zeros.
    cifar: bool,
}

/// Who names the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    /// torchvision and timm, and the ResNets for CIFAR.
    Torch,
    Transformers,
}

/// What is known by name: blocks of each stage, and whether they are bottlenecks.
const KNOWN: [(&str, [usize; 4], bool); 5] = [
    ("resnet18", [2, 2, 2, 2], false),
    ("resnet34", [3, 4, 6, 3], false),
    ("resnet50", [3, 4, 6, 3], true),
    ("resnet101", [3, 4, 23, 3], true),
    ("resnet152", [3, 8, 36, 3], true),
];

/// The ResNets for CIFAR: three stages of as many blocks each.
const CIFAR: [(&str, usize); 5] =
    [("resnet20", 3), ("resnet32", 5), ("resnet44", 7), ("resnet56", 9), ("resnet110", 18)];

impl ResNetConfig {
    /// Reads a name of timm, torchvision or a ResNet for CIFAR (`resnet20` … `resnet110`); `model_args` may give other
    /// `layers` and `channels`, as timm has them.
    ///
    /// # Errors
    /// [`Error::Model`] for an unknown name, with the known ones, or numbers out of range.
    pub(crate) fn named(model: &str, config: &Value) -> Result<Self> {
        let name = config["architecture"].as_str().unwrap_or_default();
        if let Some(&(_, blocks)) = CIFAR.iter().find(|(known, _)| *known == name) {
            let (library, widths) = (Library::Torch, vec![16, 32, 64]);
            return Ok(ResNetConfig {
                library,
                depths: vec![blocks; 3],
                widths,
                stem: 16,
                bottleneck: false,
                cifar: true,
            });
        }
        let Some(&(_, depths, bottleneck)) = KNOWN.iter().find(|(known, ..)| *known == name) else {
            let known = KNOWN.iter().map(|(known, ..)| *known).chain(CIFAR.iter().map(|(known, _)| *known));
            return Err(Error::model(model, format!("`architecture` is `{name}`{}", nearest(name, known))));
        };
        let arguments = &config["model_args"];
        let depths = counts(model, arguments, "layers")?.unwrap_or(depths.into());
        let channels = counts(model, arguments, "channels")?.unwrap_or(vec![64, 128, 256, 512]);
        let widths = channels.iter().map(|width| if bottleneck { 4 * width } else { *width }).collect();
        ResNetConfig { library: Library::Torch, depths, widths, stem: 64, bottleneck, cifar: false }.checked(model)
    }

    /// Reads `model_type` `resnet` of transformers.
    ///
    /// # Errors
    /// [`Error::Model`] for numbers out of range, or a variant that is not implemented.
    pub(crate) fn transformers(model: &str, config: &Value) -> Result<Self> {
        for key in ["downsample_in_first_stage", "downsample_in_bottleneck"] {
            if config[key] == true {
                return Err(Error::model(model, format!("`{key}` is true, which is not supported")));
            }
        }
        if config["hidden_act"].as_str().is_some_and(|name| name != "relu") {
            return Err(Error::model(
                model,
                format!("`hidden_act` is {}, only \"relu\" is supported", config["hidden_act"]),
            ));
        }
        let bottleneck = match config["layer_type"].as_str() {
            None | Some("bottleneck") => true,
            Some("basic") => false,
            Some(other) => {
                let hint = nearest(other, ["basic", "bottleneck"]);
                return Err(Error::model(model, format!("`layer_type` is `{other}`{hint}")));
            }
        };
        ResNetConfig {
            library: Library::Transformers,
            depths: counts(model, config, "depths")?.unwrap_or(vec![3, 4, 6, 3]),
            widths: counts(model, config, "hidden_sizes")?.unwrap_or(vec![256, 512, 1024, 2048]),
            stem: Reader { model, config }.count_or("embedding_size", 64)?,
            bottleneck,
            cifar: false,
        }
        .checked(model)
    }

    fn checked(self, model: &str) -> Result<Self> {
        let divided = !self.bottleneck || self.widths.iter().all(|width| width.is_multiple_of(4));
        if self.depths.len() == self.widths.len() && divided {
            return Ok(self);
        }
        let problem = format!("{} stages of widths {:?} make no ResNet", self.depths.len(), self.widths);
        Err(Error::model(model, problem))
    }

    /// What task checkpoints put before every name.
    pub(super) fn prefix(&self) -> &'static str {
        match self.library {
            Library::Torch => "",
            Library::Transformers => "resnet.",
        }
    }

    pub(super) fn stages(&self) -> usize {
        self.depths.len()
    }

    pub(super) fn width(&self) -> usize {
        self.widths.last().copied().unwrap_or(self.stem)
    }

    /// Names of convolution and norm: of a block's unit, or of its shortcut.
    fn names(&self, stage: usize, block: usize, unit: Option<usize>) -> (String, String) {
        match (self.library, unit) {
            (Library::Torch, Some(unit)) => {
                let part = |part: &str| format!("layer{}.{block}.{part}{}", stage + 1, unit + 1);
                (part("conv"), part("bn"))
            }
            (Library::Torch, None) => {
                let part = |part: usize| format!("layer{}.{block}.downsample.{part}", stage + 1);
                (part(0), part(1))
            }
            (Library::Transformers, unit) => {
                let unit = unit.map_or("shortcut".to_owned(), |unit| format!("layer.{unit}"));
                let part = |part: &str| format!("encoder.stages.{stage}.layers.{block}.{unit}.{part}");
                (part("convolution"), part("normalization"))
            }
        }
    }
}

/// A list of positive numbers, where there is one.
fn counts(model: &str, config: &Value, key: &str) -> Result<Option<Vec<usize>>> {
    let Some(list) = config[key].as_array() else { return Ok(None) };
    let count =
        |value: &Value| value.as_u64().filter(|count| (1..=1 << 14).contains(count)).map(|count| count as usize);
    let counts: Option<Vec<usize>> = list.iter().map(count).collect();
    match counts.filter(|counts| (1..=8).contains(&counts.len())) {
        Some(counts) => Ok(Some(counts)),
        None => {
            let problem = format!("`{key}` must list up to 8 positive numbers, got {}", config[key]);
            Err(Error::model(model, problem))
        }
    }
}

/// The parameters of a ResNet.
#[derive(Debug)]
pub(crate) struct ResNet {
    pub(crate) config: ResNetConfig,
    stem: Unit,
    stages: Vec<Vec<Block>>,
}

#[derive(Debug)]
struct Block {
    units: Vec<Unit>,
    shortcut: Shortcut,
}

#[derive(Debug)]
enum Shortcut {
    Identity,
    Projection(Unit),
    /// Every second position, and this many zeros on each side of the channels.
    Padded(usize),
}

impl ResNet {
    pub(crate) fn load(config: ResNetConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let (norm, relu) = (Norm::default(), Activation::Relu);
        loader.at_depth(0);
        let names = match config.library {
            Library::Torch => ("conv1", "bn1"),
            Library::Transformers => ("embedder.embedder.convolution", "embedder.embedder.normalization"),
        };
        let filters =
            if config.cifar { Filters::new(3, config.stem, 3, 1) } else { Filters::new(3, config.stem, 7, 2) };
        let stem = Unit::load(loader, names, filters, norm, relu)?;
        let mut inputs = config.stem;
        let mut stages = Vec::new();
        for (stage, (&depth, &width)) in config.depths.iter().zip(&config.widths).enumerate() {
            loader.at_depth(stage + 1);
            let mut blocks = Vec::new();
            for block in 0..depth {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let filters = match config.bottleneck {
                    true => vec![
                        Filters::new(inputs, width / 4, 1, 1),
                        Filters::new(width / 4, width / 4, 3, stride),
                        Filters::new(width / 4, width, 1, 1),
                    ],
                    false => vec![Filters::new(inputs, width, 3, stride), Filters::new(width, width, 3, 1)],
                };
                let mut units = Vec::new();
                for (index, filters) in filters.into_iter().enumerate() {
                    let (convolution, batch_norm) = config.names(stage, block, Some(index));
                    units.push(Unit::load(loader, (&convolution, &batch_norm), filters, norm, relu)?);
                }
                let shortcut = match (inputs == width && stride == 1, config.cifar) {
                    (true, _) => Shortcut::Identity,
                    (false, true) => Shortcut::Padded(width / 4),
                    (false, false) => {
                        let (convolution, batch_norm) = config.names(stage, block, None);
                        let filters = Filters::new(inputs, width, 1, stride);
                        let names = (convolution.as_str(), batch_norm.as_str());
                        Shortcut::Projection(Unit::load(loader, names, filters, norm, Activation::Identity)?)
                    }
                };
                blocks.push(Block { units, shortcut });
                inputs = width;
            }
            stages.push(blocks);
        }
        Ok(ResNet { config, stem, stages })
    }

    pub(super) fn forward(&self, tape: &mut Tape<'_>, pixels: &Features, training: bool) -> Result<Features> {
        let mut x = self.stem.forward(tape, pixels, training)?;
        if !self.config.cifar {
            let options = WindowOptions { padding: Padding::all(1), ..WindowOptions::square(3, 2) };
            let (pooled, map) = tape.max_pool2d(&x.x, x.map, options)?;
            x = Features { x: pooled, map };
        }
        for block in self.stages.iter().flatten() {
            x = block.forward(tape, x, training)?;
        }
        Ok(x)
    }
}

impl Block {
    fn forward(&self, tape: &mut Tape<'_>, x: Features, training: bool) -> Result<Features> {
        let Some((last, units)) = self.units.split_last() else { return Ok(x) };
        let mut y = x.clone();
        for unit in units {
            y = unit.forward(tape, &y, training)?;
        }
        let shortcut = match &self.shortcut {
            Shortcut::Identity => x,
            Shortcut::Projection(unit) => unit.forward(tape, &x, training)?,
            Shortcut::Padded(zeros) => {
                let (every_second, map) = tape.max_pool2d(&x.x, x.map, WindowOptions::square(1, 2))?;
                let zeros = tape.constant(Tensor::zeros(&[map.rows(), *zeros]));
                Features { x: tape.side_by_side(&[&zeros, &every_second, &zeros])?, map }
            }
        };
        last.with_residual(tape, &y, Some(&shortcut.x), training)
    }
}
