//! Loom models of chains and slots: installs, folds and batches against readers.
//!
//! Each model is small enough to be explored whole, and comes with one weakened ordering that must
//! fail, so that a model that sees too little is noticed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use loom::thread;

use super::{Cell, Head, Word};
use crate::{
    mem::{PageMemory, Placed},
    page::{
        chain::{Body, Draft, Node, Stamp},
        durable::{Durable, Form},
        slot::{Slot, SlotState},
        spans::Spans,
    },
    reclaim::pin,
    sync::{AtomicU64, Ordering},
};

/// A fragment whose bytes are written after it was made, as a real one's are: a reader that reaches
/// it without synchronisation may see it empty.
struct Frag(AtomicU64);

impl Frag {
    fn new(value: u64) -> Frag {
        let frag = Frag(AtomicU64::new(0));
        frag.0.store(value, Ordering::Relaxed);
        frag
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn draft(body: Body<Frag>, seq: u64, stamp: Stamp) -> Draft<Frag> {
    Draft { body, seq, stamp, oldest: seq as i64, charge: 0 }
}

fn base(value: u64, seq: u64) -> Placed<Node<Frag>> {
    Node::bottom(&PageMemory::new(), draft(Body::Base(Frag::new(value)), seq, Stamp::At(1)))
}

/// An Allocated page with a base in it.
fn page(value: u64) -> Cell<Frag> {
    let cell = Cell::default();
    cell.restore(None, Word::allocated(0));
    assert!(cell.push(Word::allocated(0), base(value, 1)).is_ok(), "nobody else is there yet");
    cell
}

/// Adds a delta, again and again until it wins.
fn add(cell: &Cell<Frag>, value: u64) {
    loop {
        let guard = pin();
        let (word, head) = cell.head(&guard);
        let Head::Chain(top) = head else { unreachable!("the page has a base") };
        let delta = draft(Body::Append(Frag::new(value)), top.seq + 1, Stamp::At(top.seq as i64 + 1));
        if cell.push(word, Node::above(&PageMemory::new(), delta, top)).is_ok() {
            return;
        }
    }
}

/// Folds the chain into one base, if nobody changes it meanwhile.
fn fold(cell: &Cell<Frag>) {
    let guard = pin();
    let (word, head) = cell.head(&guard);
    let Head::Chain(top) = head else { unreachable!("the page has a base") };
    let _lost_is_no_harm = cell.replace(word, base(sum(top), top.seq), &guard);
}

fn sum(top: &Node<Frag>) -> u64 {
    let mut sum = 0;
    for node in top.walk() {
        match &node.body {
            Body::Append(frag) => sum += frag.value(),
            Body::Base(frag) => return sum + frag.value(),
            Body::Free => unreachable!("nobody frees the page"),
        }
    }
    unreachable!("a chain ends in a base")
}

fn total(cell: &Cell<Frag>) -> u64 {
    let guard = pin();
    match cell.head(&guard).1 {
        Head::Chain(top) => sum(top),
        _ => unreachable!("the page has a base"),
    }
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

#[test]
fn loom_two_installs_and_a_reader_lose_nothing_and_see_whole_fragments() {
    explore(|| {
        let cell = Arc::new(page(100));
        let writers = [1, 10].map(|value| {
            let cell = cell.clone();
            thread::spawn(move || add(&cell, value))
        });
        assert!([100, 101, 110, 111].contains(&total(&cell)), "a reader saw half a fragment");
        writers.map(|writer| writer.join().expect("a writer"));
        assert_eq!(total(&cell), 111, "an install was lost");
    });
}

#[test]
fn loom_a_fold_beside_an_install_keeps_the_install() {
    explore(|| {
        let cell = Arc::new(page(100));
        add(&cell, 1);
        let writer = {
            let cell = cell.clone();
            thread::spawn(move || add(&cell, 10))
        };
        fold(&cell);
        assert!([101, 111].contains(&total(&cell)));
        writer.join().expect("the writer");
        assert_eq!(total(&cell), 111, "the fold dropped an install");
    });
}

fn publish_a_base(publish: Ordering) {
    let cell = Arc::new(Cell::default());
    cell.restore(None, Word::allocated(0));
    let writer = {
        let cell = cell.clone();
        thread::spawn(move || assert!(cell.push_as(Word::allocated(0), base(7, 1), publish)))
    };
    let guard = pin();
    if let Head::Chain(top) = cell.head(&guard).1 {
        assert_eq!(sum(top), 7, "the base is not whole");
    }
    writer.join().expect("the writer");
}

#[test]
fn loom_an_install_that_publishes_nothing_is_noticed() {
    explore(|| publish_a_base(Ordering::SeqCst));
    let weakened = catch_unwind(AssertUnwindSafe(|| explore(|| publish_a_base(Ordering::Relaxed))));
    assert!(weakened.is_err(), "the model cannot see a missing Release");
}

/// Two pages, one batch: whoever sees the batch on one page finds it on the other.
fn commit_two_pages(publish: Ordering) {
    let pages = Arc::new([page(0), page(0)]);
    // Loom orders an access only against the last one to the same object: a counter that both threads
    // touch before every step makes it try every interleaving of the steps.
    let steps = Arc::new(AtomicU64::new(0));
    let writer = {
        let (pages, steps) = (pages.clone(), steps.clone());
        thread::spawn(move || {
            let slot = Arc::new(Slot::new());
            let guard = pin();
            for cell in pages.iter() {
                let (word, Head::Chain(top)) = cell.head(&guard) else { unreachable!("the page has a base") };
                let pending = draft(Body::Append(Frag::new(1)), 2, Stamp::Slot(slot.clone()));
                steps.fetch_add(1, Ordering::Relaxed);
                assert!(cell.push(word, Node::above(&PageMemory::new(), pending, top)).is_ok());
            }
            steps.fetch_add(1, Ordering::Relaxed);
            slot.commit_as(5, 9, publish);
        })
    };
    let shows = |cell: &Cell<Frag>| {
        let guard = pin();
        steps.fetch_add(1, Ordering::Relaxed);
        let Head::Chain(top) = cell.head(&guard).1 else { unreachable!("the page has a base") };
        steps.fetch_add(1, Ordering::Relaxed);
        top.state() == SlotState::Committed(9)
    };
    // The second page was installed after the first: only the flip orders it for this reader.
    if shows(&pages[0]) {
        assert!(shows(&pages[1]), "the batch shows on one page and not on the other");
    }
    writer.join().expect("the writer");
}

#[test]
fn loom_a_batch_shows_on_all_of_its_pages_at_once() {
    explore(|| commit_two_pages(Ordering::Release));
    let weakened = catch_unwind(AssertUnwindSafe(|| explore(|| commit_two_pages(Ordering::Relaxed))));
    assert!(weakened.is_err(), "the model cannot see a missing Release");
}

/// Whoever sees a batch committed sees where its first record lies: what a checkpoint keeps the log for.
fn commit_a_run(publish: Ordering) {
    let slot = Arc::new(Slot::new());
    let writer = {
        let slot = slot.clone();
        thread::spawn(move || slot.commit_as(5, 9, publish))
    };
    if slot.state() == SlotState::Committed(9) {
        assert_eq!(slot.first(), 5, "the log would be used again from the last record on");
    }
    writer.join().expect("the writer");
}

#[test]
fn loom_a_committed_run_names_its_first_record() {
    explore(|| commit_a_run(Ordering::Release));
    let weakened = catch_unwind(AssertUnwindSafe(|| explore(|| commit_a_run(Ordering::Relaxed))));
    assert!(weakened.is_err(), "the model cannot see a missing Release");
}

/// A page is filled in while a reader looks: whoever sees that it is evicted finds where it lies.
fn fill_a_cell(publish: Ordering) {
    let cell: Arc<Cell<Frag>> = Arc::new(Cell::default());
    let filler = {
        let cell = cell.clone();
        thread::spawn(move || {
            let durable = Durable { seq: 7, form: Form::Free };
            cell.restore_as(Some(Placed::new(&PageMemory::new(), durable)), Word::evicted(7).0, publish);
        })
    };
    let guard = pin();
    if let Head::Evicted(seq) = cell.head(&guard).1 {
        let durable = cell.durable(&guard).expect("an evicted page lies somewhere");
        assert_eq!(durable.seq, seq);
    }
    filler.join().expect("the filler");
}

#[test]
fn loom_a_page_that_shows_says_where_it_lies() {
    explore(|| fill_a_cell(Ordering::Release));
    let weakened = catch_unwind(AssertUnwindSafe(|| explore(|| fill_a_cell(Ordering::Relaxed))));
    assert!(weakened.is_err(), "the model cannot see a missing Release");
}

/// A span is filled and marked while somebody looks at the mark: it stands for every cell of the span.
fn mark_a_span(publish: Ordering) {
    let cells = Arc::new([Cell::default(), Cell::default()]);
    let spans = Arc::new(Spans::new(2));
    let filler = {
        let (cells, spans) = (cells.clone(), spans.clone());
        thread::spawn(move || {
            cells.iter().for_each(|cell: &Cell<Frag>| cell.restore(None, Word::free(3)));
            spans.mark_as(0, publish);
        })
    };
    if spans.is_filled(1) {
        let guard = pin();
        let is_free = |cell: &Cell<Frag>| matches!(cell.head(&guard).1, Head::Free(3));
        assert!(cells.iter().all(is_free), "a page of a filled span passes for one that never was");
    }
    filler.join().expect("the filler");
}

#[test]
fn loom_the_mark_of_a_span_stands_for_all_of_its_cells() {
    explore(|| mark_a_span(Ordering::Release));
    let weakened = catch_unwind(AssertUnwindSafe(|| explore(|| mark_a_span(Ordering::Relaxed))));
    assert!(weakened.is_err(), "the model cannot see a missing Release");
}
