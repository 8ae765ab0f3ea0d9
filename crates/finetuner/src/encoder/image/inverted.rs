//! MobileNetV2 (Sandler et al. 2018) and EfficientNet B0 to B7 (Tan and Le 2019), as torchvision and timm name them: wide
//! depthwise filters between two narrow maps.

use engine::Tape;
use engine::device::Activation;
use serde_json::Value;

use super::convolution::{Border, Features, Filters, Norm, Squeeze, Unit};
use crate::encoder::weights::Loader;
use crate::error::{Error, Result, nearest};

/// The shape of such a network.
#[derive(Debug, Clone)]
pub(crate) struct InvertedConfig {
    library: Library,
    efficient: bool,
    stem: usize,
    stages: Vec<Stage>,
    head: usize,
    norm: Norm,
    /// TensorFlow's borders, in timm's `tf_` models.
    same: bool,
}

/// Blocks of one shape; the first one has the stride.
#[derive(Debug, Clone, Copy)]
struct Stage {
    /// How much wider the depthwise filters are than the block's input.
    expansion: usize,
    outputs: usize,
    blocks: usize,
    stride: usize,
    kernel: usize,
}

/// Who names the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    Torchvision,
    Timm,
}

/// expansion, outputs, blocks, stride, kernel
type Row = (usize, usize, usize, usize, usize);

const MOBILE: [Row; 7] = [
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
];

const EFFICIENT: [Row; 7] = [
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
];

/// Width and depth multipliers of B0 to B7.
const SCALES: [(f64, f64); 8] =
    [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1)];

impl InvertedConfig {
    /// Reads `mobilenet_v2` (torchvision), `mobilenetv2_100` (timm; the number is the width in percent), `efficientnet_b0` …
    /// `b7` (both) and `tf_efficientnet_b0` … (timm). `model_args` may scale `width_mult` and `depth_mult`, timm's
    /// `channel_multiplier` and `depth_multiplier`.
    ///
    /// # Errors
    /// [`Error::Model`] for another name, with the nearest known one, or a multiplier out of range.
    pub(crate) fn read(model: &str, config: &Value, has: &dyn Fn(&str) -> bool) -> Result<Self> {
        let name = config["architecture"].as_str().unwrap_or_default();
        let library = if has("features.0.0.weight") { Library::Torchvision } else { Library::Timm };
        let arguments = &config["model_args"];
        let multiplier = |keys: [&str; 2], default: f64| match keys.iter().find_map(|key| arguments[*key].as_f64()) {
            None => Ok(default),
            Some(given) if given > 0.0 && given <= 8.0 => Ok(given),
            Some(given) => Err(Error::model(model, format!("`{}` must lie in (0, 8], got {given}", keys[0]))),
        };
        let (width_keys, depth_keys) = (["width_mult", "channel_multiplier"], ["depth_mult", "depth_multiplier"]);
        if let Some(size) = name.strip_prefix("mobilenetv2_").or(name.strip_prefix("mobilenet_v2")) {
            let percent = if size.is_empty() { Some(100.0) } else { size.parse::<u16>().ok().map(f64::from) };
            let percent = percent.ok_or_else(|| Error::model(model, unknown(name)))?;
            let width = multiplier(width_keys, percent / 100.0)?;
            let stages = MOBILE.map(|row| Stage::scaled(row, width, 1.0)).to_vec();
            let (stem, head) = (rounded(32.0 * width), rounded(1280.0 * width.max(1.0)));
            let norm = Norm::default();
            return Ok(InvertedConfig { library, efficient: false, stem, stages, head, norm, same: false });
        }
        let same = name.starts_with("tf_");
        let size = name.trim_start_matches("tf_").strip_prefix("efficientnet_b").and_then(|size| size.parse().ok());
        let Some((size, &(width, depth))) = size.and_then(|size: usize| Some((size, SCALES.get(size)?))) else {
            return Err(Error::model(model, unknown(name)));
        };
        let (width, depth) = (multiplier(width_keys, width)?, multiplier(depth_keys, depth)?);
        let stages = EFFICIENT.map(|row| Stage::scaled(row, width, depth)).to_vec();
        let head = match library {
            Library::Torchvision => 4 * stages[6].outputs,
            Library::Timm => rounded(1280.0 * width),
        };
        let tensorflow = same || library == Library::Torchvision && size >= 5;
        let norm = if tensorflow { Norm { eps: 1e-3, momentum: 0.01 } } else { Norm::default() };
        Ok(InvertedConfig { library, efficient: true, stem: rounded(32.0 * width), stages, head, norm, same })
    }

