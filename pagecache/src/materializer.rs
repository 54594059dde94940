//! What the layer above teaches the cache about its pages.

use std::{
    fmt::Debug,
    hash::{DefaultHasher, Hasher},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Config, error::DecodeError, format::codec, ids::Lsn};

/// Merges the fragments of a page, and says how they look in bytes.
///
/// The first five items are the seed's; the rest have defaults that suit any serde type.
pub trait Materializer {
    /// A page, or a change to one: both are values of this type.
    type PageFrag: 'static + Debug + Clone + Serialize + DeserializeOwned + Send + Sync;

    /// What the layer above wants back after a restart, as the root of its tree.
    type Recovery: Debug + Clone + Serialize + DeserializeOwned + Send + Sync;

    /// Makes a materializer with the state that was recovered, if any.
    fn new(config: Config, last_recovery: &Option<Self::Recovery>) -> Self;

    /// Unites fragments, oldest first, into one. Never called with none. Must be a pure function:
    /// it runs again whenever a page is read back.
    fn merge(&self, frags: &[&Self::PageFrag]) -> Self::PageFrag;

    /// State to recover from this fragment, if it carries any. Called once for every fragment
    /// before it is acknowledged, and again in recovery; the value of the highest LSN wins.
    fn recover(&self, frag: &Self::PageFrag) -> Option<Self::Recovery>;

    /// Bytes of memory that the fragment occupies.
    fn size_in_bytes(&self, frag: &Self::PageFrag) -> usize;

    /// Bytes that [`Materializer::encode`] will write.
    fn encoded_len(&self, frag: &Self::PageFrag) -> usize {
        codec::encoded_len(frag)
    }

    /// Writes the fragment into `out`, which is exactly as long as `encoded_len` said.
    fn encode(&self, frag: &Self::PageFrag, out: &mut [u8]) {
        codec::encode(frag, out);
    }

    /// Reads a fragment back. Must accept any bytes without panicking.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are no fragment.
    fn decode(&self, bytes: &[u8]) -> Result<Self::PageFrag, DecodeError> {
        codec::decode(bytes)
    }

    /// As [`Materializer::recover`], of a fragment in bytes: what an opening store asks of every record of
    /// its log's tail. By default it decodes the fragment and lets it go; worth overriding where that
    /// allocates.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] where [`Materializer::decode`] gives one.
    fn recover_encoded(&self, bytes: &[u8]) -> Result<Option<Self::Recovery>, DecodeError> {
        self.decode(bytes).map(|frag| self.recover(&frag))
    }

    /// Unites fragments, oldest first, keeping what readers at the positions `keep` must see, which ascend:
    /// [`crate::PageCache::snapshot`] took them. What a fragment does not say of itself came at the LSN beside
    /// it; what was there before the first position may have none in the result, and everything else must carry
    /// its own, because the result comes back with LSN 0. Called with a single fragment too.
    ///
    /// By default nothing is kept: whoever uses snapshots writes this and [`Materializer::version_at`]. What is
    /// kept for them must not change [`Materializer::digest`], and [`Materializer::merge`] may drop it.
    fn merge_versions(&self, frags: &[(&Self::PageFrag, Lsn)], keep: &[Lsn]) -> Self::PageFrag {
        let _ = keep;
        let frags: Vec<&Self::PageFrag> = frags.iter().map(|(frag, _)| *frag).collect();
        self.merge(&frags)
    }

    /// The page as it was at `at`, of what [`Materializer::merge_versions`] made for it; `None` if nothing of it
    /// was there yet. By default the page as it is.
    fn version_at(&self, page: &Self::PageFrag, at: Lsn) -> Option<Self::PageFrag> {
        let _ = at;
        Some(page.clone())
    }

    /// True if `new` may be added above `pending`, which may yet be aborted.
    fn commutes(&self, pending: &Self::PageFrag, new: &Self::PageFrag) -> bool {
        let _ = (pending, new);
        false
    }

    /// Unites changes, oldest first, into one that does the same, if that can be had without the page
    /// below; `None` if not. The cache then need not copy the page for every few changes of it. It may
    /// put the result on a page that has some of the oldest of the changes already: that must make no
    /// difference.
    fn unite(&self, changes: &[&Self::PageFrag]) -> Option<Self::PageFrag> {
        let _ = changes;
        None
    }

    /// Marks of what the change touches, a set of 64 kinds of your choice: a reader that asks for
    /// other marks is shown the base without a look at the change ([`crate::PageView::base_under`]).
    fn marks(&self, change: &Self::PageFrag) -> u64 {
        let _ = change;
        u64::MAX
    }

    /// A number for what the page says, the same however its fragments were united: what tests compare
    /// pages by. By default one of its bytes, which must then not depend on that either.
    fn digest(&self, page: &Self::PageFrag) -> u64 {
        let mut bytes = vec![0; self.encoded_len(page)];
        self.encode(page, &mut bytes);
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        hasher.finish()
    }

    /// What the fragment adds to a counter, as (counter, difference).
    fn tally(&self, frag: &Self::PageFrag) -> Option<(u64, i64)> {
        let _ = frag;
        None
    }
}

/// A materializer of pages that hold nothing, for whoever uses the log alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NullMaterializer;

impl Materializer for NullMaterializer {
    type PageFrag = ();
    type Recovery = ();

    fn new(_config: Config, _last_recovery: &Option<()>) -> NullMaterializer {
        NullMaterializer
    }

    fn merge(&self, _frags: &[&()]) {}

    fn recover(&self, _frag: &()) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, _frag: &()) -> usize {
        0
    }
}

/// Pages are strings; changes are appended to them.
#[cfg(any(test, feature = "sim"))]
pub type Strings = Appended<false>;

/// Pages are words; changes append words, and commute.
#[cfg(any(test, feature = "sim"))]
pub type Words = Appended<true>;

/// Unites strings by appending them, oldest first; `COMMUTES` says whether one may be added above another
/// that is pending.
#[cfg(any(test, feature = "sim"))]
#[derive(Clone, Copy, Debug)]
pub struct Appended<const COMMUTES: bool>;

#[cfg(any(test, feature = "sim"))]
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
