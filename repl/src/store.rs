//! The store as the shell uses it: the only file that names the engine.
//!
//! A path is opened only if it holds a store or may be made one, so that a typing error neither
//! creates files nor fills a folder of something else. Every engine error becomes a [`Failure`]
//! with its exit status here.

use crate::exit::{Failure, NAMED_COLUMNS, Result, shown};
use crate::output::spelled_within;
use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// A key or value as the engine hands it out.
pub type Bytes = tree::IVec;

/// A range of keys.
pub type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The least memory that a store works with, in bytes.
pub const MEMORY_BYTES_MIN: u64 = tree::Config::CACHE_CAPACITY_MIN;

/// Bytes of a value that are in memory at a time while it is copied out.
const PIECE_BYTES: usize = 1 << 20;

/// An open store.
#[derive(Debug)]
pub struct Store {
    db: tree::Db,
    path: PathBuf,
    read_only: bool,
    /// A command was to change something.
    wrote: Cell<bool>,
}

/// How a store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// All there is to do was done.
    Tidied,
    /// The disk is full: the next open has the log to read that this one had. Nothing was changed, so nothing
    /// is lost.
    AsFound,
}

/// Changes that are applied together or not at all.
#[derive(Debug, Default)]
pub struct Batch(tree::Batch);

impl Batch {
    /// Adds a change; of two to the same key the later wins.
    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key, value);
    }
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Store,
    Nothing,
    SomethingElse,
}

impl Store {
    /// Opens the store at `path` for reading alone.
    pub fn open_read_only(path: &Path, memory: Option<u64>) -> Result<Store> {
        match look(path)? {
            Found::Store => {}
            Found::Nothing => return Err(Failure::Store(format!("there is no store at {}", shown(path)))),
            Found::SomethingElse => return Err(Failure::Store(format!("{} is not a store", shown(path)))),
        }
        let db = config(path, memory).read_only(true).timing(true).open();
        let db = db.map_err(|error| failure(path, true, error))?;
        Ok(Store { db, path: path.to_owned(), read_only: true, wrote: Cell::new(false) })
    }