    pub(super) fn stages(&self) -> usize {
        self.stages.len()
    }

    pub(super) fn width(&self) -> usize {
        self.head
    }

    fn activation(&self) -> Activation {
        if self.efficient { Activation::Silu } else { Activation::Relu6 }
    }

    fn filters(&self, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Filters {
        let filters = Filters::new(inputs, outputs, kernel, stride);
        if self.same { Filters { border: Border::Same, ..filters } } else { filters }
    }

    /// Names of convolution and norm of a block's parts; `block` counts within its stage, `index` through all.
    fn names(&self, stage: usize, block: usize, index: usize, part: Part) -> (String, String) {
        let expands = self.stages[stage].expansion > 1;
        match (self.library, self.efficient) {
            (Library::Timm, _) => {
                let (convolution, norm) = match (part, expands) {
                    (Part::Expand, _) => ("conv_pw", "bn1"),
                    (Part::Depthwise, true) => ("conv_dw", "bn2"),
                    (Part::Depthwise, false) => ("conv_dw", "bn1"),
                    (Part::Project, true) => ("conv_pwl", "bn3"),
                    (Part::Project, false) => ("conv_pw", "bn2"),
                    (Part::Squeeze, _) => ("se.conv_reduce", "se.conv_expand"),
                };
                let name = |part: &str| format!("blocks.{stage}.{block}.{part}");
                (name(convolution), name(norm))
            }
            (Library::Torchvision, true) => {
                let name = |position: usize, part: &str| {
                    let position = if expands { position } else { position - 1 };
                    format!("features.{}.{block}.block.{position}.{part}", stage + 1)
                };
                match part {
                    Part::Expand => (name(0, "0"), name(0, "1")),
                    Part::Depthwise => (name(1, "0"), name(1, "1")),
                    Part::Squeeze => (name(2, "fc1"), name(2, "fc2")),
                    Part::Project => (name(3, "0"), name(3, "1")),
                }
            }
            (Library::Torchvision, false) => {
                let position = if expands { 1 } else { 0 };
                let name = |part: String| format!("features.{}.conv.{part}", index + 1);
                match part {
                    Part::Expand | Part::Squeeze => (name("0.0".into()), name("0.1".into())),
                    Part::Depthwise => (name(format!("{position}.0")), name(format!("{position}.1"))),
                    Part::Project => (name(format!("{}", position + 1)), name(format!("{}", position + 2))),
                }
            }
        }
    }

    /// Names of convolution and norm of stem and head.
    fn ends(&self) -> [(String, String); 2] {
        match self.library {
            Library::Timm => [("conv_stem".into(), "bn1".into()), ("conv_head".into(), "bn2".into())],
            Library::Torchvision => {
                let blocks: usize = self.stages.iter().map(|stage| stage.blocks).sum();
                let last = 1 + if self.efficient { self.stages.len() } else { blocks };
                let name = |at: usize| (format!("features.{at}.0"), format!("features.{at}.1"));
                [name(0), name(last)]
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Expand,
    Depthwise,
    Squeeze,
    Project,
}

impl Stage {
    fn scaled((expansion, outputs, blocks, stride, kernel): Row, width: f64, depth: f64) -> Self {
        let blocks = (blocks as f64 * depth).ceil() as usize;
        Stage { expansion, outputs: rounded(outputs as f64 * width), blocks, stride, kernel }
    }
}

/// To a multiple of 8, and not more than a tenth lower.
fn rounded(channels: f64) -> usize {
    let nearest = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (nearest as f64) < 0.9 * channels { nearest + 8 } else { nearest }
}

fn unknown(name: &str) -> String {
    let sizes = (0..8).map(|size| format!("efficientnet_b{size}"));
    let known: Vec<String> = sizes.chain(["mobilenet_v2".into(), "mobilenetv2_100".into()]).collect();
    format!("`architecture` is `{name}`{}", nearest(name, known.iter().map(String::as_str)))
}

/// The parameters of such a network.
#[derive(Debug)]
pub(crate) struct InvertedNetwork {
    pub(crate) config: InvertedConfig,
    stem: Unit,
    blocks: Vec<Block>,
    head: Unit,
}

#[derive(Debug)]
struct Block {
    expand: Option<Unit>,
    depthwise: Unit,
    squeeze: Option<Squeeze>,
    project: Unit,
    residual: bool,
}

impl InvertedNetwork {
    pub(crate) fn load(config: InvertedConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let (norm, activation) = (config.norm, config.activation());
        loader.at_depth(0);
        let [stem, head] = config.ends();
        let stem = Unit::load(loader, (&stem.0, &stem.1), config.filters(3, config.stem, 3, 2), norm, activation)?;
        let mut inputs = config.stem;
        let mut blocks = Vec::new();
        for (stage_index, stage) in config.stages.iter().enumerate() {
            loader.at_depth(stage_index + 1);
            for block in 0..stage.blocks {
                let names = |part: Part| config.names(stage_index, block, blocks.len(), part);
                let stride = if block == 0 { stage.stride } else { 1 };
                let middle = inputs * stage.expansion;
                let mut unit = |part: Part, filters: Filters, activation: Activation| {
                    let (convolution, batch_norm) = names(part);
                    Unit::load(loader, (&convolution, &batch_norm), filters, norm, activation)
                };
                let expand = match stage.expansion {
                    1 => None,
                    _ => Some(unit(Part::Expand, config.filters(inputs, middle, 1, 1), activation)?),
                };
                let depthwise = config.filters(middle, middle, stage.kernel, stride);
                let depthwise = unit(Part::Depthwise, Filters { groups: middle, ..depthwise }, activation)?;
                let project = config.filters(middle, stage.outputs, 1, 1);
                let project = unit(Part::Project, project, Activation::Identity)?;
                let squeeze = match config.efficient {
                    true => {
                        let (reduce, expand) = names(Part::Squeeze);
                        let own = loader.shape(&format!("{reduce}.weight")).and_then(|shape| shape.first().copied());
                        let squeezed = own.unwrap_or((inputs / 4).max(1));
                        Some(Squeeze::load(loader, (&reduce, &expand), middle, squeezed, activation)?)
                    }
                    false => None,
                };
                let residual = stride == 1 && inputs == stage.outputs;
                blocks.push(Block { expand, depthwise, squeeze, project, residual });
                inputs = stage.outputs;
            }
        }
        let filters = config.filters(inputs, config.head, 1, 1);
        let head = Unit::load(loader, (&head.0, &head.1), filters, norm, activation)?;
        Ok(InvertedNetwork { config, stem, blocks, head })
    }

    pub(super) fn forward(&self, tape: &mut Tape<'_>, pixels: &Features, training: bool) -> Result<Features> {
        let mut x = self.stem.forward(tape, pixels, training)?;
        for block in &self.blocks {
            let residual = block.residual.then(|| x.x.clone());
            if let Some(expand) = &block.expand {
                x = expand.forward(tape, &x, training)?;
            }
            x = block.depthwise.forward(tape, &x, training)?;
            if let Some(squeeze) = &block.squeeze {
                x = squeeze.forward(tape, &x)?;
            }
            x = block.project.with_residual(tape, &x, residual.as_ref(), training)?;
        }
        self.head.forward(tape, &x, training)
    }
}
