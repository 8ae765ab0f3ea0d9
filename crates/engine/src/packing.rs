//! Texts of different lengths in one matrix without padding.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::cuda;
use crate::random::Key;

/// How the rows of a packed matrix `[rows, columns]` belong to sequences. Cloning shares.
#[derive(Debug, Clone)]
pub struct Packing {
    offsets: Arc<[u32]>,
    /// Example and position of every row: what a row's random numbers depend on, so that another split into
    /// micro-batches draws the same.
    rows: Arc<[(u32, u32)]>,
    /// The same on a device, once it was needed there.
    pub(crate) on_cuda: Arc<OnceLock<cuda::Layout>>,
}

impl Packing {
    /// From cumulative lengths (`sequences + 1` of them, from 0) and each sequence's example number in the batch.
    ///
    /// # Panics
    /// When `offsets` does not start at 0, decreases, or does not fit `examples`; the packer never makes such.
    pub fn new(offsets: &[u32], examples: &[u32]) -> Self {
        assert!(offsets.first() == Some(&0) && offsets.is_sorted(), "offsets must rise from 0");
        assert_eq!(offsets.len(), examples.len() + 1, "one more offset than sequences");
        let rows = examples
            .iter()
            .zip(offsets.windows(2))
            .flat_map(|(&example, ends)| (0..ends[1] - ends[0]).map(move |position| (example, position)))
            .collect();
        Packing { offsets: offsets.into(), rows, on_cuda: Arc::default() }
    }

    /// Every row its own sequence, as the embeddings of a batch are.
    pub fn rows_alone(rows: usize) -> Self {
        let offsets: Vec<u32> = (0..=rows as u32).collect();
        let examples: Vec<u32> = (0..rows as u32).collect();
        Packing::new(&offsets, &examples)
    }

    /// Sequences of one row each: the first of every sequence here, or the last. A row keeps its random numbers.
    ///
    /// # Panics
    /// When a sequence has no rows; the packer never makes such.
    pub fn one_row(&self, last: bool) -> Self {
        let row = |range: Range<usize>| self.rows[if last { range.end - 1 } else { range.start }];
        let offsets: Vec<u32> = (0..=self.sequences() as u32).collect();
        Packing { offsets: offsets.into(), rows: self.ranges().map(row).collect(), on_cuda: Arc::default() }
    }

    /// The number of sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The rows of one sequence.
    pub fn range(&self, sequence: usize) -> Range<usize> {
        self.offsets[sequence] as usize..self.offsets[sequence + 1] as usize
    }

    /// The rows of every sequence, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|ends| ends[0] as usize..ends[1] as usize)
    }

    /// The longest sequence's length.
    pub fn longest(&self) -> usize {
        self.ranges().map(|range| range.len()).max().unwrap_or(0)
    }

    /// Cumulative lengths, and example and position of every row.
    pub(crate) fn words(&self) -> (&[u32], &[(u32, u32)]) {
        (&self.offsets, &self.rows)
    }

    /// The words from which the dropout mask of a row is drawn.
    #[inline(always)]
    pub(crate) fn row_words(&self, key: Key, row: usize) -> (u32, u32) {
        let (example, position) = self.rows[row];
        key.part(u64::from(example)).part(u64::from(position)).words()
    }
}
