//! Proves that bytes from outside are a node (NODE-1 to NODE-3), once, before anything relies on them.
//!
//! Nothing here trusts a number before it has been compared with the bytes that are there.

use pagecache::mem::PageBuf;

use super::{
    KEY_BYTES_MAX, NodeError,
    apart::Apart,
    layout::{
        CHILD_BYTES, FIXED_KEYS, FIXED_VALUES, HAS_APART, HAS_HIGH, HEADER_BYTES, Header, NO_PAGE, NODE,
        View, end_of, head_of, names_page,
    },
};

/// `Ok` only if every accessor of a node over these bytes stays within them and keeps its promise.
pub(super) fn validate(bytes: &[u8]) -> Result<(), NodeError> {
    let header = header(bytes)?;
    let view = View { bytes, header };
    ends(&view)?;
    order(&view)
}

/// All that mean something.
const FLAGS: u8 = FIXED_KEYS | FIXED_VALUES | HAS_HIGH | HAS_APART;

fn header(bytes: &[u8]) -> Result<Header, NodeError> {
    let Some(first) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(NodeError(format!(
            "a node of {} bytes, its header alone needs {HEADER_BYTES}",
            bytes.len()
        )));
    };
    let header = Header::read(first);
    let mut again = [0; HEADER_BYTES];
    header.write(&mut again);
    if first != &again || header.flags & !FLAGS != 0 || first[0] != NODE {
        return Err(NodeError("a node header with bits that mean nothing".to_owned()));
    }
    if header.total as usize != bytes.len() || bytes.len() > PageBuf::LEN_MAX {
        return Err(NodeError(format!("a node of {} bytes in {}", header.total, bytes.len())));
    }
    lengths(&header)?;
    pages(&header)?;
    let named = usize::from(header.prefix_len) + usize::from(header.low_len) + usize::from(header.high_len);
    if bytes[HEADER_BYTES + named..header.heads_at()].iter().any(|byte| *byte != 0) {
        return Err(NodeError("a node with bytes in its padding".to_owned()));
    }
    Ok(header)
}

/// Compares, in 64 bits so that nothing wraps, the parts that the header implies with the whole.
fn lengths(header: &Header) -> Result<(), NodeError> {
    let total = u64::from(header.total);
    let count = u64::from(header.count);
    let per_record = if header.is_regular() { 4 } else { 8 };
    let front = header_end(header) + count * per_record;
    let width = |flag: u8, width: u32| u64::from(if header.has(flag) { width } else { 0 });
    let stride = width(FIXED_KEYS, header.key_width) + width(FIXED_VALUES, header.value_width);
    // No overflow: count and stride are below 2^32 and 2^33, and a product that large fails as u128.
    let records = u128::from(count) * u128::from(stride);
    let fits = if header.is_regular() {
        u128::from(front) + records == u128::from(total)
    } else {
        u128::from(front) + records <= u128::from(total)
    };
    if !fits {
        return Err(NodeError(format!("{count} records do not fit a node of {total} bytes")));
    }
    let unused = (!header.has(FIXED_KEYS) && header.key_width != 0)
        || (!header.has(FIXED_VALUES) && header.value_width != 0)
        || (!header.has(HAS_HIGH) && header.high_len != 0);
    if unused {
        return Err(NodeError("a node with a width that its flags do not use".to_owned()));
    }
    Ok(())
}

fn header_end(header: &Header) -> u64 {
    header.heads_at() as u64
}

fn pages(header: &Header) -> Result<(), NodeError> {
    let children = if header.level == 0 {
        header.first_child == NO_PAGE
    } else {
        let wide = header.has(FIXED_VALUES) && header.value_width as usize == CHILD_BYTES;
        names_page(header.first_child) && wide
    };
    let next = header.next == NO_PAGE || (names_page(header.next) && header.has(HAS_HIGH));
    if !children || !next {
        return Err(NodeError(format!("a node of level {} whose pages cannot be", header.level)));
    }
    Ok(())
}

/// Ends rise, reach exactly to the last byte, and leave each record room for what it must hold.
fn ends(view: &View<'_>) -> Result<(), NodeError> {
    if view.header.is_regular() {
        return Ok(());
    }
    let records = view.records();
    let key_lens = view.header.has_key_lens();
    let fixed = view.header.key_width as usize + view.header.value_width as usize;
    let mut start = 0;
    for (i, end) in view.ends().iter().enumerate() {
        let (end, is_apart) = end_of(*end);
        if is_apart && !view.header.has(HAS_APART) {
            return Err(NodeError(format!("record {i} ends beyond 2 GiB")));
        }
        let Some(record) = records.get(start..end) else {
            return Err(NodeError(format!("record {i} ends at byte {end} of {}", records.len())));
        };
        let needed = match record {
            [low, high, ..] if key_lens => 2 + usize::from(u16::from_le_bytes([*low, *high])),
            _ if key_lens => 2,
            _ => fixed,
        };
        if record.len() < needed {
            return Err(NodeError(format!("record {i} needs {needed} bytes and has {}", record.len())));
        }
        start = end;
    }
    if start != records.len() {
        return Err(NodeError(format!("{} bytes behind the last record", records.len() - start)));
    }
    Ok(())
}

/// Keys rise strictly within the fences, heads agree with them, children are pages.
fn order(view: &View<'_>) -> Result<(), NodeError> {
    if view.high().is_some_and(|high| high <= view.low()) {
        return Err(NodeError("a node whose high fence is not above its low fence".to_owned()));
    }
    let inner = view.header.level > 0;
    let mut before: Option<&[u8]> = None;
    for (i, head) in view.heads().iter().enumerate() {
        let (suffix, value) = view.record(i);
        if head_of(suffix) != u32::from_le_bytes(*head) {
            return Err(NodeError(format!("the head of record {i} is not that of its key")));
        }
        if before.is_some_and(|before| before >= suffix) {
            return Err(NodeError(format!("record {i} is not above the one before it")));
        }
        if inner && value.first_chunk().is_none_or(|pid| !names_page(u64::from_le_bytes(*pid))) {
            return Err(NodeError(format!("record {i} names no page")));
        }
        if view.is_apart(i) && (inner || Apart::decode(value).is_none()) {
            return Err(NodeError(format!("record {i} stands for no value")));
        }
        if view.prefix().len() + suffix.len() > KEY_BYTES_MAX {
            return Err(NodeError(format!("the key of record {i} exceeds {KEY_BYTES_MAX} bytes")));
        }
        before = Some(suffix);
    }
    fences(view)
}

fn fences(view: &View<'_>) -> Result<(), NodeError> {
    let Some(last) = view.count().checked_sub(1) else { return Ok(()) };
    let key = |i: usize| [view.prefix(), view.suffix(i)].concat();
    let (first, last) = (key(0), key(last));
    // A separator equal to the low fence would be the first child's, which has none.
    let below = if view.header.level > 0 { &*first <= view.low() } else { &*first < view.low() };
    if below || view.high().is_some_and(|high| &*last >= high) {
        return Err(NodeError("a node with keys outside of its fences".to_owned()));
    }
    Ok(())
}
