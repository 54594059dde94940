//! A page cache used alone: pages of text, so that records of every kind can be made by hand.

use pagecache::{Config, Materializer, PageCache, PageGet, PageId, PagePtr, pin};

use super::answers::Seen;

/// The key of what [`Materializer::recover`] said last; page ids are keys of four bytes.
pub(super) const RECOVERED: &[u8] = b"recovered";

pub(super) type Texts = PageCache<Concat, String, u64>;

/// Joins texts. One that begins with `#` and a number is to be recovered as that number.
#[derive(Debug)]
pub(super) struct Concat;

impl Materializer for Concat {
    type PageFrag = String;
    type Recovery = u64;

    fn new(_: Config, _: &Option<u64>) -> Concat {
        Concat
    }

    fn merge(&self, frags: &[&String]) -> String {
        frags.iter().map(|frag| frag.as_str()).collect()
    }

    fn recover(&self, frag: &String) -> Option<u64> {
        frag.strip_prefix('#')?.split(' ').next()?.parse().ok()
    }

    fn size_in_bytes(&self, frag: &String) -> usize {
        frag.len()
    }
}

pub(super) fn key_of(pid: PageId) -> Vec<u8> {
    (pid as u32).to_be_bytes().to_vec()
}

/// The page's key in the cache, if it is there.
pub(super) fn pointer<'g>(
    texts: &Texts,
    pid: PageId,
    guard: &'g pagecache::Guard,
) -> tree::Result<PagePtr<'g, String>> {
    match texts.read(pid, guard)? {
        PageGet::Materialized(_, key) => Ok(key),
        PageGet::Allocated => Ok(PagePtr::allocated()),
        other => Err(tree::Error::ReportableBug(format!("page {pid} is {other:?}"))),
    }
}

/// Compares every page of `keys` with the answers, and gathers the errors.
pub(super) fn read<'k>(
    texts: &Texts,
    keys: impl Iterator<Item = &'k [u8]>,
    seen: &mut Seen<'_>,
    errors: &mut Vec<tree::Error>,
) {
    for (index, key) in keys.enumerate() {
        if key == RECOVERED {
            let value = texts.recovered_state().map(|value| value.to_string());
            seen.value(index, value.as_ref().map(String::as_bytes));
            continue;
        }
        let pid = key.iter().fold(0, |pid, byte| pid << 8 | PageId::from(*byte));
        let guard = pin();
        match texts.read(pid, &guard) {
            Ok(PageGet::Materialized(text, _)) => seen.value(index, Some(text.as_bytes())),
            Ok(_) => seen.value(index, None),
            Err(failure) => errors.push(failure.into()),
        }
    }
}

const EXTRA: &str = "written after the damage";

/// Writes one more page, durably.
pub(super) fn add(texts: &Texts) -> tree::Result<PageId> {
    let guard = pin();
    let pid = texts.allocate(&guard)?;
    texts.replace(pid, PagePtr::allocated(), EXTRA.to_owned(), &guard)?;
    texts.flush()?;
    Ok(pid)
}

/// Finds that page again and frees it.
pub(super) fn take(texts: &Texts, pid: PageId) -> tree::Result<()> {
    let guard = pin();
    let PageGet::Materialized(text, key) = texts.read(pid, &guard)? else {
        panic!("page {pid} was durable and is gone");
    };
    assert_eq!(text, EXTRA, "page {pid}");
    texts.free(pid, key, &guard)?;
    Ok(())
}
