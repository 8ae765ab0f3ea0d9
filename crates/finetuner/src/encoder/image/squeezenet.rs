//! SqueezeNet 1.0 (Iandola et al. 2016), as torchvision and its authors name it.

use engine::device::Activation;
use engine::op::WindowOptions;
use engine::{Tape, Var};

use super::convolution::{Border, Convolution, Features, Filters};
use crate::encoder::weights::Loader;
use crate::error::Result;

/// Channels of the squeeze and of each half of the expansion.
const FIRES: [(usize, usize); 8] =
    [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)];

/// The fires before which the map is pooled.
const POOLED: [usize; 3] = [0, 3, 7];

/// The parameters of a SqueezeNet, without its classifier.
#[derive(Debug)]
pub(crate) struct SqueezeNet {
    first: Convolution,
    fires: Vec<[Convolution; 3]>,
}

impl SqueezeNet {
    /// Channels of the last map.
    pub(super) const WIDTH: usize = 512;
    /// The stages between poolings.
    pub(super) const STAGES: usize = 3;

    pub(crate) fn load(loader: &mut Loader<'_>) -> Result<Self> {
        let torchvision = loader.has("features.0.weight");
        loader.at_depth(0);
        let filters = Filters { border: Border::Zeros(0), ..Filters::new(3, 96, 7, 2) };
        let first = Convolution::load(loader, if torchvision { "features.0" } else { "conv1" }, filters, true)?;
        let (mut inputs, mut depth) = (96, 0);
        let mut fires = Vec::new();
        for (fire, (squeezed, half)) in FIRES.into_iter().enumerate() {
            depth += usize::from(POOLED.contains(&fire));
            loader.at_depth(depth);
            // The authors count from 2; torchvision counts poolings and the layers before, too.
            let names = match torchvision {
                true => {
                    ["squeeze", "expand1x1", "expand3x3"].map(|part| format!("features.{}.{part}", fire + 2 + depth))
                }
                false => ["1x1_1", "1x1_2", "3x3_2"].map(|part| format!("fire{}/conv{part}", fire + 2)),
            };
            fires.push([
                Convolution::load(loader, &names[0], Filters::new(inputs, squeezed, 1, 1), true)?,
                Convolution::load(loader, &names[1], Filters::new(squeezed, half, 1, 1), true)?,
                Convolution::load(loader, &names[2], Filters::new(squeezed, half, 3, 1), true)?,
            ]);
            inputs = 2 * half;
        }
        Ok(SqueezeNet { first, fires })
    }

    pub(super) fn forward(&self, tape: &mut Tape<'_>, pixels: &Features) -> Result<Features> {
        let mut x = rectified(tape, &self.first, pixels)?;
        for (index, [squeeze, one, three]) in self.fires.iter().enumerate() {
            if POOLED.contains(&index) {
                let options = WindowOptions { ceil: true, ..WindowOptions::square(3, 2) };
                let (pooled, map) = tape.max_pool2d(&x.x, x.map, options)?;
                x = Features { x: pooled, map };
            }
            let squeezed = rectified(tape, squeeze, &x)?;
            let (one, three) = (rectified(tape, one, &squeezed)?, rectified(tape, three, &squeezed)?);
            let both: Var = tape.side_by_side(&[&one.x, &three.x])?;
            x = Features { x: both, map: one.map };
        }
        Ok(x)
    }
}

fn rectified(tape: &mut Tape<'_>, convolution: &Convolution, x: &Features) -> Result<Features> {
    let Features { x, map } = convolution.forward(tape, x)?;
    Ok(Features { x: tape.activation(Activation::Relu, &x)?, map })
}
