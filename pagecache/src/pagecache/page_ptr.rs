//! What callers hold of a page: the key that a change must present, and what a read found.

use std::fmt;

use crate::{
    ids::Lsn,
    page::{
        cell::Word,
        chain::{Body, Node},
        slot::SlotState,
    },
};

/// The state of a page as somebody saw it: the key of a compare-and-swap.
///
/// It lives as long as the guard under which it was taken. Any change of the page, any consolidation
/// or eviction, and the end of a batch that was pending on it, makes it stale: a call that presents a
/// stale key fails with [`crate::Error::CasFailed`] and the key of now.
pub struct PagePtr<'g, P> {
    pub(crate) key: Key<P>,
    pub(crate) top: Option<&'g Node<P>>,
    pub(crate) changed_at: Lsn,
    /// Fragments that were pending, and so unseen, when the key was taken: a batch that has ended
    /// since has changed what the page says though its word is the same.
    pub(crate) pending: u32,
}

pub(crate) enum Key<P> {
    /// Whatever number the page has, it must be Allocated.
    Allocated,
    Word(Word<P>),
}

impl<P> Clone for Key<P> {
    fn clone(&self) -> Key<P> {
        *self
    }
}

impl<P> Copy for Key<P> {}

impl<P> Clone for PagePtr<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for PagePtr<'_, P> {}

impl<P> PartialEq for PagePtr<'_, P> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.key, &other.key) {
            (Key::Allocated, Key::Allocated) => true,
            (Key::Allocated, Key::Word(word)) | (Key::Word(word), Key::Allocated) => word.is_allocated(),
            (Key::Word(mine), Key::Word(theirs)) => mine == theirs,
        }
    }
}

impl<P> Eq for PagePtr<'_, P> {}

impl<P> fmt::Debug for PagePtr<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Key::Allocated => f.write_str("PagePtr(allocated)"),
            Key::Word(word) => write!(f, "PagePtr({word:?} {:?})", self.top),
        }
    }
}

impl<'g, P> PagePtr<'g, P> {
    /// The key of a page that was allocated and holds nothing yet.
    #[must_use]
    pub fn allocated() -> PagePtr<'g, P> {
        PagePtr { key: Key::Allocated, top: None, changed_at: 0, pending: 0 }
    }

    /// True for the key of a page that was allocated and holds nothing yet.
    #[must_use]
    pub fn is_allocated(&self) -> bool {
        match self.key {
            Key::Allocated => true,
            Key::Word(word) => word.is_allocated(),
        }
    }

    /// The largest LSN of the changes that are in memory for this state of the page; 0 for an
    /// allocated page, and for one that was read back from disk and not changed since.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.top.map_or(self.changed_at, Node::last_lsn)
    }

    /// The LSN of the change that returned this key; 0 for a key from elsewhere.
    #[must_use]
    pub fn changed_at(&self) -> Lsn {
        self.changed_at
    }

    /// The page as this key found it, if it was in memory.
    #[must_use]
    pub fn view(&self) -> Option<PageView<'g, P>> {
        match (self.key, self.top) {
            (Key::Word(word), Some(top)) => Some(PageView { word, top, pending: self.pending }),
            _ => None,
        }
    }

    pub(crate) fn of_word(word: Word<P>) -> PagePtr<'g, P> {
        PagePtr { key: Key::Word(word), top: None, changed_at: 0, pending: 0 }
    }

    pub(crate) fn of_chain(word: Word<P>, top: &'g Node<P>) -> PagePtr<'g, P> {
        PagePtr { key: Key::Word(word), top: Some(top), changed_at: 0, pending: top.pending() }
    }
}

/// What `get` found.
#[derive(Clone, Debug, PartialEq)]
pub enum PageGet<'g, P> {
    /// The page, merged, and its key.
    Materialized(&'g P, PagePtr<'g, P>),
    /// The page was freed.
    Free(PagePtr<'g, P>),
    /// The page was allocated and holds nothing yet; after a restart it is Free.
    Allocated,
    /// No such page was ever allocated.
    Unallocated,
}

impl<'g, P> PageGet<'g, P> {
    /// The page and its key.
    ///
    /// # Panics
    ///
    /// If the page is not `Materialized`.
    #[must_use]
    pub fn unwrap(self) -> (&'g P, PagePtr<'g, P>) {
        self.expect("unwrap called on a page that is not materialized")
    }

