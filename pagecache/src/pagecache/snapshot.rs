//! Reading pages as they were at one moment.
//!
//! A snapshot is a position: every change at or below it shows, whatever comes later. It is taken by the rules
//! SNAP-1 to SNAP-3 of [`crate::cache`]; what a page keeps for it is the materializer's to say.

use std::{fmt, sync::Arc};

use super::PageCache;
use crate::{
    cache::{Resident, Snapshots},
    error::Failure,
    ids::{Lsn, PageId},
    materializer::Materializer,
    page::chain::{lend, versions},
    reclaim::Guard,
};

/// A moment at which pages can be read for as long as this is held.
///
/// It holds no guard and keeps no page in memory. What was changed since is kept twice, in memory and in the
/// file: once as it is, and once as this snapshot reads it.
pub struct Snapshot {
    of: Arc<Snapshots>,
    at: Lsn,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("at", &self.at).finish()
    }
}

impl Snapshot {
    /// Its position: a change shows if its LSN is at or below it.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.at
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.of.end(self.at);
    }
}

impl<PM, P, R> PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// A snapshot of all pages as they are: it has every change that returned before this call, and batches
    /// wholly or not at all.
    ///
    /// Waits for changes that have a position already and do not show yet, never for the disk. It is not
    /// durable: a restart ends it.
    ///
    /// # Errors
    ///
    /// [`Failure::Misuse`] if this thread is in the middle of a change of its own.
    pub fn snapshot(&self) -> Result<Snapshot, Failure> {
        let snapshots = &self.shared.cache.snapshots;
        let placed = snapshots.place();
        let at = self.shared.log.watermark()? - 1;
        placed.settle(at);
        Ok(Snapshot { of: snapshots.clone(), at })
    }

    /// The page as it was at the snapshot; `None` if it held nothing then.
    ///
    /// Needs a materializer that keeps versions ([`Materializer::merge_versions`]). Only what was linked since is
    /// told from what was there: a page that was freed since is `None`, and one that was replaced is what its
    /// new content says of that moment.
    ///
    /// # Errors
    ///
    /// [`Failure::Misuse`] for a snapshot of another store; else as [`PageCache::read`].
    pub fn read_at<'g>(
        &self,
        pid: PageId,
        snapshot: &Snapshot,
        guard: &'g Guard,
    ) -> Result<Option<&'g P>, Failure> {
        let cache = &self.shared.cache;
        if !Arc::ptr_eq(&snapshot.of, &cache.snapshots) {
            return Err(Failure::Misuse { what: "a snapshot was read in another store than it is of" });
        }
        self.shared.make_room_to_read(true);
        let Resident::Chain(_, top) = cache.resident(pid, guard)? else { return Ok(None) };
        // What is still pending will be committed above the snapshot.
        let page = cache.merge_versions(&versions(top), &[snapshot.at]);
        Ok(cache.materializer.version_at(&page, snapshot.at).map(|page| lend(page, guard)))
    }

    /// How many snapshots are held.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.shared.cache.snapshots.count()
    }
}
