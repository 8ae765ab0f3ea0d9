//! Spans of time written as text: `90s`, `30m`, `1h30m`, `2d`.

use std::time::Duration;

/// Reads a span of time: whole or broken numbers, each followed by `s`, `m`, `h` or `d`; a number alone is seconds.
///
/// # Errors
/// The problem in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("expected a span of time above 0 such as `90s`, `30m` or `1h30m`, got `{text}`");
    let (mut seconds, mut rest) = (0.0, text.trim());
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| refuse())?;
        let unit = rest[end..].chars().next();
        seconds += number
            * match unit {
                None | Some('s') => 1.0,
                Some('m') => 60.0,
                Some('h') => 3600.0,
                Some('d') => 86400.0,
                Some(_) => return Err(refuse()),
            };
        rest = rest[end + unit.map_or(0, char::len_utf8)..].trim_start();
    }
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).map_err(|_| refuse()) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_sums_of_numbers_with_units() {
        for (text, seconds) in
            [("90s", 90.0), ("30m", 1800.0), ("1h30m", 5400.0), ("2d", 172_800.0), ("0.5h", 1800.0), (" 45 ", 45.0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "0", "0s", "m", "3 weeks", "-1s", "1e3s", "99999999999999999999d", "1.2.3"] {
            assert!(parse_duration(text).unwrap_err().contains("such as `90s`"), "{text}");
        }
    }
}
