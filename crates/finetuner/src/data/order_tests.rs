use std::collections::HashSet;

use super::*;

/// Without texts.
fn plan(sampler: Sampler, labels: &[u32], batch_size: usize, seed: u64) -> Order {
    Order::new(sampler, labels, Vec::new, batch_size, seed)
}

const RANDOM: Sampler = Sampler::Random { drop_last: false };
const FOUR: Sampler = Sampler::Class { items_per_class: 4 };

/// Class sizes become labels, interleaved.
fn labels(sizes: &[usize]) -> Vec<u32> {
    let most = sizes.iter().copied().max().unwrap_or(0);
    (0..most).flat_map(|row| (0..).zip(sizes).filter(move |(_, size)| row < **size).map(|(label, _)| label)).collect()
}

fn counts(batches: &[Vec<u32>]) -> HashMap<u32, usize> {
    let mut counts = HashMap::new();
    batches.iter().flatten().for_each(|example| *counts.entry(*example).or_default() += 1);
    counts
}

#[test]
fn random_batches_hold_every_example_once_and_differ_by_epoch_and_seed() {
    let order = plan(RANDOM, &[0; 103], 10, 5);
    let batches = order.batches(0);
    assert_eq!(batches.len(), 11);
    assert_eq!(batches[10].len(), 3);
    assert_eq!(counts(&batches).len(), 103);
    assert_eq!(batches, plan(RANDOM, &[0; 103], 10, 5).batches(0));
    assert_ne!(batches, order.batches(1));
    assert_ne!(batches, plan(RANDOM, &[0; 103], 10, 6).batches(0));
    assert_eq!(plan(Sampler::Random { drop_last: true }, &[0; 103], 10, 5).batches(0)[..], batches[..10]);
}

#[test]
fn the_order_is_the_same_on_every_machine() {
    // As a second program computes it from the definitions of SplitMix64, Lemire's bound and Fisher-Yates.
    assert_eq!(plan(RANDOM, &[0; 8], 8, 42).batches(3), [[1, 0, 6, 4, 2, 5, 3, 7]]);
    // By benchmarks/peers/batches.py, which has the peers learn from the same batches.
    let by_class = plan(Sampler::MPerClass { items_per_class: 2 }, &[0, 0, 0, 1, 1, 2, 2, 2, 2, 3], 4, 42);
    assert_eq!(by_class.batches(1), [[5, 6, 0, 1], [4, 3, 9, 9]]);
}

#[test]
fn fewer_examples_than_a_batch_give_one_smaller_batch_and_a_sentence() {
    let order = plan(Sampler::Random { drop_last: true }, &[0; 5], 64, 0);
    assert_eq!(order.batches(0).len(), 1);
    assert_eq!(order.adjusted(), Some("batch_size 64, but only 5 examples: every batch has 5"));
    let order = plan(FOUR, &labels(&[3, 2]), 64, 0);
    assert_eq!(order.batches(0).len(), 1);
    assert_eq!(
        order.adjusted(),
        Some("batch size 64 with 4 items of each class became 8: 2 of the 2 classes with 4 items each")
    );
}

#[test]
fn nothing_gives_no_batches() {
    assert!(plan(RANDOM, &[], 8, 0).batches(0).is_empty());
    assert!(plan(FOUR, &[], 8, 0).batches(0).is_empty());
}

#[test]
fn class_batches_hold_distinct_classes_with_equal_shares() {
    let labels = labels(&[9, 17, 4, 6, 30, 1, 12, 8]);
    let order = plan(FOUR, &labels, 16, 1);
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
    let batches = plan(FOUR, &even, 20, 3).batches(0);
    assert_eq!(batches.len(), 4);
    assert!(counts(&batches).values().all(|count| *count == 1));
    assert_eq!(counts(&batches).len(), 80);

    let short = labels(&[6; 10]);
    let batches = plan(FOUR, &short, 20, 3).batches(0);
    assert_eq!(counts(&batches).len(), 60, "every item comes");
    assert_eq!(counts(&batches).values().sum::<usize>(), 80);
    for batch in &batches {
        assert_eq!(batch.iter().collect::<HashSet<_>>().len(), 20, "repeats go to another batch: {batch:?}");
    }
}

#[test]
fn only_groups_that_fill_no_batch_are_left_out() {
    // 40 items of one class and 4 of three others: two classes a batch can use three groups of the large one.
    let batches = plan(FOUR, &labels(&[40, 4, 4, 4]), 8, 0).batches(0);
    assert_eq!(batches.len(), 3);
    assert_eq!(counts(&batches).len(), 24);
}

