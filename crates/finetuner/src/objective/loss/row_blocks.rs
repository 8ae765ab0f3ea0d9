//! Losses that are a sum over the rows of a matrix too large to hold as a whole.

use std::ops::Range;

/// Numbers of a matrix that a loss holds at once, 16 MB; of a larger one it holds a block of rows.
const NUMBERS: usize = 1 << 22;

/// The rows of such a matrix, block by block: the parts of [`engine::Tape::sum_of_parts`]. Without rows one empty block.
pub(super) fn row_blocks(rows: usize, columns: usize) -> Vec<Range<usize>> {
    let most = (NUMBERS / columns.max(1)).max(1);
    (0..rows.max(1)).step_by(most).map(|start| start..rows.min(start + most)).collect()
}
