//! Two halves hold what the whole held, and their common fence divides them.

use std::collections::BTreeMap;

use pagecache::mem::PageMemory;

use super::{
    super::{Frag, Join, Node, split::separator, try_merge},
    build::{contents, leaf},
    random::{KEYS, Random, VALUES},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn left_half(memory: &PageMemory, node: &Node, separator: &[u8]) -> Node {
    let cut = Frag::HalfSplit { separator: separator.into(), right: 4 };
    try_merge(memory, &[&node.clone().into(), &cut]).unwrap()
}

fn check_cut(memory: &PageMemory, node: &Node, at: usize, what: &str) -> (Node, Node) {
    let split = node.split(memory, at).expect(what);
    let left = left_half(memory, node, &split.separator);
    let right = split.right;
    assert_eq!(
        (left.low(), left.high(), left.next()),
        (node.low(), Some(&*split.separator), Some(4)),
        "{what}"
    );
    assert_eq!(
        (right.low(), right.high(), right.next()),
        (&*split.separator, node.high(), node.next()),
        "{what}"
    );
    assert_eq!((left.level(), right.level()), (node.level(), node.level()), "{what}");
    check_united(memory, &left, &right, node, what);
    (left, right)
}

/// Two halves that are joined are the node that was cut, to the last byte.
fn check_united(memory: &PageMemory, left: &Node, right: &Node, node: &Node, what: &str) {
    assert_eq!(left.united(memory, right).expect(what).bytes(), node.bytes(), "{what}");
    assert_eq!(left.united_bytes(right), Some(node.bytes().len()), "{what}");
    assert_eq!(right.united_bytes(left), None, "{what}: {left:?} is not right of {right:?}");
    if node.is_leaf() {
        let join = Frag::Join(Box::new(Join::taking(memory, 1, right).expect(what)));
        let joined = try_merge(memory, &[&left.clone().into(), &join]).expect(what);
        assert_eq!(joined.bytes(), node.bytes(), "{what}");
    }
}

#[test]
fn every_cut_of_a_leaf_divides_it_at_the_shortest_separator() {
    let memory = PageMemory::new();
    for seed in 0..40 {
        for (keys, values) in KEYS.into_iter().flat_map(|k| VALUES.map(|v| (k, v))) {
            let mut random = Random::new(seed);
            let what = format!("seed {seed}, {keys:?}, {values:?}");
            let map: Map = (0..30).map(|_| (keys.key(&mut random), values.value(&mut random))).collect();
            let node = leaf(&memory, &map, b"", None);
            let listed: Vec<&Vec<u8>> = map.keys().collect();
            for at in 1..map.len() {
                let (left, right) = check_cut(&memory, &node, at, &what);
                assert_eq!((left.len(), right.len()), (at, map.len() - at), "{what}");
                assert_eq!(right.low(), separator(listed[at - 1], listed[at]), "{what}");
                let mut both = contents(&left);
                both.extend(contents(&right));
                assert_eq!(both, map, "{what}");
            }
            assert!(node.split(&memory, 0).is_err() && node.split(&memory, map.len()).is_err(), "{what}");
        }
    }
}

#[test]
fn a_node_of_many_times_its_size_is_cut_into_full_ones() {
    const BYTES_MAX: usize = 8 << 10;
    let memory = PageMemory::new();
    for (keys, values) in KEYS.into_iter().flat_map(|k| VALUES.map(|v| (k, v))) {
        let mut random = Random::new(1);
        let map: Map = (0..4000).map(|_| (keys.key(&mut random), values.value(&mut random))).collect();
        let mut rest = leaf(&memory, &map, b"", None);
        let record_max = map.iter().map(|(key, value)| key.len() + value.len()).max().unwrap() + 16;
        while rest.should_split(BYTES_MAX) {
            let at = rest.split_point_full(BYTES_MAX).unwrap();
            let (left, right) = check_cut(&memory, &rest, at, &format!("{keys:?}, {values:?}"));
            let (bytes, count) = (left.bytes().len(), left.len());
            // The high fence is new, and what the keys share may be counted once for all of them.
            assert!(bytes <= BYTES_MAX + record_max, "{keys:?}, {values:?}: {bytes} bytes");
            assert!(bytes + record_max + count * 16 > BYTES_MAX, "{keys:?}, {values:?}: {bytes} bytes");
            rest = right;
        }
    }
}

#[test]
fn the_split_point_halves_the_bytes_and_an_append_moves_the_end_only() {
    let memory = PageMemory::new();
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let count = 2 + random.below(100);
        let map: Map = (0..count)
            .map(|i| (format!("{i:05}").into_bytes(), vec![1; if random.chance(9) { 900 } else { 20 }]))
            .collect();
        let node = leaf(&memory, &map, b"", None);
        let last = map.len() - 1;
        assert_eq!(node.split_point(true), Some(last), "seed {seed}");
        let at = node.split_point(false).unwrap();
        assert!((1..=last).contains(&at), "seed {seed}");
        let bytes =
            |from, to| node.records(0).skip(from).take(to - from).map(|(_, v)| v.len() + 9).sum::<usize>();
        let (left, right) = (bytes(0, at), bytes(at, map.len()));
        let slack = 2 * 920 + (left + right) / 4;
        assert!(left.abs_diff(right) <= slack, "seed {seed}: {left} and {right}");
        assert!(node.should_split(node.bytes().len() - 1) && !node.should_split(node.bytes().len()));
    }
}

