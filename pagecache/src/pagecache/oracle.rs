//! Facts about an open store, for the event log, and the comparison of a store with what an open would
//! make of its files.
//!
//! Nothing here is on anybody's path but a test's: it reads every page. How facts are compared is
//! [`crate::event_log`]'s business.

use std::{collections::BTreeMap, sync::Arc};

use super::shared::Shared;
use crate::{
    cache::{Cache, Resident},
    checkpoint::open::{self, Opened},
    config::Config,
    error::{Failure, Poison},
    event_log::{EventLog, Facts, Floor, Left, PageFact},
    ids::{Lsn, PageId, PageSeq},
    io::FileId,
    materializer::Materializer,
    page::{
        cell::Head,
        chain::{Node, committed},
        slot::SlotState,
    },
    reclaim::{Guard, pin},
};

/// Pages read before memory is looked at again.
const PAGES_PER_LOOK: usize = 64;

impl<M: Materializer + Send + Sync + 'static> Shared<M> {
    /// Compares the store, which was just opened, with what the one before left.
    pub(super) fn compare_with_left(&self, events: &EventLog) -> Result<(), Failure> {
        let Some(left) = events.left() else { return Ok(()) };
        match left {
            Left::Closed(was) => was.expect(&self.facts()?)?,
            Left::Running(floor) => {
                self.cache.load_all()?;
                let guard = pin();
                let seq_of = |pid| newest_seq(&self.cache, pid, Lsn::MAX, &guard).unwrap_or(0);
                floor.expect(self.log.next_lsn(), self.cache.pages.bound(), seq_of)?;
            }
        }
        events.note_compared();
        Ok(())
    }

    /// Writes down what must be found at least if the process ends now.
    pub(super) fn leave_floor(&self, events: &EventLog) {
        let guard = pin();
        let stable = self.log.stable();
        let bound = self.cache.pages.bound();
        let pages = (0..bound).filter_map(|pid| Some((pid, newest_seq(&self.cache, pid, stable, &guard)?)));
        events.leave(Left::Running(Floor { stable, bound: 0, pages: pages.collect() }));
    }

    /// Writes down what must be found after a close that has just made all durable.
    pub(super) fn leave_facts(&self, events: &EventLog) -> Result<(), Failure> {
        events.leave(Left::Closed(self.facts()?));
        Ok(())
    }

    fn facts(&self) -> Result<Facts, Failure> {
        Ok(Facts {
            end: self.log.next_lsn(),
            recovery: self.recovery.lock().as_ref().map(|(lsn, _)| *lsn),
            ..facts_of(&self.cache)?
        })
    }

    /// Compares every page with what an open would make of the files as they are: the newest checkpoint,
    /// and the log's tail folded over it. Nobody may be changing pages meanwhile.
    pub(super) fn verify(&self) -> Result<Verified, Failure> {
        // A checkpoint between the two looks would let go of what the first one saw.
        let _both_sides_are_of_one_checkpoint = self.checkpointer.hold();
        self.log.hand_over()?;
        let poison = Arc::new(Poison::read_only(self.storage.path(FileId::Pages)));
        let again: Opened<M> = open::open(&self.reader, &self.storage, &poison)?;
        let anew = facts_of(&again.cache)?;
        let now = facts_of(&self.cache)?;
        let content = |facts: &Facts| -> BTreeMap<PageId, u64> {
            facts.pages.iter().map(|(pid, page)| (*pid, page.digest)).collect()
        };
        let (found, wanted) = (content(&anew), content(&now));
        let differs = wanted.keys().chain(found.keys()).find(|pid| found.get(pid) != wanted.get(pid));
        if let Some(pid) = differs {
            let (found, wanted) = (found.get(pid), wanted.get(pid));
            return Err(Failure::Bug {
                what: format!("page {pid} is {wanted:x?}, and {found:x?} when it is read anew"),
            });
        }
        let recovery = |opened: &crate::checkpoint::Recovery<M::Recovery>| {
            opened.lock().as_ref().map(|(lsn, value)| (*lsn, format!("{value:?}")))
        };
        let (found, wanted) = (recovery(&again.recovery), recovery(&self.recovery));
        if found != wanted {
            return Err(Failure::Bug {
                what: format!("the value to recover is {wanted:?}, and {found:?} when it is read anew"),
            });
        }
        // To be short of memory makes either take a page that the log's tail frees for free in its durable form
        // too, before the other does.
        let has_moved = |cache: &Cache<M>| !cache.changes.lock().is_empty();
        if has_moved(&self.cache) || has_moved(&again.cache) {
            return Ok(Verified::Contents);
        }
        // Nothing moved since the last checkpoint: the table on disk is the one in memory, but for ids that
        // were handed out since and never written to.
        let places = |facts: Facts| Facts { end: 0, recovery: None, bound: 0, ..facts };
        places(now).expect(&places(anew))?;
        Ok(Verified::Places)
    }
}

