//! What the store's calls fail with.
//!
//! * The first five variants are sled's; what was done, where, at which offset travels inside.
//! * Every [`pagecache::Failure`] becomes exactly one [`Error`], in one total `From`.
//! * An error is small: it shares the size of an ordinary answer.

use std::{fmt, io, path::Path, path::PathBuf, sync::Arc};

use pagecache::Failure;

use crate::IVec;

/// The result of a call on the store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call on the store failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The tree was dropped, or never existed; `open_tree` makes it.
    CollectionNotFound(IVec),
    /// A call, option or file format that is not supported; the text names the remedy.
    Unsupported(String),
    /// A broken internal rule. Please report it.
    ReportableBug(String),
    /// The operating system refused. What was being done, the file and the offset are in the inner error.
    Io(io::Error),
    /// Bytes on disk are not what was written there. Restore the file from a copy, or salvage what is whole.
    Corruption {
        /// Where, and what was found there.
        at: Option<DiskPtr>,
        /// Holds nothing; sled has it.
        bt: (),
    },
    /// A key, value or batch is larger than a limit.
    TooLarge {
        /// What is too large, as in "batch".
        what: &'static str,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
        /// The setting that moves the limit, or the call to use instead.
        remedy: &'static str,
    },
    /// Another handle or process has the store open; close it first.
    Locked {
        /// A file of the store.
        path: PathBuf,
        /// The process that has it open, where the system tells.
        holder: Option<u32>,
    },
    /// A write on a store that was opened read-only; open it without `read_only` to write.
    ReadOnly {
        /// A file of the store.
        path: PathBuf,
    },
    /// The disk is full, or a quota or a limit on the length of files is reached. Nothing was lost; make room and
    /// try again.
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// How many bytes it needed.
        needed: u64,
    },
    /// An earlier write or sync failed. Reads go on; open the store again to write.
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },
}

/// A compare-and-swap that found another value than it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareAndSwapError {
    /// The value that is there.
    pub current: Option<IVec>,
    /// The value that was to be put there.
    pub proposed: Option<IVec>,
}

impl fmt::Display for CompareAndSwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value is another than the one that was expected")
    }
}

impl std::error::Error for CompareAndSwapError {}

/// A damaged place on disk, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskPtr(Arc<Place>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    path: PathBuf,
    offset: u64,
    found: String,
}

impl DiskPtr {
    /// The place of damage.
    pub(crate) fn new(path: PathBuf, offset: u64, found: String) -> DiskPtr {
        DiskPtr(Arc::new(Place { path, offset, found }))
    }

    /// The damaged file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The byte offset in the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// What was found, and what was expected.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.0.found
    }
}

impl fmt::Display for DiskPtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of {}: {}", self.offset(), self.path().display(), self.found())
    }
}

impl Error {
    /// True if bytes on disk are not what was written there.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        match self {
            Error::Corruption { .. } => true,
            Error::Poisoned { cause } => cause.is_corruption(),
            _ => false,
        }
    }

    /// True if the same call may succeed later on this handle, or once another one is closed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::DiskFull { .. } | Error::Locked { .. } => true,
            Error::Io(error) => {
                use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
                matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
            }
            _ => false,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Io { ref source, .. } => Error::Io(io::Error::new(source.kind(), failure)),
            Failure::Corrupt { found, path, offset } => {
                Error::Corruption { at: Some(DiskPtr::new(path, offset, found)), bt: () }
            }
            Failure::Poisoned { cause } => {
                Error::Poisoned { cause: Arc::new(Error::from(Failure::clone(&cause))) }
            }
            Failure::DiskFull { path, needed } => Error::DiskFull { path, needed },
            Failure::Locked { path, holder } => Error::Locked { path, holder },
            Failure::ReadOnly { path } => Error::ReadOnly { path },
            Failure::TooLarge { what, bytes, limit, remedy } => {
                Error::TooLarge { what, bytes, limit, remedy }
            }
            Failure::Unsupported { what } => Error::Unsupported(what),
            Failure::Bug { what } => Error::ReportableBug(what),
            other => Error::Unsupported(other.to_string()),
        }
    }
}