    /// The page and its key.
    ///
    /// # Panics
    ///
    /// With `message`, if the page is not `Materialized`.
    #[must_use]
    pub fn expect(self, message: &'static str) -> (&'g P, PagePtr<'g, P>) {
        match self {
            PageGet::Materialized(page, key) => (page, key),
            _ => panic!("{message}"),
        }
    }

    /// True if the page has content.
    #[must_use]
    pub fn is_materialized(&self) -> bool {
        matches!(self, PageGet::Materialized(..))
    }

    /// True if the page was freed.
    #[must_use]
    pub fn is_free(&self) -> bool {
        matches!(self, PageGet::Free(_))
    }

    /// True if the page was allocated and holds nothing yet.
    #[must_use]
    pub fn is_allocated(&self) -> bool {
        matches!(self, PageGet::Allocated)
    }

    /// True if no such page was ever allocated.
    #[must_use]
    pub fn is_unallocated(&self) -> bool {
        matches!(self, PageGet::Unallocated)
    }
}

/// What is known of one fragment of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragState {
    /// Everybody may see it; the LSN is 0 for a page read back from disk.
    Committed(Lsn),
    /// Its batch has not committed yet: nobody but the batch may see it.
    Pending,
    /// Its batch was given up: nobody may see it.
    Aborted,
}

/// A page as it is, unmerged.
#[derive(Debug)]
pub enum View<'g, P> {
    /// No such page was ever allocated.
    Unallocated,
    /// The page was allocated and holds nothing that readers may see.
    Allocated(PagePtr<'g, P>),
    /// The page was freed.
    Free(PagePtr<'g, P>),
    /// The page's fragments.
    Page(PageView<'g, P>),
}

/// The fragments of a page, newest first, as they were at one moment.
#[derive(Debug)]
pub struct PageView<'g, P> {
    pub(crate) word: Word<P>,
    pub(crate) top: &'g Node<P>,
    pending: u32,
}

impl<P> Clone for PageView<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for PageView<'_, P> {}

impl<'g, P> PageView<'g, P> {
    /// What is pending is counted before anything is read through the view, so that its key fails if
    /// a reader could have missed what is committed by then.
    pub(crate) fn new(word: Word<P>, top: &'g Node<P>) -> PageView<'g, P> {
        PageView { word, top, pending: top.pending() }
    }

    /// The key that a change of this state must present.
    #[must_use]
    pub fn key(&self) -> PagePtr<'g, P> {
        PagePtr { key: Key::Word(self.word), top: Some(self.top), changed_at: 0, pending: self.pending }
    }

    /// True if no batch was pending on the page when it was looked at: what the view shows will not
    /// change. Otherwise two looks through one view may differ.
    #[inline]
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.pending == 0
    }

    /// How many fragments stand in memory for this page.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.top.depth as usize
    }

    /// The whole page, if it is one committed fragment with nothing above.
    #[inline]
    #[must_use]
    pub fn settled(&self) -> Option<&'g P> {
        match (&self.top.body, self.top.state()) {
            (Body::Base(frag), SlotState::Committed(_)) => Some(frag),
            _ => None,
        }
    }

    /// The newest base of the page, if every change above it is known to have none of these marks
    /// ([`crate::Materializer::marks`]): the changes are then of no account to who asks.
    #[inline]
    #[must_use]
    pub fn base_under(&self, marks: u64) -> Option<&'g P> {
        if self.top.marks & marks != 0 {
            return None;
        }
        match &self.top.ground()?.body {
            Body::Base(frag) => Some(frag),
            Body::Append(_) | Body::Free => None,
        }
    }

    /// The fragments, newest first, down to and including the newest base that readers may see.
    pub fn frags(&self) -> impl Iterator<Item = (&'g P, FragState)> + use<'g, P> {
        let mut next: Option<&'g Node<P>> = Some(self.top);
        std::iter::from_fn(move || {
            loop {
                let node = next?;
                next = node.below();
                let state = match node.state() {
                    SlotState::Committed(lsn) => FragState::Committed(lsn),
                    SlotState::Pending => FragState::Pending,
                    SlotState::Aborted => FragState::Aborted,
                };
                let ends = matches!(state, FragState::Committed(_)) && !matches!(node.body, Body::Append(_));
                if ends {
                    next = None;
                }
                match &node.body {
                    Body::Base(frag) | Body::Append(frag) => return Some((frag, state)),
                    // The page is there until the batch that frees it commits.
                    Body::Free => {}
                }
            }
        })
    }
}
