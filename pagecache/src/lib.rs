//! A latch-free page cache on log-structured storage.

mod cache;
mod checkpoint;
pub mod config;
pub mod error;
mod event_log;
mod format;
mod ids;
pub mod io;
mod log;
mod materializer;
pub mod mem;
pub mod metrics;
mod page;
mod pagecache;
mod raw_log;
mod reclaim;
#[cfg(all(test, not(loom)))]
mod schedules;
mod store;
mod sync;

pub use config::{Config, ConfigBuilder, SegmentMode};
pub use error::{DecodeError, Error, Failure, Result};
pub use event_log::EventLog;
pub use ids::{BlobPointer, LogId, Lsn, PageId, SegmentId};
#[cfg(any(test, feature = "sim"))]
pub use materializer::{Appended, Strings, Words};
pub use materializer::{Materializer, NullMaterializer};
pub use pagecache::{
    Admission, Batch, FragState, MemoryOwners, NewValue, PageCache, PageGet, PagePtr, PageView, Snapshot,
    Stats, UnsyncedValue, ValueId, ValueReader, Verdict, Verified, View,
};
pub use raw_log::{DiskPtr, Log, LogIter, LogRead, Reservation};
pub use reclaim::{Guard, pin};
pub use store::WrittenBytes;
