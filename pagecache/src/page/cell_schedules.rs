//! A page's cell in every order of its parties: who changes the page, who writes it back, who evicts it and who
//! brings it back.
//!
//! Each step is one access to one of the cell's words. Where a durable form lies is not the cell's business:
//! here it is a number, the sum of the page as of its sequence number.

use std::collections::BTreeMap;

use super::{Cell, Claim, Head, Word};
use crate::{
    ids::{FragmentAddr, PageSeq},
    mem::{PageMemory, Placed},
    page::{
        chain::{Body, Draft, Node, Stamp},
        durable::{Durable, Form, Image},
    },
    reclaim::pin,
    schedules::{Step, each_order, some_order_fails},
};

/// What somebody saw of the page.
#[derive(Clone, Copy)]
struct Look {
    word: Word<u64>,
    seq: PageSeq,
    /// What the chain adds up to, if there is one.
    sum: Option<u64>,
}

/// What one thread knows from its earlier steps.
#[derive(Default)]
struct Local {
    look: Option<Look>,
    claim: Option<Claim<'static, u64>>,
    durable: Option<PageSeq>,
}

struct Page {
    memory: PageMemory,
    cell: &'static Cell<u64>,
    /// The file: what the page's durable form of a number adds up to.
    file: BTreeMap<PageSeq, u64>,
    /// What all changes that went through add up to.
    total: u64,
    writer: Local,
    back: Local,
    evictor: Local,
    reader: Local,
}

fn base(memory: &PageMemory, seq: PageSeq, sum: u64) -> Placed<Node<u64>> {
    Node::bottom(memory, Draft { body: Body::Base(sum), seq, stamp: Stamp::At(1), oldest: 1, charge: 0 })
}

fn durable(memory: &PageMemory, seq: PageSeq) -> Placed<Durable> {
    let image = Image::new(FragmentAddr { offset: seq, len: 1 });
    Placed::new(memory, Durable { seq, form: Form::Page(image) })
}

/// A page whose change 1 is durable and whose change 2 is not.
fn new() -> Page {
    let memory = PageMemory::new();
    // For a claim to be kept between steps; a few bytes for each order.
    let cell: &'static Cell<u64> = Box::leak(Box::default());
    cell.restore(Some(durable(&memory, 1)), Word::allocated(0));
    assert!(cell.replace(Word::allocated(0), base(&memory, 2, 12), &pin()).is_ok());
    Page {
        memory,
        cell,
        file: BTreeMap::from([(1, 2)]),
        total: 12,
        writer: Local::default(),
        back: Local::default(),
        evictor: Local::default(),
        reader: Local::default(),
    }
}

impl Page {
    fn look(&self) -> Look {
        let guard = pin();
        let (word, head) = self.cell.head(&guard);
        match head {
            Head::Chain(top) => {
                let frags = top.walk().map(|node| match node.body {
                    Body::Base(frag) | Body::Append(frag) => frag,
                    Body::Free => unreachable!("nobody frees the page"),
                });
                Look { word, seq: top.seq, sum: Some(frags.sum()) }
            }
            Head::Evicted(seq) => Look { word, seq, sum: None },
            _ => unreachable!("nobody frees the page"),
        }
    }

    fn durable_seq(&self) -> PageSeq {
        self.cell.durable(&pin()).expect("it was written once").seq
    }
}

fn link(page: &mut Page) {
    let (look, guard) = (page.writer.look.expect("the writer has looked"), pin());
    let (word, Head::Chain(top)) = page.cell.head(&guard) else { return };
    // A key that is outdated is refused before anything is made.
    if word != look.word {
        return;
    }
    let draft =
        Draft { body: Body::Append(100), seq: look.seq + 1, stamp: Stamp::At(2), oldest: 2, charge: 0 };
    if page.cell.push(look.word, Node::above(&page.memory, draft, top)).is_ok() {
        page.total += 100;
    }
}

const WRITER: &[Step<Page>] = &[|page| page.writer.look = Some(page.look()), link];

fn claim_back(page: &mut Page) {
    page.back.claim = page.cell.claim();
}

/// The image goes to the file.
fn write_image(page: &mut Page) {
    let look = page.look();
    page.back.look = Some(look).filter(|_| page.back.claim.is_some());
    if let (Some(Look { seq, .. }), Some(sum)) = (page.back.look, look.sum) {
        page.file.insert(seq, sum);
    }
}

fn record(page: &mut Page) {
    let Some(look) = page.back.look.filter(|look| look.sum.is_some()) else { return page.back.claim = None };
    if let Some(claim) = page.back.claim.take() {
        claim.set_durable(durable(&page.memory, look.seq), &pin());
    }
}

const BACK: &[Step<Page>] = &[claim_back, write_image, record];

fn claim_to_evict(page: &mut Page) {
    page.evictor.claim = page.cell.claim();
}

fn compare(page: &mut Page) {
    let look = page.look();
    let is_durable = page.evictor.claim.is_some() && look.seq == page.durable_seq();
    page.evictor.look = Some(look).filter(|_| is_durable);
}

fn evict(page: &mut Page) {
    if let Some(look) = page.evictor.look {
        // If the page was changed meanwhile, it stays.
        let _ = page.cell.set(look.word, Word::evicted(look.seq), &pin());
    }
    page.evictor.claim = None;
}

const EVICTOR: &[Step<Page>] = &[claim_to_evict, compare, evict];

fn fetch(page: &mut Page) {
    let Some(look) = page.reader.look.filter(|look| look.sum.is_none()) else { return };
    let seq = page.reader.durable.expect("the reader has looked");
    // Whoever brings a page back takes its durable form for what the evicted word says.
    let sum = page.file[&seq];
    let _ = page.cell.replace(look.word, base(&page.memory, look.seq, sum), &pin());
}

const READER: &[Step<Page>] = &[
    |page| page.reader.look = Some(page.look()),
    |page| page.reader.durable = Some(page.durable_seq()),
    fetch,
];

/// The page, wherever it is, adds up to all changes that went through.
fn end(page: &mut Page) {
    let look = page.look();
    let sum = look.sum.unwrap_or_else(|| page.file[&page.durable_seq()]);
    assert_eq!(sum, page.total, "a change was lost, or came back");
    assert!(look.sum.is_some() || look.seq == page.durable_seq(), "evicted, and its durable form is another");
    assert!(page.cell.claim().is_some(), "a claim was kept");
}

#[test]
fn in_no_order_does_a_page_lose_a_change_between_memory_and_file() {
    let orders = each_order(new, &[WRITER, BACK, EVICTOR, READER], end);
    assert_eq!(orders, 92_400);
}

#[test]
fn each_step_of_write_back_and_eviction_is_needed() {
    // Evicted without a look at what is durable.
    let blind: &[Step<Page>] = &[claim_to_evict, |page| page.evictor.look = Some(page.look()), evict];
    assert!(some_order_fails(new, &[WRITER, BACK, blind], end));
    // Evicted as it is by then, not as it was compared.
    let careless: &[Step<Page>] =
        &[claim_to_evict, compare, |page| page.evictor.look = page.evictor.look.map(|_| page.look()), evict];
    assert!(some_order_fails(new, &[WRITER, BACK, careless], end));
    // Recorded as of the number that the page has by then, not of what was written.
    let late: &[Step<Page>] =
        &[claim_back, write_image, |page| page.back.look = page.back.look.map(|_| page.look()), record];
    assert!(some_order_fails(new, &[WRITER, late, EVICTOR], end));
}
