//! Stores in which everything happens often: leaves of a few records, segments of a few blocks.

use pagecache::ConfigBuilder;
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
