//! Histories made by hand: what the checker must refuse, and what it must not.

use pagecache::io::sim::Rng;

use super::checker::{Event, Op, Value, check};
use Op::{Get, Insert, Put, Refused, Remove, Swapped};

/// A name, and for each operation: thread, call, return, what.
type Planted = (&'static str, &'static [(u8, u64, u64, Op)]);

const A: Value = Some(1);
const B: Value = Some(2);
const C: Value = Some(3);

/// All begin with an absent key.
const BAD: &[Planted] = &[
    ("a value that nobody wrote", &[(0, 1, 2, Get(A))]),
    ("a value from the future", &[(0, 1, 2, Get(A)), (1, 3, 4, Insert(1, None))]),
    ("a write that a later get misses", &[(0, 1, 2, Insert(1, None)), (1, 3, 4, Get(None))]),
    ("an overwritten value", &[(0, 1, 2, Insert(1, None)), (0, 3, 4, Insert(2, A)), (1, 5, 6, Get(A))]),
    (
        "a reader that goes back in time while the write is under way",
        &[(0, 1, 8, Insert(1, None)), (1, 2, 3, Get(A)), (1, 4, 5, Get(None))],
    ),
    (
        "two readers that go back in time together",
        &[(0, 1, 8, Insert(1, None)), (1, 2, 3, Get(A)), (2, 4, 5, Get(None))],
    ),
    (
        "readers that disagree on the order of two writes",
        &[
            (0, 1, 10, Put(A)),
            (1, 2, 11, Put(B)),
            (2, 3, 4, Get(A)),
            (2, 5, 6, Get(B)),
            (3, 7, 8, Get(A)),
            (3, 9, 12, Get(B)),
        ],
    ),
    (
        "an insert that reports an older value",
        &[(0, 1, 2, Insert(1, None)), (0, 3, 4, Insert(2, A)), (0, 5, 6, Insert(3, A))],
    ),
    ("two inserts that both found nothing", &[(0, 1, 4, Insert(1, None)), (1, 2, 3, Insert(2, None))]),
    ("two inserts that each found the other's value", &[(0, 1, 4, Insert(1, B)), (1, 2, 3, Insert(2, A))]),
    (
        "three inserts whose old values form a ring",
        &[(0, 1, 6, Insert(1, C)), (1, 2, 5, Insert(2, A)), (2, 3, 4, Insert(3, B))],
    ),
    ("a lost update", &[(0, 1, 2, Insert(1, None)), (1, 3, 6, Swapped(A, B)), (2, 4, 5, Swapped(A, C))]),
    (
        "a swap of a value that was replaced before it began",
        &[(0, 1, 2, Insert(1, None)), (0, 3, 4, Insert(2, A)), (1, 5, 6, Swapped(A, C))],
    ),
    ("a swap of an absent key that had a value", &[(0, 1, 2, Insert(1, None)), (1, 3, 4, Swapped(None, B))]),
    ("a swap whose value is gone though nobody wrote", &[(0, 1, 2, Swapped(None, A)), (1, 3, 4, Get(None))]),
    (
        "a refused swap that wrote nevertheless",
        &[(0, 1, 2, Insert(1, None)), (1, 3, 4, Refused(B, A)), (0, 5, 6, Get(C))],
    ),
    (
        "a refusal that reports the value it was given",
        &[(0, 1, 2, Insert(1, None)), (1, 3, 4, Refused(A, A))],
    ),
    (
        "a refusal that reports a value gone before it began",
        &[(0, 1, 2, Insert(1, None)), (0, 3, 4, Insert(2, A)), (1, 5, 6, Refused(C, A))],
    ),
    ("two removals of one value", &[(0, 1, 2, Insert(1, None)), (1, 3, 6, Remove(A)), (2, 4, 5, Remove(A))]),
    (
        "a removal that found nothing though the key was there",
        &[(0, 1, 2, Insert(1, None)), (1, 3, 4, Remove(None))],
    ),
    ("a removal of what was never there", &[(0, 1, 2, Remove(A))]),
    (
        "a value that comes back after its removal",
        &[(0, 1, 2, Insert(1, None)), (0, 3, 4, Remove(A)), (1, 5, 6, Get(A))],
    ),
    (
        "a removed value that an insert finds",
        &[(0, 1, 2, Insert(1, None)), (0, 3, 4, Remove(A)), (1, 5, 6, Insert(2, A))],
    ),
    ("a part of a batch that a later get misses", &[(0, 1, 2, Put(A)), (1, 3, 4, Get(None))]),
    (
        "a batch under the feet of a swap that did not see it",
        &[(0, 1, 2, Put(A)), (1, 3, 4, Put(B)), (2, 5, 6, Swapped(A, C)), (0, 7, 8, Get(C))],
    ),
    (
        "a batch that is seen, gone, and seen again",
        &[(0, 1, 12, Put(A)), (1, 2, 3, Get(A)), (1, 4, 5, Get(None)), (1, 6, 7, Get(A))],
    ),
    (
        "a value that was seen before the swap that makes it was called",
        &[(0, 1, 2, Insert(1, None)), (1, 3, 4, Get(B)), (0, 5, 6, Swapped(A, B))],
    ),
];

