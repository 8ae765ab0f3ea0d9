//! Random views of a picture: a pure function of seed, epoch, row and view, as `torchvision.transforms.v2` defines each step.

use engine::random::Key;

use super::resize::{Filter, resize};
use super::{Picture, colour};
use crate::error::{Error, Result};

/// What is done to a picture at random, in this order. The default is SimCLR's recipe (Chen et al. 2020) at strength 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmentation {
    /// Share of the area that is kept, from and to; `None` resizes as without augmentation. Default 0.08 to 1.
    pub crop_scale: Option<(f64, f64)>,
    /// Width to height of the kept part, from and to. Default 3/4 to 4/3.
    pub crop_ratio: (f64, f64),
    /// Chance to exchange left and right. Default 0.5.
    pub flip: f64,
    /// Chance of a change of colours at all. Default 0.8.
    pub jitter: f64,
    /// Brightness is multiplied by 1 - b to 1 + b. Default 0.8.
    pub brightness: f64,
    /// Contrast likewise. Default 0.8.
    pub contrast: f64,
    /// Saturation likewise. Default 0.8.
    pub saturation: f64,
    /// Hue is turned by at most this share of a full turn, either way. Default 0.2; at most 0.5.
    pub hue: f64,
    /// Chance to lose all colour. Default 0.2.
    pub grey: f64,
    /// Chance to be blurred, by a Gaussian of a tenth of the picture's size. Default 0.5.
    pub blur: f64,
    /// Its deviation in pixels, from and to. Default 0.1 to 2.
    pub blur_sigma: (f64, f64),
    /// Chance that a rectangle is erased, 2 to 33 % of the area. Default 0.
    pub erase: f64,
    /// How many views of each picture. Default 2.
    pub views: usize,
}

impl Default for Augmentation {
    fn default() -> Self {
        Augmentation {
            crop_scale: Some((0.08, 1.0)),
            crop_ratio: (3.0 / 4.0, 4.0 / 3.0),
            flip: 0.5,
            jitter: 0.8,
            brightness: 0.8,
            contrast: 0.8,
            saturation: 0.8,
            hue: 0.2,
            grey: 0.2,
            blur: 0.5,
            blur_sigma: (0.1, 2.0),
            erase: 0.0,
            views: 2,
        }
    }
}

/// Which view of which picture: all that its random numbers depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The run's.
    pub seed: u64,
    /// Counted from 0.
    pub epoch: u64,
    /// The picture's example in the data set.
    pub row: u64,
    /// Counted from 0.
    pub view: u64,
}

impl Draw {
    fn key(self) -> Key {
        // A stream beside that of dropout, which begins at the same seed.
        Key::new(self.seed).part(0x7069_7865_6c73).part(self.epoch).part(self.row).part(self.view)
    }
}

/// Parts of a view's random numbers; a step that is switched off does not move those of the others.
const CROP: u64 = 0;
const FLIP: u64 = 1;
const JITTER: u64 = 2;
const GREY: u64 = 3;
const BLUR: u64 = 4;
const ERASE: u64 = 5;

impl Augmentation {
    /// What labelled photos are usually trained with: a random part and its mirror image, one view.
    pub fn supervised() -> Self {
        Augmentation { jitter: 0.0, grey: 0.0, blur: 0.0, views: 1, ..Augmentation::default() }
    }

