//! What must be the same before and after a restart, kept by whoever opens a store twice.
//!
//! A store with an [`EventLog`] writes down at its close what it leaves: where the log ends, the value
//! it would recover, for each page where it lies and a digest of what it holds, and the live bytes of
//! each segment. The next open with the same log compares all of that with what it found. A store that
//! is not closed leaves what was true at its last flush: no page may be older than it was then.
//!
//! How the facts are gathered is [`crate::pagecache`]'s business; here they are kept and compared. A log used alone
//! keeps none.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    sync::Arc,
};

use crate::{
    error::Failure,
    ids::{FragmentAddr, Lsn, PageId, PageSeq},
    sync::Mutex,
};

/// Differences that are told.
const TOLD_MAX: usize = 8;

/// Remembers, between two opens of a store in one process, what the second must find. Clones are
/// handles to the same one.
///
/// For tests: with one, a close and an open read every page. Never give it to two stores, nor keep it
/// where the files are put back to an earlier state ([`EventLog::forget`]).
#[derive(Clone, Debug, Default)]
pub struct EventLog(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    left: Option<Left>,
    compared: u64,
}

/// What a store left behind.
#[derive(Clone, Debug)]
pub(crate) enum Left {
    /// It was closed: exactly this must be found.
    Closed(Facts),
    /// It was not: at least this must be found.
    Running(Floor),
}

/// All that a store keeps over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Where the log ends.
    pub(crate) end: Lsn,
    /// Position of the value that is recovered.
    pub(crate) recovery: Option<Lsn>,
    /// Page ids below this exist.
    pub(crate) bound: PageId,
    /// Every page that is not free.
    pub(crate) pages: BTreeMap<PageId, PageFact>,
    /// Live bytes of each segment of the `pages` file that has any.
    pub(crate) segments: BTreeMap<u32, u64>,
}

/// What is kept of one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageFact {
    /// The number of its durable form.
    pub(crate) seq: PageSeq,
    /// Where that lies.
    pub(crate) parts: Vec<FragmentAddr>,
    /// What the materializer makes of the whole page.
    pub(crate) digest: u64,
}

/// What was durable at some moment of a store that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    /// All below was durable.
    pub(crate) stable: Lsn,
    /// Page ids below this existed.
    pub(crate) bound: PageId,
    /// For each page the number of a change that was durable.
    pub(crate) pages: BTreeMap<PageId, PageSeq>,
}

impl EventLog {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> EventLog {
        EventLog::default()
    }

    /// How many opens were compared with what the store before had left.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.0.lock().compared
    }

    /// Forgets what the last store left: its files are about to become others.
    pub fn forget(&self) {
        self.0.lock().left = None;
    }

    pub(crate) fn leave(&self, left: Left) {
        self.0.lock().left = Some(left);
    }

    /// What the store before left, if anything. Kept for the next open too.
    pub(crate) fn left(&self) -> Option<Left> {
        self.0.lock().left.clone()
    }

    /// Notes that an open was compared.
    pub(crate) fn note_compared(&self) {
        self.0.lock().compared += 1;
    }
}

impl Facts {
    /// Tells how `found` differs.
    pub(crate) fn expect(&self, found: &Facts) -> Result<(), Failure> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, was: &dyn Debug, is: &dyn Debug| {
            let (was, is) = (format!("{was:?}"), format!("{is:?}"));
            if was != is {
                differences.push(format!("{what} was {was} and is {is}"));
            }
        };
        compare("the end of the log", &self.end, &found.end);
        compare("the position of the recovered value", &self.recovery, &found.recovery);
        compare("the bound of page ids", &self.bound, &found.bound);
        for (pid, was, is) in pairs(&self.pages, &found.pages) {
            compare(&format!("page {pid}"), &Shown(was), &Shown(is));
        }
        for (segment, was, is) in pairs(&self.segments, &found.segments) {
            compare(&format!("live bytes of segment {segment}"), &Shown(was), &Shown(is));
        }
        told(differences)
    }
}

