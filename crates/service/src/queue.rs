//! Who runs next and why others wait: a pure decision over what is there.
//!
//! Runs are looked at in their order (priority, then age). One that a key's own limit holds back lets others pass; one for
//! which the machine has no room does not, or a large run would wait for ever behind small ones.

use std::collections::HashMap;

use crate::wire::Resources;

/// A run that wants to start, or that holds a place.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) key: String,
    pub(crate) resources: Resources,
}

/// What there is for all runs together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) runs: usize,
    pub(crate) runs_per_key: usize,
    pub(crate) cpus: u32,
    pub(crate) gpus: u32,
    /// 0: not counted.
    pub(crate) memory: u64,
    /// 0: not counted.
    pub(crate) disk: u64,
}

/// What becomes of a waiting run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Start it.
    Start,
    /// Let it wait, for this reason.
    Wait(String),
}

/// Decides for every waiting run, in order.
pub(crate) fn decide(waiting: &[Candidate], running: &[Candidate], capacity: Capacity) -> Vec<Decision> {
    let mut taken = Resources::default();
    let mut places = 0;
    let mut keys: HashMap<&str, usize> = HashMap::new();
    for candidate in running {
        take(candidate, &mut taken, &mut places, &mut keys);
    }
    let mut blocked = 0;
    let mut decisions = Vec::new();
    for candidate in waiting {
        let of_key = keys.get(candidate.key.as_str()).copied().unwrap_or(0);
        let decision = if of_key >= capacity.runs_per_key {
            Decision::Wait(format!("its key has {of_key} runs at work, and may have {}", capacity.runs_per_key))
        } else if blocked > 0 {
            Decision::Wait(format!("behind {blocked} other runs"))
        } else if let Some(reason) = lacks(&candidate.resources, &taken, places, capacity) {
            Decision::Wait(reason)
        } else {
            take(candidate, &mut taken, &mut places, &mut keys);
            Decision::Start
        };
        if decision != Decision::Start && of_key < capacity.runs_per_key {
            blocked += 1;
        }
        decisions.push(decision);
    }
    decisions
}

fn take<'a>(candidate: &'a Candidate, taken: &mut Resources, places: &mut usize, keys: &mut HashMap<&'a str, usize>) {
    taken.cpus += candidate.resources.cpus;
    taken.gpus += candidate.resources.gpus;
    taken.memory += candidate.resources.memory;
    taken.disk += candidate.resources.disk;
    *places += 1;
    *keys.entry(&candidate.key).or_default() += 1;
}

fn lacks(asked: &Resources, taken: &Resources, places: usize, capacity: Capacity) -> Option<String> {
    let counted = |there| if there == 0 { u64::MAX } else { there };
    if places >= capacity.runs {
        return Some(format!("{places} of {} runs are at work", capacity.runs));
    }
    [
        ("processors", u64::from(asked.cpus), u64::from(taken.cpus), u64::from(capacity.cpus)),
        ("GPUs", u64::from(asked.gpus), u64::from(taken.gpus), u64::from(capacity.gpus)),
        ("bytes of memory", asked.memory, taken.memory, counted(capacity.memory)),
        ("bytes of disk", asked.disk, taken.disk, counted(capacity.disk)),
    ]
    .into_iter()
    .find(|(_, asked, taken, there)| *asked > 0 && taken.saturating_add(*asked) > *there)
    .map(|(what, asked, taken, there)| format!("needs {asked} {what}; {taken} of {there} are taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { runs: 3, runs_per_key: 2, cpus: 8, gpus: 1, memory: 0, disk: 100 };

    fn candidate(key: &str, cpus: u32, gpus: u32) -> Candidate {
        Candidate { key: key.into(), resources: Resources { cpus, gpus, ..Resources::default() } }
    }

    /// The places in the queue of those that start.
    fn started(waiting: &[Candidate], running: &[Candidate]) -> Vec<usize> {
        let decisions = decide(waiting, running, CAPACITY);
        (0..).zip(decisions).filter(|(_, decision)| *decision == Decision::Start).map(|(place, _)| place).collect()
    }

    #[test]
    fn runs_start_in_order_while_there_is_room() {
        let waiting: Vec<_> = ["a", "b", "c", "d"].map(|key| candidate(key, 0, 0)).into();
        assert_eq!(started(&waiting, &[]), [0, 1, 2]);
        assert_eq!(started(&waiting, &[candidate("z", 0, 0)]), [0, 1]);
        let last = decide(&waiting, &[], CAPACITY).pop().unwrap();
        assert_eq!(last, Decision::Wait("3 of 3 runs are at work".into()));
    }

    #[test]
    fn a_key_at_its_limit_lets_others_pass() {
        let waiting = ["x", "x", "x", "y"].map(|key| candidate(key, 0, 0));
        assert_eq!(started(&waiting, &[]), [0, 1, 3]);
        assert!(
            matches!(&decide(&waiting, &[], CAPACITY)[2], Decision::Wait(reason) if reason.contains("its key has 2"))
        );
    }

    #[test]
    fn nothing_passes_a_run_that_waits_for_room() {
        let waiting = [candidate("large", 6, 0), candidate("small", 1, 0)];
        let running = [candidate("z", 4, 0)];
        assert!(started(&waiting, &running).is_empty());
        let decisions = decide(&waiting, &running, CAPACITY);
        assert_eq!(decisions[0], Decision::Wait("needs 6 processors; 4 of 8 are taken".into()));
        assert_eq!(decisions[1], Decision::Wait("behind 1 other runs".into()));
    }

    #[test]
    fn a_run_waits_for_room_on_the_disk() {
        let with_disk = |disk| {
            let resources = Resources { disk, ..Resources::default() };
            Candidate { key: "x".into(), resources }
        };
        let decisions = decide(&[with_disk(60)], &[with_disk(50)], CAPACITY);
        assert_eq!(decisions[0], Decision::Wait("needs 60 bytes of disk; 50 of 100 are taken".into()));
        assert_eq!(decide(&[with_disk(50)], &[with_disk(50)], CAPACITY)[0], Decision::Start);
    }

    #[test]
    fn a_gpu_is_given_to_one_run_at_a_time() {
        let waiting = [candidate("x", 0, 1), candidate("y", 0, 1)];
        assert_eq!(started(&waiting, &[]), [0]);
    }
}
