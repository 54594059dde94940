//! The list of map changes: which parts of the persisted page table are out of date.
//!
//! Every change of a durable word happens under this list's lock and takes its place in it, so the
//! list and the durable words never disagree. A checkpoint takes the whole list, which at that moment
//! is a prefix of all changes there will ever be, together with a copy of the map pages it touches
//! (P-1).

use std::collections::BTreeSet;

use crate::{
    format::map::{Entry, MAP_SPAN, MapPage},
    ids::{Lsn, PageId},
    page::{
        cell::{Claim, Durable, Form},
        pages::Pages,
    },
    reclaim::Guard,
    store::Mark,
};

/// Changes of durable words since the last prefix was taken.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    touched: BTreeSet<u64>,
    newest: Lsn,
    freed: Vec<PageId>,
}

/// A prefix of all changes: what a checkpoint writes.
#[derive(Debug)]
pub(crate) struct Prefix {
    /// The map pages that differ from the last checkpoint, as of this prefix.
    pub(crate) map_pages: Vec<MapPage>,
    /// Largest LSN that some image in the prefix holds.
    pub(crate) newest: Lsn,
    /// Pages that are free as of this prefix and may be allocated again once it is published.
    pub(crate) freed: Vec<PageId>,
    /// Ids below this exist.
    pub(crate) bound: PageId,
    /// Segments emptied before this mark are free once the prefix is published.
    pub(crate) mark: Mark,
}

impl Changes {
    /// Records that the page's durable form is another one now.
    pub(crate) fn record<P: Send + Sync + 'static>(
        &mut self,
        pid: PageId,
        claim: &Claim<'_, P>,
        durable: Durable,
        newest: Lsn,
        guard: &Guard,
    ) {
        claim.set_durable(durable, guard);
        self.touched.insert(pid as u64 / MAP_SPAN);
        self.newest = self.newest.max(newest);
    }

    /// Records that a map page is to be written again though no entry of it changed.
    pub(crate) fn touch(&mut self, number: u64) {
        self.touched.insert(number);
    }

    /// True if every durable word is as the last checkpoint says.
    pub(crate) fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Records that the page is free in its durable form too.
    pub(crate) fn freed(&mut self, pid: PageId) {
        self.freed.push(pid);
    }

    /// Takes the list as it is. The caller holds the list's lock, so the durable words stand still.
    pub(crate) fn take_prefix<P: Send + Sync + 'static>(
        &mut self,
        pages: &Pages<P>,
        mark: Mark,
        guard: &Guard,
    ) -> Prefix {
        let bound = pages.bound();
        let touched = std::mem::take(&mut self.touched);
        let map_pages = touched.into_iter().map(|number| map_page(pages, number, bound, guard)).collect();
        Prefix {
            map_pages,
            newest: std::mem::take(&mut self.newest),
            freed: std::mem::take(&mut self.freed),
            bound,
            mark,
        }
    }

    /// Puts a prefix back that could not be published: it becomes part of the next.
    pub(crate) fn put_back(&mut self, prefix: Prefix) {
        self.touched.extend(prefix.map_pages.iter().map(|page| page.number));
        self.newest = self.newest.max(prefix.newest);
        self.freed.extend(prefix.freed);
    }
}

fn map_page<P: Send + Sync + 'static>(
    pages: &Pages<P>,
    number: u64,
    bound: PageId,
    guard: &Guard,
) -> MapPage {
    let first = (number * MAP_SPAN) as PageId;
    let last = bound.min(first + MAP_SPAN as PageId);
    let entries = (first..last).filter_map(|pid| {
        let entry = map_entry(pages, pid, guard)?;
        Some(((pid - first) as u16, entry))
    });
    MapPage { number, entries: entries.collect() }
}

/// What the persisted table says of a page; `None` for one that is Free with number 0.
fn map_entry<P: Send + Sync + 'static>(pages: &Pages<P>, pid: PageId, guard: &Guard) -> Option<Entry> {
    let durable = pages.cell(pid)?.durable(guard)?;
    let seq = durable.seq;
    Some(match &durable.form {
        Form::Free => Entry::Free { seq },
        Form::Page(_) => Entry::Present { seq, parts: durable.parts().collect() },
        Form::Value(extents) => Entry::Value { seq, extents: extents.as_ref().clone() },
    })
}
