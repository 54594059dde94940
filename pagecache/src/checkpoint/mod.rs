//! Checkpoints: the page table made durable, so that the log behind it can be used again.
//!
//! * CKPT-1 (P-1): a checkpoint holds a prefix of all changes of durable words. Order: write dirty
//!   pages back, read the log's installed watermark W, then F, the first record of every run under way,
//!   then D, the smallest LSN that some dirty page's durable form lacks, load what is to be written whole,
//!   take the prefix, make the log stable past every change its images hold, write what changed of the table
//!   and the directory, sync, publish. Replay starts at T = min(W, F, D).
//!   Which dirty pages are written back is free: those that are not keep the log by D. A checkpoint of the
//!   background writes only those that hold the log's oldest part.
//! * CKPT-2 (P-3): both superblock slots name the new checkpoint, synced one after the other, before
//!   anything it no longer needs is used again.
//!
//! How the table is written is [`table`]'s business. Reading it all back is [`open`]; what a tail of
//! records means is [`fold`].

mod clean;
pub(crate) mod fold;
pub(crate) mod open;
pub(crate) mod runs;
mod table;

pub(crate) use clean::{Cleaned, Helped};

use std::sync::Arc;

use serde::Serialize;

use self::runs::OpenRuns;

use crate::{
    cache::{Cache, Prefix},
    error::{Failure, Poison},
    format::{
        codec,
        superblock::{DirectoryRef, SALTS_MAX, Superblock},
    },
    ids::{Lsn, PageId},
    log::{Begun, Log, tail::Tail},
    materializer::Materializer,
    page::chain::ALL_DURABLE,
    reclaim::pin,
    store::{self, superblocks::Publisher},
    sync::{Mutex, MutexGuard},
};

/// Pages written back before the file's room is looked at again.
const PAGES_PER_LOOK: usize = 16;

/// The newest value that the layer above wants back, and the LSN of the fragment it came from.
pub(crate) type Recovery<R> = Mutex<Option<(Lsn, R)>>;

/// Why a checkpoint is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To let go of the log as far as can be: all that changed is written back.
    Shorten,
    /// To let go of the log below this position: what lacks nothing of that stays as it is, so that pages
    /// gather changes for as long as the log may hold them.
    Trim(Lsn),
    /// To close: if nothing is left to replay, the checkpoint says so.
    Close,
    /// To free what is superseded: nothing is written back.
    Release,
}

/// Takes checkpoints, one at a time.
pub(crate) struct Checkpointer {
    state: Mutex<State>,
    /// Batches of several records that are being written.
    pub(crate) runs: Arc<OpenRuns>,
    salts: SaltSource,
}

/// No checkpoint runs while this lives.
#[must_use]
pub(crate) struct Held<'c>(#[allow(dead_code, reason = "held for its lock alone")] MutexGuard<'c, State>);

struct State {
    superblock: Superblock,
    publisher: Publisher,
    runs: Arc<OpenRuns>,
}

/// Where salts come from: the system, or a seed that makes a simulation repeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SaltSource {
    pub(crate) seed: Option<u64>,
}

impl SaltSource {
    /// A number that was not used before, `round` being the superblock's generation.
    pub(crate) fn salt(self, round: u64) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        match self.seed {
            None => RandomState::new().hash_one(round),
            // A fixed mixing function (splitmix64's finisher): equal seeds give equal salts.
            Some(seed) => {
                let mut x = seed.wrapping_add(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                x ^ x >> 31
            }
        }
    }
}

impl Checkpointer {
    fn new(superblock: Superblock, publisher: Publisher, salts: SaltSource) -> Checkpointer {
        let runs = Arc::new(OpenRuns::new());
        let state = Mutex::new(State { superblock, publisher, runs: runs.clone() });
        Checkpointer { state, runs, salts }
    }

    /// Takes a checkpoint, unless nothing has changed since the last. Waits for one that runs.
    pub(crate) fn run<M: Materializer>(
        &self,
        cache: &Cache<M>,
        log: &Log,
        recovery: &Recovery<M::Recovery>,
        purpose: Purpose,
    ) -> Result<(), Failure> {
        self.run_if(|| true, cache, log, recovery, purpose)
    }

