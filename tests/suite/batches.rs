//! Batches as the page cache makes them: the schedules that break them without the rules.

mod gate;
mod order;
mod reads;
mod reuse;
mod scattered;

use std::sync::Arc;

use pagecache::{ConfigBuilder, Guard, PageCache, PageId, PagePtr, io::Storage};
use tests::{stepwise, strings::Words, tiny_pages};

type Pages = PageCache<Words, String, ()>;

const LOG_BYTES: u64 = 64 << 10;

fn small(disk: Arc<dyn Storage>) -> ConfigBuilder {
    tiny_pages(stepwise(ConfigBuilder::new(), disk)).salt_seed(1).log_capacity(LOG_BYTES)
}

fn page(pages: &Pages, text: &str, guard: &Guard) -> PageId {
    let pid = pages.allocate(guard).expect("ids are left");
    pages.replace(pid, PagePtr::allocated(), text.to_owned(), guard).expect("nobody else writes");
    pid
}

fn look<'g>(pages: &Pages, pid: PageId, guard: &'g Guard) -> (&'g String, PagePtr<'g, String>) {
    pages.get(pid, guard).expect("the disk is well").unwrap()
}
