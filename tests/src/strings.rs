//! A page cache whose pages are strings, for tests of the page cache alone.

use pagecache::PageCache;
pub use pagecache::{Appended, Strings, Words};

/// A page cache with strings for pages.
pub type Pages = PageCache<Strings, String, ()>;
