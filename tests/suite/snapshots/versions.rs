//! Pages of words that keep their versions: the least that a materializer does for snapshots.

use pagecache::{Config, Lsn, Materializer};

/// Words, oldest first, each with the LSN at which it came if the page has to say so, else 0.
pub(crate) type Page = Vec<(Lsn, String)>;

/// Pages are words; changes append words, or say all of them if `REPLACES`. Only those can be united.
pub(crate) struct Versioned<const REPLACES: bool>;

/// A change that appends `words`, or a page that begins with them.
pub(crate) fn said(words: &str) -> Page {
    vec![(0, words.to_owned())]
}

/// All words of a page of one version, or to which changes were appended.
pub(crate) fn text(page: &Page) -> String {
    page.iter().map(|(_, words)| words.as_str()).collect()
}

/// Takes up what came after `all`.
fn add<const REPLACES: bool>(all: &mut String, words: &str) {
    if REPLACES {
        all.clear();
    }
    all.push_str(words);
}

impl<const REPLACES: bool> Materializer for Versioned<REPLACES> {
    type PageFrag = Page;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Versioned<REPLACES> {
        Versioned
    }

    fn merge(&self, frags: &[&Page]) -> Page {
        let mut all = String::new();
        frags.iter().copied().flatten().for_each(|(_, words)| add::<REPLACES>(&mut all, words));
        vec![(0, all)]
    }

    fn unite(&self, changes: &[&Page]) -> Option<Page> {
        REPLACES.then(|| self.merge(changes))
    }

    fn merge_versions(&self, frags: &[(&Page, Lsn)], keep: &[Lsn]) -> Page {
        // How many of the positions are older than the words: those who read the same stay together.
        let unseen_by = |came: Lsn| keep.partition_point(|at| *at < came);
        let mut page: Page = Vec::new();
        for (frag, beside) in frags {
            for (said, words) in *frag {
                let came = if *said == 0 { *beside } else { *said };
                let came = if unseen_by(came) == 0 { 0 } else { came };
                match page.last_mut() {
                    Some((last, all)) if unseen_by(*last) == unseen_by(came) => add::<REPLACES>(all, words),
                    _ => page.push((came, words.clone())),
                }
            }
        }
        page
    }

    fn version_at(&self, page: &Page, at: Lsn) -> Option<Page> {
        let there: Page = page.iter().filter(|(came, _)| *came <= at).cloned().collect();
        (!there.is_empty()).then(|| self.merge(&[&there]))
    }

    fn recover(&self, _: &Page) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, page: &Page) -> usize {
        page.iter().map(|(_, words)| words.len() + size_of::<(Lsn, String)>()).sum()
    }

    fn digest(&self, page: &Page) -> u64 {
        // FNV-1a of what the page says now.
        text(&self.merge(&[page]))
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}