    /// # Errors
    /// [`Error::Spec`] naming the option that is out of range.
    pub fn check(&self) -> Result<()> {
        let chances = [
            ("flip", self.flip),
            ("jitter", self.jitter),
            ("grey", self.grey),
            ("blur", self.blur),
            ("erase", self.erase),
        ];
        let amounts = [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        let (from, to) = self.crop_scale.unwrap_or((0.5, 1.0));
        let wrong = |name: &str, expected: &str, got: String| {
            Err(Error::spec(format!("augmentation.{name}"), format!("expected {expected}, got {got}")))
        };
        if let Some((name, chance)) = chances.iter().find(|(_, chance)| !(0.0..=1.0).contains(chance)) {
            return wrong(name, "a chance from 0 to 1", chance.to_string());
        }
        if let Some((name, amount)) = amounts.iter().find(|(_, amount)| !(0.0..=100.0).contains(amount)) {
            return wrong(name, "an amount from 0 on", amount.to_string());
        }
        if !(0.0..=0.5).contains(&self.hue) {
            return wrong("hue", "a share of a turn from 0 to 0.5", self.hue.to_string());
        }
        if !(0.0 < from && from <= to && to <= 1.0) {
            return wrong(
                "crop_scale",
                "shares of the area from above 0 to 1, the smaller first",
                format!("{from}, {to}"),
            );
        }
        let range = |range: (f64, f64)| 0.0 < range.0 && range.0 <= range.1 && range.1.is_finite();
        if !range(self.crop_ratio) {
            return wrong("crop_ratio", "two numbers above 0, the smaller first", format!("{:?}", self.crop_ratio));
        }
        if !range(self.blur_sigma) {
            return wrong("blur_sigma", "two numbers above 0, the smaller first", format!("{:?}", self.blur_sigma));
        }
        if self.views == 0 {
            return wrong("views", "1 or more", "0".into());
        }
        Ok(())
    }

    /// A view of `width` x `height` pixels. `shape` resizes where no random part is taken.
    pub fn view(
        &self,
        picture: &Picture,
        (width, height): (u32, u32),
        filter: Filter,
        shape: impl FnOnce(&Picture) -> Picture,
        draw: Draw,
    ) -> Picture {
        let key = draw.key();
        let happens = |part: u64, chance: f64| key.part(part).uniform(0) < chance;
        let mut view = match self.crop_scale {
            Some(scale) => {
                let [left, top, wide, high] = self.part(picture, scale, key.part(CROP));
                resize(&picture.window(i64::from(left), i64::from(top), wide, high), width, height, filter)
            }
            None => shape(picture),
        };
        if happens(FLIP, self.flip) {
            view.mirror();
        }
        if happens(JITTER, self.jitter) {
            self.jitter(&mut view, key.part(JITTER));
        }
        if happens(GREY, self.grey) {
            colour::to_grey(&mut view);
        }
        if happens(BLUR, self.blur) {
            let sigma = between(key.part(BLUR), 1, self.blur_sigma);
            colour::blur(&mut view, (width.min(height) / 10) | 1, sigma);
        }
        view
    }

    /// Left, top, width and height of a random part (`RandomResizedCrop`): ten attempts, then the middle.
    fn part(&self, picture: &Picture, scale: (f64, f64), key: Key) -> [u32; 4] {
        let (width, height) = (picture.width, picture.height);
        let area = f64::from(width) * f64::from(height);
        let (least, most) = self.crop_ratio;
        for attempt in 0..10 {
            let key = key.part(attempt);
            let target = area * between(key, 0, scale);
            let ratio = between(key, 1, (least.ln(), most.ln())).exp();
            let wide = (target * ratio).sqrt().round_ties_even() as u32;
            let high = (target / ratio).sqrt().round_ties_even() as u32;
            if (1..=width).contains(&wide) && (1..=height).contains(&high) {
                return [below(key, 2, width - wide + 1), below(key, 3, height - high + 1), wide, high];
            }
        }
        let shape = f64::from(width) / f64::from(height);
        let cut = |length: f64, whole: u32| (length.round_ties_even() as u32).clamp(1, whole);
        let (wide, high) = if shape < least {
            (width, cut(f64::from(width) / least, height))
        } else if shape > most {
            (cut(f64::from(height) * most, width), height)
        } else {
            (width, height)
        };
        [(width - wide) / 2, (height - high) / 2, wide, high]
    }

    /// Brightness, contrast, saturation and hue in random order (`ColorJitter`).
    fn jitter(&self, view: &mut Picture, key: Key) {
        let mut order = [0, 1, 2, 3];
        for place in (1..4).rev() {
            order.swap(place, below(key, place as u64, place as u32 + 1) as usize);
        }
        let factor = |counter: u64, amount: f64| between(key, counter, ((1.0 - amount).max(0.0), 1.0 + amount)) as f32;
        for step in order {
            match step {
                0 if self.brightness > 0.0 => colour::brightness(view, factor(4, self.brightness)),
                1 if self.contrast > 0.0 => colour::contrast(view, factor(5, self.contrast)),
                2 if self.saturation > 0.0 => colour::saturation(view, factor(6, self.saturation)),
                3 if self.hue > 0.0 => colour::hue(view, between(key, 7, (-self.hue, self.hue)) as f32),
                _ => {}
            }
        }
    }

    /// Sets a random rectangle of normalised values to 0, the mean (`RandomErasing`), if chance says so.
    pub fn erase(&self, values: &mut [f32], width: u32, height: u32, draw: Draw) {
        let key = draw.key().part(ERASE);
        if key.uniform(0) >= self.erase {
            return;
        }
        let area = f64::from(width) * f64::from(height);
        for attempt in 1..=10 {
            let key = key.part(attempt);
            let target = area * between(key, 0, (0.02, 0.33));
            let ratio = between(key, 1, (0.3f64.ln(), 3.3f64.ln())).exp();
            let high = (target * ratio).sqrt().round_ties_even() as u32;
            let wide = (target / ratio).sqrt().round_ties_even() as u32;
            if high < height && wide < width {
                let (top, left) = (below(key, 2, height - high + 1), below(key, 3, width - wide + 1));
                for y in top..top + high {
                    let start = 3 * (y as usize * width as usize + left as usize);
                    values[start..start + 3 * wide as usize].fill(0.0);
                }
                return;
            }
        }
    }
}

fn between(key: Key, counter: u64, (from, to): (f64, f64)) -> f64 {
    from + (to - from) * key.uniform(counter)
}

fn below(key: Key, counter: u64, bound: u32) -> u32 {
    ((key.uniform(counter) * f64::from(bound)) as u32).min(bound - 1)
}

#[cfg(test)]
#[path = "augment_tests.rs"]
mod tests;
