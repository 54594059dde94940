//! Opening a store: the newest superblock, its page table, and the log's tail folded over them.
//!
//! Nothing on disk changes before all of that has succeeded. Then, if there is a tail, it is written
//! again in place, synced, and acknowledged by a superblock with a fresh salt (P-3); a crash anywhere
//! in between leaves all as it was. Opening a cleanly closed store reads and writes nothing more, and
//! opening one read-only writes nothing at all.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Checkpointer, Purpose, Recovery, SaltSource,
    fold::{Change, Fold, Replayed, What, fold},
};
use crate::{
    cache::Cache,
    config::Config,
    error::{Failure, Poison},
    format::{
        codec,
        frame::FrameKind,
        map::{Directory, Entry, MAP_SPAN, MapPage, MapPageRef},
        superblock::{self, Superblock},
    },
    ids::{FragmentAddr, Lsn, PageId, PageSeq},
    io::{FileId, Storage, SyncReason},
    log::{Geometry, Log, Position, tail},
    materializer::Materializer,
    page::{
        cell::{Durable, Form, Head, Image, Word},
        chain::{Body, Draft, Node, Stamp},
    },
    reclaim::{Guard, pin},
    store::{
        self, Store,
        pages::PagesFile,
        superblocks::{self, Publisher},
    },
    sync::Mutex,
};

/// More threads than this do not read a log of at most 256 MiB any faster.
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

/// The persisted page table.
struct Table {
    directory: Option<Directory>,
    map: BTreeMap<u64, MapPageRef>,
    /// By page id; `None` for a page that is free with number 0.
    entries: Vec<Option<Entry>>,
}

impl Table {
    fn entry(&self, pid: PageId) -> Option<&Entry> {
        self.entries.get(pid)?.as_ref()
    }
}

/// Opens the store in `storage`, whose lock the caller holds.
pub(crate) fn open<M: Materializer>(
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
        config.may_create(&storage.path(FileId::Pages))?;
        refuse_log_alone(storage)?;
        superblocks::create(&**storage, &first_superblock(config, salts))?;
    } else if !settings.read_only && !exists(storage, FileId::Log)? {
        // Whoever made the store may have died before the name of its pages was durable: a log that has a
        // durable name without them would pass for what is left of a lost store.
        let failed = |e| Failure::from_io("syncing names", storage.path(FileId::Pages), 0, 0, e);
        storage.sync_names(SyncReason::CreationName).map_err(failed)?;
    }
    let (superblock, slots) = superblocks::read_newest(&**storage)?;
    let file = PagesFile::new(storage.clone(), poison.clone(), &superblock);
    let table = read_table(&file, &superblock)?;
    let recovery = recovery_value::<M>(&file, table.directory.as_ref())?;
    let materializer = M::new(config.clone(), &recovery.as_ref().map(|(_, value)| value.clone()));
    let tail = read_tail(storage, config, &superblock)?;
    let fold = fold_tail(&materializer, &table, recovery, tail.as_ref(), storage)?;
    let store = Store::new(file.clone(), live_addresses(&superblock, &table, &fold), settings.cleaning)?;
    // A second materializer knows what the tail added; the first one only decoded it.
    let value = fold.recovery.as_ref().map(|(_, value)| value.clone());
    let cache = Cache::new(
        M::new(config.clone(), &value),
        settings.memory.clone(),
        store,
        settings.cache_capacity,
        poison.clone(),
    );
    restore(&cache, &table, &fold)?;
    let position = match &tail {
        Some(tail) => tail.position(),
        None => clean_position(storage, &superblock)?,
    };
    let Fold { changes, recovery, .. } = fold;
    let freed = freed_values(&table, &changes);
    restore_chains(&cache, changes);
    // Without a write: so that the next checkpoint, whatever it is for, frees what they take.
    let _none_is_skipped = cache.write_back(&freed, store::Purpose::Ordinary)?;
    let end = position.end;
    let publisher = Publisher::new(file, superblock.clone(), slots);
    let log = Log::new(storage.clone(), log_geometry(config, &superblock), poison.clone(), position)?;
    let checkpointer = Checkpointer::new(superblock, publisher, table.map, salts);
    let mut opened =
        Opened { cache, log, checkpointer, recovery: Mutex::new(recovery), salt: None, was_recovered };
    if let Some(tail) = tail.filter(|_| !settings.read_only) {
        tail.rewrite(&**storage).map_err(|failure| poison.set(failure))?;
        opened.acknowledge(end)?;
    }
    Ok(opened)
}

