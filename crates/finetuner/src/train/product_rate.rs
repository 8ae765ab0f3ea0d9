//! How fast a device multiplies matrices, which is what training on it is measured by.

use std::time::{Duration, Instant};

use engine::{Device, Tensor};

use crate::error::Result;

/// Rows and columns of the matrices: from what suits one core to what fills the largest GPU.
const SIZES: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];
/// A product that takes this long is large enough.
const LONG_ENOUGH: Duration = Duration::from_millis(10);
/// A GPU's memory that the largest product needs, with room for copies in another format.
const MEMORY: u64 = 2 << 30;

/// Additions and multiplications a second of the fastest of a few products; `None` where a GPU has no memory left for them.
///
/// # Errors
/// What [`Device::check`] says, but that memory ran out: a number less is no reason to lose a trained model.
pub(crate) fn product_rate(device: &dyn Device) -> Result<Option<f64>> {
    if device.memory().is_some_and(|memory| memory.free_bytes < MEMORY) {
        return Ok(None);
    }
    let mut best: f64 = 0.0;
    for size in SIZES {
        // Of both signs, so that products grow no larger.
        let number = |place: usize| if place % 7 < 3 { 1.0 } else { -0.75 };
        let weight = (0..size * size).map(|place| number(place) / size as f32).collect();
        let weight = Tensor::from_vec(weight, &[size, size])?;
        // The first product brings the matrices into the device's own format.
        let x = device.linear(&weight, &weight, None);
        device.wait();
        let started = Instant::now();
        let x = device.linear(&x, &weight, None);
        drop(device.linear(&x, &weight, None));
        device.wait();
        match device.check() {
            Err(engine::Error::OutOfMemory { .. }) => break,
            checked => checked?,
        }
        let one = started.elapsed() / 2;
        best = best.max(2.0 * (size as f64).powi(3) / one.as_secs_f64().max(1e-9));
        if one > LONG_ENOUGH {
            break;
        }
    }
    Ok((best > 0.0).then_some(best))
}