#[test]
fn the_class_sampler_takes_a_nearby_batch_size() {
    let size = |sizes: &[usize], batch_size, items_per_class| {
        let order = plan(Sampler::Class { items_per_class }, &labels(sizes), batch_size, 0);
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

#[test]
fn m_per_class_draws_classes_of_equal_chance() {
    let labels = labels(&[200, 3, 40, 9, 9, 2]);
    let batches = plan(Sampler::MPerClass { items_per_class: 4 }, &labels, 8, 1);
    assert_eq!(batches.adjusted(), None);
    let batches: Vec<Vec<u32>> = (0..40).flat_map(|epoch| batches.batches(epoch)).collect();
    assert_eq!(batches.len(), 40 * (263 / 8));
    let mut by_label: HashMap<u32, usize> = HashMap::new();
    for batch in &batches {
        let of: Vec<u32> = batch.iter().map(|example| labels[*example as usize]).collect();
        assert_eq!(of.len(), 8);
        assert!(of[..4].iter().all(|label| *label == of[0]) && of[4..].iter().all(|label| *label == of[4]));
        assert_ne!(of[0], of[4]);
        // Four different items where there are as many.
        if [0, 2, 3, 4].contains(&of[0]) {
            assert_eq!(batch[..4].iter().collect::<HashSet<_>>().len(), 4);
        }
        [of[0], of[4]].into_iter().for_each(|label| *by_label.entry(label).or_default() += 1);
    }
    let share = batches.len() as f64 / 3.0;
    assert!(by_label.values().all(|count| (*count as f64 / share - 1.0).abs() < 0.15), "{by_label:?}, {share}");
}

#[test]
fn pairs_in_turn_bring_two_of_a_class_and_every_item_at_most_once() {
    let labels = labels(&[9, 6, 1, 4, 5]);
    let grouped = plan(Sampler::GroupByLabel, &labels, 7, 1);
    assert_eq!(grouped.adjusted(), Some("batch_size 7 became 6: two items of each of 2 classes or more"));
    for epoch in 0..20 {
        let batches = grouped.batches(epoch);
        // 4, 3, 2 and 2 pairs: the largest class ends with the second largest, and a last batch of 2 is left out.
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 18);
        assert!(counts(&batches).values().all(|count| *count == 1));
        for batch in &batches {
            assert_eq!(batch.len(), 6);
            let of: Vec<u32> = batch.iter().map(|example| labels[*example as usize]).collect();
            assert!(of.chunks(2).all(|pair| pair[0] == pair[1]), "{of:?}");
            assert!(of.chunks(2).zip(of.chunks(2).skip(1)).all(|(pair, next)| pair[0] != next[0]), "{of:?}");
            assert!(!of.contains(&2));
        }
    }
    assert!(plan(Sampler::GroupByLabel, &self::labels(&[1, 8, 1]), 8, 0).batches(0).is_empty());
}

#[test]
fn without_duplicates_no_text_comes_twice_in_a_batch() {
    let texts: Vec<Vec<ItemId>> = (0..40).map(|row| vec![ItemId(row), ItemId(100 + row / 8)]).collect();
    let order = Order::new(Sampler::NoDuplicates, &[0; 40], || texts.clone(), 16, 3);
    let batches = order.batches(0);
    assert_eq!((batches.len(), counts(&batches).len()), (8, 40));
    for batch in &batches {
        assert_eq!(batch.iter().map(|example| example / 8).collect::<HashSet<_>>().len(), batch.len());
    }
    assert_ne!(batches, order.batches(1));
}

#[test]
fn hierarchical_batches_are_of_every_combination_of_families() {
    // Four families of three classes, the classes of 2 to 6 items.
    let classes: Vec<u32> = (0..12).flat_map(|class| std::iter::repeat_n(class, 2 + class as usize % 5)).collect();
    let families: Vec<u32> = classes.iter().map(|class| class / 3).collect();
    let hierarchy = Hierarchy { items_per_class: 3, families_per_batch: 2, batches_per_combination: 4 };
    let order = Order::hierarchical(&classes, &families, hierarchy, 12, 1);
    assert_eq!(order.adjusted(), None);
    let batches = order.batches(0);
    assert_eq!(batches.len(), 6 * 4);
    let mut combinations = HashMap::new();
    for batch in &batches {
        let mut of: HashMap<u32, HashMap<u32, usize>> = HashMap::new();
        for &example in batch {
            let class = classes[example as usize];
            *of.entry(class / 3).or_default().entry(class).or_default() += 1;
        }
        assert_eq!((batch.len(), of.len()), (12, 2));
        assert!(of.values().all(|family| family.len() == 2 && family.values().all(|items| *items == 3)), "{of:?}");
        let mut pair: Vec<u32> = of.into_keys().collect();
        pair.sort_unstable();
        *combinations.entry(pair).or_insert(0) += 1;
    }
    assert!(combinations.len() == 6 && combinations.values().all(|count| *count == 4), "{combinations:?}");
    assert_eq!(batches, order.batches(0));
    assert_ne!(batches, order.batches(1));
    let odd = Order::hierarchical(&classes, &families, hierarchy, 16, 1);
    assert!(odd.adjusted().unwrap().contains("became 12"), "{:?}", odd.adjusted());
}