    /// Opens the store at `path`, making it where there is none if `create`. The second part
    /// tells whether it was made. It takes so many bytes of memory, or what the engine thinks fit.
    pub fn open(path: &Path, create: bool, memory: Option<u64>) -> Result<(Store, bool)> {
        let found = look(path)?;
        match found {
            Found::Nothing if !create => {
                return Err(Failure::Store(format!(
                    "there is no store at {}; --create makes one",
                    shown(path)
                )));
            }
            Found::SomethingElse => {
                return Err(Failure::Store(format!("{} is not a store", shown(path))));
            }
            Found::Store | Found::Nothing => {}
        }
        let config = config(path, memory).create(found == Found::Nothing).timing(true);
        let db = config.open().map_err(|error| failure(path, false, error))?;
        let store = Store { db, path: path.to_owned(), read_only: false, wrote: Cell::new(false) };
        Ok((store, found == Found::Nothing))
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Said before a command that writes: refuses if the store was opened for reading alone.
    pub fn writable(&self) -> Result<()> {
        self.wrote.set(true);
        if self.read_only { Err(Failure::ReadOnly(self.path.clone())) } else { Ok(()) }
    }

    /// Makes everything durable and closes.
    pub fn close(self) -> Result<Closed> {
        let Store { db, path, read_only, wrote } = self;
        match db.close() {
            Ok(()) => Ok(Closed::Tidied),
            Err(tree::Error::DiskFull { .. }) if !wrote.get() => Ok(Closed::AsFound),
            Err(error) => Err(failure(&path, read_only, error)),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.db.get(key).map_err(|error| self.failure(error))
    }

    /// Sets `key` to `value`.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.put(key, value).map(drop).map_err(|error| self.failure(error))
    }

    /// Sets `key` to what the file at `path` holds.
    pub fn set_from(&self, key: &[u8], path: &Path) -> Result<()> {
        let no_length = || {
            let why = "does not say how long it is, which is known before a value is read";
            Failure::usage(None, format!("{} {why}; copy it into a file first", shown(path)))
        };
        // Looked at first: opening a pipe may wait for ever.
        if !fs::metadata(path).map_err(Failure::io("look at", path))?.is_file() {
            return Err(no_length());
        }
        let mut file = fs::File::open(path).map_err(Failure::io("open", path))?;
        let bytes = file.metadata().map_err(Failure::io("look at", path))?.len();
        // Files that the system makes up, as those in /proc, are regular and have length 0.
        if bytes == 0 && file.read(&mut [0]).map_err(Failure::io("read", path))? > 0 {
            return Err(no_length());
        }
        self.db.put_from(key, bytes, file).map(drop).map_err(|error| self.failure(error))
    }

    /// Hands the value of `key` to `write`, piece by piece; tells whether there is one.
    pub fn copy(&self, key: &[u8], mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let Some(mut reader) = self.db.get_reader(key).map_err(|error| self.failure(error))? else {
            return Ok(false);
        };
        let mut part = vec![0; PIECE_BYTES.min(usize::try_from(reader.len()).unwrap_or(PIECE_BYTES))];
        let mut at = 0;
        loop {
            let len = reader.read_at(at, &mut part).map_err(|error| self.failure(error))?;
            if len == 0 {
                return Ok(true);
            }
            write(&part[..len])?;
            at += len as u64;
        }
    }

    /// Removes `key`; tells whether it was there.
    pub fn del(&self, key: &[u8]) -> Result<bool> {
        self.db.delete(key).map(|lsn| lsn.is_some()).map_err(|error| self.failure(error))
    }

    /// The records in `range`, in order of their keys from either end.
    pub fn records(&self, range: Range) -> Records<'_> {
        Records { store: self, entries: self.db.range::<Vec<u8>, _>(range) }
    }

    /// How many records there are.
    pub fn count(&self) -> Result<u64> {
        self.db.count().map(|count| count as u64).map_err(|error| self.failure(error))
    }

    /// Applies `batch`, whole or not at all.
    pub fn apply(&self, batch: Batch) -> Result<()> {
        self.db.apply_batch(batch.0).map_err(|error| self.failure(error))
    }

    /// Makes everything applied so far durable.
    pub fn flush(&self) -> Result<()> {
        self.db.flush().map(drop).map_err(|error| self.failure(error))
    }

    /// Gives the room of what was overwritten or deleted back.
    pub fn compact(&self) -> Result<()> {
        self.db.compact().map_err(|error| self.failure(error))
    }

    /// What there is to know about the store, as names and figures.
    pub fn stats(&self) -> Result<Vec<(&'static str, String)>> {
        let stats = self.db.stats();
        Ok(vec![
            ("path", shown(&self.path)),
            ("records", self.count()?.to_string()),
            ("pages", stats.pages().to_string()),
            ("memory_budget_bytes", stats.memory_budget_bytes().to_string()),
            ("memory_bytes", stats.memory_bytes().to_string()),
            ("memory_by_owner", by_name(stats.memory_owners())),
            ("log_file_bytes", stats.log_file_bytes().to_string()),
            ("log_tail_bytes", stats.log_tail_bytes().to_string()),
            ("pages_file_bytes", stats.pages_file_bytes().to_string()),
            ("pages_live_bytes", stats.pages_live_bytes().to_string()),
            ("pages_written_bytes", by_name(stats.pages_written_bytes())),
        ])
    }

    /// How often each part of the store ran, and how long it took, as a table.
    pub fn profile(&self) -> String {
        self.db.profile().to_string()
    }

    fn failure(&self, error: tree::Error) -> Failure {
        failure(&self.path, self.read_only, error)
    }
}

