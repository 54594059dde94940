//! The states that a map went through, so that what a crash left can be found among them.
//!
//! A state's digest is a sum over its entries, so a write changes it in constant time, and a store
//! is compared with all states at once. Values are unique, so equal digests mean equal states, but
//! for writes that changed nothing.

use std::{collections::BTreeMap, fmt::Write, ops::RangeInclusive};

/// The contents of a store.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// One key's part of a change; `None` removes it.
pub type Put = (Vec<u8>, Option<Vec<u8>>);

/// Differences that are told.
const TOLD_MAX: usize = 8;

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Timeline {
    first: Map,
    changes: Vec<Vec<Put>>,
    digests: Vec<u64>,
    now: Map,
}

/// A number for a map's contents.
#[must_use]
pub fn digest(map: &Map) -> u64 {
    map.iter().fold(0, |sum, (key, value)| sum.wrapping_add(entry_digest(key, value)))
}

fn entry_digest(key: &[u8], value: &[u8]) -> u64 {
    // FNV-1a (Fowler, Noll, Vo, public domain), then splitmix64's finisher, since sums need spread.
    let lens = (key.len() as u64).to_le_bytes();
    let bytes = lens.iter().chain(key).chain(value);
    let mut x = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

impl Timeline {
    /// A timeline whose state 0 is `first`.
    #[must_use]
    pub fn from(first: Map) -> Timeline {
        let digests = vec![digest(&first)];
        Timeline { now: first.clone(), first, changes: Vec::new(), digests }
    }

    /// Adds a state: the newest with these changes. Returns its number.
    pub fn push(&mut self, change: Vec<Put>) -> usize {
        let mut sum = self.digests[self.changes.len()];
        for (key, value) in &change {
            if let Some(old) = self.now.get(key) {
                sum = sum.wrapping_sub(entry_digest(key, old));
            }
            if let Some(value) = value {
                sum = sum.wrapping_add(entry_digest(key, value));
            }
            put(&mut self.now, key, value.as_ref());
        }
        self.changes.push(change);
        self.digests.push(sum);
        self.newest()
    }

    /// The number of the newest state.
    #[must_use]
    pub fn newest(&self) -> usize {
        self.changes.len()
    }

    /// The newest state.
    #[must_use]
    pub fn now(&self) -> &Map {
        &self.now
    }

    /// The newest of the given states that has these contents.
    #[must_use]
    pub fn find(&self, found: &Map, among: RangeInclusive<usize>) -> Option<usize> {
        let sum = digest(found);
        among.rev().find(|state| self.digests[*state] == sum)
    }

    /// In words: why these contents are none of the given states.
    #[must_use]
    pub fn explain(&self, found: &Map, among: RangeInclusive<usize>) -> String {
        let (from, to) = (*among.start(), *among.end());
        let mut told = format!("{} entries are no state from {from} to {to}", found.len());
        let earlier = self.digests.iter().rposition(|sum| *sum == digest(found));
        if let Some(state) = earlier {
            let _ = write!(told, "; they are state {state}");
        }
        let mut map = self.first.clone();
        self.changes[..from].iter().flatten().for_each(|(key, value)| put(&mut map, key, value.as_ref()));
        let mut held: BTreeMap<&[u8], Vec<Option<&[u8]>>> = BTreeMap::new();
        for (key, value) in &map {
            held.insert(key, vec![Some(value)]);
        }
        for (key, value) in self.changes[from..to].iter().flatten() {
            held.entry(key).or_insert_with(|| vec![None]).push(value.as_deref());
        }
        let keys = held.keys().copied().chain(found.keys().map(Vec::as_slice));
        let mut keys: Vec<&[u8]> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        let never: Vec<Option<&[u8]>> = vec![None];
        let wrong = keys.into_iter().filter_map(|key| {
            let found = found.get(key).map(Vec::as_slice);
            let held = held.get(key).unwrap_or(&never);
            (!held.contains(&found)).then_some((key, found, held))
        });
        let wrong: Vec<_> = wrong.collect();
        if wrong.is_empty() {
            told.push_str("; each entry alone could be, but not all at once");
        }
        for (key, found, held) in wrong.iter().take(TOLD_MAX) {
            let held: Vec<String> = held.iter().map(|value| shown(*value)).collect();
            let _ =
                write!(told, "\n  {}: {}, may be {}", key.escape_ascii(), shown(*found), held.join(" or "));
        }
        told
    }
}

fn put(map: &mut Map, key: &[u8], value: Option<&Vec<u8>>) {
    match value {
        Some(value) => drop(map.insert(key.to_vec(), value.clone())),
        None => drop(map.remove(key)),
    }
}

fn shown(value: Option<&[u8]>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(value) => value[..value.len().min(24)].escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Map, Put, Timeline, digest};

    fn put(key: &str, value: Option<&str>) -> Put {
        (key.into(), value.map(Into::into))
    }

    fn map(entries: &[(&str, &str)]) -> Map {
        entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    fn timeline() -> Timeline {
        let mut timeline = Timeline::from(map(&[("a", "0")]));
        timeline.push(vec![put("b", Some("1"))]);
        timeline.push(vec![put("a", None), put("b", Some("2"))]);
        timeline.push(vec![put("c", Some("3")), put("b", None)]);
        timeline
    }

    #[test]
    fn each_state_is_found_and_only_where_it_is_asked_for() {
        let states =
            [map(&[("a", "0")]), map(&[("a", "0"), ("b", "1")]), map(&[("b", "2")]), map(&[("c", "3")])];
        let timeline = timeline();
        assert_eq!((timeline.newest(), timeline.now()), (3, &states[3]));
        for (number, state) in states.iter().enumerate() {
            assert_eq!(timeline.find(state, 0..=3), Some(number));
            assert_eq!(timeline.find(state, number..=number), Some(number));
            if number > 0 {
                assert_eq!(timeline.find(state, 0..=number - 1), None);
            }
        }
    }

    #[test]
    fn half_a_change_and_a_hole_are_no_states() {
        let timeline = timeline();
        let torn = map(&[("a", "0"), ("b", "2")]);
        assert_eq!(timeline.find(&torn, 0..=3), None);
        assert!(timeline.explain(&torn, 0..=3).contains("not all at once"));
        let hole = map(&[("a", "9")]);
        let told = timeline.explain(&hole, 1..=2);
        assert!(
            told.contains("a: 9, may be 0 or nothing") && told.contains("b: nothing, may be 1 or 2"),
            "{told}"
        );
    }

    #[test]
    fn a_digest_tells_keys_from_values() {
        let distinct =
            [map(&[]), map(&[("a", "b")]), map(&[("ab", "")]), map(&[("", "ab")]), map(&[("b", "a")])];
        for (i, one) in distinct.iter().enumerate() {
            for other in &distinct[..i] {
                assert_ne!(digest(one), digest(other), "{one:?}, {other:?}");
            }
        }
    }
}
