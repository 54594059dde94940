//! An embedded, ordered key-value store with atomic batches.
//!
//! Calls are named and behave as sled 0.34's; what is missing of them stands in `docs/STATUS.md`.
//!
//! ```
//! let db = tree::Config::new().temporary(true).open()?;
//! db.insert("apple", "red")?;
//! assert_eq!(db.get("apple")?.as_deref(), Some(&b"red"[..]));
//! for entry in db.scan_prefix("ap") {
//!     let (key, value) = entry?;
//!     println!("{} bytes, {} bytes", key.len(), value.len());
//! }
//! db.flush()?;
//! # Ok::<(), tree::Error>(())
//! ```
#![forbid(unsafe_code)]

mod batch;
mod checksum;
mod config;
mod db;
mod error;
mod flushing;
mod iter;
mod ivec;
mod materializer;
mod metrics;
mod node;
mod ops;
mod source;
mod tree;
mod value;

pub use batch::Batch;
pub use config::{Config, Mode};
pub use db::{Db, Durability, Stats, Tree, open};
pub use error::{CompareAndSwapError, DiskPtr, Error, Result};
pub use iter::Iter;
pub use ivec::IVec;
pub use pagecache::{Lsn, metrics::Profile};
pub use value::ValueReader;

/// The example of the README, so that it compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
