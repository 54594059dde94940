//! Stores in which everything happens often: leaves of a few records, segments of a few blocks.

use std::sync::Arc;

use pagecache::{
    ConfigBuilder,
    io::{
        Storage,
        sim::{SimClock, SimSpawner},
    },
};
use tree::Config;

/// Bytes of a leaf in a small store.
pub const LEAF_BYTES: usize = 512;
/// Bytes of a block in a small store.
pub const BLOCK_BYTES: usize = 512;

/// Settings of a tree that splits, joins, checkpoints and uses its segments again within seconds.
#[must_use]
pub fn small_tree(config: Config) -> Config {
    config.leaf_bytes_max(LEAF_BYTES).page_cache(small_pages)
}

/// Settings of a page cache with tiny segments.
#[must_use]
pub fn small_pages(builder: ConfigBuilder) -> ConfigBuilder {
    builder
        .block_bytes(BLOCK_BYTES)
        .log_segment_bytes(16 << 10)
        .log_capacity(4 << 20)
        .checkpoint_every_bytes(64 << 10)
        .store_segment_bytes(16 << 10)
}

/// Settings of a page cache whose log and segments are smaller still: a few dozen changes fill them.
#[must_use]
pub fn tiny_pages(builder: ConfigBuilder) -> ConfigBuilder {
    builder
        .block_bytes(BLOCK_BYTES)
        .log_segment_bytes(8 << 10)
        .log_capacity(64 << 10)
        .checkpoint_every_bytes(32 << 10)
        .store_segment_bytes(8 << 10)
}

/// On this storage, in a time that stands still: no background step is ever taken of its own accord, and
/// everything runs on the caller's thread.
#[must_use]
pub fn stepwise(builder: ConfigBuilder, storage: Arc<dyn Storage>) -> ConfigBuilder {
    let clock = Arc::new(SimClock::new());
    builder.storage(storage).spawner(Arc::new(SimSpawner::new(clock.clone()))).clock(clock)
}
