//! The batches of an epoch: a pure function of seed and epoch, so a resumed run sees the same ones.

use std::collections::{BinaryHeap, HashMap};

use super::random::Random;

/// How examples are put into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// Shuffled; every example once an epoch. The last batch may be smaller.
    Random {
        /// Leave a last, smaller batch out. Default of runs: `false`.
        drop_last: bool,
    },
    /// Batches of P classes with K items each (Finetuner 0.8.1; K = `num_items_per_class`).
    ///
    /// Every item comes once an epoch; the last group of a class is filled up with repeats, preferably of items
    /// that the group does not hold; groups that fill no batch of distinct classes are left out.
    Class {
        /// K. Default of runs: 4.
        items_per_class: usize,
    },
}

/// Makes the batches of every epoch.
#[derive(Debug, Clone)]
pub struct Order {
    plan: Plan,
    seed: u64,
    adjusted: Option<String>,
}

#[derive(Debug, Clone)]
enum Plan {
    Random { examples: usize, batch_size: usize, drop_last: bool },
    Class { classes: Vec<Vec<u32>>, per_batch: usize, items: usize },
}

impl Order {
    /// An order of `labels.len()` examples in batches of `batch_size` examples. Only the class sampler looks at the
    /// labels.
    ///
    /// Where `batch_size` cannot be had, the nearest one below that works is taken and [`Order::adjusted`] says so: the
    /// class sampler needs a multiple of K and no more classes than there are, a random batch no more examples than
    /// there are.
    pub fn new(sampler: Sampler, labels: &[u32], batch_size: usize, seed: u64) -> Order {
        let asked = batch_size.max(1);
        match sampler {
            Sampler::Random { drop_last } => {
                let batch_size = asked.min(labels.len().max(1));
                let adjusted = (batch_size < asked).then(|| {
                    format!("batch_size {asked}, but only {batch_size} examples: every batch has {batch_size}")
                });
                Order { plan: Plan::Random { examples: labels.len(), batch_size, drop_last }, seed, adjusted }
            }
            Sampler::Class { items_per_class } => {
                let classes = by_class(labels);
                // A batch of one class has no negatives, so K gives way before P falls below 2.
                let items = items_per_class.clamp(1, (asked / 2).max(1));
                let per_batch = (asked / items).min(classes.len());
                let adjusted = (per_batch * items != asked || items != items_per_class).then(|| {
                    format!(
                        "batch size {asked} with {items_per_class} items of each class became {}: {per_batch} of the \
                         {} classes with {items} items each",
                        per_batch * items,
                        classes.len()
                    )
                });
                Order { plan: Plan::Class { classes, per_batch, items }, seed, adjusted }
            }
        }
    }

    /// The batches of an epoch: places of examples.
    pub fn batches(&self, epoch: u64) -> Vec<Vec<u32>> {
        let mut random = Random::new(self.seed, epoch);
        match &self.plan {
            Plan::Random { examples, batch_size, drop_last } => {
                let mut order: Vec<u32> = (0..*examples as u32).collect();
                random.shuffle(&mut order);
                let whole = |batch: &&[u32]| !drop_last || batch.len() == *batch_size;
                order.chunks(*batch_size).filter(whole).map(<[u32]>::to_vec).collect()
            }
            Plan::Class { classes, per_batch, items } => class_batches(classes, *per_batch, *items, &mut random),
        }
    }

    /// A sentence, where the batch size or the items per class are not the ones asked for.
    pub fn adjusted(&self) -> Option<&str> {
        self.adjusted.as_deref()
    }
}

fn by_class(labels: &[u32]) -> Vec<Vec<u32>> {
    let mut classes: Vec<Vec<u32>> = Vec::new();
    let mut places = HashMap::new();
    for (example, label) in (0..).zip(labels) {
        let place = *places.entry(label).or_insert_with(|| {
            classes.push(Vec::new());
            classes.len() - 1
        });
        classes[place].push(example);
    }
    classes
}

fn class_batches(classes: &[Vec<u32>], per_batch: usize, items: usize, random: &mut Random) -> Vec<Vec<u32>> {
    if classes.is_empty() {
        return Vec::new();
    }
    let mut groups: Vec<Vec<Vec<u32>>> = classes.iter().map(|class| class_groups(class, items, random)).collect();
    // The classes with the most groups left go first, equal ones in random order: any other choice leaves more groups
    // out at the end.
    let mut waiting: BinaryHeap<(usize, u64, usize)> =
        groups.iter().enumerate().map(|(class, groups)| (groups.len(), random.next(), class)).collect();
    let mut batches = Vec::new();
    while waiting.len() >= per_batch {
        let chosen: Vec<usize> = (0..per_batch).filter_map(|_| waiting.pop()).map(|(.., class)| class).collect();
        batches.push(chosen.iter().flat_map(|class| groups[*class].pop().unwrap_or_default()).collect());
        let left = chosen.into_iter().filter(|class| !groups[*class].is_empty());
        waiting.extend(left.map(|class| (groups[class].len(), random.next(), class)));
    }
    random.shuffle(&mut batches);
    batches
}

