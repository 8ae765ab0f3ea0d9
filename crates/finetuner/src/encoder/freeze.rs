//! `--freeze`: which parameters stay as they are.

use super::Encoder;
use crate::data::Modality;
use crate::error::{Error, Result};

/// How towers are named.
const TOWERS: [(&str, Modality); 2] = [("text", Modality::Text), ("image", Modality::Image)];

impl Encoder {
    /// Freezes what `what` names: `embeddings`, `layers:0-3` (both ends included), `layers:2`, `all` (everything but the
    /// heads), `statistics` (batch norms use their running ones), or several joined by commas. In a convolutional network
    /// stages are the layers and the stem is the embeddings. `text` and `image` are everything but the head of that tower,
    /// and stand before a colon for a part of it: `text:embeddings`, `image:layers:0-3`.
    ///
    /// # Errors
    /// [`Error::Spec`] for another word, a tower or a layer the model does not have.
    pub fn freeze(&mut self, what: &str) -> Result<()> {
        for part in what.split(',').map(str::trim) {
            let (first, rest) = part.split_once(':').unwrap_or((part, "all"));
            match TOWERS.iter().find(|(name, _)| *name == first) {
                Some((_, modality)) => {
                    let tower = self.tower(*modality).map_err(|_| {
                        let problem = format!("`{first}`: the model reads no {}s", modality.noun());
                        Error::spec("freeze", problem)
                    })?;
                    let layers = frozen(rest.trim(), tower.backbone().layers())?;
                    self.freeze_part(*modality, layers);
                }
                None => {
                    let most = self.layers();
                    let layers = frozen(part, most)?;
                    let towers = self.towers().iter().map(|tower| (tower.modality(), tower.backbone().layers()));
                    for (modality, own) in towers.collect::<Vec<_>>() {
                        // The head of a shallower tower is no layer.
                        self.freeze_part(modality, layers.map(|(low, high)| (low, high.min(own))));
                    }
                }
            }
        }
        Ok(())
    }

    /// Freezes these depths of a tower, or without any the statistics of its batch norms.
    fn freeze_part(&mut self, modality: Modality, layers: Option<(usize, usize)>) {
        let places = self.depths.iter().zip(&self.modalities);
        for (parameter, (depth, own)) in self.parameters.iter_mut().zip(places) {
            if *own != modality {
                continue;
            }
            match layers {
                None => parameter.observed = false,
                Some((low, high)) if (low..=high).contains(depth) => {
                    (parameter.trainable, parameter.observed) = (false, false);
                }
                Some(_) => {}
            }
        }
    }
}

/// The depths that a word names in a tower of so many layers, both ends included; `None` is its statistics.
fn frozen(what: &str, layers: usize) -> Result<Option<(usize, usize)>> {
    match what.split_once(':') {
        None if what == "embeddings" => Ok(Some((0, 0))),
        None if what == "statistics" => Ok(None),
        None if what == "all" => Ok(Some((0, layers))),
        Some(("layers", range)) => {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
                (Ok(first), Ok(last)) if first <= last && last < layers => Ok(Some((first + 1, last + 1))),
                _ => Err(Error::spec("freeze", format!("expected layers of 0-{}, got `{range}`", layers.max(1) - 1))),
            }
        }
        _ => {
            let problem = format!(
                "expected `embeddings`, `layers:FIRST-LAST`, `statistics` or `all`, or `text` or `image` of two towers, got `{what}`"
            );
            Err(Error::spec("freeze", problem))
        }
    }
}
