//! A leaf with changes in front of it answers as a map does that underwent the same, folded or not, and
//! folded in whatever pieces.

use std::collections::BTreeMap;

use pagecache::{Config, Lsn, Materializer, mem::PageMemory};

use super::{
    super::{Change, Find, Frag, Join, Node, Ops, Tally, find, merge, reach, try_merge},
    build::{contents, leaf},
    random::{KEYS, Keys, Random, VALUES, Values},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the leaf should be by now.
#[derive(Clone)]
struct Model {
    map: Map,
    low: Vec<u8>,
    high: Option<Vec<u8>>,
    next: Option<usize>,
}

impl Model {
    fn covers(&self, key: &[u8]) -> bool {
        *self.low <= *key && self.high.as_ref().is_none_or(|high| *key < **high)
    }

    fn put(&mut self, changes: &[(&[u8], Change<'_>)]) {
        for (key, change) in changes {
            match change.value() {
                Some(value) => drop(self.map.insert(key.to_vec(), value.to_vec())),
                None => drop(self.map.remove(*key)),
            }
        }
    }
}

struct Chain<'m> {
    memory: &'m PageMemory,
    random: Random,
    keys: Keys,
    values: Values,
    model: Model,
    frags: Vec<Frag>,
}

impl<'m> Chain<'m> {
    fn new(memory: &'m PageMemory, seed: u64, keys: Keys, values: Values) -> Chain<'m> {
        let mut random = Random::new(seed);
        let count = [0, 1, 2, 20, 60][random.below(5)];
        let mut map: Map = (0..count).map(|_| (keys.key(&mut random), values.value(&mut random))).collect();
        let (low, high) = (keys.key(&mut random), keys.key(&mut random));
        let (low, high) =
            if low < high && seed.is_multiple_of(2) { (low, Some(high)) } else { (Vec::new(), None) };
        map.retain(|key, _| *key >= low && high.as_ref().is_none_or(|high| key < high));
        let base = leaf(memory, &map, &low, high.as_deref());
        let next = base.next();
        let model = Model { map, low, high, next };
        Chain { memory, random, keys, values, model, frags: vec![base.into()] }
    }

    /// A key within the fences; the low fence itself at worst.
    fn key(&mut self) -> Vec<u8> {
        let listed: Vec<Vec<u8>> = self.model.map.keys().cloned().collect();
        (0..20)
            .map(|_| self.keys.probe(&mut self.random, &listed))
            .find(|key| self.model.covers(key))
            .unwrap_or_else(|| self.model.low.clone())
    }

    fn step(&mut self) {
        let key = self.key();
        match self.random.below(12) {
            0 if *key > *self.model.low => {
                let right = self.random.below(1000);
                self.model.map.retain(|k, _| *k < key);
                self.model.high = Some(key.clone());
                self.model.next = Some(right);
                self.frags.push(Frag::HalfSplit { separator: key.into(), right });
            }
            1 if self.model.high.is_some() => {
                let old = self.model.high.clone().unwrap_or_default();
                let above = [&old[..], b"a"].concat();
                self.model.high = Some(above).filter(|_| !self.random.chance(3));
                self.model.next = self.model.high.as_ref().map(|_| self.random.below(1000));
                let high = self.model.high.as_deref().map(Box::from);
                let moved = self.moved(&old);
                self.frags.push(Frag::Join(Box::new(Join { high, next: self.model.next, moved })));
            }
            2 => self.many(),
            choice => {
                let value = self.values.value(&mut self.random);
                let change = if choice < 6 { Change::Del } else { Change::Put(&value) };
                let tally = Tally { tree: 3, diff: -1 };
                let ops = match change {
                    Change::Put(value) => Ops::put(self.memory, tally, &key, value),
                    Change::Apart(_) | Change::Del => Ops::del(self.memory, tally, &key),
                }
                .unwrap();
                assert_eq!((ops.len(), ops.tally(), ops.get(&key)), (1, tally, Some(change)));
                self.model.put(&[(&key, change)]);
                self.frags.push(ops.into());
            }
        }
    }

    /// Records that come with a range from `old` on, which no change of before may bring or take.
    fn moved(&mut self, old: &[u8]) -> Option<Ops> {
        let ends: [&[u8]; 3] = [b"", b"\0", b"Z"];
        let keys: Vec<Vec<u8>> = ends.iter().map(|end| [old, end].concat()).collect();
        let values: Vec<Vec<u8>> = keys.iter().map(|_| self.values.value(&mut self.random)).collect();
        let changes: Vec<(&[u8], Change<'_>)> = keys
            .iter()
            .zip(&values)
            .filter(|_| self.random.chance(2))
            .map(|(key, value)| (&**key, Change::Put(value)))
            .collect();
        self.model.put(&changes);
        let tally = Tally { tree: 3, diff: 0 };
        (!changes.is_empty()).then(|| Ops::many(self.memory, tally, &changes).unwrap())
    }

    fn many(&mut self) {
        let count = self.random.below(12);
        let changes: Map = (0..count).map(|_| (self.key(), self.values.value(&mut self.random))).collect();
        let dels: Vec<bool> = changes.iter().map(|_| self.random.chance(3)).collect();
        let changes: Vec<(&[u8], Change<'_>)> = changes
            .iter()
            .zip(dels)
            .map(|((key, value), del)| (&**key, if del { Change::Del } else { Change::Put(value) }))
            .collect();
        let tally = Tally { tree: u64::MAX, diff: i64::MIN };
        let ops = Ops::many(self.memory, tally, &changes).unwrap();
        assert_eq!(ops.iter().collect::<Vec<_>>(), changes);
        assert_eq!((ops.len(), ops.tally()), (changes.len(), tally));
        self.model.put(&changes);
        self.frags.push(ops.into());
    }

    fn check(&mut self, what: &str) {
        let frags: Vec<&Frag> = self.frags.iter().collect();
        let whole = try_merge(self.memory, &frags).expect(what);
        self.check_node(&whole, what);
        let cut = 1 + self.random.below(frags.len());
        let first = merge(self.memory, &frags[..cut]);
        let rest: Vec<&Frag> = [&first].into_iter().chain(frags[cut..].iter().copied()).collect();
        self.check_node(&try_merge(self.memory, &rest).expect(what), what);

        let reached = reach(self.frags.iter().rev()).expect(what);
        assert_eq!((reached.level, reached.low), (0, &*self.model.low), "{what}");
        assert_eq!((reached.high, reached.next), (self.model.high.as_deref(), self.model.next), "{what}");
        let listed: Vec<Vec<u8>> = self.model.map.keys().cloned().collect();
        for _ in 0..20 {
            let probe = self.keys.probe(&mut self.random, &listed);
            let want = match self.model.map.get(&probe) {
                Some(value) => Find::Value(value),
                None if self.model.covers(&probe) => Find::Absent,
                None if probe < self.model.low => Find::Elsewhere,
                None => self.model.next.map_or(Find::Elsewhere, Find::Right),
            };
            let got = find(self.frags.iter().rev(), &probe);
            assert_eq!(got, want, "{what}: {probe:?}");
        }
    }

    fn check_node(&self, node: &Node, what: &str) {
        assert_eq!(contents(node), self.model.map, "{what}");
        assert_eq!((node.low(), node.high()), (&*self.model.low, self.model.high.as_deref()), "{what}");
        assert_eq!((node.next(), node.level()), (self.model.next, 0), "{what}");
        assert_eq!(Node::decode(self.memory, node.bytes()).expect(what).bytes(), node.bytes(), "{what}");
    }
}

#[test]
fn changes_in_front_of_a_leaf_answer_as_a_map_folded_in_whatever_pieces() {
    let memory = PageMemory::new();
    for seed in 0..50 {
        for (keys, values) in KEYS.into_iter().flat_map(|k| VALUES.map(|v| (k, v))) {
            let mut chain = Chain::new(&memory, seed, keys, values);
            for step in 0..25 {
                chain.step();
                chain.check(&format!("seed {seed}, {keys:?}, {values:?}, step {step}: {:?}", chain.frags));
            }
        }
    }
}

/// A leaf whose right half went away and came back empty must not show the old records again.
#[test]
fn a_join_does_not_revive_what_a_half_split_took_away() {
    let memory = PageMemory::new();
    let map: Map = (b'a'..=b'f').map(|key| (vec![key], vec![key])).collect();
    let put = |key: &[u8]| Frag::from(Ops::put(&memory, Tally::default(), key, b"new").unwrap());
    let frags = [
        leaf(&memory, &map, b"", Some(b"x")).into(),
        put(b"e"),
        Frag::HalfSplit { separator: Box::from(&b"d"[..]), right: 5 },
        Frag::Join(Box::new(Join { high: Some(Box::from(&b"z"[..])), next: Some(6), moved: None })),
        put(b"y"),
    ];
    let node = try_merge(&memory, &frags.iter().collect::<Vec<_>>()).unwrap();
    let keys: Vec<Vec<u8>> = contents(&node).into_keys().collect();
    assert_eq!(keys, [b"a", b"b", b"c", b"y"]);
    assert_eq!((node.high(), node.next()), (Some(&b"z"[..]), Some(6)));
    for key in [b"d", b"e", b"f"] {
        assert_eq!(find(frags.iter().rev(), key), Find::Absent);
    }
    assert_eq!(find(frags.iter().rev(), b"y"), Find::Value(b"new"));
    assert_eq!(find(frags.iter().rev(), b"z"), Find::Right(6));
    assert_eq!(find(frags[3..].iter().rev(), b"q"), Find::NeedsBase);
}

#[test]
fn only_changes_of_different_keys_commute() {
    let memory = PageMemory::new();
    let ops = |keys: &[&'static str]| {
        let changes: Vec<(&[u8], Change<'_>)> =
            keys.iter().map(|key| (key.as_bytes(), Change::Del)).collect();
        Frag::from(Ops::many(&memory, Tally::default(), &changes).unwrap())
    };
    let unpost = Frag::Unpost { separator: Box::from(&b"a"[..]) };
    let leaf = Frag::from(Node::empty_leaf(&memory).unwrap());
    for (left, right, want) in [
        (ops(&["a"]), ops(&["a"]), false),
        (ops(&["a"]), ops(&["b"]), true),
        (ops(&["a", "c", "e"]), ops(&["b", "d"]), true),
        (ops(&["a", "c", "e"]), ops(&["b", "e"]), false),
        (ops(&[]), ops(&["b"]), true),
        (unpost.clone(), ops(&["b"]), false),
        (leaf, unpost, false),
    ] {
        assert_eq!(left.commutes(&right), want, "{left:?} {right:?}");
        assert_eq!(right.commutes(&left), want, "{right:?} {left:?}");
    }
}

/// Uses the page cache's own serde encoding.
struct Plain;

impl Materializer for Plain {
    type PageFrag = Frag;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Plain {
        Plain
    }

    fn merge(&self, frags: &[&Frag]) -> Frag {
        frags[0].clone()
    }

    fn recover(&self, _: &Frag) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &Frag) -> usize {
        frag.size_in_bytes()
    }
}

#[test]
fn a_fragment_survives_serde() {
    let memory = PageMemory::new();
    let map = Map::from([(b"k".to_vec(), b"v".to_vec())]);
    let lsn: Lsn = 0;
    for frag in [
        Frag::from(leaf(&memory, &map, b"", Some(b"x"))),
        Ops::put(&memory, Tally::default(), b"k", b"v").unwrap().into(),
        Frag::HalfSplit { separator: Box::from(&b"d"[..]), right: 5 },
    ] {
        let mut bytes = vec![0; Plain.encoded_len(&frag)];
        Plain.encode(&frag, &mut bytes);
        let again = Plain.decode(&bytes).unwrap();
        let (mut left, mut right) = (vec![0; frag.encoded_len()], vec![0; again.encoded_len()]);
        frag.encode(&mut left);
        again.encode(&mut right);
        assert_eq!(left, right);
        assert_eq!(Plain.merge_versions(&[(&frag, lsn)], &[]).encoded_len(), left.len());
        assert!(Plain.decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
