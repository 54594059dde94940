//! Times of the node's hot calls, in nanoseconds. Run with
//! `cargo test --release -p tree node::bench -- --ignored --nocapture`.

use std::{hint::black_box, time::Instant};

use pagecache::mem::PageMemory;

use super::{Frag, Node, Ops, Tally, merge};

const RECORDS: u64 = 46;

fn key(i: u64) -> Vec<u8> {
    format!("user{:020}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).into_bytes()
}

fn time(name: &str, rounds: u32, mut run: impl FnMut(u32)) {
    (0..rounds / 10).for_each(&mut run);
    let start = Instant::now();
    (0..rounds).for_each(&mut run);
    println!("{name:40} {:8.1} ns", start.elapsed().as_nanos() as f64 / f64::from(rounds));
}

#[test]
#[ignore = "prints times, proves nothing"]
fn times() {
    let memory = PageMemory::new();
    let mut keys: Vec<Vec<u8>> = (0..RECORDS).map(key).collect();
    keys.sort();
    let value = [7; 150];
    let records = || keys.iter().map(|key| (&**key, &value[..]));
    let leaf = Node::leaf(&memory, &[], None, None, records()).unwrap();
    println!("{leaf:?}, {} bytes charged", leaf.charged_bytes());
    let absent: Vec<Vec<u8>> = keys.iter().map(|k| [&k[..23], b"~"].concat()).collect();
    let at = |i: u32| i.wrapping_mul(2_654_435_761) as usize % keys.len();
    time("get, present", 1_000_000, |i| {
        black_box(leaf.get(black_box(&keys[at(i)])));
    });
    time("get, absent", 1_000_000, |i| {
        black_box(leaf.get(black_box(&absent[at(i)])));
    });
    let separators: Vec<Vec<u8>> = (1..300_u64).map(|i| key(i)[..9].to_vec()).collect();
    let mut sorted = separators.clone();
    sorted.sort();
    sorted.dedup();
    let inner = Node::inner(&memory, 1, &[], None, None, 9, sorted.iter().map(|k| (&**k, 7))).unwrap();
    println!("{inner:?}");
    time("child_for", 1_000_000, |i| {
        black_box(inner.child_for(black_box(&keys[at(i)])));
    });
    time("Ops::put", 300_000, |i| {
        black_box(Ops::put(&memory, Tally::default(), &keys[at(i)], &value).unwrap());
    });
    let mut encoded = vec![0; leaf.bytes().len()];
    Frag::Node(leaf.clone()).encode(&mut encoded);
    time("decode", 50_000, |_| {
        black_box(Node::decode(&memory, &encoded).unwrap());
    });
    time("build from records", 50_000, |_| {
        black_box(Node::leaf(&memory, &[], None, None, records()).unwrap());
    });
    for changes in [1, 4, 8, 16] {
        let mut frags = vec![Frag::Node(leaf.clone())];
        for i in 0..changes {
            let key = if i % 2 == 0 { &absent[at(i)] } else { &keys[at(i)] };
            frags.push(Ops::put(&memory, Tally::default(), key, &value).unwrap().into());
        }
        let frags: Vec<&Frag> = frags.iter().collect();
        time(&format!("merge of {changes}"), 50_000, |_| {
            black_box(merge(&memory, &frags));
        });
        let longer = Ops::put(&memory, Tally::default(), &absent[3], &value[1..]).unwrap().into();
        let frags: Vec<&Frag> = frags.iter().copied().chain([&longer]).collect();
        time(&format!("merge of {changes} and another width"), 50_000, |_| {
            black_box(merge(&memory, &frags));
        });
    }
    time("split point and split", 50_000, |_| {
        black_box(leaf.split(&memory, leaf.split_point(false).unwrap()).unwrap());
    });
}
