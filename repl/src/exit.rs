//! How a command fails, and the exit status each failure becomes.
//!
//! | status | means |
//! |---|---|
//! | 0 | done, or the reader of the output went away |
//! | 1 | the answer is no: there is no such key |
//! | 2 | the command cannot be read |
//! | 3 | the store, a file or the output failed |
//! | 4 | the store is damaged |
//! | 5 | another process has the store open |
//! | 130 | interrupted |
//!
//! Where in a script a failure happened is told by [`crate::report`].

use crate::output::spelled_within;
use crate::quote::harmless;
use crate::token::{Fault, Span};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a command, or the shell, could not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The command cannot be read, or asks for what cannot be; the span is the part at fault.
    Usage {
        /// What is wrong and what would be right.
        message: String,
        /// The part of the line at fault.
        span: Option<Span>,
    },
    /// `get` or `del` of a key that is not there.
    NoSuchKey(Vec<u8>),
    /// A file, or standard input or output, failed.
    Io {
        /// What was being done, as in "cannot DOING".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store refused or failed.
    Store(String),
    /// The store's files do not hold what was written.
    Damaged(String),
    /// Another process has the store open: this one, where the system tells.
    Locked(PathBuf, Option<u32>),
    /// The command would write, and the store was opened for reading alone.
    ReadOnly(PathBuf),
    /// Nobody reads the output any more.
    OutputClosed,
    /// The user interrupted the command; the text says what had been done.
    Interrupted(String),
}

/// How much of a key or word a message shows.
pub const NAMED_COLUMNS: usize = 60;

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A command that cannot be read, with the part of the line at fault.
    pub fn usage(span: Option<Span>, message: impl Into<String>) -> Failure {
        Failure::Usage { message: message.into(), span }
    }

    /// For `map_err`: what was being done to `path`.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
        move |source| Failure::Io { doing, path: path.to_owned(), source }
    }

    /// For `map_err` on writes to standard output.
    pub fn output(source: io::Error) -> Failure {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Io { doing: "write to", path: "standard output".into(), source },
        }
    }

    /// The exit status of a run that ends with this failure.
    pub fn status(&self) -> u8 {
        match self {
            Failure::OutputClosed => 0,
            Failure::NoSuchKey(_) => 1,
            Failure::Usage { .. } => 2,
            Failure::Io { .. } | Failure::Store(_) | Failure::ReadOnly(_) => 3,
            Failure::Damaged(_) => 4,
            Failure::Locked(..) => 5,
            Failure::Interrupted(_) => 130,
        }
    }

    /// The part of the line at fault, if it is a part.
    pub fn span(&self) -> Option<Span> {
        match self {
            Failure::Usage { span, .. } => *span,
            _ => None,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::usage(Some(fault.span), fault.message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage { message, .. } | Failure::Store(message) | Failure::Damaged(message) => {
                f.write_str(message)
            }
            Failure::NoSuchKey(key) => write!(f, "no such key: {}", spelled_within(key, NAMED_COLUMNS)),
            Failure::Io { doing, path, source } => write!(f, "cannot {doing} {}: {source}", shown(path)),
            Failure::Locked(path, holder) => {
                write!(f, "{} is open in another process", shown(path))?;
                match holder {
                    Some(process) => write!(f, ", number {process}; close it there first"),
                    None => f.write_str("; close it there first"),
                }
            }
            Failure::ReadOnly(path) => {
                write!(f, "{} is open for reading alone; leave out --read-only to write", shown(path))
            }
            Failure::OutputClosed => f.write_str("nobody reads the output any more"),
            Failure::Interrupted(done) => write!(f, "interrupted: {done}"),
        }
    }
}

/// A path as text that is safe for a terminal.
pub fn shown(path: &Path) -> String {
    harmless(path.as_os_str().as_bytes())
}

/// The status of the whole run: the failure that ended it, else whether every answer was yes.
pub fn code(ended: &Result<()>, all_found: bool) -> ExitCode {
    match ended {
        Err(failure) => ExitCode::from(failure.status()),
        Ok(()) if all_found => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(1),
    }
}
