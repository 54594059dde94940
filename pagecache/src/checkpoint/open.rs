//! Opening a store: the newest superblock, the directory it names, and the log's tail.
//!
//! Of the page table nothing else is read, but for the map pages of large values that the tail adopts, and of
//! pages that it frees (VALUE-2): a map page is loaded when one of its pages is first asked for. Of the tail all
//! is read, and what stays in memory is where each page's changes lie. So opening takes time by the length of the
//! tail, and by the number of groups and segments.
//!
//! Nothing on disk changes before all of that has succeeded. Then, if there is a tail, it is written
//! again in place, synced, and acknowledged by a superblock with a fresh salt (P-3); a crash anywhere
//! in between leaves all as it was. Opening a cleanly closed store reads and writes nothing more, and
//! opening one read-only writes nothing at all.

use std::sync::Arc;

use super::{
    Checkpointer, Purpose, Recovery, SaltSource,
    fold::{self, Digest, Nonsense, digest},
};
use crate::{
    cache::{Budget, Cache, GROUP_PAGES, Maps, Replay},
    config::Config,
    error::{Failure, Poison},
    format::{
        batch::EntryKind,
        codec,
        directory::Directory,
        frame::FrameKind,
        superblock::{self, Superblock},
    },
    ids::{FragmentAddr, Lsn, PageId},
    io::{FileId, Storage, SyncReason},
    log::{
        Geometry, Log, Position,
        tail::{self, SegmentRecords, Tail},
    },
    materializer::Materializer,
    page::pages::Pages,
    reclaim::pin,
    store::{
        self, Store,
        pages::PagesFile,
        superblocks::{self, Publisher},
    },
    sync::Mutex,
};

/// Threads that read the log's tail, at most.
const SCAN_THREADS_MAX: usize = 8;

/// An open store, before it has a background.
pub(crate) struct Opened<M: Materializer> {
    pub(crate) cache: Cache<M>,
    pub(crate) log: Log,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) recovery: Recovery<M::Recovery>,
    /// A salt that was published already: the first append needs no superblock.
    pub(crate) salt: Option<u64>,
    /// False if the store was made by this call.
    pub(crate) was_recovered: bool,
}

/// Opens the store in `storage`, whose lock the caller holds.
pub(crate) fn open<M: Materializer + Sync>(
    config: &Config,
    storage: &Arc<dyn Storage>,
    poison: &Arc<Poison>,
) -> Result<Opened<M>, Failure> {
    let settings = &config.inner;
    let salts = SaltSource { seed: settings.salt_seed };
    let was_recovered = exists(storage, FileId::Pages)?;
    if was_recovered && settings.create_new {
        return Err(Failure::Unsupported {
            what: format!(
                "{} holds a store already and create_new was asked for",
                storage.path(FileId::Pages).display()
            ),
        });
    }
    if !was_recovered {
        refuse_log_alone(storage)?;
        config.may_create(&storage.path(FileId::Pages))?;
        superblocks::create(&**storage, &first_superblock(config, salts))?;
    } else if !settings.read_only && !exists(storage, FileId::Log)? {
        // Whoever made the store may have died before the name of its pages was durable: a log that has a
        // durable name without them would pass for what is left of a lost store.
        let failed = |e| Failure::from_io("syncing names", storage.path(FileId::Pages), 0, 0, e);
        storage.sync_names(SyncReason::CreationName).map_err(failed)?;
    }
    let (superblock, slots) = superblocks::read_newest(&**storage)?;
    let file = PagesFile::new(storage.clone(), poison.clone(), &superblock);
    let directory = read_directory(&file, &superblock)?;
    let recovery = recovery_value::<M>(&file, directory.as_ref())?;
    let materializer = M::new(config.clone(), &recovery.as_ref().map(|(_, value)| value.clone()));
    let bound = directory.as_ref().map_or(0, |directory| directory.page_bound as PageId);
    let tail = read_tail(storage, config, &superblock, &materializer)?;
    let from = superblock.replay_from;
    let (tail, digests) = tail.map_or((None, Vec::new()), |(tail, digests)| (Some(tail), digests));
    let folded = fold::fold(&materializer, bound, recovery, from, digests)
        .map_err(|nonsense| nonsensical(storage, nonsense))?;
    let replay = tail.as_ref().map(|tail| Replay::new(folded.changes, folded.runs, tail.reader(storage)));
    let mut pages = Pages::new();
    pages.restore_bound(folded.bound)?;
    // Until their map pages are loaded, what the tail says keeps the log.
    replay.iter().flat_map(Replay::pages).for_each(|pid| _ = pages.mark_dirty(pid));
    let live = directory.as_ref().map_or(&[][..], |directory| &directory.segments);
    let named = superblock.directory.as_ref().map(|named| named.addr);
    // A second materializer knows what the tail added; the first one only decoded it.
    let value = folded.recovery.as_ref().map(|(_, value)| value.clone());
    let cache = Cache::new(
        M::new(config.clone(), &value),
        settings.memory.clone(),
        pages,
        Maps::new(directory.as_ref(), replay),
        Store::new(file.clone(), live, named, settings.cleaning, settings.use_compression)?,
        Budget::new(config.cache_capacity()),
        poison.clone(),
    );
    settle_values(&cache)?;
    let position = match &tail {
        Some(tail) => tail.position(),
        None => clean_position(storage, config, &superblock)?,
    };
    let publisher = Publisher::new(file, superblock.clone(), slots);
    settings.memory.expect_at_most(cache.budget.bytes());
    let geometry = log_geometry(config, &superblock);
    let log = Log::new(storage.clone(), geometry, poison.clone(), position)?;
    log.bound_turns(cache.budget.take_log_turns(geometry.buffers, geometry.buffer_bytes));
    let mut published_next = superblock;
    if settings.use_compression {
        // Before anything refers to a packed frame: every publication from here on has it.
        published_next.features.incompatible |= superblocks::PACKED;
    }
    let checkpointer = Checkpointer::new(published_next, publisher, salts);
    let recovery = Mutex::new(folded.recovery);
    let mut opened = Opened { cache, log, checkpointer, recovery, salt: None, was_recovered };
    if let Some(tail) = tail.filter(|_| !settings.read_only) {
        tail.rewrite(&**storage).map_err(|failure| poison.set(failure))?;
        opened.acknowledge(&tail)?;
    }
    Ok(opened)
}

