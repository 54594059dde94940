//! A leaf answers as a sorted map does, from its builder and from its bytes.

use std::collections::BTreeMap;

use pagecache::mem::PageMemory;

use super::{
    super::{KEY_BYTES_MAX, Node},
    random::{KEYS, Random, VALUES},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A leaf of these records between these fences.
pub(super) fn leaf(memory: &PageMemory, map: &Map, low: &[u8], high: Option<&[u8]>) -> Node {
    let next = high.map(|_| 77);
    Node::leaf(memory, low, high, next, map.iter().map(|(key, value)| (&**key, &**value))).unwrap()
}

/// The records of a leaf.
pub(super) fn contents(node: &Node) -> Map {
    node.records(0).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn check(node: &Node, map: &Map, probes: &[Vec<u8>], what: &str) {
    assert_eq!(node.len(), map.len(), "{what}");
    assert_eq!(&contents(node), map, "{what}");
    for (i, (want, value)) in map.iter().enumerate() {
        let key = node.record(i).0.to_vec();
        assert_eq!(&key, want, "{what}");
        assert_eq!(node.record(i).1, value, "{what}");
        assert_eq!(node.search(want), Ok(i), "{what}");
    }
    for probe in probes {
        assert_eq!(node.get(probe), map.get(probe).map(|value| &**value), "{what}: {probe:?}");
        let rank = map.range(..probe.clone()).count();
        let want = if map.contains_key(probe) { Ok(rank) } else { Err(rank) };
        assert_eq!(node.search(probe), want, "{what}: {probe:?}");
        let covered = node.low() <= &**probe && node.high().is_none_or(|high| &**probe < high);
        assert_eq!(node.covers(probe), covered, "{what}: {probe:?}");
    }
}

#[test]
fn a_leaf_answers_as_a_map_does_and_so_does_its_copy_from_bytes() {
    let memory = PageMemory::new();
    for seed in 0..60 {
        for (keys, values) in KEYS.into_iter().flat_map(|k| VALUES.map(|v| (k, v))) {
            let mut random = Random::new(seed);
            let what = format!("seed {seed}, {keys:?}, {values:?}");
            let count = [0, 1, 2, 5, 40, 150][random.below(6)];
            let mut map: Map =
                (0..count).map(|_| (keys.key(&mut random), values.value(&mut random))).collect();
            let (low, high) = (keys.key(&mut random), keys.key(&mut random));
            let (low, high) = match seed % 3 {
                0 => (Vec::new(), None),
                _ if low < high => (low, Some(high)),
                _ => (low, None),
            };
            map.retain(|key, _| *key >= low && high.as_ref().is_none_or(|high| key < high));
            let listed: Vec<Vec<u8>> = map.keys().cloned().collect();
            let probes: Vec<Vec<u8>> = (0..100).map(|_| keys.probe(&mut random, &listed)).collect();
            let node = leaf(&memory, &map, &low, high.as_deref());
            assert_eq!((node.low(), node.high()), (&*low, high.as_deref()), "{what}");
            assert_eq!((node.level(), node.next()), (0, high.map(|_| 77)), "{what}");
            check(&node, &map, &probes, &what);
            let copy = Node::decode(&memory, node.bytes()).expect(&what);
            assert_eq!(copy.bytes(), node.bytes(), "{what}");
            check(&copy, &map, &probes, &what);
        }
    }
}

#[test]
fn fixed_widths_need_no_slots_and_a_shared_start_is_stored_once() {
    let memory = PageMemory::new();
    let map: Map = (0..100).map(|i| (format!("{:0>200}{i:03}", "").into_bytes(), vec![7; 10])).collect();
    let node = leaf(&memory, &map, b"", None);
    // Header, prefix, padding, and per record a head, the suffix of two or three bytes, the value.
    assert!(node.bytes().len() <= 48 + 204 + 3 + 100 * (4 + 3 + 10), "{} bytes", node.bytes().len());
}

#[test]
fn the_longest_keys_and_large_values_fit_and_longer_keys_are_refused() {
    let memory = PageMemory::new();
    let mut map = Map::from([(vec![1; KEY_BYTES_MAX], vec![2; 1 << 20]), (vec![1], vec![])]);
    let probes = [vec![1; KEY_BYTES_MAX], vec![1; KEY_BYTES_MAX - 1], vec![]];
    let node = leaf(&memory, &map, b"", None);
    check(&node, &map, &probes, "large");
    check(&Node::decode(&memory, node.bytes()).unwrap(), &map, &probes, "large, decoded");
    let only = leaf(&memory, &Map::from([(vec![1; KEY_BYTES_MAX], vec![3])]), b"", None);
    assert_eq!(only.get(&[1; KEY_BYTES_MAX]), Some(&[3][..]));
    map.insert(vec![1; KEY_BYTES_MAX + 1], vec![]);
    let records = map.iter().map(|(key, value)| (&**key, &**value));
    assert!(Node::leaf(&memory, b"", None, None, records).is_err());
}

#[test]
fn what_is_no_leaf_is_refused() {
    let memory = PageMemory::new();
    let build = |low: &[u8], high: Option<&[u8]>, next: Option<usize>, keys: &[&[u8]]| {
        Node::leaf(&memory, low, high, next, keys.iter().map(|key| (*key, &b"v"[..]))).is_ok()
    };
    assert!(build(b"a", Some(b"c"), Some(1), &[b"a", b"b"]));
    for (name, made) in [
        ("out of order", build(b"", None, None, &[b"b", b"a"])),
        ("twice", build(b"", None, None, &[b"a", b"a"])),
        ("below the low fence", build(b"b", None, None, &[b"a"])),
        ("at the high fence", build(b"", Some(b"b"), Some(1), &[b"b"])),
        ("fences crossed", build(b"b", Some(b"a"), Some(1), &[])),
        ("fences equal", build(b"b", Some(b"b"), Some(1), &[])),
        ("a sibling beyond the last key", build(b"", None, Some(1), &[])),
        ("a page id of 49 bits", build(b"", Some(b"b"), Some(1 << 48), &[])),
    ] {
        assert!(!made, "{name}");
    }
}

#[test]
fn debug_output_shows_no_key_and_no_value() {
    let memory = PageMemory::new();
    let map = Map::from([(b"secretkey".to_vec(), b"secretvalue".to_vec())]);
    let text = format!("{:?}", leaf(&memory, &map, b"secret", None));
    assert!(text.contains("records: 1") && !text.contains("secret"), "{text}");
    let bytes = format!("{:?}", b"secret");
    assert!(!text.contains(bytes.trim_matches(['[', ']'])), "{text}");
}
