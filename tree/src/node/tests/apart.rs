//! Leaves of which some values live apart, against plain maps.

use std::collections::BTreeMap;

use pagecache::{ValueId, mem::PageMemory};

use super::random::{KEYS, Random, VALUES};
use crate::node::{
    APART_BYTES, APART_MARK, Apart, Change, Find, Frag, Node, Ops, SHAPE_MARK, Stored, Tally, find, merge,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Inline(Vec<u8>),
    Apart(Apart),
}

impl Value {
    fn of(stored: Stored<'_>) -> Value {
        match stored {
            Stored::Inline(value) => Value::Inline(value.to_vec()),
            Stored::Apart(apart) => Value::Apart(apart),
        }
    }
}

type Model = BTreeMap<Vec<u8>, Value>;

fn apart(random: &mut Random) -> Apart {
    let id = ValueId { pid: random.below(1 << 40), seq: random.next() };
    Apart { id, bytes: random.next() }
}

fn check(node: &Node, model: &Model, what: &str) {
    let got: Model = (0..node.len())
        .map(|i| {
            let value = match node.apart(i) {
                Some(apart) => Value::Apart(apart),
                None => Value::Inline(node.record(i).1.to_vec()),
            };
            (node.key_parts(i).to_vec(), value)
        })
        .collect();
    assert_eq!(got, *model, "{what}");
    for (key, value) in model {
        assert_eq!(node.stored(key).map(Value::of).as_ref(), Some(value), "{what}");
    }
    assert!(node.may_hold_apart() || model.values().all(|value| matches!(value, Value::Inline(_))), "{what}");
}

#[test]
fn leaves_hold_values_and_what_stands_for_others_side_by_side() {
    let memory = PageMemory::new();
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let keys = KEYS[random.below(KEYS.len())];
        let values = VALUES[random.below(VALUES.len())];
        let mut model = Model::new();
        let mut frags: Vec<Frag> = vec![Node::empty_leaf(&memory).unwrap().into()];
        for step in 0..200 {
            let what = format!("seed {seed}, step {step}, {keys:?}, {values:?}");
            let count = 1 + random.below(3);
            let changes: BTreeMap<Vec<u8>, Option<Value>> = (0..count)
                .map(|_| {
                    let value = match random.below(4) {
                        0 => None,
                        1 => Some(Value::Apart(apart(&mut random))),
                        _ => Some(Value::Inline(values.value(&mut random))),
                    };
                    (keys.key(&mut random), value)
                })
                .collect();
            let named: Vec<[u8; APART_BYTES]> = changes
                .values()
                .map(|value| match value {
                    Some(Value::Apart(apart)) => apart.encode(),
                    _ => [0; APART_BYTES],
                })
                .collect();
            let list: Vec<(&[u8], Change<'_>)> = changes
                .iter()
                .zip(&named)
                .map(|((key, value), named)| match value {
                    None => (&**key, Change::Del),
                    Some(Value::Inline(value)) => (&**key, Change::Put(value)),
                    Some(Value::Apart(_)) => (&**key, Change::Apart(named)),
                })
                .collect();
            let ops = Ops::many(&memory, Tally { tree: 1, diff: 0 }, &list).unwrap();
            let has_apart = changes.values().any(|value| matches!(value, Some(Value::Apart(_))));
            assert_eq!(ops.marks() & APART_MARK != 0, has_apart, "{what}");
            assert_eq!(ops.marks() & SHAPE_MARK, 0, "{what}");
            let frag = Frag::Ops(ops);
            let mut bytes = vec![0; frag.encoded_len()];
            frag.encode(&mut bytes);
            frags.push(Frag::decode(&memory, &bytes).expect(&what));
            for (key, value) in changes {
                match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                }
            }
            for (key, value) in &model {
                let want = match value {
                    Value::Inline(value) => Find::Value(value),
                    Value::Apart(apart) => Find::Apart(*apart),
                };
                assert_eq!(find(frags.iter().rev(), key), want, "{what}");
            }
            if random.chance(3) {
                let Frag::Node(node) = merge(&memory, &frags.iter().collect::<Vec<_>>()) else {
                    panic!("{what}: fragments that do not fit");
                };
                check(&node, &model, &what);
                let again = Node::decode(&memory, node.bytes()).expect(&what);
                check(&again, &model, &what);
                if let Some(at) = node.split_point(false) {
                    let right = node.split(&memory, at).unwrap().right;
                    let cut = node.key_parts(at).to_vec();
                    check(&right, &model.clone().split_off(&cut), &what);
                }
                frags = vec![Frag::Node(again)];
            }
        }
    }
}

/// A flipped bit of an end would turn a value into what stands for one, or back.
#[test]
fn every_flipped_bit_of_such_a_leaf_is_refused_or_harmless() {
    let memory = PageMemory::new();
    let mut random = Random::new(1);
    let named = apart(&mut random);
    let base = Frag::Node(Node::empty_leaf(&memory).unwrap());
    let put = Ops::put(&memory, Tally::default(), b"inline", &[9; APART_BYTES]).unwrap().into();
    let name = Ops::apart(&memory, Tally::default(), b"large", &named).unwrap().into();
    let Frag::Node(node) = merge(&memory, &[&base, &put, &name]) else { panic!("they fit") };
    let mut bytes = node.bytes().to_vec();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(node) = Node::decode(&memory, &bytes) {
            for i in 0..node.len() {
                let _ = (node.apart(i), node.record(i));
            }
            for key in [&b"inline"[..], b"large"] {
                let _ = node.stored(key);
            }
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}
