//! Bytes that nobody wrote are refused, or are fragments whose every use is safe.

use std::collections::BTreeMap;

use pagecache::mem::PageMemory;

use super::{
    super::{Change, Find, Frag, Join, Node, Ops, Tally, find, merge, reach, try_merge},
    build::leaf,
    random::Random,
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn encoded(frag: &Frag) -> Vec<u8> {
    let mut bytes = vec![0; frag.encoded_len()];
    frag.encode(&mut bytes);
    bytes
}

fn map(records: &[(&str, &str)]) -> Map {
    records.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// Nodes of every form.
fn nodes(memory: &PageMemory) -> Vec<Frag> {
    let fixed = map(&[("kaa", "1"), ("kab", "2"), ("kba", "3")]);
    let fixed_keys = map(&[("kaa", "1"), ("kab", ""), ("kba", "333")]);
    let fixed_values = map(&[("k", "1"), ("kab", "2"), ("kbaaaa", "3")]);
    let varied = map(&[("k", "1"), ("kab", ""), ("kbaaaa", "333")]);
    let inner = |high: Option<&[u8]>, children: &[(&[u8], usize)]| {
        Node::inner(memory, 1, b"c", high, high.map(|_| 3), 5, children.iter().copied()).unwrap()
    };
    [
        leaf(memory, &fixed, b"k", Some(b"m")),
        leaf(memory, &fixed_keys, b"", None),
        leaf(memory, &fixed_values, b"", Some(b"kz")),
        leaf(memory, &varied, b"k", Some(b"l")),
        leaf(memory, &map(&[]), b"", Some(b"z")),
        leaf(memory, &map(&[("only", "one")]), b"", None),
        inner(Some(b"x"), &[(b"d", 6), (b"da", 7), (b"e", 8)]),
        inner(None, &[(b"d", 6), (b"e", 8)]),
        inner(None, &[]),
    ]
    .map(Frag::from)
    .to_vec()
}

fn join(high: Option<&[u8]>, next: Option<usize>, moved: Option<Ops>) -> Frag {
    Frag::Join(Box::new(Join { high: high.map(Box::from), next, moved }))
}

/// Changes of every form.
fn changes(memory: &PageMemory) -> Vec<Frag> {
    let tally = Tally { tree: 300, diff: -2 };
    let many: [(&[u8], Change<'_>); 3] =
        [(b"kab", Change::Put(b"new")), (b"kb", Change::Del), (b"kc", Change::Put(b""))];
    let moved: [(&[u8], Change<'_>); 2] = [(b"z", Change::Put(b"")), (b"zz", Change::Put(b"new"))];
    let key = |key: &[u8]| Box::<[u8]>::from(key);
    vec![
        Ops::put(memory, tally, b"kab", b"new").unwrap().into(),
        Ops::put(memory, tally, b"", b"").unwrap().into(),
        Ops::del(memory, tally, b"only").unwrap().into(),
        Ops::many(memory, tally, &many).unwrap().into(),
        Ops::many(memory, tally, &[]).unwrap().into(),
        Frag::HalfSplit { separator: key(b"kb"), right: 300 },
        Frag::Post { separator: key(b"dd"), child: 1 << 40 },
        Frag::Unpost { separator: key(b"d") },
        join(Some(b"zz"), Some(2), None),
        join(None, None, None),
        join(Some(b"zz"), Some(2), Some(Ops::put(memory, tally, b"zy", b"new").unwrap())),
        join(None, None, Some(Ops::many(memory, tally, &moved).unwrap())),
        Frag::Damaged("a hole".into()),
    ]
}

/// Calls everything on a node.
fn use_node(memory: &PageMemory, node: &Node) {
    let (low, high) = (node.low().to_vec(), node.high());
    assert!(high.is_none_or(|high| *low < *high));
    let mut before: Option<Vec<u8>> = None;
    for i in 0..node.len() {
        let key = node.key_parts(i).to_vec();
        assert!(node.covers(&key) && before.is_none_or(|before| before < key));
        assert_eq!(node.search(&key), Ok(i));
        assert!(node.record(i).1.len() <= node.bytes().len());
        before = Some(key);
    }
    for i in 0..node.children() {
        assert!(node.child(i) < 1 << 48);
        assert_eq!(node.child_for(&node.child_low(i).to_vec()), node.child(i));
    }
    for probe in [&b""[..], b"k", b"kab", b"zzz"] {
        let _ = (node.get(probe), node.search(probe), node.covers(probe), node.next());
    }
    for append in [false, true] {
        if let Some(at) = node.split_point(append) {
            let split = node.split(memory, at).unwrap();
            let left = node.split_root(memory, at, 1, 2).map(|(left, ..)| left);
            // A root has no fences, so only one without may be split in place.
            assert!(left.is_ok() || node.level() == u8::MAX || split.separator.is_empty(), "{left:?}");
        }
    }
    assert!(Node::decode(memory, node.bytes()).is_ok());
}

/// Calls everything on a fragment, alone and upon every node.
fn use_frag(memory: &PageMemory, frag: &Frag, nodes: &[Frag]) {
    let _ = (format!("{frag:?}"), frag.size_in_bytes(), frag.commutes(frag), reach([frag]));
    for probe in [&b""[..], b"kab", b"zzz"] {
        let _ = find([frag], probe);
    }
    match frag {
        Frag::Node(node) => use_node(memory, node),
        Frag::Ops(ops) => {
            let keys: Vec<&[u8]> = ops.iter().map(|(key, _)| key).collect();
            assert!(keys.is_sorted_by(|left, right| left < right));
            assert!(ops.iter().all(|(key, change)| ops.get(key) == Some(change)));
            let _ = (ops.tally(), ops.get(b"kb"));
        }
        _ => {}
    }
    for node in nodes {
        if let Ok(merged) = try_merge(memory, &[node, frag]) {
            use_node(memory, &merged);
        }
    }
}

fn try_bytes(memory: &PageMemory, bytes: &[u8], nodes: &[Frag]) -> bool {
    let decoded = Frag::decode(memory, bytes);
    let root = decoded.as_ref().map_or(None, |frag| match frag {
        Frag::Catalogue { root } => Some(*root),
        _ => None,
    });
    assert_eq!(Frag::check(bytes).as_ref(), decoded.as_ref().map(|_| &root), "{decoded:?}");
    decoded.is_ok_and(|frag| {
        use_frag(memory, &frag, nodes);
        true
    })
}

#[test]
fn every_fragment_comes_back_from_its_bytes_and_no_node_from_fewer_or_more() {
    let memory = PageMemory::new();
    let nodes = nodes(&memory);
    for frag in nodes.iter().cloned().chain(changes(&memory)) {
        let bytes = encoded(&frag);
        let again = Frag::decode(&memory, &bytes).unwrap();
        assert_eq!(encoded(&again), bytes, "{frag:?}");
        assert_eq!(format!("{again:?}"), format!("{frag:?}"));
        for len in 0..bytes.len() {
            let taken = try_bytes(&memory, &bytes[..len], &nodes);
            assert!(!(taken && frag.node().is_some()), "{frag:?} cut to {len} bytes");
        }
        let longer = try_bytes(&memory, &[&bytes[..], &[0]].concat(), &nodes);
        assert!(!(longer && frag.node().is_some()), "{frag:?} and a byte");
    }
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    let memory = PageMemory::new();
    let nodes = nodes(&memory);
    let (mut refused, mut harmless) = (0, 0);
    for frag in nodes.iter().cloned().chain(changes(&memory)) {
        let mut bytes = encoded(&frag);
        for bit in 0..8 * bytes.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            *(if try_bytes(&memory, &bytes, &nodes) { &mut harmless } else { &mut refused }) += 1;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    assert!(refused > 1000 && harmless > 100, "{refused} refused, {harmless} harmless");
}

#[test]
fn random_damage_is_refused_or_harmless() {
    let memory = PageMemory::new();
    let nodes = nodes(&memory);
    let frags: Vec<Frag> = nodes.iter().cloned().chain(changes(&memory)).collect();
    for seed in 0..15_000 {
        let mut random = Random::new(seed);
        let mut bytes = encoded(&frags[random.below(frags.len())]);
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            let small = [0, 1, 2, 0x7f, 0x80, 0xff][random.below(6)];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if random.chance(2) { small } else { random.next() as u8 };
            }
        }
        try_bytes(&memory, &bytes, &nodes);
    }
}

/// Numbers chosen so that sums and products of them wrap.
#[test]
fn headers_of_huge_numbers_are_refused() {
    let memory = PageMemory::new();
    for frag in nodes(&memory) {
        let bytes = encoded(&frag);
        let numbers = [0_u32, 1, 0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
        for (at, number) in [4, 8, 12, 16, 20, 22, 24].into_iter().flat_map(|at| numbers.map(|n| (at, n))) {
            let mut changed = bytes.clone();
            changed[at..at + 4].copy_from_slice(&number.to_le_bytes());
            let taken = try_bytes(&memory, &changed, &[]);
            // Lengths and counts are pinned by the bytes that are there; a width may be unused.
            assert!(changed == bytes || at > 8 || !taken, "{frag:?}: {number} at {at}");
        }
    }
}

#[test]
fn fragments_that_do_not_fit_each_other_make_a_damaged_page_and_nothing_worse() {
    let memory = PageMemory::new();
    let nodes = nodes(&memory);
    let all: Vec<Frag> = nodes.iter().cloned().chain(changes(&memory)).collect();
    for first in &all {
        for second in &all {
            for third in &all {
                let frags = [first, second, third];
                match (try_merge(&memory, &frags), merge(&memory, &frags)) {
                    (Ok(node), Frag::Node(merged)) => assert_eq!(node.bytes(), merged.bytes()),
                    (Err(error), Frag::Damaged(why)) => assert_eq!(error.0, *why),
                    (left, right) => panic!("{frags:?}: {left:?} {right:?}"),
                }
                for probe in [&b""[..], b"kab", b"kb", b"zz"] {
                    let _ = find(frags.into_iter().rev(), probe);
                }
                let _ = reach(frags.into_iter().rev());
            }
        }
    }
}

#[test]
fn each_misfit_is_named() {
    let memory = PageMemory::new();
    let key = |key: &[u8]| Box::<[u8]>::from(key);
    let put = |key: &[u8]| Frag::from(Ops::put(&memory, Tally::default(), key, b"").unwrap());
    let leaf = Frag::from(leaf(&memory, &map(&[]), b"c", Some(b"m")));
    let edge = Frag::from(Node::empty_leaf(&memory).unwrap());
    let inner = Frag::from(Node::inner(&memory, 1, b"c", Some(b"m"), Some(2), 1, []).unwrap());
    let half = Frag::HalfSplit { separator: key(b"f"), right: 9 };
    let post = |at: &[u8]| Frag::Post { separator: key(at), child: 4 };
    let moved = |key: &[u8]| Some(Ops::put(&memory, Tally::default(), key, b"").unwrap());
    let cases: [(&[&Frag], &str); 14] = [
        (&[], "none of 0 fragments is a node"),
        (&[&half], "none of 1 fragments is a node"),
        (&[&leaf, &put(b"b")], "outside of the fences"),
        (&[&leaf, &put(b"m")], "outside of the fences"),
        (&[&leaf, &half, &put(b"f")], "outside of the fences"),
        (&[&inner, &put(b"d")], "in an inner node"),
        (&[&leaf, &post(b"d")], "posted to a leaf"),
        (&[&inner, &post(b"c")], "posted outside"),
        (&[&inner, &post(b"m")], "posted outside"),
        (&[&leaf, &half, &half], "a half-split outside"),
        (&[&edge, &join(None, None, None)], "a join at the right edge"),
        (&[&leaf, &join(Some(b"m"), Some(1), None)], "a join that takes no range"),
        (&[&leaf, &join(None, None, moved(b"l"))], "a join that moves what its node had"),
        (&[&leaf, &join(Some(b"x"), Some(1), moved(b"x"))], "changes outside of the fences of their leaf"),
    ];
    for (frags, want) in cases {
        let error = try_merge(&memory, frags).unwrap_err();
        assert!(error.0.contains(want), "{frags:?}: {error}");
        let damaged = merge(&memory, frags);
        assert!(matches!(find([&damaged], b"d"), Find::Damaged(why) if why.contains(want)));
        let again = try_merge(&memory, &[&damaged, &half]).unwrap_err();
        assert!(again.0.contains(want), "damage must stay known: {again}");
    }
}
