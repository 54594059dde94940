//! Loom models of eviction: a page is written back and leaves memory, beside readers and writers (CACHE-4).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use loom::thread;

use super::{Cell, Head, Word};
use crate::{
    ids::FragmentAddr,
    mem::{PageMemory, Placed},
    page::{
        chain::{Body, Draft, Node, Stamp},
        durable::{Durable, Form, Image},
    },
    reclaim::{Guard, pin},
};

fn node(body: Body<u64>, seq: u64, below: Option<&Node<u64>>) -> Placed<Node<u64>> {
    let draft = Draft { body, seq, stamp: Stamp::At(seq as i64), oldest: seq as i64, charge: 0 };
    match below {
        Some(below) => Node::above(&PageMemory::new(), draft, below),
        None => Node::bottom(&PageMemory::new(), draft),
    }
}

/// A page with change 1 and no durable form.
fn page() -> Cell<u64> {
    let cell = Cell::default();
    cell.restore(None, Word::allocated(0));
    assert!(
        cell.push(Word::allocated(0), node(Body::Base(100), 1, None)).is_ok(),
        "nobody else is there yet"
    );
    cell
}

/// Writes the page back as it is, if nobody else is at it.
fn write_back(cell: &Cell<u64>, guard: &Guard) {
    let Some(claim) = cell.claim() else { return };
    let Head::Chain(top) = cell.head(guard).1 else { return };
    let image = Image::new(FragmentAddr { offset: 4096 * top.seq, len: 64 });
    let durable = Durable { seq: top.seq, form: Form::Page(image) };
    claim.set_durable(Placed::new(&PageMemory::new(), durable), guard);
}

/// Evicts the page if its durable form is current, or whatever it is if nobody looks; says whether it did.
fn evict(cell: &Cell<u64>, looks: bool, guard: &Guard) -> bool {
    let Some(_claim) = cell.claim() else { return false };
    let (word, Head::Chain(top)) = cell.head(guard) else { return false };
    let is_current = cell.durable(guard).is_some_and(|durable| durable.seq == top.seq);
    (is_current || !looks) && cell.set(word, Word::evicted(top.seq), guard)
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// A reader that finds the page evicted must find where it lies, though another change comes in between.
fn read_beside_eviction(looks: bool) {
    let cell = Arc::new(page());
    let evictor = {
        let cell = cell.clone();
        thread::spawn(move || {
            write_back(&cell, &pin());
            if let (word, Head::Chain(top)) = cell.head(&pin()) {
                assert!(
                    cell.push(word, node(Body::Append(1), 2, Some(top))).is_ok(),
                    "nobody else changes it"
                );
            }
            evict(&cell, looks, &pin());
            write_back(&cell, &pin());
            evict(&cell, looks, &pin())
        })
    };
    let guard = pin();
    if let Head::Evicted(seq) = cell.head(&guard).1 {
        let durable = cell.durable(&guard).expect("an evicted page without a durable form");
        assert_eq!(durable.seq, seq, "the durable form is another one");
    }
    assert!(evictor.join().expect("the evictor"), "nobody else was at the page");
}

#[test]
fn loom_who_finds_a_page_evicted_finds_where_it_lies() {
    explore(|| read_beside_eviction(true));
    let weakened = catch_unwind(AssertUnwindSafe(|| explore(|| read_beside_eviction(false))));
    assert!(weakened.is_err(), "the model cannot see that nobody looks at the durable form");
}

/// Two threads write the page back and evict it while a third changes it: the change is in memory, or it was
/// refused because the page had left.
#[test]
fn loom_a_change_beside_write_back_and_eviction_is_not_lost() {
    explore(|| {
        let cell = Arc::new(page());
        let writer = {
            let cell = cell.clone();
            thread::spawn(move || {
                let guard = pin();
                let (word, Head::Chain(top)) = cell.head(&guard) else { return false };
                cell.push(word, node(Body::Append(1), 2, Some(top))).is_ok()
            })
        };
        let other = {
            let cell = cell.clone();
            thread::spawn(move || write_back(&cell, &pin()))
        };
        write_back(&cell, &pin());
        evict(&cell, true, &pin());
        other.join().expect("the other one");
        let changed = writer.join().expect("the writer");
        let guard = pin();
        let durable = cell.durable(&guard).map(|durable| durable.seq);
        match cell.head(&guard).1 {
            Head::Chain(top) => assert_eq!(top.seq, if changed { 2 } else { 1 }, "the change is gone"),
            Head::Evicted(seq) => assert_eq!((durable, seq), (Some(seq), if changed { 2 } else { 1 })),
            _ => unreachable!("nobody frees the page"),
        }
    });
}
