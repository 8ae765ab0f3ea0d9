//! A picture to what a model reads: resized, cropped, scaled, normalised, as the model was trained.
//!
//! Read from `preprocessor_config.json` of transformers (CLIP, ViT, DeiT, DINOv2, SigLIP, ConvNeXt and what is shaped like
//! them) or from the `pretrained_cfg` of timm; written as `preprocessor_config.json`.

use serde_json::{Map, Value, json};

use super::resize::{Window, resize_window};
use super::{Filter, Picture};
use crate::error::{Error, Result, nearest};

/// Mean and deviation of ImageNet, of colours in 0..1.
pub const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// Those of CLIP's training data.
pub const CLIP: ([f64; 3], [f64; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]);

/// The first step: to which size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// The shorter edge has this length, the other one follows.
    ShortestEdge(u32),
    /// This height and width, whatever the picture's shape.
    Exact {
        /// In pixels.
        height: u32,
        /// In pixels.
        width: u32,
    },
}

/// Where the middle is, where what is left over is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    /// Rounded down: transformers.
    Floor,
    /// Rounded to even: torchvision and timm.
    Even,
}

/// What is done to a picture before a model reads it. All its results have one size.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// Resizing; `None` leaves the size.
    pub size: Option<Size>,
    /// The filter of resizing.
    pub filter: Filter,
    /// Height and width of the part cut from the middle; what the picture lacks is black.
    pub crop: Option<(u32, u32)>,
    /// How the middle is rounded.
    pub middle: Middle,
    /// A value of 0..255 is multiplied by this. 1 / 255, or 1 where nothing is scaled.
    pub rescale: f64,
    /// Subtracted from red, green and blue.
    pub mean: [f64; 3],
    /// Then they are divided by this.
    pub deviation: [f64; 3],
}

impl ImageProcessor {
    /// torchvision's preset of classification: shorter edge to `resize` (256), the middle `crop` (224), bilinear, ImageNet's mean
    /// and deviation.
    pub fn imagenet(resize: u32, crop: u32) -> Self {
        ImageProcessor {
            size: Some(Size::ShortestEdge(resize)),
            filter: Filter::Bilinear,
            crop: Some((crop, crop)),
            middle: Middle::Even,
            rescale: 1.0 / 255.0,
            mean: IMAGENET.0,
            deviation: IMAGENET.1,
        }
    }

    /// CLIP's: shorter edge to `edge` (224), bicubic, the middle square, CLIP's mean and deviation.
    pub fn clip(edge: u32) -> Self {
        ImageProcessor {
            filter: Filter::Bicubic,
            middle: Middle::Floor,
            mean: CLIP.0,
            deviation: CLIP.1,
            ..ImageProcessor::imagenet(edge, edge)
        }
    }

    /// Reads `preprocessor_config.json`. `model` is for messages.
    ///
    /// Keys: `do_resize`, `size` (a number, `shortest_edge`, or `height` and `width`), `resample`, `do_center_crop`,
    /// `crop_size`, `crop_pct` (ConvNeXt), `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean`, `image_std`. A number as
    /// `size` is the shorter edge for CLIP, ConvNeXt and BiT, and both edges for the others. What is missing has the value of the
    /// processor that `image_processor_type` names.
    ///
    /// # Errors
    /// [`Error::Model`] naming the key: a value of another type or range, or a step that is not known here.
    pub fn from_json(model: &str, config: &Value) -> Result<Self> {
        let keys = Keys { model, config };
        let family = Family::of(config);
        let default = family.default();
        if keys.flag("do_pad", false)? && config.get("pad_size").is_some_and(|size| !size.is_null()) {
            return Err(keys.refuse("do_pad", "padding is not implemented"));
        }
        let filter = match config.get("resample") {
            None | Some(Value::Null) => default.filter,
            Some(value) => value.as_u64().and_then(Filter::of_number).ok_or_else(|| {
                keys.refuse("resample", format!("expected a number of Pillow's filters, 0 to 5, got `{value}`"))
            })?,
        };
        let mut size = match config.get("size") {
            None | Some(Value::Null) => default.size,
            Some(value) => Some(keys.size("size", value, family.edge_is_shortest())?),
        };
        let mut crop = None;
        if keys.flag("do_center_crop", default.crop.is_some() && family != Family::ConvNext)? {
            crop = match config.get("crop_size") {
                None | Some(Value::Null) => default.crop.or(Some((224, 224))),
                Some(value) => match keys.size("crop_size", value, false)? {
                    Size::Exact { height, width } => Some((height, width)),
                    Size::ShortestEdge(edge) => Some((edge, edge)),
                },
            };
        }
        if !keys.flag("do_resize", true)? {
            size = None;
        } else if let (Family::ConvNext, Some(Size::ShortestEdge(edge))) = (family, size) {
            // Below 384 pixels the edge is the cropped one, above nothing is cropped.
            if edge < 384 {
                let share = keys.number("crop_pct", 224.0 / 256.0)?;
                (size, crop) = (Some(Size::ShortestEdge((f64::from(edge) / share) as u32)), Some((edge, edge)));
            } else {
                size = Some(Size::Exact { height: edge, width: edge });
            }
        }
        let (mut mean, mut deviation) = ([0.0; 3], [1.0; 3]);
        if keys.flag("do_normalize", true)? {
            mean = keys.colours("image_mean", default.mean)?;
            deviation = keys.colours("image_std", default.deviation)?;
        }
        let rescale = if keys.flag("do_rescale", true)? { keys.number("rescale_factor", 1.0 / 255.0)? } else { 1.0 };
        let processor = ImageProcessor { size, filter, crop, middle: Middle::Floor, rescale, mean, deviation };
        processor.check(model)?;
        Ok(processor)
    }

