//! An inner node leads every key to the child that a map of separators names.

use std::collections::BTreeMap;

use pagecache::mem::PageMemory;

use super::{
    super::{Frag, Node, try_merge},
    random::{KEYS, Keys, Random},
};

/// Separators and children; the first child is under the low fence.
type Children = BTreeMap<Vec<u8>, usize>;

fn inner(memory: &PageMemory, children: &Children, high: Option<&[u8]>) -> Node {
    let mut all = children.iter().map(|(key, pid)| (&**key, *pid));
    let (low, first) = all.next().unwrap();
    Node::inner(memory, 2, low, high, high.map(|_| 9), first, all).unwrap()
}

fn check(node: &Node, children: &Children, probes: &[Vec<u8>], what: &str) {
    assert_eq!(
        (node.level(), node.children(), node.len()),
        (2, children.len(), children.len() - 1),
        "{what}"
    );
    for (i, (low, pid)) in children.iter().enumerate() {
        assert_eq!(node.child(i), *pid, "{what}");
        assert_eq!(node.child_low(i).to_vec(), *low, "{what}");
        assert_eq!(node.child_low(i).to_vec().len(), low.len(), "{what}");
    }
    for probe in probes.iter().filter(|probe| node.covers(probe)) {
        let want = children.range(..=probe.clone()).next_back().unwrap().1;
        assert_eq!(node.child_for(probe), *want, "{what}: {probe:?}");
        if **probe > *node.low() {
            let below = children.range(..probe.clone()).next_back().unwrap().1;
            assert_eq!(node.child_below(probe), *below, "{what}: {probe:?}");
        }
    }
}

fn start(random: &mut Random, keys: Keys) -> (Children, Option<Vec<u8>>) {
    let count = [1, 2, 30, 200][random.below(4)];
    let mut children: Children = (0..count).map(|_| (keys.key(random), random.below(1 << 40))).collect();
    let high = keys.key(random);
    if random.chance(2) && *children.first_key_value().unwrap().0 < high {
        children.retain(|key, _| *key < high);
        return (children, Some(high));
    }
    (children, None)
}

#[test]
fn an_inner_node_leads_as_the_map_of_its_separators_does_through_posts_and_splits() {
    let memory = PageMemory::new();
    for seed in 0..60 {
        for keys in KEYS {
            let mut random = Random::new(seed);
            let (mut children, mut high) = start(&mut random, keys);
            let mut frags = vec![Frag::from(inner(&memory, &children, high.as_deref()))];
            for step in 0..12 {
                let what = format!("seed {seed}, {keys:?}, step {step}");
                let listed: Vec<Vec<u8>> = children.keys().cloned().collect();
                let probes: Vec<Vec<u8>> = (0..40).map(|_| keys.probe(&mut random, &listed)).collect();
                let node = try_merge(&memory, &frags.iter().collect::<Vec<_>>()).expect(&what);
                check(&node, &children, &probes, &what);
                assert_eq!(node.high(), high.as_deref(), "{what}");
                check(&Node::decode(&memory, node.bytes()).expect(&what), &children, &probes, &what);

                let low = listed[0].clone();
                let inside = |key: &&Vec<u8>| **key > low && high.as_ref().is_none_or(|high| *key < high);
                let Some(key) = probes.iter().find(inside).cloned() else { continue };
                let separator: Box<[u8]> = key.clone().into();
                match random.below(8) {
                    0 => {
                        children.retain(|other, _| *other < key);
                        high = Some(key);
                        frags.push(Frag::HalfSplit { separator, right: 9 });
                    }
                    1..4 => {
                        children.remove(&key);
                        frags.push(Frag::Unpost { separator });
                    }
                    _ => {
                        let child = random.below(1 << 40);
                        children.insert(key, child);
                        frags.push(Frag::Post { separator, child });
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_no_inner_node_is_refused() {
    let memory = PageMemory::new();
    let build = |level, first, children: &[(&[u8], usize)]| {
        Node::inner(&memory, level, b"b", None, None, first, children.iter().copied()).is_ok()
    };
    assert!(build(1, 5, &[(b"c", 6)]));
    assert!(!build(0, 5, &[(b"c", 6)]), "a leaf with children");
    assert!(!build(1, 5, &[(b"b", 6)]), "a separator at the low fence");
    assert!(!build(1, 5, &[(b"c", 1 << 48)]), "a child of 49 bits");
    assert!(!build(1, usize::MAX, &[]), "a first child of 64 bits");
}
