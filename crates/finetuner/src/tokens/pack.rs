//! Sequences to batches without padding: one row of tokens and where each sequence ends.

use super::tokenizer::TokenSequence;

/// Some texts as one run of tokens; nothing is padded.
///
/// Sequence `i` is `ids[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackedBatch {
    /// Vocabulary ids: `[tokens]`.
    pub ids: Vec<u32>,
    /// Segment ids: `[tokens]`; `None` where all are 0.
    pub type_ids: Option<Vec<u32>>,
    /// Each token's place in its sequence, counted from 0: `[tokens]`.
    pub positions: Vec<u32>,
    /// Cumulative lengths, beginning with 0: `[sequences + 1]`.
    pub offsets: Vec<u32>,
    /// The row of the whole batch each sequence belongs to: `[sequences]`. Dropout is drawn by it, so a row gets the
    /// same mask in whichever micro-batch it is seen.
    pub examples: Vec<u32>,
}

impl PackedBatch {
    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    fn of(members: &[(u32, &TokenSequence)]) -> Self {
        let tokens = members.iter().map(|(_, sequence)| sequence.ids.len()).sum();
        let mut batch = PackedBatch {
            ids: Vec::with_capacity(tokens),
            type_ids: members.iter().any(|(_, sequence)| !sequence.type_ids.is_empty()).then(Vec::new),
            positions: Vec::with_capacity(tokens),
            offsets: vec![0],
            examples: members.iter().map(|(row, _)| *row).collect(),
        };
        for (_, sequence) in members {
            batch.ids.extend_from_slice(&sequence.ids);
            batch.positions.extend(0..sequence.ids.len() as u32);
            batch.offsets.push(batch.ids.len() as u32);
            if let Some(type_ids) = &mut batch.type_ids {
                type_ids.extend_from_slice(&sequence.type_ids);
                type_ids.resize(batch.ids.len(), 0);
            }
        }
        batch
    }
}

/// Packs sequences in their order into micro-batches of at most `token_budget` tokens; a longer sequence stands alone.
///
/// `rows[i]` is the row of the whole batch that sequence `i` belongs to.
///
/// # Panics
/// If `sequences` and `rows` differ in length: a bug of the caller.
pub fn pack(sequences: &[TokenSequence], rows: &[u32], token_budget: usize) -> Vec<PackedBatch> {
    assert_eq!(sequences.len(), rows.len(), "every sequence has a row: bug");
    fill(rows.iter().copied().zip(sequences), token_budget)
}

/// Packs sequences by falling length into batches of at most `token_budget` tokens, for inference: sequences of one
/// length share a batch, and a lack of memory shows in the first. `examples` says which text each one is.
pub fn pack_by_length(sequences: &[TokenSequence], token_budget: usize) -> Vec<PackedBatch> {
    let mut members: Vec<(u32, &TokenSequence)> = (0..).zip(sequences).collect();
    members.sort_by_key(|(_, sequence)| std::cmp::Reverse(sequence.ids.len()));
    fill(members.into_iter(), token_budget)
}

fn fill<'a>(members: impl Iterator<Item = (u32, &'a TokenSequence)>, token_budget: usize) -> Vec<PackedBatch> {
    let mut batches = Vec::new();
    let mut current: Vec<(u32, &TokenSequence)> = Vec::new();
    let mut tokens = 0;
    for (row, sequence) in members {
        if !current.is_empty() && tokens + sequence.ids.len() > token_budget {
            batches.push(PackedBatch::of(&current));
            current.clear();
            tokens = 0;
        }
        tokens += sequence.ids.len();
        current.push((row, sequence));
    }
    if !current.is_empty() {
        batches.push(PackedBatch::of(&current));
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(lengths: &[u32]) -> Vec<TokenSequence> {
        let of = |(i, &length): (usize, &u32)| (0..length).map(|token| 100 * i as u32 + token).collect();
        lengths.iter().enumerate().map(|item| TokenSequence { ids: of(item), ..Default::default() }).collect()
    }

    #[test]
    fn a_batch_lays_sequences_end_to_end() {
        let batches = pack(&sequences(&[2, 3]), &[7, 4], 100);
        let expected = PackedBatch {
            ids: vec![0, 1, 100, 101, 102],
            type_ids: None,
            positions: vec![0, 1, 0, 1, 2],
            offsets: vec![0, 2, 5],
            examples: vec![7, 4],
        };
        assert_eq!(batches, [expected]);
        assert_eq!((batches[0].len(), batches[0].tokens(), batches[0].is_empty()), (2, 5, false));
    }

    #[test]
    fn batches_keep_the_order_and_the_budget_and_a_long_sequence_stands_alone() {
        let batches = pack(&sequences(&[2, 3, 9, 1, 4, 1]), &[0, 1, 2, 3, 4, 5], 5);
        let rows: Vec<_> = batches.iter().map(|batch| batch.examples.clone()).collect();
        assert_eq!(rows, [vec![0, 1], vec![2], vec![3, 4], vec![5]]);
        assert!(batches.iter().all(|batch| batch.tokens() <= 5 || batch.len() == 1));
        assert!(pack(&[], &[], 5).is_empty());
    }

    #[test]
    fn by_length_puts_the_longest_first_and_says_which_text_each_one_is() {
        let batches = pack_by_length(&sequences(&[1, 4, 2, 4, 1]), 8);
        let rows: Vec<_> = batches.iter().map(|batch| batch.examples.clone()).collect();
        assert_eq!(rows, [vec![1, 3], vec![2, 0, 4]]);
        assert_eq!(batches[0].ids[..2], [100, 101]);
    }

    #[test]
    fn segment_ids_are_filled_up_where_only_some_sequences_have_them() {
        let mut sequences = sequences(&[2, 2, 1]);
        sequences[1].type_ids = vec![0, 1];
        assert_eq!(pack(&sequences, &[0, 1, 2], 9)[0].type_ids, Some(vec![0, 0, 0, 1, 0]));
    }
}
