//! `--freeze`: which parameters stay as they are.

use super::Encoder;
use crate::error::{Error, Result};

impl Encoder {
    /// Freezes what `what` names: `embeddings`, `layers:0-3` (both ends included), `layers:2`, `all` (everything but the
    /// head), `statistics` (batch norms use their running ones), or several joined by commas. In a convolutional network
    /// stages are the layers and the stem is the embeddings.
    ///
    /// # Errors
    /// [`Error::Spec`] for another word or a layer the model does not have.
    pub fn freeze(&mut self, what: &str) -> Result<()> {
        let layers = self.layers();
        let mut frozen = vec![false; layers + 2];
        for part in what.split(',').map(str::trim) {
            match part.split_once(':') {
                None if part == "embeddings" => frozen[0] = true,
                None if part == "statistics" => self.parameters.iter_mut().for_each(|own| own.observed = false),
                None if part == "all" => frozen[..=layers].fill(true),
                Some(("layers", range)) => {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
                        (Ok(first), Ok(last)) if first <= last && last < layers => {
                            frozen[first + 1..=last + 1].fill(true);
                        }
                        _ => {
                            let problem = format!("expected layers of 0-{}, got `{range}`", layers - 1);
                            return Err(Error::spec("freeze", problem));
                        }
                    }
                }
                _ => {
                    let problem =
                        format!("expected `embeddings`, `layers:FIRST-LAST`, `statistics` or `all`, got `{part}`");
                    return Err(Error::spec("freeze", problem));
                }
            }
        }
        for (parameter, &depth) in self.parameters.iter_mut().zip(&self.depths) {
            parameter.trainable &= !frozen[depth];
            parameter.observed &= !frozen[depth];
        }
        Ok(())
    }
}
