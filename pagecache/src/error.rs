//! Errors: a failure names the place and the remedy; a lost race is a value.
//!
//! [`Failure`] is what goes wrong inside. [`Error`] is the seed's public enum, made from it in one
//! total `From`. Nothing but the public face names [`Error::CasFailed`].

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::ids::LogId;

/// What exceeds its limit when the log is full.
pub(crate) const LOG_FULL: &str = "the log's tail";

/// What went wrong below the public face.
///
/// Cloning is cheap; one cause may be reported to many waiters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The operating system refused.
    Io {
        /// What was being done, as in "writing the log".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The byte offset in it.
        offset: u64,
        /// The system's reason.
        source: Arc<io::Error>,
    },
    /// Bytes on disk are not what was written there.
    Corrupt {
        /// What was found and what was expected.
        found: String,
        /// The file.
        path: PathBuf,
        /// The byte offset in it.
        offset: u64,
    },
    /// An earlier write or sync failed; the store refuses writes until it is opened again.
    Poisoned {
        /// The first failure.
        cause: Arc<Failure>,
    },
    /// The disk is full, or a quota or a limit on the length of files is reached. Nothing was acknowledged and
    /// nothing is lost; make room and try again.
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// How many bytes it needed.
        needed: u64,
    },
    /// Another process, or another handle in this one, has the store open.
    Locked {
        /// A file of the store.
        path: PathBuf,
        /// The process that has it open, where the system tells.
        holder: Option<u32>,
    },
    /// A write on a store that was opened read-only.
    ReadOnly {
        /// A file of the store.
        path: PathBuf,
    },
    /// A record, batch, key or value exceeds a limit.
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
    /// An option or a file format that this version does not take.
    Unsupported {
        /// What, and what to do about it.
        what: String,
    },
    /// A batch that has changed something already met a page that takes no new batch at the moment.
    /// Give the batch up, call [`crate::PageCache::pass_gate`], and begin again.
    Gated {
        /// The page.
        pid: crate::ids::PageId,
    },
    /// A rule of this code is broken. Please report it.
    Bug {
        /// Which, and how it shows.
        what: String,
    },
    /// A call that its place forbids, as waiting for the log while holding one of its reservations.
    Misuse {
        /// What was called where.
        what: &'static str,
    },
}

impl Failure {
    /// True if bytes on disk were not what was written there.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        match self {
            Failure::Corrupt { .. } => true,
            Failure::Poisoned { cause } => cause.is_corruption(),
            _ => false,
        }
    }

    /// True if the log had no room, because what is in it cannot be let go of yet. It may be soon.
    #[must_use]
    pub fn is_log_full(&self) -> bool {
        matches!(self, Failure::TooLarge { what, .. } if *what == LOG_FULL)
    }

    /// Makes the failure of a system call, telling a full disk from other refusals.
    pub(crate) fn from_io(
        doing: &'static str,
        path: PathBuf,
        offset: u64,
        needed: u64,
        source: io::Error,
    ) -> Failure {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            return Failure::DiskFull { path, needed };
        }
        Failure::Io { doing, path, offset, source: Arc::new(source) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Io { doing, path, offset, source } => {
                write!(f, "{doing} failed at byte {offset} of {}: {source}", path.display())
            }
            Failure::Corrupt { found, path, offset } => {
                write!(f, "{} is damaged at byte {offset}: {found}; restore it from a copy", path.display())
            }
            Failure::Poisoned { cause } => {
                write!(f, "an earlier write failed, open the store again to write: {cause}")
            }
            Failure::DiskFull { path, needed } => write!(
                f,
                "the disk is full, or a quota or a limit on files is reached: {} needs {needed} more bytes; make \
                 room and try again",
                path.display()
            ),
            Failure::Locked { path, holder } => {
                write!(f, "the store is in use: {} is locked", path.display())?;
                match holder {
                    Some(process) if *process == std::process::id() => f.write_str(" by this process")?,
                    Some(process) => write!(f, " by process {process}")?,
                    None => {}
                }
                f.write_str("; close the other handle first")
            }
            Failure::ReadOnly { path } => {
                write!(f, "{} was opened read-only; open it without read_only to write", path.display())
            }
            Failure::TooLarge { what, bytes, limit, remedy } => {
                write!(f, "{what} of {bytes} bytes exceeds the limit of {limit}; {remedy}")
            }
            Failure::Unsupported { what } => f.write_str(what),
            Failure::Gated { pid } => write!(f, "page {pid} takes no new batch at the moment; try again"),
            Failure::Bug { what } => write!(f, "broken internal rule, please report it: {what}"),
            Failure::Misuse { what } => f.write_str(what),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Io { source, .. } => Some(source.as_ref()),
            Failure::Poisoned { cause } => Some(cause.as_ref()),
            _ => None,
        }
    }
}