impl<M: Materializer> Opened<M> {
    /// Publishes a fresh salt from the tail's end on: the tail is acknowledged, and whatever a torn
    /// write left behind it can never pass for a record again.
    fn acknowledge(&mut self, end: Lsn) -> Result<(), Failure> {
        if !self.checkpointer.has_room_for_salt() {
            self.checkpointer.run(&self.cache, &self.log, &self.recovery, Purpose::Shorten)?;
        }
        self.salt = Some(self.checkpointer.begin_epoch(end, end)?);
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
fn clean_position(storage: &Arc<dyn Storage>, superblock: &Superblock) -> Result<Position, Failure> {
    let failed = |e| Failure::from_io("looking at the log", storage.path(FileId::Log), 0, 0, e);
    let exists = storage.exists(FileId::Log).map_err(failed)?;
    let bytes = if exists { storage.len(FileId::Log).map_err(failed)? } else { 0 };
    Ok(Position {
        from: superblock.replay_from,
        end: superblock.replay_from,
        slots: bytes / u64::from(superblock.geometry.log_segment_bytes),
        live: Vec::new(),
        exists,
    })
}

fn read_table(file: &PagesFile, superblock: &Superblock) -> Result<Table, Failure> {
    let mut table = Table { directory: None, map: BTreeMap::new(), entries: Vec::new() };
    let Some(named) = &superblock.directory else { return Ok(table) };
    let bytes = read_whole(file, named.addr, 0, FrameKind::Directory)?;
    let directory = Directory::decode(&bytes, named.crc).map_err(|why| corrupt(file, named.addr, why))?;
    table.entries.resize_with(directory.page_bound as usize, || None);
    for named in &directory.map_pages {
        let (addr, number) = (named.addr, named.number);
        let bytes = read_whole(file, addr, number, FrameKind::MapPage)?;
        let page = MapPage::decode(&bytes, named.crc).map_err(|why| corrupt(file, addr, why))?;
        if page.number != number {
            return Err(corrupt(file, addr, format!("map page {number} says it is {}", page.number)));
        }
        for (index, entry) in page.entries {
            let pid = number * MAP_SPAN + u64::from(index);
            if pid >= directory.page_bound {
                return Err(corrupt(
                    file,
                    addr,
                    format!("page {pid} is above the bound {}", directory.page_bound),
                ));
            }
            table.entries[pid as PageId] = Some(entry);
        }
        table.map.insert(number, *named);
    }
    table.directory = Some(directory);
    Ok(table)
}

fn read_whole(
    file: &PagesFile,
    addr: FragmentAddr,
    number: u64,
    kind: FrameKind,
) -> Result<Vec<u8>, Failure> {
    let frame = file.read_frame(addr, number, None)?;
    if frame.kind() != kind {
        return Err(corrupt(
            file,
            addr,
            format!("a frame of kind {:?} stands where {kind:?} was written", frame.kind()),
        ));
    }
    Ok(frame.payload().to_vec())
}

fn corrupt(file: &PagesFile, addr: FragmentAddr, found: impl ToString) -> Failure {
    Failure::Corrupt { found: found.to_string(), path: file.path(), offset: addr.offset }
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

/// The log's tail; `None` if the store was closed cleanly and nothing was appended since.
fn read_tail(
    storage: &Arc<dyn Storage>,
    config: &Config,
    superblock: &Superblock,
) -> Result<Option<tail::Tail>, Failure> {
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
    let (from, stable) = (superblock.replay_from, superblock.stable);
    tail::scan(&**storage, geometry, from, &superblock.salts, stable, scan_threads(config)).map(Some)
}

/// Threads that read the log's tail: one where jobs run on the caller's own, so that a simulation
/// repeats.
pub(crate) fn scan_threads(config: &Config) -> usize {
    let is_inline = config.inner.spawner.as_ref().is_some_and(|spawner| spawner.is_inline());
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    if is_inline { 1 } else { available.min(SCAN_THREADS_MAX) }
}

fn fold_tail<M: Materializer>(
    materializer: &M,
    table: &Table,
    recovery: Option<(Lsn, M::Recovery)>,
    tail: Option<&tail::Tail>,
    storage: &Arc<dyn Storage>,
) -> Result<Fold<M::PageFrag, M::Recovery>, Failure> {
    let bound = table.directory.as_ref().map_or(0, |directory| directory.page_bound as PageId);
    let durable_seq = |pid: PageId| -> PageSeq {
        match table.entry(pid) {
            Some(Entry::Present { seq, .. } | Entry::Value { seq, .. } | Entry::Free { seq }) => *seq,
            None => 0,
        }
    };
    let records = tail.into_iter().flat_map(|tail| tail.records()).map(|record| Replayed {
        lsn: record.lsn,
        kind: record.kind,
        pid: record.pid,
        seq: record.seq,
        payload: record.payload,
    });
    let replay_from = tail.map_or(0, tail::Tail::from);
    let folded =
        fold(materializer, bound, recovery, replay_from, durable_seq, records).map_err(|nonsense| {
            Failure::Corrupt {
                found: format!("the record at log position {}: {}", nonsense.lsn, nonsense.why),
                path: storage.path(FileId::Log),
                offset: 0,
            }
        })?;
    check_bases(table, &folded, storage)?;
    Ok(folded)
}

/// Every change must have something to stand on.
fn check_bases<P, R>(table: &Table, fold: &Fold<P, R>, storage: &Arc<dyn Storage>) -> Result<(), Failure> {
    for changes in fold.changes.chunk_by(|a, b| a.pid == b.pid) {
        let pid = changes[0].pid;
        let below = table.entry(pid);
        let stands = match &changes[0].what {
            What::Fragment(Body::Append(_)) => matches!(below, Some(Entry::Present { .. })),
            What::Fragment(Body::Base(_) | Body::Free) => true,
            // A freed id is used again only once a checkpoint has it free.
            What::Adopts(_) => matches!(below, None | Some(Entry::Free { .. })),
        };
        let ascends = changes.windows(2).all(|pair| pair[0].seq < pair[1].seq);
        let alive = changes.iter().skip(1).all(|change| change.what.is_append())
            && (changes.len() == 1
                || !matches!(changes[0].what, What::Fragment(Body::Free) | What::Adopts(_)));
        if !(stands && ascends && alive) {
            return Err(Failure::Corrupt {
                found: format!(
                    "the records of page {pid} from log position {} do not follow one another",
                    changes[0].lsn
                ),
                path: storage.path(FileId::Log),
                offset: 0,
            });
        }
    }
    Ok(())
}

/// What the table and adopting records refer to: these bytes count before any segment is handed out
/// (P-4).
fn live_addresses<P, R>(superblock: &Superblock, table: &Table, fold: &Fold<P, R>) -> Vec<FragmentAddr> {
    let mut live: Vec<FragmentAddr> = superblock.directory.iter().map(|named| named.addr).collect();
    live.extend(table.map.values().map(|named| named.addr));
    for entry in table.entries.iter().flatten() {
        match entry {
            Entry::Present { parts, .. } => live.extend(parts.iter().copied()),
            Entry::Value { extents, .. } => live.extend(extents.addrs()),
            Entry::Free { .. } => {}
        }
    }
    for change in &fold.changes {
        if let What::Adopts(extents) = &change.what {
            live.extend(extents.addrs());
        }
    }
    live
}

/// Puts the checkpoint's pages into the mapping table: evicted, or free.
fn restore<M: Materializer>(
    cache: &Cache<M>,
    table: &Table,
    fold: &Fold<M::PageFrag, M::Recovery>,
) -> Result<(), Failure> {
    cache.pages.restore_bound(fold.bound)?;
    let mut changed = fold.changes.iter().map(|change| change.pid).peekable();
    for pid in 0..fold.bound {
        match table.entry(pid) {
            Some(Entry::Present { seq, parts }) => {
                let image = Image { base: parts[0], deltas: parts[1..].to_vec() };
                let durable = Durable { seq: *seq, form: Form::Page(image) };
                cache.pages.restore_present(pid, durable);
            }
            Some(Entry::Value { seq, extents }) => {
                let durable = Durable { seq: *seq, form: Form::Value(Arc::new(extents.clone())) };
                cache.pages.restore_present(pid, durable);
            }
            Some(Entry::Free { seq }) => cache.pages.restore_free(pid, *seq),
            None => cache.pages.restore_free(pid, 0),
        }
        let mut is_changed = false;
        while changed.next_if_eq(&pid).is_some() {
            is_changed = true;
        }
        if !is_changed && matches!(table.entry(pid), None | Some(Entry::Free { .. })) {
            cache.pages.restore_given_back(pid);
        }
    }
    Ok(())
}

/// The large values of the checkpoint that the tail frees.
fn freed_values<P>(table: &Table, changes: &[Change<P>]) -> Vec<PageId> {
    let is_freed = |change: &&Change<P>| {
        matches!(change.what, What::Fragment(Body::Free))
            && matches!(table.entry(change.pid), Some(Entry::Value { .. }))
    };
    changes.iter().filter(is_freed).map(|change| change.pid).collect()
}

/// Puts the tail's changes above the checkpoint's pages, without reading any of these.
fn restore_chains<M: Materializer>(cache: &Cache<M>, changes: Vec<Change<M::PageFrag>>) {
    let guard = pin();
    let fragments = changes.into_iter().filter_map(|change| {
        let Change { pid, lsn, first, seq, what } = change;
        match what {
            What::Fragment(body) => Some((pid, draft(cache, Recovered { lsn, first, seq, body }))),
            What::Adopts(extents) => {
                adopt(cache, pid, Durable { seq, form: Form::Value(Arc::new(extents)) }, lsn, &guard);
                None
            }
        }
    });
    let mut fragments = fragments.peekable();
    while let Some((pid, bottom)) = fragments.next() {
        let mut chain = Node::bottom(&cache.memory, bottom);
        while let Some((_, draft)) = fragments.next_if(|(other, _)| *other == pid) {
            chain = Node::atop(&cache.memory, draft, chain);
        }
        let cell = cache.pages.cell(pid).expect("the fold's bound is above every page in it");
        let (word, head) = cell.head(&guard);
        assert!(!matches!(head, Head::Chain(_)), "page {pid} was restored twice");
        if cell.replace(word, chain, &guard).is_err() {
            unreachable!("page {pid} changed while the store was being opened");
        }
        cache.pages.mark_dirty(pid);
    }
}

/// A recovered fragment.
struct Recovered<P> {
    lsn: Lsn,
    first: Lsn,
    seq: PageSeq,
    body: Body<P>,
}

/// A recovered fragment as a node; charged from here on.
fn draft<M: Materializer>(cache: &Cache<M>, change: Recovered<M::PageFrag>) -> Draft<M::PageFrag> {
    let frag = match &change.body {
        Body::Base(frag) | Body::Append(frag) => Some(frag),
        Body::Free => None,
    };
    let charge = cache.charge_of(frag);
    cache.charge(charge);
    Draft { seq: change.seq, stamp: Stamp::At(change.lsn), oldest: change.first, charge, body: change.body }
}

/// Makes a page the value that the record at `lsn` adopted. It has no chain that would keep the log from
/// that record on, so it takes its place in the list of map changes at once, for the next checkpoint.
fn adopt<M: Materializer>(cache: &Cache<M>, pid: PageId, durable: Durable, lsn: Lsn, guard: &Guard) {
    let cell = cache.pages.cell(pid).expect("the fold's bound is above every page in it");
    let claim = cell.claim().expect("nobody else uses a store that is being opened");
    let evicted = Word::evicted(durable.seq);
    cache.changes.lock().record(pid, &claim, durable, lsn, guard);
    let (word, _) = cell.head(guard);
    assert!(cell.set(word, evicted, guard), "page {pid} changed while the store was being opened");
}