    /// Reads timm's `pretrained_cfg` (or a `config.json` that has one): `input_size`, `interpolation`, `crop_pct`, `crop_mode`
    /// (`center` or `squash`), `mean`, `std`, with timm's defaults.
    ///
    /// # Errors
    /// As [`ImageProcessor::from_json`].
    pub fn from_timm(model: &str, config: &Value) -> Result<Self> {
        let config = config.get("pretrained_cfg").unwrap_or(config);
        let keys = Keys { model, config };
        let (height, width) = match config.get("input_size") {
            None | Some(Value::Null) => (224, 224),
            Some(value) => {
                match value.as_array().map(|sizes| sizes.iter().map(Value::as_u64).collect::<Vec<_>>()).as_deref() {
                    Some([Some(3), Some(height @ 1..=16_384), Some(width @ 1..=16_384)]) => {
                        (*height as u32, *width as u32)
                    }
                    _ => return Err(keys.refuse("input_size", format!("expected [3, height, width], got `{value}`"))),
                }
            }
        };
        let word = |key: &str, default: &'static str| match config.get(key) {
            None | Some(Value::Null) => Ok(default.to_owned()),
            Some(Value::String(word)) => Ok(word.clone()),
            Some(other) => Err(keys.refuse(key, format!("expected a word, got `{other}`"))),
        };
        let interpolation = word("interpolation", "bicubic")?;
        let known = Filter::NAMES.iter().find(|(name, _)| *name == interpolation);
        let (_, filter) = known.ok_or_else(|| {
            let names = Filter::NAMES.iter().map(|(name, _)| *name);
            keys.refuse("interpolation", format!("unknown `{interpolation}`{}", nearest(&interpolation, names)))
        })?;
        let share = keys.number("crop_pct", 0.875)?;
        let scaled = |edge: u32| (f64::from(edge) / share).floor() as u32;
        let size = match word("crop_mode", "center")?.as_str() {
            "center" if height == width => Size::ShortestEdge(scaled(height)),
            "squash" => Size::Exact { height: scaled(height), width: scaled(width) },
            "center" => {
                return Err(keys.refuse("input_size", "a part that is not square is implemented for `squash` only"));
            }
            other => {
                return Err(keys.refuse("crop_mode", format!("`{other}` is not implemented; known are center, squash")));
            }
        };
        let processor = ImageProcessor {
            size: Some(size),
            filter: *filter,
            crop: Some((height, width)),
            middle: Middle::Even,
            rescale: 1.0 / 255.0,
            mean: keys.colours("mean", IMAGENET.0)?,
            deviation: keys.colours("std", IMAGENET.1)?,
        };
        processor.check(model)?;
        Ok(processor)
    }

    /// What transformers reads as `preprocessor_config.json`. It rounds a middle down always, which torchvision does not: a part
    /// cut from the middle may lie one pixel beside.
    pub fn to_json(&self) -> Value {
        let size = |height: u32, width: u32| json!({"height": height, "width": width});
        let mut config = Map::new();
        let mut put = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
        put("image_processor_type", "CLIPImageProcessor".into());
        put("do_convert_rgb", true.into());
        put("do_resize", self.size.is_some().into());
        match self.size {
            Some(Size::ShortestEdge(edge)) => put("size", json!({"shortest_edge": edge})),
            Some(Size::Exact { height, width }) => put("size", size(height, width)),
            None => {}
        }
        put("resample", self.filter.number().into());
        put("do_center_crop", self.crop.is_some().into());
        if let Some((height, width)) = self.crop {
            put("crop_size", size(height, width));
        }
        put("do_rescale", (self.rescale != 1.0).into());
        put("rescale_factor", self.rescale.into());
        put("do_normalize", ((self.mean, self.deviation) != ([0.0; 3], [1.0; 3])).into());
        put("image_mean", self.mean.to_vec().into());
        put("image_std", self.deviation.to_vec().into());
        Value::Object(config)
    }

    /// Height and width of every result.
    pub fn output(&self) -> (u32, u32) {
        match (self.crop, self.size) {
            (Some(size), _) => size,
            (None, Some(Size::Exact { height, width })) => (height, width),
            (None, Some(Size::ShortestEdge(_)) | None) => unreachable!("refused by `check`"),
        }
    }

    /// With another height and width of the results; what is resized before a part is cut grows likewise. Position embeddings of the
    /// model must fit.
    pub fn with_output(mut self, height: u32, width: u32) -> Self {
        let (old, _) = self.output();
        self.size = self.size.map(|size| match size {
            Size::ShortestEdge(edge) => {
                let grown = u64::from(edge) * u64::from(height.min(width)) / u64::from(old.max(1));
                Size::ShortestEdge((grown as u32).max(height.max(width)))
            }
            Size::Exact { .. } => Size::Exact { height, width },
        });
        self.crop = self.crop.map(|_| (height, width));
        self
    }

    fn check(&self, model: &str) -> Result<()> {
        if self.crop.is_none() && !matches!(self.size, Some(Size::Exact { .. })) {
            let problem = "preprocessor_config.json: pictures would have different sizes: expected `crop_size` with \
                `do_center_crop`, or `height` and `width` in `size`";
            return Err(Error::model(model, problem));
        }
        Ok(())
    }

    /// The picture resized and cut, not yet normalised.
    pub fn shape(&self, picture: &Picture) -> Picture {
        let (height, width) = self.output();
        let (wide, high) = match self.size {
            None => (picture.width, picture.height),
            Some(Size::Exact { height, width }) => (width, height),
            Some(Size::ShortestEdge(edge)) => {
                let longer =
                    |longer: u32, shorter: u32| (u64::from(edge) * u64::from(longer) / u64::from(shorter)) as u32;
                match picture.width <= picture.height {
                    true => (edge, longer(picture.height, picture.width)),
                    false => (longer(picture.width, picture.height), edge),
                }
            }
        };
        let middle = |whole: u32, part: u32| match self.middle {
            Middle::Even if whole >= part => (f64::from(whole - part) / 2.0).round_ties_even() as i64,
            _ => (i64::from(whole) - i64::from(part)).div_euclid(2),
        };
        let (left, top) = (middle(wide, width), middle(high, height));
        match (u32::try_from(left), u32::try_from(top)) {
            (Ok(left), Ok(top)) => {
                resize_window(picture, (wide, high), Window { left, top, width, height }, self.filter)
            }
            // A part larger than the picture: black is added around it.
            _ => super::resize(picture, wide, high, self.filter).window(left, top, width, height),
        }
    }

    /// `(value * rescale - mean) / deviation` of every value, red, green and blue side by side.
    ///
    /// # Panics
    /// If `values` has another length than the picture's pixels: a bug of the caller.
    pub fn normalise(&self, picture: &Picture, values: &mut [f32]) {
        assert_eq!(values.len(), picture.pixels.len(), "a value for every colour: bug");
        let table: [[f32; 3]; 256] = std::array::from_fn(|value| {
            std::array::from_fn(|channel| {
                ((value as f64 * self.rescale - self.mean[channel]) / self.deviation[channel]) as f32
            })
        });
        for (values, pixel) in values.chunks_exact_mut(3).zip(picture.pixels.chunks_exact(3)) {
            for channel in 0..3 {
                values[channel] = table[usize::from(pixel[channel])][channel];
            }
        }
    }
}