const GOOD: &[Planted] = &[
    ("nothing", &[]),
    ("a get of nothing", &[(0, 1, 2, Get(None))]),
    (
        "one after the other",
        &[(0, 1, 2, Insert(1, None)), (1, 3, 4, Get(A)), (0, 5, 6, Remove(A)), (1, 7, 8, Get(None))],
    ),
    ("a get beside a write sees it", &[(0, 1, 4, Insert(1, None)), (1, 2, 3, Get(A))]),
    ("a get beside a write misses it", &[(0, 1, 4, Insert(1, None)), (1, 2, 3, Get(None))]),
    (
        "one of two readers beside a write sees it",
        &[(0, 1, 8, Insert(1, None)), (1, 2, 6, Get(A)), (2, 3, 7, Get(None))],
    ),
    (
        "of two writes under way the later call comes first",
        &[(0, 1, 6, Insert(1, B)), (1, 2, 5, Insert(2, None)), (2, 7, 8, Get(A))],
    ),
    (
        "one of two swaps from one value",
        &[(0, 1, 2, Insert(1, None)), (1, 3, 6, Swapped(A, B)), (2, 4, 5, Refused(A, B))],
    ),
    (
        "a chain of four under way at once",
        &[
            (0, 1, 8, Insert(1, None)),
            (1, 2, 7, Swapped(A, B)),
            (2, 3, 6, Remove(B)),
            (3, 4, 5, Swapped(None, C)),
            (0, 9, 10, Get(C)),
        ],
    ),
    ("a refusal beside the write that it saw", &[(0, 1, 4, Insert(1, None)), (1, 2, 3, Refused(B, A))]),
    (
        "a swap to absent is a removal",
        &[(0, 1, 2, Put(A)), (0, 3, 4, Swapped(A, None)), (1, 5, 6, Remove(None))],
    ),
    (
        "readers that agree on the order of two writes",
        &[
            (0, 1, 10, Put(A)),
            (1, 2, 11, Put(B)),
            (2, 3, 5, Get(A)),
            (3, 4, 6, Get(A)),
            (2, 7, 9, Get(B)),
            (3, 8, 12, Get(B)),
        ],
    ),
];

fn history(planted: &[(u8, u64, u64, Op)]) -> Vec<Event> {
    planted.iter().map(|&(thread, called, returned, op)| Event { thread, op, called, returned }).collect()
}

#[test]
fn every_planted_bad_history_is_refused() {
    assert!(BAD.len() >= 20);
    for (name, planted) in BAD {
        assert!(check(&history(planted), None).is_err(), "{name}");
    }
}

#[test]
fn every_planted_good_history_is_explained() {
    for (name, planted) in GOOD {
        check(&history(planted), None).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// Four threads on one register; the effect of each operation falls at a moment between its call and
/// its return.
struct Register {
    value: Value,
    clock: u64,
    /// By thread: when it called, and what it did if that has taken effect.
    under_way: [Option<(u64, Option<Op>)>; 4],
    done: Vec<Event>,
}

impl Register {
    fn step(&mut self, thread: usize, rng: &mut Rng) {
        self.clock += 1;
        self.under_way[thread] = match self.under_way[thread] {
            None => Some((self.clock, None)),
            Some((called, None)) => Some((called, Some(self.take_effect(rng)))),
            Some((called, Some(op))) => {
                self.done.push(Event { thread: thread as u8, op, called, returned: self.clock });
                None
            }
        };
    }

    fn take_effect(&mut self, rng: &mut Rng) -> Op {
        // Unique, and none of the planted ones.
        let fresh = 10 + self.clock;
        let (op, after) = match rng.below(6) {
            0 => (Get(self.value), self.value),
            1 => (Insert(fresh, self.value), Some(fresh)),
            2 => (Remove(self.value), None),
            3 => (Swapped(self.value, Some(fresh)), Some(fresh)),
            4 => (Refused(Some(fresh), self.value), self.value),
            _ => (Put(Some(fresh)), Some(fresh)),
        };
        self.value = after;
        op
    }
}

fn simulated(rng: &mut Rng, count: usize) -> Vec<Event> {
    let mut register = Register { value: None, clock: 0, under_way: [None; 4], done: Vec::new() };
    while register.done.len() < count {
        register.step(rng.index(4), rng);
    }
    for thread in 0..4 {
        while register.under_way[thread].is_some() {
            register.step(thread, rng);
        }
    }
    register.done
}

#[test]
fn every_simulated_history_is_explained_and_with_an_answer_from_nowhere_it_is_not() {
    for seed in tests::seeds(200) {
        let mut rng = Rng::new(seed);
        let mut history = simulated(&mut rng, 200);
        check(&history, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let at = rng.index(history.len());
        history[at].op = Get(Some(5));
        assert!(check(&history, None).is_err(), "seed {seed}: an answer from nowhere at {at}");
    }
}
