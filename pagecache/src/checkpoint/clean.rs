//! Cleaning the `pages` file while the store runs: segments are emptied and checkpoints published, in
//! the turn that the store asks for.
//!
//! * SPACE-1 is kept here: a checkpoint that finds no room publishes what it has written so far, then
//!   makes room; so does a writer whose evictions used the room up.
//! * Emptying is not ordered with checkpoints: a move is a change of a durable word like any other. Two
//!   that empty the same segment find each other's pages moved.
//! * A step that frees nothing ends the round, so that nobody tries for ever what readers or other
//!   claims hold up.
//!
//! What to do is [`crate::store`]'s decision.

use std::collections::BTreeMap;

use super::{Checkpointer, Purpose, Recovery, State};
use crate::{cache::Cache, error::Failure, log::Log, materializer::Materializer, reclaim::pin, store::Due};

/// Steps of one call that makes room, at most: a writer goes on after them in any case.
const STEPS_MAX: usize = 64;

/// What a step of cleaning did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "cleaning that is not at its end wants another step"]
pub(crate) enum Cleaned {
    /// There was nothing to do, or nothing that could be done now.
    Nothing,
    /// Something; there may be more.
    Some,
}

/// Whether a writer could help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "who could not help waits for who does"]
pub(crate) enum Helped {
    /// It did what there was to do.
    Done,
    /// A checkpoint runs.
    NotNow,
}

impl Checkpointer {
    /// One step towards the length that the file should have.
    pub(crate) fn clean<M: Materializer>(
        &self,
        cache: &Cache<M>,
        log: &Log,
        recovery: &Recovery<M::Recovery>,
    ) -> Result<Cleaned, Failure> {
        match cache.store.due() {
            Due::Nothing => Ok(Cleaned::Nothing),
            Due::Empty(segments) => empty(cache, &segments),
            Due::Release => self.state.lock().release(cache, log, recovery),
        }
    }

    /// Cleans until frames can be written again without the file growing beyond its limit, unless a
    /// checkpoint runs: that one sees to it.
    pub(crate) fn make_room<M: Materializer>(
        &self,
        cache: &Cache<M>,
        log: &Log,
        recovery: &Recovery<M::Recovery>,
    ) -> Result<Helped, Failure> {
        for _ in 0..STEPS_MAX {
            if cache.store.has_room() {
                break;
            }
            let cleaned = match cache.store.due() {
                Due::Nothing => Cleaned::Nothing,
                Due::Empty(segments) => empty(cache, &segments)?,
                Due::Release => match self.state.try_lock() {
                    Some(mut state) => state.release(cache, log, recovery)?,
                    None => return Ok(Helped::NotNow),
                },
            };
            if cleaned == Cleaned::Nothing {
                break;
            }
        }
        Ok(Helped::Done)
    }

    /// Counts live bytes anew, from what pages, map pages and directory refer to, and compares.
    pub(crate) fn recount<M: Materializer>(&self, cache: &Cache<M>) -> Result<(), Failure> {
        let state = self.state.lock();
        cache.load_all()?;
        for group in cache.maps.groups() {
            cache.read_index(group.number, &mut group.lock())?;
        }
        let _changes = cache.changes.lock();
        let guard = pin();
        let pages = (0..cache.pages.bound()).filter_map(|pid| cache.pages.cell(pid)?.durable(&guard));
        let tables =
            cache.maps.groups().into_iter().flat_map(|group| group.lock().frames().collect::<Vec<_>>());
        let directory = state.superblock.directory.iter().map(|named| named.addr);
        let mut expected = BTreeMap::new();
        for addr in pages.flat_map(|durable| durable.parts()).chain(tables).chain(directory) {
            for (segment, bytes) in cache.store.bytes_by_segment(addr)? {
                *expected.entry(segment).or_insert(0) += bytes;
            }
        }
        let counted: BTreeMap<u32, u64> =
            cache.store.live_table().into_iter().map(|(segment, bytes)| (segment, bytes.into())).collect();
        if counted == expected {
            return Ok(());
        }
        let differs = expected.keys().chain(counted.keys()).find(|&at| counted.get(at) != expected.get(at));
        let segment = differs.copied().unwrap_or(0);
        let (counted, expected) = (counted.get(&segment), expected.get(&segment));
        Err(Failure::Corrupt {
            found: format!("segment {segment} has {expected:?} live bytes and {counted:?} were counted"),
            path: cache.store.path(),
            offset: 0,
        })
    }
}

impl State {
    pub(super) fn make_room<M: Materializer>(
        &mut self,
        cache: &Cache<M>,
        log: &Log,
        recovery: &Recovery<M::Recovery>,
    ) -> Result<(), Failure> {
        for _ in 0..STEPS_MAX {
            if cache.store.has_room() {
                break;
            }
            let cleaned = match cache.store.due() {
                Due::Nothing => Cleaned::Nothing,
                Due::Empty(segments) => empty(cache, &segments)?,
                Due::Release => self.release(cache, log, recovery)?,
            };
            if cleaned == Cleaned::Nothing {
                break;
            }
        }
        Ok(())
    }

    fn release<M: Materializer>(
        &mut self,
        cache: &Cache<M>,
        log: &Log,
        recovery: &Recovery<M::Recovery>,
    ) -> Result<Cleaned, Failure> {
        let before = cache.store.used_bytes();
        self.publish(cache, log, recovery, Purpose::Release)?;
        Ok(match cache.store.used_bytes() < before {
            true => Cleaned::Some,
            false => Cleaned::Nothing,
        })
    }
}

/// Empties segments; a disk without room for the copies leaves them as they are.
fn empty<M: Materializer>(cache: &Cache<M>, segments: &[u32]) -> Result<Cleaned, Failure> {
    match cache.empty_segments(segments) {
        Ok(_) => Ok(Cleaned::Some),
        Err(Failure::DiskFull { .. }) => Ok(Cleaned::Nothing),
        Err(failure) => Err(failure),
    }
}