    /// As [`Checkpointer::run`], unless the one that it waited for did what is wanted.
    pub(crate) fn run_if<M: Materializer>(
        &self,
        is_wanted: impl FnOnce() -> bool,
        cache: &Cache<M>,
        log: &Log,
        recovery: &Recovery<M::Recovery>,
        purpose: Purpose,
    ) -> Result<(), Failure> {
        let mut state = self.state.lock();
        cache.poison.check()?;
        if !is_wanted() {
            return Ok(());
        }
        let _unwinding = PoisonOnPanic { poison: &cache.poison, since_before: std::thread::panicking() };
        // What a checkpoint supersedes is free only behind it. Where there is no room for all of it
        // beside all that it replaces, it is several.
        let mut dirty = match purpose {
            Purpose::Release => Vec::new(),
            Purpose::Trim(below) => {
                let mut dirty = take_dirty(cache);
                dirty.retain(|pid| cache.lacking(*pid, &pin()).0 < below);
                dirty
            }
            Purpose::Shorten | Purpose::Close => take_dirty(cache),
        };
        while write_back(cache, log, &mut dirty)? == Rest::Dirty {
            state.publish(cache, log, recovery, Purpose::Release)?;
            state.make_room(cache, log, recovery)?;
        }
        state.publish(cache, log, recovery, purpose)?;
        match purpose {
            Purpose::Shorten => state.make_room(cache, log, recovery),
            // The log is what it was for; the file's room is for its own steps.
            Purpose::Trim(_) | Purpose::Close | Purpose::Release => Ok(()),
        }
    }

    /// A salt that was not used before, for which the superblock has room.
    pub(crate) fn fresh_salt(&self) -> Result<u64, Failure> {
        if !self.has_room_for_salt() {
            return Err(Failure::Misuse { what: "the list of salts is full: a checkpoint must come first" });
        }
        Ok(self.salts.salt(self.state.lock().superblock.generation + 1))
    }

    /// Publishes that all of the tail is durable, and a fresh salt from its end on, which is returned.
    fn acknowledge(&self, tail: &Tail) -> Result<u64, Failure> {
        let salt = self.fresh_salt()?;
        self.state.lock().change(|next| acknowledge(next, tail, salt))?;
        Ok(salt)
    }

    /// Publishes the newest superblock once more, unless this process has published one.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if state.publisher.is_proven() { Ok(()) } else { state.change(|_| ()) }
    }

    /// Publishes the epoch of the first append after an open.
    pub(crate) fn begin_epoch(&self, begun: &Begun, stable: Lsn) -> Result<(), Failure> {
        self.state.lock().change(|next| begin_epoch(next, begun, stable))
    }

    /// Waits for a checkpoint that runs, and keeps the next one from beginning while what is returned lives.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held(self.state.lock())
    }

    /// True if another salt fits the superblock.
    pub(crate) fn has_room_for_salt(&self) -> bool {
        has_room_for_salt(&self.state.lock().superblock)
    }

    /// True if the newest checkpoint is that of a close, and nothing was appended since.
    pub(crate) fn is_clean(&self) -> bool {
        self.state.lock().superblock.clean
    }

    /// Bytes of the log below this position are not needed any more.
    pub(crate) fn replay_from(&self) -> Lsn {
        self.state.lock().superblock.replay_from
    }
}

/// Says that all of the log's tail is durable, and followed by what has `salt`. There is room for a salt.
pub(crate) fn acknowledge(superblock: &mut Superblock, tail: &Tail, salt: u64) {
    add_salt(superblock, tail.end(), salt);
    superblock.stable = superblock.stable.max(tail.end());
    superblock.clean = false;
    superblock.log_bytes = superblock.log_bytes.max(tail.file_bytes());
    if !tail.holds(superblock.log_begun) {
        // It may be written over from now on.
        superblock.log_begun = 0;
    }
}

/// Says that an epoch has begun. There is room for its salt, or it is listed.
pub(crate) fn begin_epoch(superblock: &mut Superblock, begun: &Begun, stable: Lsn) {
    if superblock.salts.last().is_none_or(|(_, salt)| *salt != begun.salt) {
        add_salt(superblock, begun.first, begun.salt);
    }
    superblock.stable = superblock.stable.max(stable);
    superblock.clean = false;
    superblock.log_bytes = superblock.log_bytes.max(begun.file_bytes);
    superblock.log_begun = begun.first;
}