#[test]
fn too_few_records_are_not_split() {
    let memory = PageMemory::new();
    let one = Map::from([(vec![1], vec![0; 100_000])]);
    assert!(!leaf(&memory, &one, b"", None).should_split(100));
    assert_eq!(Node::empty_leaf(&memory).unwrap().split_point(true), None);
    let inner = |count: u8| {
        let keys: Vec<[u8; 1]> = (1..=count).map(|key| [key]).collect();
        Node::inner(&memory, 1, b"", None, None, 1, keys.iter().map(|key| (&key[..], 2))).unwrap()
    };
    assert_eq!(inner(2).split_point(false), None);
    assert_eq!((inner(3).split_point(false), inner(3).split_point(true)), (Some(1), Some(1)));
}

#[test]
fn every_cut_of_an_inner_node_keeps_every_child() {
    let memory = PageMemory::new();
    for (seed, keys) in (0..20).flat_map(|seed| KEYS.map(|keys| (seed, keys))) {
        let what = format!("seed {seed}, {keys:?}");
        let mut random = Random::new(seed);
        let children: BTreeMap<Vec<u8>, usize> =
            (0..20).map(|i| (keys.key(&mut random), i)).filter(|(key, _)| !key.is_empty()).collect();
        let each = children.iter().map(|(key, pid)| (&**key, *pid));
        let node = Node::inner(&memory, 3, b"", Some(&[0xff; 400]), Some(8), 99, each).unwrap();
        for at in 0..node.len() {
            let (left, right) = check_cut(&memory, &node, at, &what);
            let pids = |node: &Node| (0..node.children()).map(|i| node.child(i)).collect::<Vec<_>>();
            assert_eq!([pids(&left), pids(&right)].concat(), pids(&node), "{what}");
            assert_eq!(right.low(), node.key_parts(at).to_vec(), "{what}");
        }
    }
}

#[test]
fn a_root_split_leaves_two_halves_under_a_root_one_level_up() {
    let memory = PageMemory::new();
    let map: Map = (0..50_u8).map(|i| (vec![b'k', i], vec![i])).collect();
    let (left, right, root) = leaf(&memory, &map, b"", None).split_root(&memory, 25, 7, 8).unwrap();
    assert_eq!((root.level(), root.low(), root.high(), root.next()), (1, &b""[..], None, None));
    assert_eq!((left.next(), right.next(), left.high()), (Some(8), None, Some(right.low())));
    for (key, value) in &map {
        let child = if root.child_for(key) == 7 { &left } else { &right };
        assert_eq!(child.get(key), Some(&**value));
    }
}
