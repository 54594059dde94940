//! Which base of a chain is its ground, and what lies above it.

use std::{ptr, sync::Arc};

use super::{ALL_DURABLE, ALL_MARKS, Body, Draft, Node, Stamp, free_chain};
use crate::{
    ids::{Lsn, PageSeq},
    mem::{PageMemory, Placed},
    page::slot::Slot,
};

fn draft(body: Body<u8>, seq: PageSeq, stamp: Stamp) -> Draft<u8> {
    let oldest = match stamp {
        Stamp::At(lsn) => lsn,
        Stamp::Slot(_) => ALL_DURABLE,
    };
    Draft { body, seq, stamp, oldest, charge: 1 }
}

/// An old page with a change at 10, and a batch that begins it anew above.
fn begun_anew(memory: &PageMemory, slot: &Arc<Slot>) -> Placed<Node<u8>> {
    let old = Node::bottom(memory, draft(Body::Base(1), 1, Stamp::At(10)));
    Node::atop(memory, draft(Body::Base(2), 2, Stamp::Slot(slot.clone())), old)
}

fn change_above(memory: &PageMemory, top: Placed<Node<u8>>, lsn: Lsn) -> Placed<Node<u8>> {
    let seq = top.seq + 1;
    Node::marked_atop(memory, draft(Body::Append(3), seq, Stamp::At(lsn)), 0b100, top)
}

fn ground_of(top: &Node<u8>) -> Option<PageSeq> {
    top.ground().map(|ground| ground.seq)
}

#[test]
fn the_base_of_a_batch_that_committed_is_ground_for_what_comes_above_it() {
    let memory = PageMemory::new();
    let slot = Arc::new(Slot::new());
    let base = begun_anew(&memory, &slot);
    assert_eq!(ground_of(&base), Some(1), "while the batch is pending, the page is what it was");
    slot.commit(15, 20);
    assert_eq!(ground_of(&base), Some(2));
    let top = change_above(&memory, change_above(&memory, base, 30), 40);
    assert_eq!(ground_of(&top), Some(2));
    assert!(ptr::eq(top.ground().unwrap(), top.below().unwrap().below().unwrap()));
    assert_eq!((top.slotted, top.pending(), top.marks), (0, 0, 0b100));
    // What the base replaced lies below the ground and holds the log all the same.
    assert_eq!((top.oldest_above(0), top.ground().unwrap().oldest_above(0)), (10, 10));
    assert_eq!((top.oldest_above(1), top.oldest_above(2), top.oldest_above(4)), (15, 30, ALL_DURABLE));
    free_chain(top);
}

#[test]
fn a_base_that_was_pending_or_given_up_is_not_ground_for_what_came_above_it() {
    let memory = PageMemory::new();
    for commits_later in [false, true] {
        let slot = Arc::new(Slot::new());
        let base = begun_anew(&memory, &slot);
        if !commits_later {
            slot.abort();
        }
        let top = change_above(&memory, base, 30);
        if commits_later {
            slot.commit(15, 20);
        }
        let ground = ground_of(&top);
        assert_eq!((ground, top.slotted, top.marks), (Some(1), 1, ALL_MARKS), "{commits_later}");
        free_chain(top);
    }
}