/// Lists `salt` as valid from `from` on.
fn add_salt(superblock: &mut Superblock, from: Lsn, salt: u64) {
    forget_salts(superblock);
    // An epoch that was to begin at or beyond `from` left no record: this one takes its place, or
    // what is written now would be looked for under the other's salt.
    superblock.salts.retain(|(other, _)| *other < from);
    superblock.salts.push((from, salt));
}

/// True if another salt fits.
pub(crate) fn has_room_for_salt(superblock: &Superblock) -> bool {
    let from = superblock.replay_from;
    let forgotten = superblock.salts.iter().skip(1).filter(|(first, _)| *first <= from).count();
    superblock.salts.len() - forgotten < SALTS_MAX
}

/// Drops salts that no record at or above the replay position was written under.
pub(crate) fn forget_salts(superblock: &mut Superblock) {
    let from = superblock.replay_from;
    while superblock.salts.len() > 1 && superblock.salts[1].0 <= from {
        superblock.salts.remove(0);
    }
    if superblock.salts.first().is_none_or(|(first, _)| *first > superblock.log_begun) {
        // Nothing of that epoch is needed, and its segment is not known any more.
        superblock.log_begun = 0;
    }
}

impl State {
    fn change(&mut self, change: impl FnOnce(&mut Superblock)) -> Result<(), Failure> {
        let mut next = self.superblock.clone();
        change(&mut next);
        self.publisher.publish(&mut next)?;
        self.superblock = next;
        Ok(())
    }

    /// Makes the changes up to now durable, and frees what they superseded.
    fn publish<M: Materializer>(
        &mut self,
        cache: &Cache<M>,
        log: &Log,
        recovery: &Recovery<M::Recovery>,
        purpose: Purpose,
    ) -> Result<(), Failure> {
        let bounds = match purpose {
            // It need not let go of any log: what the last checkpoint needed is there.
            Purpose::Release => Bounds::as_before(self.superblock.replay_from),
            _ => {
                // In this order (CKPT-1).
                let (watermark, oldest_run) = (log.watermark()?, self.runs.oldest());
                Bounds { watermark, oldest_run, oldest_dirty: oldest_dirty(cache) }
            }
        };
        let (folds, is_directory_wanted) = table::plan(cache)?;
        let mut prefix = {
            let mut changes = cache.changes.lock();
            let (mark, live) = (cache.store.mark(), cache.store.live_table());
            changes.take_prefix(&cache.pages, mark, live, folds)
        };
        prefix.directory |= is_directory_wanted;
        let replay_from = bounds.replay_from();
        let clean = purpose == Purpose::Close && bounds.end_at(log.next_lsn());
        let nothing_new = prefix.groups.is_empty()
            && !prefix.directory
            && (replay_from == self.superblock.replay_from || purpose == Purpose::Release);
        if nothing_new && (clean == self.superblock.clean || purpose != Purpose::Close) {
            cache.changes.lock().put_back(prefix);
            return Ok(());
        }
        let _writing = cache.budget.in_flight(prefix.memory_bytes());
        let outcome = self.write_and_publish(cache, log, recovery, &prefix, replay_from, clean);
        if let Err(failure) = outcome {
            cache.changes.lock().put_back(prefix);
            return Err(failure);
        }
        // Both slots are durable: only now is anything used again (CKPT-2).
        cache.store.published(prefix.mark);
        log.release(replay_from);
        cache.pages.give_back(prefix.freed, &pin());
        cache.store.shrink()
    }