/// Large values that the tail adopts are loaded now: their bytes count before any segment is handed out
/// (P-4). Those that it frees are recorded as free, without a write, so that the next checkpoint, whatever
/// it is for, frees what they take.
fn settle_values<M: Materializer>(cache: &Cache<M>) -> Result<(), Failure> {
    let Some(replay) = cache.maps.replay() else { return Ok(()) };
    replay.pages_of(EntryKind::Adopt).try_for_each(|pid| cache.load(pid))?;
    let is_value = |pid: &PageId| {
        // What cannot be loaded stays in the tail.
        cache.load(*pid).is_ok()
            && cache
                .pages
                .cell(*pid)
                .is_some_and(|cell| cell.durable(&pin()).is_some_and(|durable| durable.value().is_some()))
    };
    let freed: Vec<PageId> = replay.pages_of(EntryKind::Free).filter(is_value).collect();
    let _none_is_skipped = cache.write_back(&freed, store::Purpose::Ordinary)?;
    Ok(())
}

impl<M: Materializer> Opened<M> {
    /// Publishes a fresh salt from the tail's end on: the tail is acknowledged, and whatever a torn
    /// write left behind it can never pass for a record again.
    fn acknowledge(&mut self, tail: &Tail) -> Result<(), Failure> {
        if !self.checkpointer.has_room_for_salt() {
            self.checkpointer.run(&self.cache, &self.log, &self.recovery, Purpose::Shorten)?;
        }
        self.salt = Some(self.checkpointer.acknowledge(tail)?);
        Ok(())
    }
}

fn exists(storage: &Arc<dyn Storage>, file: FileId) -> Result<bool, Failure> {
    storage.exists(file).map_err(|e| Failure::from_io("looking for a store", storage.path(file), 0, 0, e))
}

/// A log is made only after its pages have a durable name, so one without pages has lost them: a new
/// store here would write over the last that is left of the old one.
fn refuse_log_alone(storage: &Arc<dyn Storage>) -> Result<(), Failure> {
    if !exists(storage, FileId::Log)? {
        return Ok(());
    }
    let found = format!("the file is gone, though {} is there", storage.path(FileId::Log).display());
    Err(Failure::Corrupt { found, path: storage.path(FileId::Pages), offset: 0 })
}

fn first_superblock(config: &Config, salts: SaltSource) -> Superblock {
    let settings = &config.inner;
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&salts.salt(u64::MAX).to_le_bytes());
    uuid[8..].copy_from_slice(&salts.salt(u64::MAX - 1).to_le_bytes());
    // Positions below the first segment are never used.
    let start = settings.log_segment_bytes as Lsn;
    Superblock {
        uuid,
        generation: 1,
        replay_from: start,
        stable: start,
        clean: true,
        salts: Vec::new(),
        geometry: superblock::Geometry {
            block_bytes: settings.block_bytes as u32,
            log_segment_bytes: settings.log_segment_bytes as u32,
            store_segment_bytes: settings.store_segment_bytes as u32,
        },
        directory: None,
        features: superblock::Features::default(),
        log_bytes: 0,
        log_begun: 0,
    }
}