impl<A> From<pagecache::Error<A>> for Error {
    fn from(error: pagecache::Error<A>) -> Error {
        match error {
            pagecache::Error::Io(failure) | pagecache::Error::Corruption { what: failure, .. } => {
                failure.into()
            }
            pagecache::Error::Unsupported(what) => Error::Unsupported(what),
            pagecache::Error::ReportableBug(what) => Error::ReportableBug(what),
            _ => Error::ReportableBug("a lost race was neither retried nor reported".to_owned()),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::CollectionNotFound(_) => io::ErrorKind::NotFound,
            Error::Unsupported(_) | Error::TooLarge { .. } => io::ErrorKind::InvalidInput,
            Error::Corruption { .. } => io::ErrorKind::InvalidData,
            Error::Locked { .. } => io::ErrorKind::WouldBlock,
            Error::ReadOnly { .. } => io::ErrorKind::ReadOnlyFilesystem,
            Error::DiskFull { .. } => io::ErrorKind::StorageFull,
            Error::ReportableBug(_) | Error::Poisoned { .. } | Error::Io(_) => io::ErrorKind::Other,
        };
        match error {
            Error::Io(error) => error,
            error => io::Error::new(kind, error),
        }
    }
}

/// `io::Error` cannot be cloned, so a copy keeps its kind and holds what the original held: the same
/// failure where the store made it, the system's code where the system did, else the text.
fn clone_io(error: &io::Error) -> io::Error {
    if let Some(failure) = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()) {
        return io::Error::new(error.kind(), failure.clone());
    }
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl Clone for Error {
    fn clone(&self) -> Error {
        match self {
            Error::CollectionNotFound(name) => Error::CollectionNotFound(name.clone()),
            Error::Unsupported(what) => Error::Unsupported(what.clone()),
            Error::ReportableBug(what) => Error::ReportableBug(what.clone()),
            Error::Io(error) => Error::Io(clone_io(error)),
            Error::Corruption { at, bt: () } => Error::Corruption { at: at.clone(), bt: () },
            Error::TooLarge { what, bytes, limit, remedy } => {
                Error::TooLarge { what, bytes: *bytes, limit: *limit, remedy }
            }
            Error::Locked { path, holder } => Error::Locked { path: path.clone(), holder: *holder },
            Error::ReadOnly { path } => Error::ReadOnly { path: path.clone() },
            Error::DiskFull { path, needed } => Error::DiskFull { path: path.clone(), needed: *needed },
            Error::Poisoned { cause } => Error::Poisoned { cause: cause.clone() },
        }
    }
}

/// As in sled, an I/O error equals nothing, not even itself: the system's errors do not compare.
impl PartialEq for Error {
    fn eq(&self, other: &Error) -> bool {
        match (self, other) {
            (Error::CollectionNotFound(l), Error::CollectionNotFound(r)) => l == r,
            (Error::Unsupported(l), Error::Unsupported(r)) => l == r,
            (Error::ReportableBug(l), Error::ReportableBug(r)) => l == r,
            (Error::Corruption { at: l, .. }, Error::Corruption { at: r, .. }) => l == r,
            (
                Error::TooLarge { what: lw, bytes: lb, limit: ll, .. },
                Error::TooLarge { what: rw, bytes: rb, limit: rl, .. },
            ) => (lw, lb, ll) == (rw, rb, rl),
            (Error::Locked { path: l, .. }, Error::Locked { path: r, .. })
            | (Error::ReadOnly { path: l }, Error::ReadOnly { path: r }) => l == r,
            (Error::DiskFull { path: l, needed: ln }, Error::DiskFull { path: r, needed: rn }) => {
                (l, ln) == (r, rn)
            }
            (Error::Poisoned { cause: l }, Error::Poisoned { cause: r }) => l == r,
            _ => false,
        }
    }
}

