//! Batches as the page cache makes them: the schedules that break them without the rules.

mod gate;
mod order;
mod reads;
mod reuse;
mod scattered;

use std::sync::Arc;

use pagecache::{
    ConfigBuilder, Guard, PageCache, PageId, PagePtr,
    io::{
        Storage,
        sim::{SimClock, SimSpawner},
    },
};
use tests::strings::Words;

type Pages = PageCache<Words, String, ()>;

const LOG_BYTES: u64 = 64 << 10;

/// Everything runs on the caller's thread.
fn stepwise(disk: Arc<dyn Storage>) -> ConfigBuilder {
    let clock = Arc::new(SimClock::new());
    ConfigBuilder::new()
        .storage(disk)
        .spawner(Arc::new(SimSpawner::new(clock.clone())))
        .clock(clock)
        .salt_seed(1)
        .block_bytes(512)
        .log_segment_bytes(8 << 10)
        .log_capacity(LOG_BYTES)
        .checkpoint_every_bytes(32 << 10)
        .store_segment_bytes(8 << 10)
}

fn page(pages: &Pages, text: &str, guard: &Guard) -> PageId {
    let pid = pages.allocate(guard).expect("ids are left");
    pages.replace(pid, PagePtr::allocated(), text.to_owned(), guard).expect("nobody else writes");
    pid
}

fn look<'g>(pages: &Pages, pid: PageId, guard: &'g Guard) -> (&'g String, PagePtr<'g, String>) {
    pages.get(pid, guard).expect("the disk is well").unwrap()
}