/// What a store was compared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verified {
    /// In what its pages hold; some have moved since the last checkpoint.
    Contents,
    /// In where they lie too, and in the live bytes of each segment.
    Places,
}

/// A reader's settings for the store of `config`.
pub(super) fn reader_of(config: &Config) -> Config {
    let mut settings = (*config.inner).clone();
    (settings.read_only, settings.create_new, settings.temporary) = (true, false, false);
    Config { inner: Arc::new(settings) }
}

/// The pages and segments of a store.
fn facts_of<M: Materializer>(cache: &Cache<M>) -> Result<Facts, Failure> {
    let (mut bound, mut pages) = (0, BTreeMap::new());
    for pid in 0..cache.pages.bound() {
        cache.load(pid)?;
        let guard = pin();
        if was_used(cache, pid, &guard) {
            bound = pid + 1;
        }
        if let Some(fact) = value_fact(cache, pid, &guard) {
            pages.insert(pid, fact);
            continue;
        }
        let Resident::Chain(_, top) = cache.resident(pid, &guard)? else { continue };
        let Some(parts) = committed(top) else { continue };
        let mut frags = parts.frags;
        frags.reverse();
        let page = cache.merge(&frags);
        let durable = cache.pages.cell(pid).and_then(|cell| cell.durable(&guard));
        let fact = PageFact {
            seq: durable.map_or(0, |durable| durable.seq),
            parts: durable.into_iter().flat_map(|durable| durable.parts()).collect(),
            digest: cache.materializer.digest(&page),
        };
        pages.insert(pid, fact);
        if pid % PAGES_PER_LOOK == 0 && cache.is_short_of_memory() {
            // What cannot be written back stays.
            let _ = cache.make_room_to_write();
        }
    }
    let segments = cache.store.live_table().into_iter().map(|(segment, bytes)| (segment, bytes.into()));
    Ok(Facts { bound, pages, segments: segments.collect(), ..Facts::default() })
}

/// False for an id that was handed out, perhaps, and never written to: no open knows of it.
fn was_used<M: Materializer>(cache: &Cache<M>, pid: PageId, guard: &Guard) -> bool {
    cache.pages.cell(pid).is_some_and(|cell| cell.durable(guard).is_some())
}

/// What is kept of a page that is a large value: its length stands for its bytes, which never change and
/// which no open reads.
fn value_fact<M: Materializer>(cache: &Cache<M>, pid: PageId, guard: &Guard) -> Option<PageFact> {
    let cell = cache.pages.cell(pid)?;
    let Head::Evicted(_) = cell.head(guard).1 else { return None };
    let durable = cell.durable(guard)?;
    let digest = durable.value()?.bytes();
    Some(PageFact { seq: durable.seq, parts: durable.parts().collect(), digest })
}

/// The number of a committed change of the page below `below`, the newest that is known one by one;
/// `None` if none is, or the page's cell was not filled yet: the page is then as the open found it.
fn newest_seq<M: Materializer>(cache: &Cache<M>, pid: PageId, below: Lsn, guard: &Guard) -> Option<PageSeq> {
    match cache.pages.cell(pid)?.head(guard).1 {
        Head::Unallocated | Head::Allocated(_) => None,
        Head::Free(seq) | Head::Evicted(seq) => Some(seq),
        Head::Chain(top) => {
            let known = |node: &&Node<M::PageFrag>| match node.state() {
                SlotState::Committed(lsn) => lsn < below,
                _ => false,
            };
            top.walk().find(known).map(|node| node.seq)
        }
    }
}
