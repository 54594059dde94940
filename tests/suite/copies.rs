//! How often a page is copied, merged and encoded: counted by fragments that count.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pagecache::{Config, ConfigBuilder, Materializer, PageCache, PageGet, PagePtr, io::sim::SimDisk, pin};
use serde::{Deserialize, Serialize};
use tests::stepwise;

static CLONES: AtomicU64 = AtomicU64::new(0);
static MERGES: AtomicU64 = AtomicU64::new(0);
static ENCODINGS: AtomicU64 = AtomicU64::new(0);

/// A text whose copies are counted.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Text(String);

impl Clone for Text {
    fn clone(&self) -> Text {
        CLONES.fetch_add(1, Ordering::Relaxed);
        Text(self.0.clone())
    }
}

struct Texts;

impl Materializer for Texts {
    type PageFrag = Text;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Texts {
        Texts
    }

    fn merge(&self, frags: &[&Text]) -> Text {
        MERGES.fetch_add(1, Ordering::Relaxed);
        Text(frags.iter().map(|frag| frag.0.as_str()).collect())
    }

    fn recover(&self, _: &Text) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &Text) -> usize {
        frag.0.len()
    }

    fn encoded_len(&self, frag: &Text) -> usize {
        frag.0.len()
    }

    fn encode(&self, frag: &Text, out: &mut [u8]) {
        ENCODINGS.fetch_add(1, Ordering::Relaxed);
        out.copy_from_slice(frag.0.as_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<Text, pagecache::DecodeError> {
        let text = std::str::from_utf8(bytes);
        text.map(|text| Text(text.to_owned())).map_err(|why| pagecache::DecodeError(why.to_string()))
    }
}

/// Clones, merges and encodings that `work` takes.
fn counted(work: impl FnOnce()) -> [u64; 3] {
    let counters = [&CLONES, &MERGES, &ENCODINGS];
    let before = counters.map(|counter| counter.load(Ordering::Relaxed));
    work();
    [0, 1, 2].map(|i| counters[i].load(Ordering::Relaxed) - before[i])
}

/// The only test that uses these counters.
#[test]
fn a_change_is_encoded_once_and_copied_nowhere_and_a_page_is_merged_once_for_many() {
    const CHANGES: u64 = 200;
    const THRESHOLD: u64 = 4;
    let config = stepwise(ConfigBuilder::new(), Arc::new(SimDisk::untraced()))
        .page_consolidation_threshold(THRESHOLD as usize)
        .build();
    let pages = PageCache::<Texts, _, _>::start(config).unwrap();
    let guard = pin();
    let pid = pages.allocate(&guard).unwrap();
    let first = Text("a".repeat(1000));
    let mut key = PagePtr::allocated();
    let one = counted(|| key = pages.replace(pid, key, first, &guard).unwrap());
    assert_eq!(one, [0, 0, 1], "a page begun: clones, merges, encodings");
    let one = counted(|| key = pages.link(pid, key, Text("b".to_owned()), &guard).unwrap());
    assert_eq!(one, [0, 0, 1], "a change: clones, merges, encodings");

    let [clones, merges, encodings] = counted(|| {
        for _ in 0..CHANGES {
            key = pages.link(pid, key, Text("c".to_owned()), &guard).unwrap();
        }
    });
    assert_eq!((clones, encodings), (0, CHANGES), "changes");
    assert!(merges <= CHANGES / THRESHOLD + 1, "{merges} merges for {CHANGES} changes");

    let reads = counted(|| {
        for _ in 0..CHANGES {
            assert!(matches!(pages.get(pid, &guard).unwrap(), PageGet::Materialized(page, _)
                if page.0.len() as u64 == 1001 + CHANGES));
        }
    });
    assert!(reads[0] == 0 && reads[1] <= 1 && reads[2] == 0, "reads of one page: {reads:?}");

    pages.flush().unwrap();
    let [clones, merges, encodings] = counted(|| pages.checkpoint().unwrap());
    assert!(clones <= 1 && merges <= 1 && encodings <= 2, "write-back: {clones}, {merges}, {encodings}");
}