/// Records of a store in order.
pub struct Records<'s> {
    store: &'s Store,
    entries: tree::Iter,
}

impl Records<'_> {
    fn failure(&self, error: tree::Error) -> Failure {
        match (error, self.entries.failed_at()) {
            (tree::Error::TooLarge { bytes, limit, .. }, Some(key)) => {
                let key = spelled_within(key, NAMED_COLUMNS);
                Failure::Store(format!(
                    "the value of {key} has {bytes} bytes, and {limit} fit into the memory for one; \
                     'get {key} > FILE' writes it whole, and more is shown with a larger --memory"
                ))
            }
            (error, _) => self.store.failure(error),
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Result<(Bytes, Bytes)>> {
        let record = self.entries.next()?;
        Some(record.map_err(|error| self.failure(error)))
    }
}

impl DoubleEndedIterator for Records<'_> {
    fn next_back(&mut self) -> Option<Result<(Bytes, Bytes)>> {
        let record = self.entries.next_back()?;
        Some(record.map_err(|error| self.failure(error)))
    }
}

/// Names and their bytes, on one line.
fn by_name(figures: impl Iterator<Item = (&'static str, u64)>) -> String {
    let figures: Vec<String> = figures.map(|(name, bytes)| format!("{name} {bytes}")).collect();
    figures.join(", ")
}

fn config(path: &Path, memory: Option<u64>) -> tree::Config {
    let config = tree::Config::new().path(path);
    match memory {
        Some(bytes) => config.cache_capacity(bytes),
        None => config,
    }
}

/// What a store's creation puts into its folder before there is a store: all that a creation that
/// was cut short leaves behind.
const BEFORE_A_STORE: &str = "pages.new";

/// Tells a store from nothing (no such path, or a folder with at most the beginning of one) and from
/// anything else. A store with a file missing is still one: the engine then says what is wrong with it.
fn look(path: &Path) -> Result<Found> {
    let names: std::io::Result<Vec<OsString>> =
        fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    match names {
        Ok(names) if names.iter().any(|name| name == "log" || name == "pages") => Ok(Found::Store),
        Ok(names) if names.iter().all(|name| name == BEFORE_A_STORE) => Ok(Found::Nothing),
        Ok(_) => Ok(Found::SomethingElse),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Ok(Found::Nothing),
            ErrorKind::NotADirectory => Ok(Found::SomethingElse),
            _ => Err(Failure::io("open", path)(error)),
        },
    }
}

fn forbids_writing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn failure(path: &Path, read_only: bool, error: tree::Error) -> Failure {
    match error {
        tree::Error::Locked { holder, .. } => Failure::Locked(path.to_owned(), holder),
        tree::Error::ReadOnly { .. } => Failure::ReadOnly(path.to_owned()),
        tree::Error::Io(source) if !read_only && forbids_writing(source.kind()) => {
            let hint = "to look into it without changing it, give --read-only";
            Failure::Store(format!("cannot use the store {}: {source}; {hint}", shown(path)))
        }
        tree::Error::Io(source) => Failure::Io { doing: "use the store", path: path.to_owned(), source },
        damaged if damaged.is_corruption() => Failure::Damaged(damaged.to_string()),
        other => Failure::Store(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::failure;
    use std::io::{Error, ErrorKind};
    use std::path::Path;

    #[test]
    fn the_way_to_only_read_is_shown_to_whom_it_helps() {
        for (kind, read_only, is_shown) in [
            (ErrorKind::PermissionDenied, false, true),
            (ErrorKind::ReadOnlyFilesystem, false, true),
            (ErrorKind::PermissionDenied, true, false),
            (ErrorKind::NotFound, false, false),
        ] {
            let told = failure(Path::new("db"), read_only, tree::Error::Io(Error::from(kind))).to_string();
            assert_eq!(told.contains("--read-only"), is_shown, "{kind:?}, {read_only}: {told}");
        }
    }
}
