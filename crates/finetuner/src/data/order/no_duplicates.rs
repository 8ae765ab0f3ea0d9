//! Batches in which no text comes twice.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::super::ItemId;
use super::super::random::Random;

/// The examples in a random order, each in the first batch that is open and has none of its texts; what was passed over
/// stands first in line for the next batch.
///
/// `texts` holds every example's texts. The same as looking through all that remains for every batch, but an example
/// that is passed over waits aside for the text it shares, so that many equal texts cost no more than different ones.
pub(super) fn batches(texts: &[Vec<ItemId>], batch_size: usize, random: &mut Random) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..texts.len() as u32).collect();
    random.shuffle(&mut order);
    // Places in the order; with the text that an example waited for.
    let mut line: BinaryHeap<Reverse<(usize, Option<ItemId>)>> =
        (0..order.len()).map(|at| Reverse((at, None))).collect();
    let mut waiting: HashMap<ItemId, BinaryHeap<Reverse<usize>>> = HashMap::new();
    let mut batches = Vec::new();
    while !line.is_empty() {
        let mut batch = Vec::with_capacity(batch_size.min(order.len()));
        let mut held: HashSet<ItemId> = HashSet::new();
        while batch.len() < batch_size {
            let Some(Reverse((at, waited_for))) = line.pop() else { break };
            let own = &texts[order[at] as usize];
            let shared = waited_for.filter(|text| held.contains(text));
            let shared = shared.or_else(|| own.iter().find(|text| held.contains(text)).copied());
            match shared {
                Some(text) => waiting.entry(text).or_default().push(Reverse(at)),
                None => {
                    batch.push(order[at]);
                    held.extend(own);
                }
            }
            // Of those that wait for one text only the first stands in line, as it keeps the others out.
            if let Some(text) = waited_for.filter(|text| !held.contains(text)) {
                call(&mut waiting, text, &mut line);
            }
        }
        batches.push(batch);
        let mut held: Vec<ItemId> = held.into_iter().collect();
        held.sort_unstable();
        held.into_iter().for_each(|text| call(&mut waiting, text, &mut line));
    }
    batches
}

/// Puts the first of those that wait for a text back in line.
fn call(
    waiting: &mut HashMap<ItemId, BinaryHeap<Reverse<usize>>>,
    text: ItemId,
    line: &mut BinaryHeap<Reverse<(usize, Option<ItemId>)>>,
) {
    if let Some(Reverse(at)) = waiting.get_mut(&text).and_then(BinaryHeap::pop) {
        line.push(Reverse((at, Some(text))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks through all that remains for every batch.
    fn naive(texts: &[Vec<ItemId>], batch_size: usize, random: &mut Random) -> Vec<Vec<u32>> {
        let mut remaining: Vec<u32> = (0..texts.len() as u32).collect();
        random.shuffle(&mut remaining);
        let mut batches = Vec::new();
        while !remaining.is_empty() {
            let (mut batch, mut held) = (Vec::new(), HashSet::new());
            remaining.retain(|&example| {
                let own = &texts[example as usize];
                let taken = batch.len() < batch_size && own.iter().all(|text| !held.contains(text));
                if taken {
                    batch.push(example);
                    held.extend(own.iter().copied());
                }
                !taken
            });
            batches.push(batch);
        }
        batches
    }

    fn random_texts(seed: u64, examples: usize, distinct: usize, columns: usize) -> Vec<Vec<ItemId>> {
        let mut random = Random::new(seed, 0);
        (0..examples).map(|_| (0..columns).map(|_| ItemId(random.below(distinct) as u32)).collect()).collect()
    }

    #[test]
    fn it_is_what_looking_through_everything_finds() {
        for seed in 0..300 {
            let texts = random_texts(seed, 40, 3 + seed as usize % 40, 1 + seed as usize % 3);
            for batch_size in [1, 4, 16] {
                let random = || Random::new(seed, 1);
                assert_eq!(
                    batches(&texts, batch_size, &mut random()),
                    naive(&texts, batch_size, &mut random()),
                    "{seed}"
                );
            }
        }
    }

    #[test]
    fn every_example_comes_once_and_no_text_twice_in_a_batch() {
        let texts = random_texts(1, 500, 400, 2);
        let batches = batches(&texts, 32, &mut Random::new(7, 0));
        let mut all: Vec<u32> = batches.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..500).collect::<Vec<_>>());
        for batch in &batches {
            let mut held = HashSet::new();
            for &example in batch {
                let own: HashSet<ItemId> = texts[example as usize].iter().copied().collect();
                assert!(own.into_iter().all(|text| held.insert(text)), "{batch:?}");
            }
        }
    }

    #[test]
    fn one_text_everywhere_takes_no_longer_than_many() {
        // Quadratic time would be minutes.
        let texts: Vec<Vec<ItemId>> = (0..100_000).map(|row| vec![ItemId(0), ItemId(row + 1)]).collect();
        assert_eq!(batches(&texts, 64, &mut Random::new(0, 0)).len(), 100_000);
    }
}
