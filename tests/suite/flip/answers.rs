//! Which answers are right: for every key, its value after each number of operations.
//!
//! A set of numbers of operations is a bit mask. Each observation leaves those that agree with it;
//! when none is left, some two answers contradict each other, or one was never right.

use std::collections::BTreeMap;

/// What a store held at some moment.
pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Numbers of operations, one bit each.
pub(super) type Counts = u128;

/// The values of a key, and after which counts it had each.
type Values = Vec<(Counts, Option<Vec<u8>>)>;

/// The values of every key that was ever there, and of some that never were.
#[derive(Debug)]
pub(super) struct Answers {
    /// In key order.
    keys: Vec<(Vec<u8>, Values)>,
    count: u32,
}

impl Answers {
    /// From the states after 0, 1, .. operations.
    pub(super) fn new(states: &[Model], absent: impl IntoIterator<Item = Vec<u8>>) -> Answers {
        assert!((1..=Counts::BITS as usize).contains(&states.len()), "{} states", states.len());
        let mut keys: BTreeMap<Vec<u8>, Values> = BTreeMap::new();
        keys.extend(absent.into_iter().map(|key| (key, Vec::new())));
        keys.extend(states.iter().flat_map(|state| state.keys()).map(|key| (key.clone(), Vec::new())));
        for (key, values) in &mut keys {
            for (n, state) in states.iter().enumerate() {
                let value = state.get(key);
                match values.iter_mut().find(|(_, known)| known.as_ref() == value) {
                    Some((counts, _)) => *counts |= 1 << n,
                    None => values.push((1 << n, value.cloned())),
                }
            }
        }
        Answers { keys: keys.into_iter().collect(), count: states.len() as u32 - 1 }
    }

    /// How many operations there were in all.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The counts from `least` on.
    pub(super) fn from(&self, least: u32) -> Counts {
        let all = Counts::MAX >> (Counts::BITS - 1 - self.count);
        all & !((1 << least) - 1)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|(key, _)| &key[..])
    }

    fn agree(&self, index: usize, value: Option<&[u8]>) -> Counts {
        let mut values = self.keys[index].1.iter();
        values.find(|(_, known)| known.as_deref() == value).map_or(0, |(counts, _)| *counts)
    }
}

/// What was seen of a store.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    answers: &'a Answers,
    /// The counts that agree with everything seen.
    pub(super) counts: Counts,
}

impl<'a> Seen<'a> {
    pub(super) fn new(answers: &'a Answers) -> Seen<'a> {
        Seen { answers, counts: answers.from(0) }
    }

    /// The value of the key at `index` in [`Answers::keys`].
    pub(super) fn value(&mut self, index: usize, value: Option<&[u8]>) {
        let before = self.counts;
        self.counts &= self.answers.agree(index, value);
        assert!(
            self.counts != 0,
            "{:?} is {value:?}, though the answers before fit the states {before:#b} alone",
            String::from_utf8_lossy(&self.answers.keys[index].0),
        );
    }

    /// Starts a walk over all entries in key order.
    pub(super) fn walk<'s>(&'s mut self, forward: bool) -> Walk<'s, 'a> {
        let left = 0..self.answers.keys.len();
        Walk { seen: self, forward, left }
    }
}

/// A walk over all entries; what it skips is not there.
#[derive(Debug)]
pub(super) struct Walk<'s, 'a> {
    seen: &'s mut Seen<'a>,
    forward: bool,
    left: std::ops::Range<usize>,
}

impl Walk<'_, '_> {
    pub(super) fn entry(&mut self, key: &[u8], value: &[u8]) {
        while let Some(index) = self.step() {
            if self.seen.answers.keys[index].0 == key {
                return self.seen.value(index, Some(value));
            }
            self.seen.value(index, None);
        }
        panic!("{:?} was never there, or comes out of order", String::from_utf8_lossy(key));
    }

    /// The walk ended without an error.
    pub(super) fn end(mut self) {
        while let Some(index) = self.step() {
            self.seen.value(index, None);
        }
    }

    fn step(&mut self) -> Option<usize> {
        if self.forward { self.left.next() } else { self.left.next_back() }
    }
}

#[test]
fn contradictions_and_strangers_are_noticed() {
    let entry = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let states = [
        Model::from([entry("a", "1"), entry("b", "1")]),
        Model::from([entry("a", "2"), entry("b", "1")]),
        Model::from([entry("a", "2")]),
    ];
    let answers = Answers::new(&states, [b"c".to_vec()]);
    let counts = |walk: &[(&str, &str)]| {
        std::panic::catch_unwind(|| {
            let mut seen = Seen::new(&answers);
            let mut entries = seen.walk(true);
            walk.iter().for_each(|(key, value)| entries.entry(key.as_bytes(), value.as_bytes()));
            entries.end();
            seen.counts
        })
    };
    for (walk, want) in [
        (&[("a", "1"), ("b", "1")][..], Some(0b001)),
        (&[("a", "2"), ("b", "1")], Some(0b010)),
        (&[("a", "2")], Some(0b100)),
        (&[("a", "1")], None),
        (&[("b", "1"), ("a", "1")], None),
        (&[("a", "2"), ("c", "1")], None),
        (&[("x", "1")], None),
    ] {
        assert_eq!(counts(walk).ok(), want, "{walk:?}");
    }
    assert_eq!((answers.from(0), answers.from(2)), (0b111, 0b100));
}
