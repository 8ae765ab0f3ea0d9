//! Vectors as items: written as `[0.5,-1.25]`, so that equal ones are one item as equal texts are.

/// A vector as the content of an item. Every number is the shortest that reads back as the same bits.
pub fn write_vector(values: &[f32]) -> String {
    let numbers: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", numbers.join(","))
}

/// The numbers of an item's content, or of a cell: between commas, semicolons or white space, with brackets around them or
/// without. `None` for anything else.
pub fn read_vector(text: &str) -> Option<Vec<f32>> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parts = inner.split(|letter: char| letter.is_whitespace() || matches!(letter, ',' | ';'));
    let numbers = parts.filter(|part| !part.is_empty()).map(str::parse).collect::<Result<Vec<f32>, _>>().ok()?;
    (!numbers.is_empty()).then_some(numbers)
}

/// Whether a cell of a column without a name that says so holds a vector: numbers in brackets, or a row of a `.npy` file.
pub(super) fn is_vector(text: &str) -> bool {
    let text = text.trim();
    npy_row(text).is_some() || text.starts_with('[') && text.ends_with(']') && read_vector(text).is_some()
}

/// `vectors.npy:7` as the file and the row in it, counted from 0.
pub(super) fn npy_row(text: &str) -> Option<(&str, usize)> {
    let (file, row) = text.trim().rsplit_once(':')?;
    file.to_lowercase().ends_with(".npy").then_some(file).zip(row.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_to_the_bit() {
        let vector = [0.1, -1e-30, 3.0, f32::MIN_POSITIVE, 16_777_217.0, f32::MAX, 1.0 / 3.0];
        let again = read_vector(&write_vector(&vector)).unwrap();
        assert_eq!(again.into_iter().map(f32::to_bits).collect::<Vec<_>>(), vector.map(f32::to_bits));
    }

    #[test]
    fn numbers_are_known_in_the_ways_that_tables_hold_them() {
        for text in ["[0.5, -1e3]", "0.5 -1000", "[0.5\n -1000.]", "0.5;-1000", "[.5,-1000]"] {
            assert_eq!(read_vector(text), Some(vec![0.5, -1000.0]), "{text}");
        }
        for text in ["", "[]", "[a]", "[1, 2", "one two", "[1] [2]"] {
            assert_eq!(read_vector(text), None, "{text}");
        }
        assert!(is_vector("[1, 2]") && is_vector("a/b.npy:7"));
        assert!(!is_vector("1 2") && !is_vector("a.npy") && !is_vector("[see below]") && !is_vector("a.npy:x"));
    }
}
