//! Elementary functions as straight-line code that vectorises, accurate to a few units in the last place.

/// `e^x`, by Cody-Waite reduction to |r| <= ln2 / 2 and a polynomial of degree 6 (as in Cephes `expf`).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.7);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    // n = 128 overflows the exponent: multiply in two halves.
    // The integer is read off the mantissa: a cast saturates, which keeps the loop from vectorising.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let scale = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    value * scale(half) * scale(n.wrapping_sub(half))
}

/// `erf(x)`, a rational approximation on |x| <= 4 (the one of Eigen), exact to f32 rounding beyond; off by at most 4e-7.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    let p = -2.726_142_3e-10;
    let p = p * z + 2.770_681_4e-8;
    let p = p * z - 2.101_024e-6;
    let p = p * z - 5.692_506_4e-5;
    let p = p * z - 7.349_906_3e-4;
    let p = p * z - 2.954_6e-3;
    let p = p * z - 1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * z - 2.133_740_6e-4;
    let q = q * z - 1.682_827e-3;
    let q = q * z - 7.373_329e-3;
    let q = q * z - 1.426_474_2e-2;
    (x * p / q).clamp(-1.0, 1.0)
}

/// `1 / (1 + e^-x)` without overflow.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh(x)`: an odd series near 0, where `2 sigmoid(2x) - 1` would cancel.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let z = x * x;
    let small = x * (1.0 + z * (-0.333_333_34 + z * (0.133_333_33 + z * (-0.053_968_254 + z * 0.021_869_488))));
    let large = 2.0 * sigmoid(2.0 * x) - 1.0;
    if x.abs() < 0.25 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erf_reference(x: f64) -> f64 {
        // The series of erf converges for all x and is exact enough in f64 for |x| < 5.
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        2.0 / std::f64::consts::PI.sqrt() * sum
    }

    fn worst(function: fn(f32) -> f32, reference: impl Fn(f64) -> f64, from: f32, to: f32, relative: bool) -> f64 {
        (0..=20_000)
            .map(|i| from + (to - from) * i as f32 / 20_000.0)
            .map(|x| {
                let expected = reference(f64::from(x));
                let error = (f64::from(function(x)) - expected).abs();
                if relative { error / expected.abs().max(1e-30) } else { error }
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn elementary_functions_equal_their_f64_references() {
        assert!(worst(exp, f64::exp, -87.0, 88.0, true) < 2.5e-7);
        assert!(worst(erf, erf_reference, -4.5, 4.5, false) < 5e-7);
        assert!(worst(tanh, f64::tanh, -10.0, 10.0, true) < 6e-7);
        assert!(worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0, true) < 4e-7);
        assert_eq!(exp(-1000.0), exp(-87.3));
        assert_eq!(tanh(100.0), 1.0);
    }
}