/// The processors of transformers by their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Clip,
    ConvNext,
    Bit,
    Siglip,
    Deit,
    Other,
}

impl Family {
    fn of(config: &Value) -> Self {
        let name = ["image_processor_type", "feature_extractor_type", "processor_class"]
            .iter()
            .find_map(|key| config.get(key)?.as_str())
            .unwrap_or_default()
            .to_lowercase();
        let families = [
            ("siglip", Family::Siglip),
            ("clip", Family::Clip),
            ("convnext", Family::ConvNext),
            ("bit", Family::Bit),
            ("dino", Family::Bit),
            ("deit", Family::Deit),
        ];
        families.iter().find(|(part, _)| name.contains(part)).map_or(Family::Other, |(_, family)| *family)
    }

    fn edge_is_shortest(self) -> bool {
        matches!(self, Family::Clip | Family::ConvNext | Family::Bit)
    }

    fn default(self) -> ImageProcessor {
        const HALF: [f64; 3] = [0.5; 3];
        let square = |edge| ImageProcessor {
            size: Some(Size::Exact { height: edge, width: edge }),
            crop: None,
            middle: Middle::Floor,
            mean: HALF,
            deviation: HALF,
            ..ImageProcessor::imagenet(edge, edge)
        };
        match self {
            Family::Clip | Family::Bit => ImageProcessor::clip(224),
            Family::ConvNext => {
                ImageProcessor { filter: Filter::Bicubic, size: Some(Size::ShortestEdge(384)), ..square(384) }
            }
            Family::Siglip => ImageProcessor { filter: Filter::Bicubic, ..square(224) },
            Family::Deit => ImageProcessor { filter: Filter::Bicubic, crop: Some((224, 224)), ..square(256) },
            Family::Other => square(224),
        }
    }
}