/// The items of one class in groups of K; the last is filled up with items of the other groups, then with its own.
fn class_groups(class: &[u32], items: usize, random: &mut Random) -> Vec<Vec<u32>> {
    let mut shuffled = class.to_vec();
    random.shuffle(&mut shuffled);
    let last = shuffled.len() % items;
    if last != 0 {
        let whole = shuffled.len() - last;
        let mut repeats: Vec<u32> = shuffled[..whole].to_vec();
        random.shuffle(&mut repeats);
        let own = shuffled[whole..].to_vec();
        shuffled.extend(repeats.into_iter().chain(own.into_iter().cycle()).take(items - last));
    }
    shuffled.chunks(items).map(<[u32]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const RANDOM: Sampler = Sampler::Random { drop_last: false };
    const FOUR: Sampler = Sampler::Class { items_per_class: 4 };

    /// Class sizes become labels, interleaved.
    fn labels(sizes: &[usize]) -> Vec<u32> {
        let most = sizes.iter().copied().max().unwrap_or(0);
        (0..most)
            .flat_map(|row| (0..).zip(sizes).filter(move |(_, size)| row < **size).map(|(label, _)| label))
            .collect()
    }

    fn counts(batches: &[Vec<u32>]) -> HashMap<u32, usize> {
        let mut counts = HashMap::new();
        batches.iter().flatten().for_each(|example| *counts.entry(*example).or_default() += 1);
        counts
    }

    #[test]
    fn random_batches_hold_every_example_once_and_differ_by_epoch_and_seed() {
        let order = Order::new(RANDOM, &[0; 103], 10, 5);
        let batches = order.batches(0);
        assert_eq!(batches.len(), 11);
        assert_eq!(batches[10].len(), 3);
        assert_eq!(counts(&batches).len(), 103);
        assert_eq!(batches, Order::new(RANDOM, &[0; 103], 10, 5).batches(0));
        assert_ne!(batches, order.batches(1));
        assert_ne!(batches, Order::new(RANDOM, &[0; 103], 10, 6).batches(0));
        assert_eq!(Order::new(Sampler::Random { drop_last: true }, &[0; 103], 10, 5).batches(0)[..], batches[..10]);
    }

    #[test]
    fn the_order_is_the_same_on_every_machine() {
        // As a second program computes it from the definitions of SplitMix64, Lemire's bound and Fisher-Yates.
        assert_eq!(Order::new(RANDOM, &[0; 8], 8, 42).batches(3), [[1, 0, 6, 4, 2, 5, 3, 7]]);
    }

    #[test]
    fn fewer_examples_than_a_batch_give_one_smaller_batch_and_a_sentence() {
        let order = Order::new(Sampler::Random { drop_last: true }, &[0; 5], 64, 0);
        assert_eq!(order.batches(0).len(), 1);
        assert_eq!(order.adjusted(), Some("batch_size 64, but only 5 examples: every batch has 5"));
        let order = Order::new(FOUR, &labels(&[3, 2]), 64, 0);
        assert_eq!(order.batches(0).len(), 1);
        assert_eq!(
            order.adjusted(),
            Some("batch size 64 with 4 items of each class became 8: 2 of the 2 classes with 4 items each")
        );
    }

    #[test]
    fn nothing_gives_no_batches() {
        assert!(Order::new(RANDOM, &[], 8, 0).batches(0).is_empty());
        assert!(Order::new(FOUR, &[], 8, 0).batches(0).is_empty());
    }

    #[test]
    fn class_batches_hold_distinct_classes_with_equal_shares() {
        let labels = labels(&[9, 17, 4, 6, 30, 1, 12, 8]);
        let order = Order::new(FOUR, &labels, 16, 1);
        assert_eq!(order.adjusted(), None);
        for epoch in 0..20 {
            for batch in order.batches(epoch) {
                let mut by_label: HashMap<u32, usize> = HashMap::new();
                batch.iter().for_each(|example| *by_label.entry(labels[*example as usize]).or_default() += 1);
                assert_eq!(by_label.len(), 4);
                assert!(by_label.values().all(|count| *count == 4), "{by_label:?}");
            }
        }
    }

    #[test]
    fn whole_classes_come_exactly_once_and_short_ones_are_filled_with_repeats() {
        let even = labels(&[8; 10]);
        let batches = Order::new(FOUR, &even, 20, 3).batches(0);
        assert_eq!(batches.len(), 4);
        assert!(counts(&batches).values().all(|count| *count == 1));
        assert_eq!(counts(&batches).len(), 80);

        let short = labels(&[6; 10]);
        let batches = Order::new(FOUR, &short, 20, 3).batches(0);
        assert_eq!(counts(&batches).len(), 60, "every item comes");
        assert_eq!(counts(&batches).values().sum::<usize>(), 80);
        for batch in &batches {
            assert_eq!(batch.iter().collect::<HashSet<_>>().len(), 20, "repeats go to another batch: {batch:?}");
        }
    }

    #[test]
    fn only_groups_that_fill_no_batch_are_left_out() {
        // 40 items of one class and 4 of three others: two classes a batch can use three groups of the large one.
        let batches = Order::new(FOUR, &labels(&[40, 4, 4, 4]), 8, 0).batches(0);
        assert_eq!(batches.len(), 3);
        assert_eq!(counts(&batches).len(), 24);
    }

    #[test]
    fn the_class_sampler_takes_a_nearby_batch_size() {
        let size = |sizes: &[usize], batch_size, items_per_class| {
            let order = Order::new(Sampler::Class { items_per_class }, &labels(sizes), batch_size, 0);
            assert!(order.adjusted().is_some());
            let batches = order.batches(0);
            assert!(!batches.is_empty());
            batches[0].len()
        };
        assert_eq!(size(&[5; 20], 30, 4), 28, "not divisible");
        assert_eq!(size(&[5; 3], 64, 4), 12, "too few classes");
        assert_eq!(size(&[5; 20], 6, 4), 6, "K gives way so that two classes fit");
        assert_eq!(size(&[5; 20], 4, 0), 4, "K of 0");
        assert_eq!(size(&[5; 20], 1, 4), 1, "a batch of one");
    }
}
