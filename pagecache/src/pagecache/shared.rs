//! What the face and the background share: the parts of an open store, and their life cycle.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use super::{
    oracle,
    owners::MemoryOwners,
    pace::{Marks, Pace},
};
use crate::{
    cache::Cache,
    checkpoint::{
        Checkpointer, Cleaned, Helped, Purpose, Recovery,
        open::{self, Opened},
    },
    config::{Config, Traffic},
    error::Failure,
    event_log::EventLog,
    ids::{Lsn, PageId},
    io::{Clock, Spawner, Storage, ThreadSpawner, TimedStorage, Worker},
    log::{self, Begun, Log},
    materializer::Materializer,
    mem::PageMemory,
    metrics::Work,
    store::WrittenBytes,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

/// How often a writer without room looks whether the checkpoint that runs has made some, and the time
/// between two looks.
const HELP_TRIES_MAX: u32 = 20;
const HELP_PAUSE: Duration = Duration::from_millis(1);
/// As [`HELP_TRIES_MAX`], for who writes a large value: each piece of it makes the file longer at once, so
/// it waits for a checkpoint on a slow device too, five seconds in all.
const VALUE_TRIES_MAX: u32 = 5_000;

/// The log's tail becomes so much longer than `checkpoint_every_bytes`, in percent, and each checkpoint of the
/// background takes this part of those off it: only pages whose oldest change lies there are written, so each gathers changes
/// for as long as the log may hold them.
const TAIL_PERCENT: u64 = 400;
const TAIL_STEP_DIVISOR: u64 = 2;
/// The tail may be so long in any case, in bytes: shorter ones cost a checkpoint every few thousand changes.
const TAIL_BYTES_MIN: u64 = 8 << 20;
/// Segments of the log that writers would rather not use up.
const PACE_SEGMENTS: u64 = 4;

/// Rounds of emptying segments when the file is made compact: each moves an eighth of what is alive,
/// at least, until few are left.
const COMPACT_ROUNDS_MAX: usize = 40;

/// The parts of an open store.
pub(crate) struct Shared<M: Materializer> {
    pub(crate) cache: Cache<M>,
    pub(crate) log: Log,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) recovery: Recovery<M::Recovery>,
    pub(crate) was_recovered: bool,
    read_only: bool,
    prints_profile: bool,
    pub(super) events: Option<EventLog>,
    /// Settings of who would read the store beside this one.
    pub(super) reader: Config,
    pub(crate) consolidation_threshold: usize,
    pub(crate) flush_every: Option<Duration>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) stopping: AtomicBool,
    /// The background, to be woken when there is work before its time.
    worker: OnceLock<Arc<dyn Worker>>,
    /// A background checkpoint was asked for and has not begun.
    pub(crate) checkpoint_wanted: AtomicBool,
    checkpoint_at: AtomicU64,
    /// Whoever changes pages pays for memory and room apart from that, when it holds no guard.
    pays_apart: AtomicBool,
    /// Bytes of log that batches under way were promised.
    pub(crate) admitted_log_bytes: AtomicUsize,
    /// What the log's tail grows to before a checkpoint is taken in the background, and by how much that one
    /// shortens it.
    tail_max: i64,
    tail_step: i64,
    pace: Pace,
    pace_marks: Marks,
    /// For the first append, if it was published at open.
    published_salt: Option<u64>,
    pub(super) storage: Arc<dyn Storage>,
    memory: PageMemory,
}