/// The values of a configuration, checked.
struct Keys<'a> {
    model: &'a str,
    config: &'a Value,
}

impl Keys<'_> {
    fn refuse(&self, key: &str, problem: impl std::fmt::Display) -> Error {
        Error::model(self.model, format!("preprocessor: `{key}`: {problem}"))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.refuse(key, format!("expected true or false, got `{other}`"))),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| *number > 0.0)
                .ok_or_else(|| self.refuse(key, format!("expected a number above 0, got `{value}`"))),
        }
    }

    fn edge(&self, key: &str, value: &Value) -> Result<u32> {
        let edge = value.as_u64().filter(|edge| (1..=16_384).contains(edge));
        edge.map(|edge| edge as u32)
            .ok_or_else(|| self.refuse(key, format!("expected 1 to 16384 pixels, got `{value}`")))
    }

    fn size(&self, key: &str, value: &Value, edge_is_shortest: bool) -> Result<Size> {
        let edge =
            |name: &str| value.get(name).filter(|edge| !edge.is_null()).map(|edge| self.edge(key, edge)).transpose();
        if let Value::Object(_) = value {
            return match (edge("shortest_edge")?, edge("longest_edge")?, edge("height")?, edge("width")?) {
                (Some(edge), None, None, None) => Ok(Size::ShortestEdge(edge)),
                (None, None, Some(height), Some(width)) => Ok(Size::Exact { height, width }),
                _ => Err(self.refuse(key, format!("expected `shortest_edge`, or `height` and `width`, got `{value}`"))),
            };
        }
        let edge = self.edge(key, value)?;
        Ok(if edge_is_shortest { Size::ShortestEdge(edge) } else { Size::Exact { height: edge, width: edge } })
    }

    fn colours(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        let Some(value) = self.config.get(key).filter(|value| !value.is_null()) else { return Ok(default) };
        let numbers: Option<Vec<f64>> = value.as_array().map(|list| list.iter().filter_map(Value::as_f64).collect());
        let colours = numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok());
        colours
            .ok_or_else(|| self.refuse(key, format!("expected three numbers, for red, green and blue, got `{value}`")))
    }
}

#[cfg(test)]
#[path = "processor_tests.rs"]
mod tests;