/// The log's shape: what was fixed at creation from the superblock, the rest from the settings.
fn log_geometry(config: &Config, superblock: &Superblock) -> Geometry {
    let settings = &config.inner;
    let segment_bytes = superblock.geometry.log_segment_bytes as usize;
    Geometry {
        block_bytes: superblock.geometry.block_bytes as usize,
        segment_bytes,
        buffer_bytes: segment_bytes,
        buffers: settings.log_buffers,
        capacity_bytes: settings.log_capacity.max(4 * segment_bytes as u64),
    }
}

/// Where the log of a store goes on that was closed, or never written.
fn clean_position(
    storage: &Arc<dyn Storage>,
    config: &Config,
    superblock: &Superblock,
) -> Result<Position, Failure> {
    let failed = |e| Failure::from_io("looking at the log", storage.path(FileId::Log), 0, 0, e);
    let exists = storage.exists(FileId::Log).map_err(failed)?;
    let bytes = if exists { storage.len(FileId::Log).map_err(failed)? } else { 0 };
    // Nothing of it is needed, but that of another store may be needed there.
    tail::check_owner(&**storage, log_geometry(config, superblock), &superblock.into())?;
    Ok(Position {
        from: superblock.replay_from,
        end: superblock.replay_from,
        slots: bytes / u64::from(superblock.geometry.log_segment_bytes),
        live: Vec::new(),
        exists,
        store: superblock.uuid,
    })
}

fn read_directory(file: &PagesFile, superblock: &Superblock) -> Result<Option<Directory>, Failure> {
    let Some(named) = &superblock.directory else { return Ok(None) };
    let frame = file.read_frame(named.addr, 0, None)?;
    if frame.kind() != FrameKind::Directory {
        let found = format!("a frame of kind {:?} stands where the directory was written", frame.kind());
        return Err(corrupt(file, named.addr, found));
    }
    let directory = Directory::decode(frame.payload(), named.crc)
        .map_err(|why| corrupt(file, named.addr, why.to_string()))?;
    let is_beyond = |number: u64| number.saturating_mul(GROUP_PAGES) >= directory.page_bound;
    match directory.groups.last().filter(|group| is_beyond(group.number)) {
        None => Ok(Some(directory)),
        Some(group) => {
            let found = format!("group {} is above the bound {}", group.number, directory.page_bound);
            Err(corrupt(file, named.addr, found))
        }
    }
}

fn corrupt(file: &PagesFile, addr: FragmentAddr, found: String) -> Failure {
    Failure::Corrupt { found, path: file.path(), offset: addr.offset }
}

fn nonsensical(storage: &Arc<dyn Storage>, nonsense: Nonsense) -> Failure {
    Failure::Corrupt {
        found: format!("the record at log position {}: {}", nonsense.lsn, nonsense.why),
        path: storage.path(FileId::Log),
        offset: 0,
    }
}

fn recovery_value<M: Materializer>(
    file: &PagesFile,
    directory: Option<&Directory>,
) -> Result<Option<(Lsn, M::Recovery)>, Failure> {
    let Some((lsn, bytes)) = directory.and_then(|directory| directory.recovery.as_ref()) else {
        return Ok(None);
    };
    match codec::decode(bytes) {
        Ok(value) => Ok(Some((*lsn, value))),
        Err(why) => Err(Failure::Corrupt {
            found: format!("the recovered state in the directory does not decode: {why}"),
            path: file.path(),
            offset: 0,
        }),
    }
}

/// What each segment of the log's tail says.
type Digests<R> = Vec<Result<Digest<R>, Nonsense>>;

/// The log's tail and what it says.
type ReadTail<R> = (Tail, Digests<R>);

/// Reads the log's tail; `None` if the store was closed cleanly and nothing was appended since.
fn read_tail<M: Materializer + Sync>(
    storage: &Arc<dyn Storage>,
    config: &Config,
    superblock: &Superblock,
    materializer: &M,
) -> Result<Option<ReadTail<M::Recovery>>, Failure> {
    if superblock.clean {
        return Ok(None);
    }
    let failed = |e| Failure::from_io("looking for the log", storage.path(FileId::Log), 0, 0, e);
    if !storage.exists(FileId::Log).map_err(failed)? {
        // Its name was durable before the superblock said that it was being written.
        return Err(Failure::Corrupt {
            found: "the log is missing, and the store was not closed".to_owned(),
            path: storage.path(FileId::Log),
            offset: 0,
        });
    }
    let geometry = log_geometry(config, superblock);
    let digest = |records: &SegmentRecords<'_>| digest(materializer, records.iter());
    tail::scan(&**storage, geometry, &superblock.into(), scan_threads(config), digest).map(Some)
}

/// Threads that read the log's tail: one where jobs run on the caller's own, so that a simulation
/// repeats.
pub(crate) fn scan_threads(config: &Config) -> usize {
    let is_inline = config.inner.spawner.as_ref().is_some_and(|spawner| spawner.is_inline());
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    if is_inline { 1 } else { available.min(SCAN_THREADS_MAX) }
}
