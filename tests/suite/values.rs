//! Large values: in pages of their own, written once, read in pieces, given back.

mod counts;
mod full;
mod kill;
mod model;
mod readers;

use std::sync::Arc;

use pagecache::io::sim::SimDisk;
use tests::world::{Shape, World};

/// Bytes of a segment in the tests' stores.
const SEGMENT: usize = 16 << 10;
/// Bytes above which a value lives in a page of its own there.
const INLINE: usize = 300;

fn shape(cache_bytes: u64) -> Shape {
    Shape {
        block_bytes: 512,
        leaf_bytes_max: 1024,
        cache_bytes,
        checkpoint_every_bytes: 48 << 10,
        log_segment_bytes: SEGMENT,
        log_capacity: 8 * SEGMENT as u64,
        log_buffers: 2,
        flush_every_ms: None,
        inline_bytes_max: INLINE,
    }
}

fn world(cache_bytes: u64) -> World {
    World::on(Arc::new(SimDisk::untraced()), shape(cache_bytes))
}

/// Bytes that differ from place to place and from value to value.
fn bytes(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i / 5 % 253) as u8 ^ (i >> 10) as u8 ^ (salt * 37) as u8).collect()
}