/// Sizes and counts of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Pages ever allocated.
    pub pages: usize,
    /// Page ids that wait to be used again. Of parts of the page table that were not read since the store
    /// was opened, what the last checkpoint says.
    pub free_pages: usize,
    /// Bytes of pages in memory.
    pub resident_bytes: usize,
    /// The memory of the store by its owners.
    pub memory: MemoryOwners,
    /// What that may be: `cache_capacity`.
    pub memory_budget_bytes: usize,
    /// Bytes of page memory in buffers that somebody still holds: what is resident, what iterators
    /// hold, and what waits for its last reader.
    pub page_memory_bytes: usize,
    /// Bytes of page memory taken from the system.
    pub page_memory_reserved_bytes: usize,
    /// Bytes of the log that an open after a crash would replay.
    pub log_tail_bytes: u64,
    /// Bytes of the `log` file.
    pub log_file_bytes: u64,
    /// Bytes of the `pages` file.
    pub pages_file_bytes: u64,
    /// Bytes in the `pages` file that are reachable.
    pub pages_live_bytes: u64,
    /// Bytes of frames written to the `pages` file since the store was opened.
    pub written: WrittenBytes,
}

/// How long the log's tail may become, and what one checkpoint of the background takes off it. An open after a
/// kill has up to as many bytes in memory as the tail has: so it depends on what the store may have.
fn tail_of(checkpoint_every: u64, log_capacity: u64, memory: u64) -> (i64, i64) {
    let wanted = checkpoint_every.saturating_mul(TAIL_PERCENT) / 100;
    let whole = wanted.min(log_capacity / 4 * 3).max(checkpoint_every);
    let tail_max = whole.min((memory / 8 * 3).max(TAIL_BYTES_MIN));
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX / 2);
    let step_max = if tail_max < whole { tail_max / 4 } else { whole };
    (signed(tail_max), signed((checkpoint_every / TAIL_STEP_DIVISOR).clamp(1, step_max)))
}

