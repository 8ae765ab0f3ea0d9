//! The batches of several data sets in one row; a batch is of one data set.

use super::super::random::Random;

/// Whose batch is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// A data set drawn in proportion to the batches that it has left: every batch comes once.
    Proportional,
    /// The data sets in turn, until the first has no batch left: all weigh the same, whatever their size.
    RoundRobin,
}

impl Mix {
    /// The data set of each batch of an epoch, where data set `i` has `batches[i]` of them; a function of seed and epoch.
    pub fn turns(self, batches: &[usize], seed: u64, epoch: u64) -> Vec<usize> {
        match self {
            Mix::Proportional => {
                let own = |(set, &count): (usize, &usize)| std::iter::repeat_n(set, count);
                let mut turns: Vec<usize> = batches.iter().enumerate().flat_map(own).collect();
                // Another stream than that of any order of examples.
                Random::new(!seed, epoch).shuffle(&mut turns);
                turns
            }
            Mix::RoundRobin => {
                let rounds = batches.iter().copied().min().unwrap_or(0);
                (0..rounds).flat_map(|_| 0..batches.len()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_comes_once_in_proportion() {
        let turns = Mix::Proportional.turns(&[300, 100, 0, 1], 5, 0);
        assert_eq!(turns.len(), 401);
        let first: usize = turns[..200].iter().filter(|set| **set == 0).count();
        assert!((125..=175).contains(&first), "{first} of 200");
        assert_eq!(turns.iter().filter(|set| **set == 3).count(), 1);
        assert_eq!(turns, Mix::Proportional.turns(&[300, 100, 0, 1], 5, 0));
        assert_ne!(turns, Mix::Proportional.turns(&[300, 100, 0, 1], 5, 1));
        assert_eq!(Mix::Proportional.turns(&[3], 5, 1), [0, 0, 0]);
    }

    #[test]
    fn round_robin_ends_with_the_shortest() {
        assert_eq!(Mix::RoundRobin.turns(&[5, 2, 3], 1, 0), [0, 1, 2, 0, 1, 2]);
        assert!(Mix::RoundRobin.turns(&[5, 0], 1, 0).is_empty());
    }
}