/// Why a call on a [`crate::PageCache`] did not do what was asked.
///
/// `Actual` is the current state where a race was lost, so that the caller can try again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error<Actual> {
    /// Another thread changed the page first; `Actual` is what is there now.
    CasFailed(Actual),
    /// An option, format or call that is not supported; the text names the remedy.
    Unsupported(String),
    /// A broken internal rule. Please report it.
    ReportableBug(String),
    /// The store could not read or write.
    Io(Failure),
    /// Bytes on disk are not what was written there.
    Corruption {
        /// Where the damage is.
        at: LogId,
        /// File, offset and what was found.
        what: Failure,
    },
}

impl<A> From<Failure> for Error<A> {
    fn from(failure: Failure) -> Error<A> {
        match failure {
            Failure::Corrupt { offset, .. } => Error::Corruption { at: offset, what: failure },
            Failure::Unsupported { what } => Error::Unsupported(what),
            Failure::Misuse { what } => Error::Unsupported(what.to_owned()),
            Failure::Bug { what } => Error::ReportableBug(what),
            other => Error::Io(other),
        }
    }
}

impl<A: fmt::Debug> fmt::Display for Error<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::CasFailed(actual) => {
                write!(f, "another thread changed the page first, it is now {actual:?}")
            }
            Error::Unsupported(what) => f.write_str(what),
            Error::ReportableBug(what) => write!(f, "broken internal rule, please report it: {what}"),
            Error::Io(failure) | Error::Corruption { what: failure, .. } => failure.fmt(f),
        }
    }
}

impl<A: fmt::Debug> std::error::Error for Error<A> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(failure) | Error::Corruption { what: failure, .. } => Some(failure),
            _ => None,
        }
    }
}

/// The result of a call that may lose a race for `Actual`.
pub type Result<T, Actual> = std::result::Result<T, Error<Actual>>;

/// Fragment bytes that the materializer could not decode; the text says what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(pub String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

/// Why a store takes no writes, if it takes none: its first failed write, or that it was opened
/// read-only. Everything that writes asks here first.
///
/// Set once and never cleared: a second sync could report success over lost data (Rebello et al.,
/// USENIX ATC 2020). A full disk is not poison.
#[derive(Debug, Default)]
pub(crate) struct Poison(std::sync::OnceLock<Arc<Failure>>);

impl Poison {
    /// Of a store that was opened read-only: nothing writes from the first moment on.
    pub(crate) fn read_only(path: PathBuf) -> Poison {
        Poison(std::sync::OnceLock::from(Arc::new(Failure::ReadOnly { path })))
    }

    /// `Err(Poisoned)` once a write or sync has failed, `Err(ReadOnly)` always if only reading is allowed.
    pub(crate) fn check(&self) -> std::result::Result<(), Failure> {
        self.0.get().map_or(Ok(()), |cause| Err(told(cause)))
    }

    /// Remembers `failure` if it is the first, and returns what every caller is told.
    pub(crate) fn set(&self, failure: Failure) -> Failure {
        let cause = match failure {
            Failure::Poisoned { cause } => cause,
            other => Arc::new(other),
        };
        told(self.0.get_or_init(|| cause))
    }
}

fn told(cause: &Arc<Failure>) -> Failure {
    match **cause {
        Failure::ReadOnly { .. } => (**cause).clone(),
        _ => Failure::Poisoned { cause: cause.clone() },
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use super::Failure;

    #[test]
    fn what_keeps_a_file_from_growing_is_no_room_and_all_else_is_not() {
        let told = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            matches!(Failure::from_io("writing", PathBuf::new(), 0, 1, error), Failure::DiskFull { .. })
        };
        // No space, beyond the limit of a file, beyond the quota; input or output failed, read-only.
        assert_eq!([28, 27, 122, 5, 30].map(told), [true, true, true, false, false]);
    }
}