impl<M: Materializer + Send + Sync + 'static> Shared<M> {
    pub(crate) fn open(config: Config) -> Result<Arc<Shared<M>>, Failure> {
        config.check()?;
        let clock = config.clock();
        let metrics = config.metrics(&clock);
        let storage = TimedStorage::around(config.lock_storage(Traffic::ReadAgain)?, &metrics);
        let poison = config.poison(&storage);
        let mut opened: Opened<M> = match open::open(&config, &storage, &poison) {
            Ok(opened) => opened,
            Err(failure) => {
                storage.unlock();
                return Err(failure);
            }
        };
        opened.cache.metrics = metrics;
        let settings = &config.inner;
        let (tail_max, tail_step) = tail_of(
            settings.checkpoint_every_bytes,
            settings.log_capacity,
            opened.cache.budget.bytes() as u64,
        );
        // The end of the file is taken a segment at a time, one of which may be made ahead of need.
        let pace_full =
            settings.log_capacity.saturating_sub(PACE_SEGMENTS * settings.log_segment_bytes as u64);
        // Twice as long it is where memory is short, and no longer.
        let pace_full = pace_full.min(2 * tail_max.unsigned_abs());
        let replay_from = opened.checkpointer.replay_from();
        let shared = Arc::new(Shared {
            cache: opened.cache,
            log: opened.log,
            checkpointer: opened.checkpointer,
            recovery: opened.recovery,
            was_recovered: opened.was_recovered,
            read_only: settings.read_only,
            prints_profile: settings.print_profile_on_drop,
            events: settings.event_log.clone(),
            reader: oracle::reader_of(&config),
            consolidation_threshold: settings.page_consolidation_threshold,
            flush_every: settings.flush_every,
            clock,
            spawner: settings.spawner.clone().unwrap_or_else(|| Arc::new(ThreadSpawner)),
            stopping: AtomicBool::new(false),
            worker: OnceLock::new(),
            checkpoint_wanted: AtomicBool::new(false),
            checkpoint_at: AtomicU64::new(replay_from.saturating_add(tail_max).cast_unsigned()),
            pays_apart: AtomicBool::new(false),
            admitted_log_bytes: AtomicUsize::new(0),
            tail_max,
            tail_step,
            pace: Pace::default(),
            pace_marks: Marks::new(tail_max.unsigned_abs(), pace_full),
            published_salt: opened.salt,
            storage,
            memory: config.page_memory().clone(),
        });
        if shared.spawner.is_inline() {
            shared.cache.pages.reuse_at_once();
            shared.cache.readers.stay_inline();
            shared.cache.budget.count_pages_only();
        }
        let host: Weak<Shared<M>> = Arc::downgrade(&shared);
        shared.log.set_host(host);
        if let Some(events) = &shared.events
            && let Err(differs) = shared.compare_with_left(events)
        {
            shared.storage.unlock();
            return Err(differs);
        }
        Ok(shared)
    }

    /// Names the background; the first call counts.
    pub(crate) fn set_worker(&self, worker: Arc<dyn Worker>) {
        let _first_counts = self.worker.set(worker);
    }

    pub(crate) fn recovered_state(&self) -> Option<M::Recovery> {
        self.recovery.lock().as_ref().map(|(_, value)| value.clone())
    }

    /// Remembers the newest value that the layer above wants back.
    pub(crate) fn advance_recovery(&self, lsn: Lsn, value: M::Recovery) {
        let mut recovery = self.recovery.lock();
        if recovery.as_ref().is_none_or(|(known, _)| *known < lsn) {
            *recovery = Some((lsn, value));
        }
    }

    /// Called with the position of each finished record: asks for a checkpoint when it is time.
    #[inline]
    pub(crate) fn note_progress(&self, lsn: Lsn) {
        // Relaxed: a stale value asks a little early or late.
        if lsn.cast_unsigned() >= self.checkpoint_at.load(Ordering::Relaxed) {
            self.want_checkpoint();
        }
    }

    #[cold]
    fn want_checkpoint(&self) {
        if !self.checkpoint_wanted.swap(true, Ordering::Relaxed) {
            self.wake_background();
        }
    }

    fn wake_background(&self) {
        if let Some(worker) = self.worker.get() {
            worker.wake();
        }
    }

    pub(crate) fn checkpoint(&self) -> Result<(), Failure> {
        self.checkpoint_for(Purpose::Shorten, || true)
    }

    /// Takes the checkpoint that was asked for in the background.
    pub(crate) fn trim_log(&self) -> Result<(), Failure> {
        self.checkpoint_for(self.trim(), || true)
    }

    /// For who finds no room for so many bytes in the log: waits for a checkpoint that runs, or takes one.
    pub(super) fn make_room_in_log(&self, has_room: impl Fn() -> bool) -> Result<(), Failure> {
        for purpose in [self.trim(), Purpose::Shorten] {
            self.checkpoint_for(purpose, || !has_room())?;
            if has_room() {
                break;
            }
        }
        Ok(())
    }

    fn trim(&self) -> Purpose {
        let kept = self.tail_max - self.tail_step;
        Purpose::Trim(self.log.next_lsn().saturating_sub(kept))
    }

    /// Takes a checkpoint, if it is `wanted` once others that run are at their end.
    fn checkpoint_for(&self, purpose: Purpose, wanted: impl Fn() -> bool) -> Result<(), Failure> {
        self.checkpoint_wanted.store(false, Ordering::Relaxed);
        let timing = self.cache.metrics.time(Work::Checkpoint);
        let outcome = self.checkpointer.run_if(wanted, &self.cache, &self.log, &self.recovery, purpose);
        drop(timing);
        // After a failure too: the next try waits for as many bytes, or for a writer without room.
        let full = self.log.released().saturating_add(self.tail_max);
        let next = self.log.next_lsn().saturating_add(self.tail_step).max(full);
        self.checkpoint_at.store(next.cast_unsigned(), Ordering::Relaxed);
        outcome
    }

    /// Who fetches pages makes room for them.
    #[inline]
    pub(crate) fn make_room_to_read(&self, holds_guard: bool) {
        if self.cache.is_short_of_memory() {
            self.cache.make_room_to_read(holds_guard);
        }
    }

    /// Who writes keeps pages within their share of the memory, and some of them clean. Without a guard: what
    /// leaves is free at once, and the disk is not waited for under it.
    #[inline]
    pub(crate) fn make_room_to_write(&self) {
        if self.cache.is_short_of_memory() || self.cache.has_too_many_dirty() {
            self.shrink_cache();
        }
    }

    /// As [`Shared::make_room_to_write`] after a change, while its caller still holds a guard. Callers that
    /// pay without one do the most of it then.
    #[inline]
    pub(crate) fn make_room_under_guard(&self) {
        if self.pays_apart.load(Ordering::Relaxed) {
            self.make_room_for_batch();
        } else {
            self.make_room_to_write();
            self.keep_within_room();
        }
    }

    /// What cannot wait until a batch has ended.
    #[inline]
    pub(crate) fn make_room_for_batch(&self) {
        if self.cache.is_far_too_short_of_memory() {
            self.shrink_cache();
        }
    }

    /// What a writer owes for memory and room on disk, paid without a guard.
    #[inline]
    pub(crate) fn pay(&self) {
        if !self.pays_apart.load(Ordering::Relaxed) {
            // Relaxed: a change that does not see it yet pays twice.
            self.pays_apart.store(true, Ordering::Relaxed);
        }
        // A failure poisons the log, and the next change is told.
        let _ = self.log.help();
        self.make_room_to_write();
        self.keep_within_room();
        // Relaxed: a stale value pauses a change early or late.
        if self.checkpoint_wanted.load(Ordering::Relaxed) {
            self.keep_pace();
        }
    }

    /// Pauses if checkpoints fall behind (PACE-1).
    #[cold]
    fn keep_pace(&self) {
        // On one thread there is nobody to wait for.
        if self.spawner.is_inline() {
            return;
        }
        let pause = self.pace.pause(self.pace_marks, self.log.next_lsn(), self.log.tail_bytes());
        if let Some(pause) = pause {
            let _timing = self.cache.metrics.time(Work::Pause);
            std::thread::sleep(pause);
        }
    }

    #[cold]
    fn shrink_cache(&self) {
        // A full disk keeps dirty pages in memory; the writer learns of it from the log.
        let _ = self.cache.make_room_to_write();
    }

    /// Says that the page holds a change that its durable form lacks.
    #[inline]
    pub(crate) fn mark_dirty(&self, pid: PageId) {
        if self.cache.pages.mark_dirty(pid) {
            self.cache.note_dirty();
        }
    }

    /// Whoever writes helps to clean when the file is as long as it may be.
    #[inline]
    pub(crate) fn keep_within_room(&self) {
        if self.cache.store.is_tight() {
            self.help_to_clean(HELP_TRIES_MAX);
        }
    }

    /// As [`Shared::keep_within_room`], between the pieces of a large value.
    pub(crate) fn make_room_for_value(&self) {
        if !self.cache.store.note_room() {
            self.help_to_clean(VALUE_TRIES_MAX);
        }
    }

    #[cold]
    fn help_to_clean(&self, tries_max: u32) {
        for _ in 0..tries_max {
            // A full disk keeps what is there; the writer learns of it from the log.
            let helped = self.checkpointer.make_room(&self.cache, &self.log, &self.recovery);
            if self.cache.store.note_room() || !matches!(helped, Ok(Helped::NotNow)) {
                break;
            }
            std::thread::sleep(HELP_PAUSE);
        }
    }

    /// One step of cleaning in the background; says whether there is more to do.
    pub(crate) fn clean(&self) -> Result<Cleaned, Failure> {
        self.checkpointer.clean(&self.cache, &self.log, &self.recovery)
    }

    /// Counts live bytes anew and compares.
    pub(crate) fn recount(&self) -> Result<(), Failure> {
        self.checkpointer.recount(&self.cache)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Makes everything durable and the files small. Nothing else uses the store any more.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        let outcome = self.settle_files().and_then(|()| self.leave_at_close());
        self.storage.unlock();
        if self.prints_profile {
            eprint!("{}", self.cache.metrics.profile());
        }
        outcome
    }

    fn leave_at_close(&self) -> Result<(), Failure> {
        match &self.events {
            Some(events) if !self.read_only => self.leave_facts(events),
            _ => Ok(()),
        }
    }

    /// Notes that all up to now is durable.
    pub(crate) fn note_durable(&self) {
        if let Some(events) = self.events.as_ref().filter(|_| !self.read_only) {
            self.leave_floor(events);
        }
    }

    fn settle_files(&self) -> Result<(), Failure> {
        if self.read_only {
            return Ok(());
        }
        self.cache.poison.check()?;
        if self.checkpointer.is_clean() {
            // Only read since it was closed last: it is as small as that close could make it.
            return Ok(());
        }
        // Closes the last buffer, so that the checkpoint's watermark is where the log ends.
        self.log.flush()?;
        self.checkpoint_for(Purpose::Close, || true)?;
        self.compact_pages(Purpose::Close)?;
        self.log.trim()
    }

    /// Writes everything back, and moves what is alive together until the file is hardly longer.
    pub(crate) fn compact(&self) -> Result<(), Failure> {
        self.checkpoint()?;
        self.compact_pages(Purpose::Shorten)
    }

    fn compact_pages(&self, purpose: Purpose) -> Result<(), Failure> {
        let store = &self.cache.store;
        store.united(|| {
            for round in 0..COMPACT_ROUNDS_MAX {
                let segments = store.segments_to_compact(round == 0);
                if segments.is_empty() {
                    break;
                }
                self.cache.empty_segments(&segments)?;
                self.checkpoint_for(purpose, || true)?;
            }
            Ok(())
        })
    }

    pub(crate) fn stats(&self) -> Stats {
        let pages = &self.cache.pages;
        let memory = self.memory.stats();
        let store = self.cache.store.stats();
        Stats {
            pages: pages.bound(),
            free_pages: pages.free_count() + self.cache.maps.hidden_free(),
            resident_bytes: self.cache.budget.resident_bytes(),
            memory: self.memory_owners(),
            memory_budget_bytes: self.cache.budget.bytes(),
            page_memory_bytes: memory.in_use_bytes,
            page_memory_reserved_bytes: memory.reserved_bytes,
            log_tail_bytes: self.log.tail_bytes(),
            log_file_bytes: self.log.file_bytes(),
            pages_file_bytes: store.file_bytes,
            pages_live_bytes: store.live_bytes,
            written: self.cache.store.written(),
        }
    }
}