    fn write_and_publish<M: Materializer>(
        &mut self,
        cache: &Cache<M>,
        log: &Log,
        recovery: &Recovery<M::Recovery>,
        prefix: &Prefix,
        replay_from: Lsn,
        clean: bool,
    ) -> Result<(), Failure> {
        let recovery = recovery.lock().clone();
        let newest = prefix.newest.max(recovery.as_ref().map_or(0, |(lsn, _)| *lsn));
        if newest >= log.stable() {
            log.make_stable(newest)?;
        }
        let recovery = recovery.as_ref().map(|(lsn, value)| (*lsn, encode(value)));
        let old_directory = self.superblock.directory.as_ref().map(|named| named.addr);
        let new = table::write(cache, prefix, recovery, replay_from, old_directory)?;
        let mut next = self.superblock.clone();
        next.replay_from = replay_from;
        next.stable = log.stable();
        next.clean = clean;
        // A close cuts the log.
        (next.log_bytes, next.log_begun) = match clean {
            true => (0, 0),
            false => (next.log_bytes.max(log.durable_bytes()), next.log_begun),
        };
        next.directory = Some(DirectoryRef { addr: new.directory.addr, crc: new.directory.crc });
        forget_salts(&mut next);
        self.publisher.publish(&mut next)?;
        self.superblock = next;
        new.settle(cache, prefix);
        if let Some(addr) = old_directory {
            cache.store.release_under(addr, prefix.mark);
        }
        Ok(())
    }
}

/// What bounds the position from which on an open replays.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// W: all below is installed.
    watermark: Lsn,
    /// F: the first record of a run under way.
    oldest_run: Lsn,
    /// D: the oldest change that a durable form lacks.
    oldest_dirty: Lsn,
}

impl Bounds {
    /// An open replays from where it would have before: more than it must, and nothing is missing.
    fn as_before(replay_from: Lsn) -> Bounds {
        Bounds { watermark: replay_from, oldest_run: replay_from, oldest_dirty: replay_from }
    }

    fn replay_from(self) -> Lsn {
        self.watermark.min(self.oldest_run).min(self.oldest_dirty)
    }

    /// True if nothing is left to replay in a log that ends at `end`.
    fn end_at(self, end: Lsn) -> bool {
        self.oldest_dirty == ALL_DURABLE && self.watermark == end
    }
}

/// A panic in a checkpoint may have lost what was to be part of it: nothing is written after it, and the log keeps
/// all that a later open needs.
struct PoisonOnPanic<'p> {
    poison: &'p Poison,
    /// The thread was unwinding before.
    since_before: bool,
}

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.since_before {
            let _ = self.poison.set(Failure::Misuse {
                what: "a checkpoint panicked; please report it, and open the store anew",
            });
        }
    }
}

fn encode<R: Serialize>(value: &R) -> Vec<u8> {
    let mut bytes = vec![0; codec::encoded_len(value)];
    codec::encode(value, &mut bytes);
    bytes
}

/// What is left of the dirty pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// None, or pages that cannot be written now.
    Settled,
    /// Pages for which there is no room.
    Dirty,
}

/// The dirty pages as of now, the last one first. They stay marked.
fn take_dirty<M: Materializer>(cache: &Cache<M>) -> Vec<PageId> {
    let mut dirty = cache.pages.dirty_pages();
    // What is written is unmarked then, or by the look for the oldest change.
    dirty.reverse();
    dirty
}

/// Writes these pages back, as far as it can be done now and while there is room; some even if there
/// is none.
fn write_back<M: Materializer>(
    cache: &Cache<M>,
    log: &Log,
    dirty: &mut Vec<PageId>,
) -> Result<Rest, Failure> {
    while !dirty.is_empty() {
        // The thread that usually looks after the log may be at this.
        // A full disk keeps the log as it is; any other failure poisons, and the next call is told.
        let _ = log.prepare();
        let chunk: Vec<PageId> = (0..PAGES_PER_LOOK).map_while(|_| dirty.pop()).collect();
        let _skipped_ones_stay_marked = cache.write_back(&chunk, store::Purpose::Checkpoint)?;
        if cache.is_short_of_memory() {
            // What the log's tail holds comes into memory here, if nobody has asked for it.
            // A full disk keeps it there.
            let _ = cache.make_room_to_write();
        }
        if !dirty.is_empty() && !cache.store.has_room() {
            return Ok(Rest::Dirty);
        }
    }
    Ok(Rest::Settled)
}

/// Smallest LSN that some dirty page's durable form lacks; pages that are clean lose their bit.
fn oldest_dirty<M: Materializer>(cache: &Cache<M>) -> Lsn {
    let mut oldest = ALL_DURABLE;
    cache.pages.scan_dirty(|pid| {
        let (lacks, dirty) = cache.lacking(pid, &pin());
        oldest = oldest.min(lacks);
        dirty
    });
    oldest
}
