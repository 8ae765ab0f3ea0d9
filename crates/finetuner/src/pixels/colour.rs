//! Changes of colour and sharpness, as `torchvision.transforms.v2.functional` defines them for 8-bit pictures.

use super::Picture;

/// The weights of red, green and blue in a grey value (ITU-R 601, as torchvision rounds them).
fn grey(pixel: &[u8]) -> f32 {
    f32::from(pixel[0]) * 0.2989 + f32::from(pixel[1]) * 0.587 + f32::from(pixel[2]) * 0.114
}

fn clamp(value: f32) -> u8 {
    value.clamp(0.0, 255.0) as u8
}

/// Every value times `factor`.
pub(super) fn brightness(picture: &mut Picture, factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|value| clamp(value as f32 * factor));
    picture.pixels.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

/// Away from (above 1) or towards the mean grey value of the picture.
pub(super) fn contrast(picture: &mut Picture, factor: f32) {
    let greys = picture.pixels.chunks_exact(3).map(|pixel| f64::from(grey(pixel).floor()));
    let mean = (greys.sum::<f64>() / (picture.pixels.len() / 3).max(1) as f64) as f32;
    let table: [u8; 256] = std::array::from_fn(|value| clamp(value as f32 * factor + mean * (1.0 - factor)));
    picture.pixels.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

/// Away from (above 1) or towards the pixel's own grey value.
pub(super) fn saturation(picture: &mut Picture, factor: f32) {
    for pixel in picture.pixels.chunks_exact_mut(3) {
        let grey = grey(pixel).floor();
        pixel.iter_mut().for_each(|value| *value = clamp(f32::from(*value) * factor + grey * (1.0 - factor)));
    }
}

/// Colours turned by `shift` of a full turn, in -0.5..0.5.
pub(super) fn hue(picture: &mut Picture, shift: f32) {
    for pixel in picture.pixels.chunks_exact_mut(3) {
        let [red, green, blue] = [0, 1, 2].map(|channel| f32::from(pixel[channel]) / 255.0);
        let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
        let range = most - least;
        let saturation = range / if range == 0.0 { 1.0 } else { most };
        let [from_red, from_green, from_blue] =
            [red, green, blue].map(|colour| (most - colour) / if range == 0.0 { 1.0 } else { range });
        let sixths = if most == red {
            from_blue - from_green
        } else if most == green {
            2.0 + from_red - from_blue
        } else {
            4.0 + from_green - from_red
        };
        let turn = (sixths / 6.0 + 1.0).fract();
        let turned = (turn + shift).rem_euclid(1.0) * 6.0;
        let (sector, rest) = (turned.floor(), turned - turned.floor());
        let q = ((1.0 - saturation * rest) * most).clamp(0.0, 1.0);
        let t = ((saturation * rest + 1.0 - saturation) * most).clamp(0.0, 1.0);
        let p = ((1.0 - saturation) * most).clamp(0.0, 1.0);
        let colours = match sector as u32 % 6 {
            0 => [most, t, p],
            1 => [q, most, p],
            2 => [p, most, t],
            3 => [p, q, most],
            4 => [t, p, most],
            _ => [most, p, q],
        };
        // A unit interval has 256 equal parts (torchvision's `to_dtype`).
        for (value, colour) in pixel.iter_mut().zip(colours) {
            *value = (colour * (256.0 - 1e-3)) as u8;
        }
    }
}

/// No colour.
pub(super) fn to_grey(picture: &mut Picture) {
    for pixel in picture.pixels.chunks_exact_mut(3) {
        let grey = clamp(grey(pixel));
        pixel.fill(grey);
    }
}

/// Convolution with a Gaussian of `size` x `size` pixels, an odd number, mirrored at the edges; a size beyond the picture is
/// cut.
pub(super) fn blur(picture: &mut Picture, size: u32, sigma: f64) {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let reach = (size as usize / 2).min(width.saturating_sub(1)).min(height.saturating_sub(1));
    let weights: Vec<f64> =
        (0..=2 * reach).map(|place| (-(place as f64 - reach as f64).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|weight| (weight / sum) as f32).collect();
    // Mirrored at the edges, without the edge itself.
    let source = |place: usize, length: usize| match place.checked_sub(reach) {
        None => reach - place,
        Some(inside) if inside < length => inside,
        Some(beyond) => 2 * (length - 1) - beyond,
    };
    let stride = 3 * width;
    let mut across = vec![0.0f32; stride * height];
    let mut padded = vec![0.0f32; stride + 6 * reach];
    for (row, sums) in picture.pixels.chunks_exact(stride).zip(across.chunks_exact_mut(stride)) {
        for (place, pixel) in padded.chunks_exact_mut(3).enumerate() {
            let from = 3 * source(place, width);
            pixel.iter_mut().zip(&row[from..from + 3]).for_each(|(value, own)| *value = f32::from(*own));
        }
        for (tap, &weight) in weights.iter().enumerate() {
            sums.iter_mut().zip(&padded[3 * tap..]).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    let mut down = vec![0.0f32; stride];
    for y in 0..height {
        down.fill(0.0);
        for (tap, &weight) in weights.iter().enumerate() {
            let row = &across[source(y + tap, height) * stride..][..stride];
            down.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
        }
        for (value, sum) in picture.pixels[y * stride..][..stride].iter_mut().zip(&down) {
            *value = sum.round_ties_even().clamp(0.0, 255.0) as u8;
        }
    }
}