impl Eq for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::CollectionNotFound(name) => {
                write!(f, "there is no tree named {}; open_tree makes it", name.escape_ascii())
            }
            Error::Unsupported(what) => f.write_str(what),
            Error::ReportableBug(what) => write!(f, "broken internal rule, please report it: {what}"),
            Error::Io(error) => error.fmt(f),
            Error::Corruption { at: Some(at), .. } => {
                write!(f, "damaged at {at}; restore the file from a copy")
            }
            Error::Corruption { at: None, .. } => f.write_str("the store is damaged; restore it from a copy"),
            Error::TooLarge { what, bytes, limit, remedy } => {
                write!(f, "{what} of {bytes} bytes exceeds the limit of {limit}; {remedy}")
            }
            Error::Locked { path, holder } => Failure::Locked { path: path.clone(), holder: *holder }.fmt(f),
            Error::ReadOnly { path } => Failure::ReadOnly { path: path.clone() }.fmt(f),
            Error::DiskFull { path, needed } => {
                Failure::DiskFull { path: path.clone(), needed: *needed }.fmt(f)
            }
            Error::Poisoned { cause } => {
                write!(f, "an earlier write failed, open the store again to write: {cause}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its own text is this error's text: below it is what the system said.
            Error::Io(error) => error.source(),
            Error::Poisoned { cause } => Some(&**cause),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, io, path::PathBuf, sync::Arc};

    use pagecache::Failure;

    use super::Error;

    fn io_failure() -> Failure {
        Failure::Io {
            doing: "writing the log",
            path: PathBuf::from("/db/log"),
            offset: 4096,
            source: Arc::new(io::Error::from(io::ErrorKind::PermissionDenied)),
        }
    }

    fn corrupt_failure() -> Failure {
        Failure::Corrupt { found: "a hole".to_owned(), path: PathBuf::from("/db/pages"), offset: 12 }
    }

    #[test]
    fn an_io_error_says_what_where_and_at_which_offset_and_so_does_its_clone() {
        let error = Error::from(io_failure());
        for error in [error.clone(), error.clone().clone(), error] {
            let text = error.to_string();
            for part in ["writing the log", "4096", "/db/log"] {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
            let below = error.source().expect("the system's own word").to_string();
            assert!(!below.contains("writing the log"), "it was said already: {below}");
            assert!(matches!(error, Error::Io(ref e) if e.kind() == io::ErrorKind::PermissionDenied));
            assert_ne!(error, error.clone(), "as in sled");
        }
    }

    #[test]
    fn corruption_is_seen_through_poison_and_names_its_place() {
        let error = Error::from(Failure::Poisoned { cause: Arc::new(corrupt_failure()) });
        assert!(error.is_corruption() && !error.is_retryable());
        assert!(error.to_string().contains("byte 12 of /db/pages: a hole"), "{error}");
        let Error::Corruption { at: Some(at), bt: () } = Error::from(corrupt_failure()) else {
            panic!("not a corruption");
        };
        assert_eq!((at.offset(), at.found()), (12, "a hole"));
        assert!(!Error::from(io_failure()).is_corruption());
    }

    #[test]
    fn every_failure_becomes_the_error_of_its_kind() {
        let path = PathBuf::from("p");
        let too_large = || Failure::TooLarge { what: "batch", bytes: 9, limit: 8, remedy: "split it" };
        let want = Error::TooLarge { what: "batch", bytes: 9, limit: 8, remedy: "split it" };
        let cases = [
            (too_large(), want.clone(), false, io::ErrorKind::InvalidInput),
            (
                Failure::Locked { path: path.clone(), holder: Some(7) },
                Error::Locked { path: path.clone(), holder: Some(7) },
                true,
                io::ErrorKind::WouldBlock,
            ),
            (
                Failure::ReadOnly { path: path.clone() },
                Error::ReadOnly { path: path.clone() },
                false,
                io::ErrorKind::ReadOnlyFilesystem,
            ),
            (
                Failure::DiskFull { path: path.clone(), needed: 7 },
                Error::DiskFull { path, needed: 7 },
                true,
                io::ErrorKind::StorageFull,
            ),
            (
                Failure::Unsupported { what: "x".to_owned() },
                Error::Unsupported("x".to_owned()),
                false,
                io::ErrorKind::InvalidInput,
            ),
            (
                Failure::Bug { what: "b".to_owned() },
                Error::ReportableBug("b".to_owned()),
                false,
                io::ErrorKind::Other,
            ),
            (
                Failure::Misuse { what: "y" },
                Error::Unsupported("y".to_owned()),
                false,
                io::ErrorKind::InvalidInput,
            ),
            (
                Failure::Poisoned { cause: Arc::new(too_large()) },
                Error::Poisoned { cause: Arc::new(want) },
                false,
                io::ErrorKind::Other,
            ),
        ];
        for (failure, want, retryable, kind) in cases {
            let text = failure.to_string();
            let got = Error::from(failure.clone());
            assert_eq!(got, want);
            assert_eq!(got, got.clone());
            assert_eq!(got.to_string(), text);
            assert_eq!(got.is_retryable(), retryable, "{text}");
            assert_eq!(Error::from(pagecache::Error::<()>::from(failure)), want);
            assert_eq!(io::Error::from(got).kind(), kind, "{text}");
        }
    }
}
