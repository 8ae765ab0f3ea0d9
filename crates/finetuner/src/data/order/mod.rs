//! The batches of an epoch: a pure function of seed and epoch, so a resumed run sees the same ones.

mod grouped;
mod mix;
mod no_duplicates;

use std::collections::{BinaryHeap, HashMap};

pub use self::mix::Mix;
use super::ItemId;
use super::random::Random;

/// How examples are put into batches: `sampler` of a run, and `num_items_per_class` (K). `auto` is `class` for labelled data
/// and a loss that compares items of a class, else `random`. A run's batches are a function of its seed and the epoch.
///
/// Use `class` where classes have several items, `m_per_class` where they are of very different sizes, `no_duplicates` for
/// pairs whose texts repeat, and `random` otherwise.
///
/// Reference: the samplers of Finetuner, pytorch-metric-learning and sentence-transformers.
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
    /// Batches of P random classes with K random items each (`MPerClassSampler` of pytorch-metric-learning): every class
    /// comes equally often, whatever its size, and not every item comes in every epoch. An epoch is as many batches as
    /// make up the data set once.
    MPerClass {
        /// K. Default of runs: 4.
        items_per_class: usize,
    },
    /// Two items of a class and two of the next in turn (`group_by_label` of sentence-transformers), so that every item has
    /// one match and everything else of its batch is mostly of other classes. Classes of one item are left out.
    GroupByLabel,
    /// Shuffled, and no text of any column twice in a batch (`no_duplicates` of sentence-transformers); a row passed over
    /// comes in a later batch, and the last batches may be smaller.
    NoDuplicates,
}

/// Batches of some families of classes, as many examples of each family, K of a class (`HierarchicalSampler` of
/// pytorch-metric-learning), so that classes of one family are told apart beside those of another. A class's family is what
/// stands before the first `/` of its name. `sampler_options`: `super_classes_per_batch` (2), the families of a batch, and
/// `batches_per_super_tuple` (4), the batches of each combination of families in an epoch. See [`Order::hierarchical`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hierarchy {
    /// Default of runs: 4.
    pub items_per_class: usize,
    /// Default of runs: 2.
    pub families_per_batch: usize,
    /// Batches of each combination of families in an epoch. Default of runs: 4.
    pub batches_per_combination: usize,
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
    MPerClass { classes: Vec<Vec<u32>>, per_batch: usize, items: usize },
    GroupByLabel { classes: Vec<Vec<u32>>, batch_size: usize },
    Hierarchical { families: Vec<Vec<Vec<u32>>>, hierarchy: Hierarchy, share: usize },
    NoDuplicates { texts: Vec<Vec<ItemId>>, batch_size: usize },
}

impl Order {
    /// An order of `labels.len()` examples in batches of `batch_size` examples. Only samplers by class look at the
    /// labels, and only [`Sampler::NoDuplicates`] at the texts of each example.
    ///
    /// Where `batch_size` cannot be had, the nearest one below that works is taken and [`Order::adjusted`] says so:
    /// samplers of P classes need a multiple of K and no more classes than there are, pairs in turn an even number of
    /// at least 4, others no more examples than there are.
    pub fn new(
        sampler: Sampler,
        labels: &[u32],
        texts: impl FnOnce() -> Vec<Vec<ItemId>>,
        batch_size: usize,
        seed: u64,
    ) -> Order {
        let asked = batch_size.max(1);
        match sampler {
            Sampler::Random { .. } | Sampler::NoDuplicates => {
                let batch_size = asked.min(labels.len().max(1));
                let adjusted = (batch_size < asked).then(|| {
                    format!("batch_size {asked}, but only {batch_size} examples: every batch has {batch_size}")
                });
                let plan = match sampler {
                    Sampler::Random { drop_last } => Plan::Random { examples: labels.len(), batch_size, drop_last },
                    _ => Plan::NoDuplicates { texts: texts(), batch_size },
                };
                Order { plan, seed, adjusted }
            }
            Sampler::GroupByLabel => {
                let batch_size = (asked / 2 * 2).max(4);
                let adjusted = (batch_size != asked)
                    .then(|| format!("batch_size {asked} became {batch_size}: two items of each of 2 classes or more"));
                Order { plan: Plan::GroupByLabel { classes: by_class(labels), batch_size }, seed, adjusted }
            }
            Sampler::Class { items_per_class } | Sampler::MPerClass { items_per_class } => {
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
                let plan = match sampler {
                    Sampler::MPerClass { .. } => Plan::MPerClass { classes, per_batch, items },
                    _ => Plan::Class { classes, per_batch, items },
                };
                Order { plan, seed, adjusted }
            }
        }
    }

    /// An order by families of classes, `families` naming each example's (`HierarchicalSampler` of
    /// pytorch-metric-learning): a batch is of some families, with as many examples of each, some of a class. The classes
    /// of one family are told apart beside those of another. Every combination of families gives some batches an epoch;
    /// classes with few items give some of them twice, and a family with few classes less than its share.
    ///
    /// As [`Order::new`] it takes the nearest batch size that works, and says so.
    pub fn hierarchical(labels: &[u32], families: &[u32], hierarchy: Hierarchy, batch_size: usize, seed: u64) -> Order {
        let per_batch = hierarchy.families_per_batch.max(1);
        let items = hierarchy.items_per_class.clamp(1, (batch_size / per_batch).max(1));
        let share = (batch_size / per_batch / items * items).max(items);
        let adjusted = (share * per_batch != batch_size || items != hierarchy.items_per_class).then(|| {
            format!(
                "batch_size {batch_size} with {} items of each class became {}: {per_batch} families with {share} examples \
                 each, {items} of a class",
                hierarchy.items_per_class,
                share * per_batch
            )
        });
        let families = by_class(families).into_iter().map(|members| {
            let own: Vec<u32> = members.iter().map(|&member| labels[member as usize]).collect();
            let classes = by_class(&own);
            classes.into_iter().map(|class| class.into_iter().map(|place| members[place as usize]).collect()).collect()
        });
        let hierarchy = Hierarchy { items_per_class: items, families_per_batch: per_batch, ..hierarchy };
        Order { plan: Plan::Hierarchical { families: families.collect(), hierarchy, share }, seed, adjusted }
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
            Plan::MPerClass { classes, per_batch, items } => {
                grouped::m_per_class(classes, *per_batch, *items, &mut random)
            }
            Plan::Hierarchical { families, hierarchy, share } => {
                grouped::hierarchical(families, hierarchy, *share, &mut random)
            }
            Plan::GroupByLabel { classes, batch_size } => grouped::pairs_in_turn(classes, *batch_size, &mut random),
            Plan::NoDuplicates { texts, batch_size } => no_duplicates::batches(texts, *batch_size, &mut random),
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
#[path = "../order_tests.rs"]
mod tests;
