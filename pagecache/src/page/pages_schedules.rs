//! A freed page id in every order of its parties: who frees the page, who takes a checkpoint, and who wants ids.

use super::Pages;
use crate::{
    ids::PageId,
    page::cell::{Head, Word},
    reclaim::pin,
    schedules::{Step, each_order, some_order_fails},
};

/// A store of one page, which has content.
struct Ids {
    pages: Pages<u64>,
    page: PageId,
    /// Free in the durable words, and in no checkpoint yet.
    freed: Vec<PageId>,
    prefix: Vec<PageId>,
    /// The superblocks say that the page is free.
    is_published: bool,
    handed_out: Vec<PageId>,
}

const SEQ: u64 = 7;

fn new() -> Ids {
    let pages = Pages::new();
    // What epochs add is another test's business; here an id is free as soon as it is given back.
    pages.reuse_at_once();
    let page = pages.allocate(&pin()).expect("ids are left");
    let cell = pages.cell(page).expect("it was handed out");
    assert!(cell.set(Word::allocated(0), Word::evicted(SEQ), &pin()));
    Ids { pages, page, freed: Vec::new(), prefix: Vec::new(), is_published: false, handed_out: Vec::new() }
}

/// In one step with its place in the list of map changes (CACHE-3).
const FREER: &[Step<Ids>] = &[|ids| {
    let cell = ids.pages.cell(ids.page).expect("it was handed out");
    assert!(cell.set(Word::evicted(SEQ), Word::free(SEQ + 1), &pin()));
    ids.freed.push(ids.page);
}];

fn fix(ids: &mut Ids) {
    ids.prefix = std::mem::take(&mut ids.freed);
}

fn publish(ids: &mut Ids) {
    ids.is_published |= ids.prefix.contains(&ids.page);
}

fn give_back(ids: &mut Ids) {
    ids.pages.give_back(std::mem::take(&mut ids.prefix), &pin());
}

const CHECKPOINT: &[Step<Ids>] = &[fix, publish, give_back];

fn allocate(ids: &mut Ids) {
    let pid = ids.pages.allocate(&pin()).expect("ids are left");
    assert!(!ids.handed_out.contains(&pid), "handed out twice");
    if pid == ids.page {
        assert!(ids.is_published, "a crash brings the old page back under its new owner (PAGES-2)");
        let guard = pin();
        let head = ids.pages.cell(pid).expect("it is there").head(&guard).1;
        assert!(matches!(head, Head::Allocated(seq) if seq == SEQ + 1), "numbers only grow (CELL-2)");
    }
    ids.handed_out.push(pid);
}

const USER: &[Step<Ids>] = &[allocate, allocate];

/// After one more checkpoint the page's id is in use, or it is the next to be had.
fn end(ids: &mut Ids) {
    CHECKPOINT.iter().for_each(|step| step(ids));
    let is_in_use = ids.handed_out.contains(&ids.page);
    allocate(ids);
    assert!(is_in_use || ids.handed_out.last() == Some(&ids.page), "the id is lost");
}

#[test]
fn in_no_order_is_an_id_handed_out_that_a_crash_would_give_back_to_its_page() {
    assert_eq!(each_order(new, &[FREER, CHECKPOINT, USER, USER], end), 1680);
}

#[test]
fn an_id_that_is_given_back_before_its_free_is_published_comes_too_early() {
    assert!(some_order_fails(new, &[FREER, &[fix, give_back, publish], USER], end));
    let forgetful: &[Step<Ids>] = &[|ids| ids.prefix = ids.freed.clone(), publish, give_back];
    assert!(some_order_fails(new, &[FREER, forgetful, USER], end), "the same id is listed again");
}