impl Floor {
    /// Tells what is missing where the log ends at `end` and pages are at the numbers that `seq_of` says.
    pub(crate) fn expect(
        &self,
        end: Lsn,
        bound: PageId,
        seq_of: impl Fn(PageId) -> PageSeq,
    ) -> Result<(), Failure> {
        let mut differences = Vec::new();
        if end < self.stable {
            differences.push(format!("the log was durable up to {} and ends at {end}", self.stable));
        }
        if bound < self.bound {
            differences.push(format!("page ids went up to {} and go up to {bound}", self.bound));
        }
        for (&pid, &was) in &self.pages {
            let is = seq_of(pid);
            if is < was {
                differences.push(format!("page {pid} had change {was} and is at {is}"));
            }
        }
        told(differences)
    }
}

/// Every key of either map, with what each says.
fn pairs<'m, K: Ord + Copy, V>(
    was: &'m BTreeMap<K, V>,
    is: &'m BTreeMap<K, V>,
) -> impl Iterator<Item = (K, Option<&'m V>, Option<&'m V>)> {
    let added = is.keys().filter(|key| !was.contains_key(key));
    was.keys().chain(added).map(|key| (*key, was.get(key), is.get(key)))
}

/// What was there, or that nothing was.
struct Shown<'v, V>(Option<&'v V>);

impl<V: Debug> Debug for Shown<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}

fn told(differences: Vec<String>) -> Result<(), Failure> {
    if differences.is_empty() {
        return Ok(());
    }
    let count = differences.len();
    let shown = differences.into_iter().take(TOLD_MAX).collect::<Vec<_>>().join("; ");
    Err(Failure::Bug { what: format!("the store is not what it was, in {count} places: {shown}") })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Facts, Floor, PageFact};
    use crate::ids::FragmentAddr;

    fn page(seq: u64) -> PageFact {
        PageFact { seq, parts: vec![FragmentAddr { offset: 8192, len: 100 }], digest: 7 }
    }

    fn facts() -> Facts {
        Facts {
            end: 4096,
            recovery: Some(12),
            bound: 3,
            pages: [(0, page(4)), (2, page(9))].into(),
            segments: [(0, 200)].into(),
        }
    }

    #[test]
    fn each_fact_that_differs_is_told_by_name() {
        assert!(facts().expect(&facts()).is_ok());
        type Plant = fn(&mut Facts);
        let planted: [(&str, Plant); 9] = [
            ("end of the log", |facts| facts.end += 1),
            ("recovered value", |facts| facts.recovery = None),
            ("bound of page ids", |facts| facts.bound -= 1),
            ("page 0 was", |facts| drop(facts.pages.remove(&0))),
            ("page 1 was nothing", |facts| drop(facts.pages.insert(1, page(1)))),
            ("page 2 was", |facts| drop(facts.pages.insert(2, page(8)))),
            ("page 2 was", |facts| facts.pages.get_mut(&2).expect("it is there").parts.clear()),
            ("page 2 was", |facts| facts.pages.get_mut(&2).expect("it is there").digest ^= 1),
            ("segment 0 was 200 and is 100", |facts| *facts.segments.get_mut(&0).expect("it is there") = 100),
        ];
        for (name, plant) in planted {
            let mut other = facts();
            plant(&mut other);
            let told = facts().expect(&other).expect_err(name).to_string();
            assert!(told.contains("in 1 places") && told.contains(name), "{name}: {told}");
        }
    }

    #[test]
    fn what_was_durable_may_grow_and_not_shrink() {
        let floor = Floor { stable: 100, bound: 2, pages: [(0, 5), (1, 3)].into() };
        assert!(floor.expect(100, 2, |_| 5).is_ok());
        assert!(floor.expect(300, 9, |pid| 5 + pid as u64).is_ok());
        for (end, bound, first, part) in [
            (99, 2, 5, "ends at 99"),
            (100, 1, 5, "go up to 1"),
            (100, 2, 4, "page 0 had change 5 and is at 4"),
        ] {
            let told = floor.expect(end, bound, |pid| if pid == 0 { first } else { 3 });
            assert!(told.expect_err(part).to_string().contains(part), "{part}");
        }
    }
}
