//! Iterators: a leaf at each end, and the bounds of what is left between them.
//!
//! An iterator holds no guard and no lock. It holds the leaf that it is in at either end, as it was
//! on arrival, and goes on by key and fence. After an error it ends. Long values are lent: they point
//! into their leaf, until an eighth of the memory is on loan; from there on they are copied. Values that live
//! apart are read at the step that returns them.

use std::{fmt, ops::Bound};

use pagecache::{PageId, mem::Lent};

use crate::{
    IVec, Result,
    node::{Apart, Node},
    ops::{Core, Leaf, Part},
};

/// Keys from `low` on, below `high` if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    low: IVec,
    high: Option<IVec>,
}

/// The least key above `key`.
fn after(key: &[u8]) -> IVec {
    IVec::joined(key, &[0])
}

impl Range {
    pub(crate) fn new<K: AsRef<[u8]>>(start: Bound<&K>, end: Bound<&K>) -> Range {
        let low = match start {
            Bound::Unbounded => IVec::default(),
            Bound::Included(key) => IVec::from(key.as_ref()),
            Bound::Excluded(key) => after(key.as_ref()),
        };
        let high = match end {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(after(key.as_ref())),
            Bound::Excluded(key) => Some(IVec::from(key.as_ref())),
        };
        Range { low, high }
    }

    pub(crate) fn of_prefix(prefix: &[u8]) -> Range {
        // The least key above all that begin with the prefix: its last byte below 255, raised.
        let high = prefix.iter().rposition(|&byte| byte < u8::MAX).map(|at| {
            let mut high = prefix[..=at].to_vec();
            high[at] += 1;
            IVec::from(high)
        });
        Range { low: IVec::from(prefix), high }
    }

    fn is_empty(&self) -> bool {
        self.high.as_ref().is_some_and(|high| *high <= self.low)
    }
}

/// A leaf, and which of its records are still to come.
struct Stretch {
    leaf: Leaf,
    from: usize,
    to: usize,
    loan: Loan,
    /// False if every value of the leaf is in it, as is usual.
    may_hold_apart: bool,
    /// The leaf behind this one, and how far it was asked for. Only going up.
    ahead: Option<(PageId, Part)>,
    /// The next part is asked for when this record is reached.
    ask_at: usize,
    /// The key of the value that could not be read.
    failed: Option<IVec>,
}

/// Records before the end of a leaf at which a part of the next is asked for, and records between two parts at
/// least: a wait for memory takes about as long as two records.
const ASK_BEFORE: [(Part, usize); 3] = [(Part::Entry, 9), (Part::Newest, 6), (Part::Base, 3)];
const ASK_APART: usize = 2;

/// What of an entry is of interest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Entries,
    Keys,
}

/// Whether values may point into their leaf.
enum Loan {
    /// Nobody has asked yet.
    Unasked,
    Granted(Lent),
    /// Too much is lent, or too few records would profit: they are copied.
    Refused,
}

impl Stretch {
    fn within(leaf: Leaf, range: &Range) -> Stretch {
        let from = leaf.search_range(&range.low).unwrap_or_else(|at| at);
        let to = range.high.as_ref().map_or(leaf.len(), |high| position(&leaf, high));
        let to = to.max(from);
        let loan = if to - from > 1 { Loan::Unasked } else { Loan::Refused };
        let may_hold_apart = leaf.may_hold_apart();
        Stretch { leaf, from, to, loan, may_hold_apart, ahead: None, ask_at: usize::MAX, failed: None }
    }

    /// Will ask for the leaf behind this one, if the range goes on in it.
    fn asking_ahead(mut self, range: &Range) -> Stretch {
        let goes_on =
            self.leaf.high().is_some_and(|end| range.high.as_ref().is_none_or(|high| **high > *end));
        if goes_on && let Some(next) = self.leaf.next() {
            let (part, before) = ASK_BEFORE[0];
            self.ahead = Some((next, part));
            self.ask_at = self.to.saturating_sub(before);
        }
        self
    }

