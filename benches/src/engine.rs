//! What every engine is asked to do, and which engines there are.
//!
//! An engine is one `impl Engine`, one name in [`NAMES`] and one arm in [`dispatch`], behind a
//! feature of its own if it is not ours.

use std::path::Path;

use crate::Result;

/// One open store.
pub(crate) trait Engine: Sized {
    /// Opens the store in `dir`, making it if there is none, with that much cache.
    fn open(dir: &Path, cache_bytes: u64) -> Result<Self>;

    /// Writes one record, as durable as the engine makes it unasked.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Writes records, all or none.
    fn insert_batch(&self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// Makes durable whatever was written.
    fn sync(&self) -> Result<()>;

    /// Shows the value of `key` to `see`; false if there is none.
    fn get(&self, key: &[u8], see: impl FnOnce(&[u8])) -> Result<bool>;

    /// Shows at most `limit` records from `from` on, in order.
    fn scan(&self, from: &[u8], limit: usize, see: impl FnMut(&[u8], &[u8])) -> Result<()>;

    /// Closes the store cleanly.
    fn close(self) -> Result<()>;
}

/// The engines of this build.
pub(crate) const NAMES: &[&str] = &[
    "tree",
    #[cfg(feature = "sled")]
    "sled",
];

/// What to do with an engine whose type is known only by name.
pub(crate) trait Visit {
    /// Does it.
    fn with<E: Engine>(self) -> Result<()>;
}

/// Calls `visit` with the engine of that name.
pub(crate) fn dispatch(name: &str, visit: impl Visit) -> Result<()> {
    match name {
        "tree" => visit.with::<Tree>(),
        #[cfg(feature = "sled")]
        "sled" => visit.with::<Sled>(),
        _ => {
            drop(visit);
            Err(format!("no engine {name} in this build").into())
        }
    }
}

/// The settings of an engine that the cache size does not say, for the report.
pub(crate) fn settings(name: &str) -> &'static str {
    match name {
        "tree" => "defaults; a sync is `flush()`",
        "sled" => "0.34.7, defaults; a sync is `flush()`, which is sync_file_range and no fsync",
        _ => "",
    }
}

/// An engine by way of sled's names, which are ours too.
macro_rules! by_sleds_names {
    ($engine:ident, $package:ident) => {
        /// The engine of that package.
        pub(crate) struct $engine($package::Db);

        impl Engine for $engine {
            fn open(dir: &Path, cache_bytes: u64) -> Result<Self> {
                Ok($engine($package::Config::default().path(dir).cache_capacity(cache_bytes).open()?))
            }

            fn insert(&self, key: &[u8], value: &[u8]) -> Result<()> {
                self.0.insert(key, value)?;
                Ok(())
            }

            fn insert_batch(&self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
                let mut batch = $package::Batch::default();
                for (key, value) in records {
                    batch.insert(key.as_slice(), value.as_slice());
                }
                self.0.apply_batch(batch)?;
                Ok(())
            }

            fn sync(&self) -> Result<()> {
                self.0.flush()?;
                Ok(())
            }

            fn get(&self, key: &[u8], see: impl FnOnce(&[u8])) -> Result<bool> {
                let found = self.0.get(key)?;
                Ok(found.map(|value| see(&value)).is_some())
            }

            fn scan(&self, from: &[u8], limit: usize, mut see: impl FnMut(&[u8], &[u8])) -> Result<()> {
                for record in self.0.range(from..).take(limit) {
                    let (key, value) = record?;
                    see(&key, &value);
                }
                Ok(())
            }

            fn close(self) -> Result<()> {
                self.0.flush()?;
                Ok(())
            }
        }
    };
}

#[cfg(feature = "sled")]
by_sleds_names!(Sled, sled);

by_sleds_names!(Tree, tree);
