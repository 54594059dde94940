//! Pages that are strings, for tests of the page cache alone.

use pagecache::{Config, Materializer, PageCache};

/// Pages are strings; changes are appended to them.
pub type Strings = Appended<false>;

/// Pages are words; changes append words, and commute.
pub type Words = Appended<true>;

/// A page cache with strings for pages.
pub type Pages = PageCache<Strings, String, ()>;

/// Unites strings by appending them, oldest first; `COMMUTES` says whether one may be added above another
/// that is pending.
#[derive(Clone, Copy, Debug)]
pub struct Appended<const COMMUTES: bool>;

impl<const COMMUTES: bool> Materializer for Appended<COMMUTES> {
    type PageFrag = String;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Appended<COMMUTES> {
        Appended
    }

    fn merge(&self, frags: &[&String]) -> String {
        frags.iter().map(|frag| frag.as_str()).collect()
    }

    fn recover(&self, _: &String) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &String) -> usize {
        frag.len()
    }

    fn commutes(&self, _: &String, _: &String) -> bool {
        COMMUTES
    }
}
