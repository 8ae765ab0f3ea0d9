//! Batches by label, as samplers of other libraries draw them.

use super::super::random::Random;
use super::Hierarchy;

/// Random classes of equal chance, P a batch, K random items of each; a class of fewer items gives some of them twice
/// (`MPerClassSampler` of pytorch-metric-learning). As many batches as make up the data set once, at least one.
pub(super) fn m_per_class(classes: &[Vec<u32>], per_batch: usize, items: usize, random: &mut Random) -> Vec<Vec<u32>> {
    let examples: usize = classes.iter().map(Vec::len).sum();
    let batch_size = per_batch * items;
    if batch_size == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..classes.len()).collect();
    let batches = (examples / batch_size).max(1);
    let mut draw = |_| {
        random.shuffle(&mut order);
        let chosen: Vec<usize> = order[..per_batch].to_vec();
        let mut batch = Vec::with_capacity(batch_size);
        for class in chosen {
            let class = &classes[class];
            if class.len() < items {
                batch.extend((0..items).map(|_| class[random.below(class.len())]));
            } else {
                let mut class = class.clone();
                random.shuffle(&mut class);
                batch.extend_from_slice(&class[..items]);
            }
        }
        batch
    };
    (0..batches).map(&mut draw).collect()
}

/// Pairs of items of one class, class after class in turn, cut into batches (`group_by_label` of sentence-transformers).
///
/// Classes of one item are left out, and so is an odd item of a class. It ends where one class alone is left; a last
/// batch of 4 items or more is smaller.
pub(super) fn pairs_in_turn(classes: &[Vec<u32>], batch_size: usize, random: &mut Random) -> Vec<Vec<u32>> {
    let mut queues: Vec<Vec<u32>> = Vec::new();
    for class in classes.iter().filter(|class| class.len() > 1) {
        let mut class = class.clone();
        random.shuffle(&mut class);
        class.truncate(class.len() / 2 * 2);
        queues.push(class);
    }
    let mut remaining: Vec<usize> = (0..queues.len()).collect();
    let (mut batches, mut batch, mut last) = (Vec::new(), Vec::new(), None);
    while remaining.len() > 1 {
        random.shuffle(&mut remaining);
        // Two pairs of one class do not follow each other in a batch.
        if !batch.is_empty() && Some(remaining[0]) == last {
            remaining.swap(0, 1);
        }
        for &class in &remaining {
            let pair = queues[class].len() - 2;
            batch.extend(queues[class].drain(pair..));
            if batch.len() >= batch_size {
                batches.push(std::mem::take(&mut batch));
            }
        }
        last = remaining.last().copied();
        remaining.retain(|&class| !queues[class].is_empty());
    }
    if batch.len() >= 4 {
        batches.push(batch);
    }
    batches
}

/// Batches of every combination of families, a `share` of examples of each: see
/// [`Order::hierarchical`](super::Order::hierarchical).
pub(super) fn hierarchical(
    families: &[Vec<Vec<u32>>],
    hierarchy: &Hierarchy,
    share: usize,
    random: &mut Random,
) -> Vec<Vec<u32>> {
    let items = hierarchy.items_per_class;
    let mut batches = Vec::new();
    for chosen in combinations(families.len(), hierarchy.families_per_batch) {
        for _ in 0..hierarchy.batches_per_combination {
            let mut batch = Vec::new();
            for &family in &chosen {
                let mut classes: Vec<&Vec<u32>> = families[family].iter().collect();
                random.shuffle(&mut classes);
                for class in classes.into_iter().take(share / items) {
                    if class.len() < items {
                        batch.extend((0..items).map(|_| class[random.below(class.len())]));
                    } else {
                        let mut class = class.clone();
                        random.shuffle(&mut class);
                        batch.extend_from_slice(&class[..items]);
                    }
                }
            }
            random.shuffle(&mut batch);
            batches.push(batch);
        }
    }
    random.shuffle(&mut batches);
    batches
}

/// Every choice of so many of the first numbers, each rising.
fn combinations(of: usize, many: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..many {
        let longer = |chosen: &Vec<usize>| {
            let first = chosen.last().map_or(0, |last| last + 1);
            let chosen = chosen.clone();
            (first..of).map(move |next| [&chosen[..], &[next]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}
