//! Between two sets of weights: robust fine-tuning by weight interpolation (WiSE-FT, Wortsman et al. 2022, arXiv
//! 2109.01903).

use engine::Tensor;

use super::Encoder;

impl Encoder {
    /// Sets every weight to `(1 - alpha) start + alpha end`; both hold the encoder's weights in order.
    ///
    /// A new head has no start to go back to, so it stays as it ended. Of an adapter only `B`, which starts as 0, is
    /// scaled, so `alpha` multiplies what the adapter adds. 0 gives the start back, 1 the end.
    pub fn interpolate(&mut self, start: &[Tensor], end: &[Tensor], alpha: f64) {
        for (index, id) in self.parameters.ids().enumerate() {
            let (start, end) = (&start[index], &end[index]);
            let new = self.towers.iter().any(|tower| tower.is_new(id));
            let as_it_ended = new || self.lora.is_down(id);
            let parameter = self.parameters.get_mut(id);
            if as_it_ended || !parameter.changes() {
                parameter.value = end.clone();
                continue;
            }
            let values = parameter.value.data_mut().iter_mut().zip(start.data().iter().zip(end.data()));
            values.for_each(|(value, (start, end))| {
                *value = ((1.0 - alpha) * f64::from(*start) + alpha * f64::from(*end)) as f32;
            });
        }
    }
}
