//! Reading pages as they were: what a snapshot shows never changes, whatever becomes of the pages.

mod histories;
mod threads;
mod versions;

use versions::{Versioned, said};

type Pages = pagecache::PageCache<Versioned<false>, versions::Page, ()>;