    #[inline(never)]
    fn ask_ahead(&mut self, core: &Core) {
        let Some((next, part)) = self.ahead.take() else { return };
        core.prefetch_part(next, part);
        self.ask_at = usize::MAX;
        if let Some((part, before)) = ASK_BEFORE.iter().skip_while(|(other, _)| *other != part).nth(1) {
            self.ahead = Some((next, *part));
            self.ask_at = (self.from + ASK_APART).max(self.to.saturating_sub(*before));
        }
    }

    /// True if there are records left, all of them with their values in the leaf.
    #[inline]
    fn is_plain(&self) -> bool {
        self.from < self.to && !self.may_hold_apart
    }

    /// The next record from the low end, of those that are still there.
    fn next(&mut self, core: &Core, wants: Wants) -> Result<Option<(IVec, IVec)>> {
        while self.from < self.to {
            self.from += 1;
            if let Some(entry) = self.take(self.from - 1, core, wants)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The next record from the high end, of those that are still there.
    fn next_back(&mut self, core: &Core, wants: Wants) -> Result<Option<(IVec, IVec)>> {
        while self.from < self.to {
            self.to -= 1;
            if let Some(entry) = self.take(self.to, core, wants)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Record `at`, wherever its value lives; `None` if it is not there any more.
    fn take(&mut self, at: usize, core: &Core, wants: Wants) -> Result<Option<(IVec, IVec)>> {
        match self.leaf.apart(at) {
            Some(apart) => self.apart_entry(at, apart, core, wants),
            None => Ok(Some(self.entry(at, core))),
        }
    }

    /// Record `at`, whose value is in the leaf: its key, and its value where it lies if it is long and may
    /// be lent.
    #[inline]
    fn entry(&mut self, at: usize, core: &Core) -> (IVec, IVec) {
        let (key, value) = self.leaf.record(at);
        if value.len() > IVec::INLINE_BYTES_MAX && matches!(self.loan, Loan::Unasked) {
            let lent = self.leaf.lend(core.memory(), core.pages.lend_bytes_max());
            self.loan = lent.map_or(Loan::Refused, Loan::Granted);
        }
        let value = match &self.loan {
            Loan::Granted(lent) => IVec::lent(lent, self.leaf.offset_of(value), value.len()),
            Loan::Unasked | Loan::Refused => IVec::from(value),
        };
        (IVec::joined(key.prefix, key.suffix), value)
    }

    /// As [`Stretch::entry`], of a value that lives apart: it is read now, and if it is gone the key's value
    /// of now counts.
    fn apart_entry(
        &mut self,
        at: usize,
        apart: Apart,
        core: &Core,
        wants: Wants,
    ) -> Result<Option<(IVec, IVec)>> {
        let key = self.leaf.key_parts(at);
        let key = IVec::joined(key.prefix, key.suffix);
        if wants == Wants::Keys {
            return Ok(Some((key, IVec::default())));
        }
        let value = match core.load(apart) {
            Ok(Some(bytes)) => Ok(Some(IVec::from(bytes))),
            Ok(None) => core.get_with(&key, |value| value.map(IVec::from)),
            Err(failure) => Err(failure),
        };
        match value {
            Ok(value) => Ok(value.map(|value| (key, value))),
            Err(failure) => {
                self.failed = Some(key);
                Err(failure.into())
            }
        }
    }
}

/// The first record at or above `key`.
fn position(leaf: &Node, key: &[u8]) -> usize {
    leaf.search(key).unwrap_or_else(|at| at)
}

/// The entries of a range of keys, in order, from either end.
///
/// Made by [`crate::Tree::iter`], [`crate::Tree::range`] and [`crate::Tree::scan_prefix`]. It is `Send`, may be
/// kept for as long as one likes, and keeps at most two leaves in memory.
pub struct Iter {
    core: Core,
    /// What neither end has arrived at yet: the ends' own leaves are outside of it.
    range: Range,
    front: Option<Stretch>,
    back: Option<Stretch>,
    done: bool,
    wants: Wants,
    failed: Option<IVec>,
}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Iter {
    pub(crate) fn new(core: Core, range: Range) -> Iter {
        let done = range.is_empty();
        Iter { core, range, front: None, back: None, done, wants: Wants::Entries, failed: None }
    }

    /// The key whose value could not be read, if that is what ended this iterator: a value that is too large to be
    /// read whole, or damaged. What lies beyond it can be had by a range from there on.
    #[must_use]
    pub fn failed_at(&self) -> Option<&[u8]> {
        self.failed.as_deref()
    }

    /// The keys alone: values in pages of their own are not read.
    pub fn keys(mut self) -> impl DoubleEndedIterator<Item = Result<IVec>> + Send + Sync {
        self.wants = Wants::Keys;
        self.map(|entry| entry.map(|(key, _)| key))
    }

    /// The values alone.
    pub fn values(self) -> impl DoubleEndedIterator<Item = Result<IVec>> + Send + Sync {
        self.map(|entry| entry.map(|(_, value)| value))
    }

    /// Takes the next leaf off the low end of what is left. False if nothing is left there.
    fn load_front(&mut self) -> Result<bool> {
        if self.range.is_empty() {
            return Ok(false);
        }
        let near = self.front.as_ref().and_then(|front| front.leaf.next());
        let leaf = self.core.leaf_at(&self.range.low, near)?;
        self.core.pages.keep_within_capacity();
        let stretch = Stretch::within(leaf, &self.range).asking_ahead(&self.range);
        match stretch.leaf.high() {
            Some(high) => self.range.low = IVec::from(high),
            // Nothing lies beyond the last leaf.
            None => self.range.high = Some(self.range.low.clone()),
        }
        self.front = Some(stretch);
        Ok(true)
    }

    /// Takes the next leaf off the high end of what is left. False if nothing is left there.
    fn load_back(&mut self) -> Result<bool> {
        if self.range.is_empty() {
            return Ok(false);
        }
        let Some(leaf) = self.core.leaf_below(self.range.high.as_deref())? else { return Ok(false) };
        self.core.pages.keep_within_capacity();
        let stretch = Stretch::within(leaf, &self.range);
        self.range.high = Some(IVec::from(stretch.leaf.low()));
        self.back = Some(stretch);
        Ok(true)
    }

    fn try_next(&mut self) -> Result<Option<(IVec, IVec)>> {
        loop {
            if let Some(front) = &mut self.front
                && let Some(entry) = front.next(&self.core, self.wants)?
            {
                return Ok(Some(entry));
            }
            if !self.load_front()? {
                // The rest, if any, is what the other end holds.
                return self.back.as_mut().map_or(Ok(None), |back| back.next(&self.core, self.wants));
            }
        }
    }

    fn try_next_back(&mut self) -> Result<Option<(IVec, IVec)>> {
        loop {
            if let Some(back) = &mut self.back
                && let Some(entry) = back.next_back(&self.core, self.wants)?
            {
                return Ok(Some(entry));
            }
            if !self.load_back()? {
                return self.front.as_mut().map_or(Ok(None), |front| front.next_back(&self.core, self.wants));
            }
        }
    }

    fn step(
        &mut self,
        step: impl FnOnce(&mut Iter) -> Result<Option<(IVec, IVec)>>,
    ) -> Option<Result<(IVec, IVec)>> {
        if self.done {
            return None;
        }
        let outcome = step(self).transpose();
        if !matches!(outcome, Some(Ok(_))) {
            self.done = true;
            self.failed =
                [&mut self.front, &mut self.back].into_iter().flatten().find_map(|end| end.failed.take());
            self.front = None;
            self.back = None;
        }
        outcome
    }
}

impl Iterator for Iter {
    type Item = Result<(IVec, IVec)>;

    #[inline]
    fn next(&mut self) -> Option<Result<(IVec, IVec)>> {
        // Nearly every record of a scan comes this way; the other takes a third longer.
        if let Some(front) = self.front.as_mut().filter(|front| front.is_plain()) {
            front.from += 1;
            if front.from > front.ask_at {
                front.ask_ahead(&self.core);
            }
            return Some(Ok(front.entry(front.from - 1, &self.core)));
        }
        self.step(Iter::try_next)
    }
}

impl DoubleEndedIterator for Iter {
    #[inline]
    fn next_back(&mut self) -> Option<Result<(IVec, IVec)>> {
        if let Some(back) = self.back.as_mut().filter(|back| back.is_plain()) {
            back.to -= 1;
            return Some(Ok(back.entry(back.to, &self.core)));
        }
        self.step(Iter::try_next_back)
    }
}

impl std::iter::FusedIterator for Iter {}