impl<M: Materializer + Send + Sync + 'static> log::Host for Shared<M> {
    fn settle(&self) -> Result<(), Failure> {
        self.checkpointer.settle()
    }

    fn epoch_salt(&self) -> Result<u64, Failure> {
        self.published_salt.map_or_else(|| self.checkpointer.fresh_salt(), Ok)
    }

    fn begin_epoch(&self, begun: &Begun) -> Result<(), Failure> {
        self.checkpointer.begin_epoch(begun, self.log.stable())
    }

    fn truncate(&self) -> Result<(), Failure> {
        self.make_room_in_log(|| self.log.has_free_segment())
    }

    fn has_work(&self) {
        self.wake_background();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::tail_of;

    #[test]
    fn a_tail_is_longer_than_the_interval_and_leaves_a_quarter_of_the_log() {
        let much = 1 << 30;
        assert_eq!(tail_of(24 << 20, 256 << 20, much), (96 << 20, 12 << 20));
        assert_eq!(tail_of(60 << 20, 128 << 20, much), (96 << 20, 30 << 20));
        assert_eq!(tail_of(96 << 20, 128 << 20, much), (96 << 20, 48 << 20));
        assert_eq!(tail_of(1, 128 << 20, much), (4, 1));
        assert_eq!(
            tail_of(24 << 20, 128 << 20, 64 << 20),
            (24 << 20, 6 << 20),
            "three eighths of the memory"
        );
        assert_eq!(
            tail_of(24 << 20, 128 << 20, 1 << 20),
            (8 << 20, 2 << 20),
            "as much as it takes to be of use"
        );
    }
}
