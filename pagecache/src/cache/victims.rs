//! Which pages leave memory first.
//!
//! Two queues. A page that was just fetched is on *probation*, in the order in which pages came; whoever
//! comes back to it before it reaches the front takes it off. All others stand under the *clock*: a hand
//! passes over the cells and takes those that nobody touched since its last pass; it leaves out the parts of
//! the table that nobody has asked for, of which nothing is in memory. When what is on probation exceeds a
//! tenth of the memory for pages, all that is wanted comes from there, so a scan pushes out what it brought
//! in itself and the hand stands still. (The two queues of S3-FIFO, Yang et al., SOSP 2023, with a clock for
//! the second.)
//!
//! Nothing here is exact, nor need it be: an entry of a page that has left or was touched is passed over.

use std::collections::VecDeque;

use super::Cache;
use crate::{
    ids::PageId,
    materializer::Materializer,
    page::cell::Head,
    reclaim::{Guard, pin},
};

/// Part of the memory for pages that those on probation may have before they go first.
const PROBATION_DIVISOR: usize = 10;
/// Pages chosen at one time.
const VICTIMS_MAX: usize = 64;
/// Pages in memory that are looked at for it, and cells: who chooses does it for everybody, and not long.
const PAGES_MAX: usize = 1024;
const CELLS_MAX: usize = 32 << 10;

/// Where the hand stands, and who is on probation.
#[derive(Debug, Default)]
pub(crate) struct Victims {
    hand: PageId,
    /// Pages that were fetched, and the bytes that each had then.
    probation: VecDeque<(PageId, usize)>,
    probation_bytes: usize,
}

/// What becomes of the touch of a page that is passed over.
#[derive(Clone, Copy)]
enum Passed {
    /// It goes from probation under the clock, and keeps it for one round of the hand.
    Promoted,
    /// It is taken, until somebody comes back once more.
    Forgotten,
}

impl Victims {
    /// A page was fetched.
    pub(super) fn admit(&mut self, pid: PageId, bytes: usize) {
        self.probation.push_back((pid, bytes));
        self.probation_bytes += bytes;
    }

    fn pop(&mut self) -> Option<PageId> {
        let (pid, bytes) = self.probation.pop_front()?;
        self.probation_bytes -= bytes;
        Some(pid)
    }
}

impl<M: Materializer> Cache<M> {
    /// Pages to evict, until they have `bytes` or enough were looked at.
    pub(super) fn choose_victims(&self, victims: &mut Victims, bytes: usize) -> Vec<PageId> {
        let guard = pin();
        let mut chosen = Vec::new();
        let mut found = 0;
        let mut left = PAGES_MAX;
        let mut take = |pid, left: &mut usize, passed: Passed| {
            let charge = self.untouched(pid, left, passed, &guard);
            found += charge.unwrap_or(0);
            chosen.extend(charge.map(|_| pid));
            found < bytes && chosen.len() < VICTIMS_MAX && *left > 0
        };
        let limit = self.pages_max() / PROBATION_DIVISOR;
        if victims.probation_bytes > limit {
            while let Some(pid) = victims.pop() {
                if !take(pid, &mut left, Passed::Promoted) {
                    return chosen;
                }
            }
        }
        let bound = self.pages.bound();
        for _ in 0..CELLS_MAX.min(2 * bound) {
            let pid = victims.hand;
            let unread = self.pages.spans.skip(pid);
            let next = unread.unwrap_or(pid + 1);
            victims.hand = if next < bound { next } else { 0 };
            if unread.is_none() && !take(pid, &mut left, Passed::Forgotten) {
                return chosen;
            }
        }
        while let Some(pid) = victims.pop() {
            if !take(pid, &mut left, Passed::Promoted) {
                break;
            }
        }
        chosen
    }

    /// Bytes of a page that nobody has touched since it was asked for last; `None` for any other.
    fn untouched(&self, pid: PageId, left: &mut usize, passed: Passed, guard: &Guard) -> Option<usize> {
        let cell = self.pages.cell(pid)?;
        let Head::Chain(top) = cell.head(guard).1 else { return None };
        *left -= 1;
        let is_touched = match passed {
            Passed::Promoted => cell.is_touched(),
            Passed::Forgotten => cell.take_touch(),
        };
        (!is_touched).then(|| top.chain_charge())
    }
}
