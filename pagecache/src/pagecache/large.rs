//! A change of one page that exceeds one record: a batch of that change alone.
//!
//! Its record would not fit a buffer, so it goes the way of large batches: pending first, then the parts of
//! a run, then the record that ends them ([`super::run`]). What a batch may take, such a change may take.
//!
//! A page that was allocated and is to begin with such a change stays allocated if the change is given up:
//! its id is the caller's.

use super::{
    PageCache,
    admission::Admission,
    install::Outcome,
    page_ptr::{Key, PagePtr},
};
use crate::{
    error::Failure, format::batch::ENTRY_HEADER_BYTES, ids::PageId, materializer::Materializer,
    page::chain::Body, reclaim::Guard,
};

impl<PM, P, R> PageCache<PM, P, R>
where
    PM: Materializer<PageFrag = P, Recovery = R> + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    /// True if one record cannot hold a fragment of so many bytes.
    pub(super) fn is_large(&self, len: usize) -> bool {
        len > self.shared.log.max_payload()
    }

    /// Changes the page by a run of records of its own.
    pub(super) fn install_large<'g>(
        &self,
        pid: PageId,
        key: &PagePtr<'g, P>,
        body: &Body<P>,
        len: usize,
        guard: &'g Guard,
    ) -> Result<Outcome<'g, P>, Failure> {
        self.shared.cache.poison.check()?;
        let bytes = ENTRY_HEADER_BYTES + len;
        self.shared.check_change(bytes)?;
        // Room in memory is made afterwards: before, it could drive the page out whose key was just read, again at
        // each try.
        let admission = Admission { mem: 0, log: bytes, optional: false };
        let (mut key, mut tries) = (*key, 0);
        loop {
            let mut batch = self.begin_alone(admission)?;
            let mine = match batch.add(pid, &key, body.clone(), guard)? {
                Outcome::Done(mine) => mine,
                lost => return Ok(lost),
            };
            let begun = batch.begun();
            match batch.apply() {
                Ok(lsn) => {
                    let cell = self.shared.cache.pages.cell(pid).expect("the page was changed");
                    let Key::Word(word) = mine.key else { unreachable!("a change has a word of its own") };
                    let key = self.after_install(cell, word, key.pending, guard);
                    return Ok(Outcome::Done(PagePtr { changed_at: lsn, ..key }));
                }
                Err(failure) if self.waits_for_log(&failure, &mut tries) => {
                    // The page says what it said before, under another word.
                    key = match begun {
                        Some(allocated) => PagePtr::of_word(allocated),
                        None => PagePtr { pending: key.pending, ..mine },
                    };
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "large_tests.rs"]
mod tests;
