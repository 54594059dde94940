//! The log's durable root: two superblocks that say where reading begins and which salts hold.
//!
//! They are those of a page cache (P-3) with the feature bit of a log alone and no directory, in a
//! `pages` file that holds nothing else. T is the start of the segment that holds the released
//! position: a segment is let go of as a whole or not at all.
//!
//! A log that was closed goes on under its last salt: all of it is on the device and nothing lies
//! behind it, so there is no torn tail whose records another salt would have to shut out. Every other
//! open takes a fresh one, of which at most eight are known at a time.

use std::sync::Arc;

use crate::{
    checkpoint::{SaltSource, acknowledge, begin_epoch, forget_salts, has_room_for_salt, open::scan_threads},
    config::Config,
    error::{Failure, Poison},
    format::{
        blob::{List, Role},
        superblock::{Features, Geometry, SALTS_MAX, Superblock},
    },
    ids::Lsn,
    io::{FileId, Storage},
    log::{
        self, Begun, Position,
        tail::{self, SegmentRecords, Tail},
    },
    store::{
        pages::PagesFile,
        superblocks::{self, LOG_ALONE, Publisher},
    },
    sync::Mutex,
};

/// See the module's head.
pub(super) struct Root {
    state: Mutex<State>,
    source: SaltSource,
    /// As in the newest superblock; read without waiting for one that is being published.
    salts: Mutex<Vec<(Lsn, u64)>>,
}

struct State {
    newest: Superblock,
    publisher: Publisher,
    /// Published at open already, for the first append.
    ready: Option<u64>,
}

/// What an open found.
pub(super) struct Found {
    pub(super) root: Root,
    pub(super) position: Position,
    pub(super) geometry: Geometry,
    /// The blobs of it, as pairs of first part and list.
    pub(super) blobs: Vec<(Lsn, Lsn)>,
}

impl Root {
    /// Opens or makes the log in `storage`. Nothing is written before all of it was read and found
    /// whole; then a tail that was not closed is written again in place and acknowledged.
    pub(super) fn open(
        config: &Config,
        storage: &Arc<dyn Storage>,
        poison: &Arc<Poison>,
        sizes: impl FnOnce(&Geometry) -> log::Geometry,
    ) -> Result<Found, Failure> {
        let source = SaltSource { seed: config.inner.salt_seed };
        make_if_missing(config, &**storage, source)?;
        let (newest, slots) = superblocks::read_newest_with(&**storage, LOG_ALONE)?;
        let corrupt =
            |found: String| Err(Failure::Corrupt { found, path: storage.path(FileId::Log), offset: 0 });
        if !newest.clean && !exists(&**storage, FileId::Log)? {
            return corrupt("the file is gone, and the log was not closed".to_owned());
        }
        let geometry = newest.geometry;
        let (from, threads) = (newest.replay_from, scan_threads(config));
        let (tail, blobs) = tail::scan(&**storage, sizes(&geometry), &(&newest).into(), threads, blobs_of)?;
        // What begins below was released.
        let blobs = blobs.into_iter().flatten().filter(|(first, _)| *first >= from).collect();
        if newest.clean && tail.end() != newest.stable {
            let (end, closed) = (tail.end(), newest.stable);
            return corrupt(format!("records end at LSN {end} and the log was closed at {closed}"));
        }
        let file = PagesFile::new(storage.clone(), poison.clone(), &newest);
        let publisher = Publisher::new(file, newest.clone(), slots);
        let was_closed = newest.clean;
        let salts = Mutex::new(newest.salts.clone());
        let root = Root { state: Mutex::new(State { newest, publisher, ready: None }), source, salts };
        if !was_closed && !config.inner.read_only {
            tail.rewrite(&**storage).map_err(|failure| poison.set(failure))?;
            root.acknowledge(&tail)?;
        }
        Ok(Found { root, position: tail.position(), geometry, blobs })
    }

    /// Publishes a fresh salt from the tail's end on, if the list has room. If not, the first append
    /// says so, and reading goes on.
    fn acknowledge(&self, tail: &Tail) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if state.newest.salts.len() < SALTS_MAX {
            let salt = self.source.salt(state.newest.generation + 1);
            let mut next = state.newest.clone();
            acknowledge(&mut next, tail, salt);
            self.publish(&mut state, next)?;
            state.ready = Some(salt);
        }
        Ok(())
    }

    /// Publishes the newest superblock once more, unless this process has published one.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        let mut state = self.state.lock();
        let next = state.newest.clone();
        if state.publisher.is_proven() { Ok(()) } else { self.publish(&mut state, next) }
    }

    /// The salt for what is appended.
    pub(super) fn epoch_salt(&self) -> Result<u64, Failure> {
        let state = self.state.lock();
        let newest = &state.newest;
        let kept = newest.salts.last().map(|(_, salt)| *salt).filter(|_| newest.clean);
        if let Some(salt) = state.ready.or(kept) {
            return Ok(salt);
        }
        if !has_room_for_salt(newest) {
            return Err(Failure::Unsupported {
                what: "the log was cut off too often since it was released last; release what is not \
                       needed, or copy it to a new log"
                    .to_owned(),
            });
        }
        Ok(self.source.salt(newest.generation + 1))
    }

    /// Publishes the epoch of the first append.
    pub(super) fn begin_epoch(&self, begun: &Begun, stable: Lsn) -> Result<(), Failure> {
        let mut state = self.state.lock();
        let mut next = state.newest.clone();
        begin_epoch(&mut next, begun, stable);
        self.publish(&mut state, next)
    }

    /// Lets go of what lies below `from`, the start of a segment, durably. False if that was done before.
    pub(super) fn release(&self, from: Lsn, stable: Lsn, log_bytes: u64) -> Result<bool, Failure> {
        let mut state = self.state.lock();
        if from <= state.newest.replay_from {
            return Ok(false);
        }
        let mut next = state.newest.clone();
        next.replay_from = from;
        next.stable = next.stable.max(stable);
        next.log_bytes = next.log_bytes.max(log_bytes);
        forget_salts(&mut next);
        self.publish(&mut state, next)?;
        Ok(true)
    }

    /// Says that the log ends at `stable` and nothing lies behind it.
    pub(super) fn close(&self, stable: Lsn, log_bytes: u64) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if state.newest.clean {
            return Ok(());
        }
        let mut next = state.newest.clone();
        next.stable = stable;
        next.clean = true;
        next.log_bytes = next.log_bytes.max(log_bytes);
        self.publish(&mut state, next)
    }

    /// The salts of every position from the released one on.
    pub(super) fn salts(&self) -> Vec<(Lsn, u64)> {
        self.salts.lock().clone()
    }

    fn publish(&self, state: &mut State, mut next: Superblock) -> Result<(), Failure> {
        state.publisher.publish(&mut next)?;
        *self.salts.lock() = next.salts.clone();
        state.newest = next;
        Ok(())
    }
}

fn blobs_of(records: &SegmentRecords<'_>) -> Vec<(Lsn, Lsn)> {
    let lists = records.iter().filter(|record| Role::of(record.pid) == Some(Role::List));
    lists.filter_map(|list| Some((List::decode(list.payload, list.lsn).ok()?.first(), list.lsn))).collect()
}

fn exists(storage: &dyn Storage, file: FileId) -> Result<bool, Failure> {
    storage.exists(file).map_err(|e| Failure::from_io("looking for a log", storage.path(file), 0, 0, e))
}

fn make_if_missing(config: &Config, storage: &dyn Storage, source: SaltSource) -> Result<(), Failure> {
    let settings = &config.inner;
    let path = storage.path(FileId::Pages);
    let unsupported = |what: String| Err(Failure::Unsupported { what });
    if exists(storage, FileId::Pages)? {
        if settings.create_new {
            return unsupported(format!("{} is there already and create_new was asked for", path.display()));
        }
        return Ok(());
    }
    if exists(storage, FileId::Log)? {
        let found = format!("the file is gone, though {} is there", storage.path(FileId::Log).display());
        return Err(Failure::Corrupt { found, path, offset: 0 });
    }
    config.may_create(&path)?;
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&source.salt(u64::MAX).to_le_bytes());
    uuid[8..].copy_from_slice(&source.salt(u64::MAX - 1).to_le_bytes());
    let start = settings.log_segment_bytes as Lsn;
    let first = Superblock {
        uuid,
        generation: 1,
        replay_from: start,
        stable: start,
        clean: true,
        salts: Vec::new(),
        geometry: Geometry {
            block_bytes: settings.block_bytes as u32,
            log_segment_bytes: settings.log_segment_bytes as u32,
            store_segment_bytes: settings.store_segment_bytes as u32,
        },
        directory: None,
        features: Features { incompatible: LOG_ALONE, ..Features::default() },
        log_bytes: 0,
        log_begun: 0,
    };
    superblocks::create(storage, &first)
}
