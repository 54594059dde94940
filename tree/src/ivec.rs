//! [`IVec`]: the bytes that the store takes and gives, inline when short and shared when long.
//!
//! * At most [`INLINE_BYTES_MAX`] bytes lie in the value itself: no allocation, a clone is a copy.
//! * Longer ones lie in one `Arc<[u8]>`, or where a scan found them; clones and [`IVec::subslice`] share
//!   these bytes.
//! * Writing through `DerefMut` never changes what another handle sees: shared bytes are copied first.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
    sync::Arc,
};

use pagecache::mem::Lent;

/// Longest value that needs no allocation: what fits 32 bytes beside a tag and a length.
const INLINE_BYTES_MAX: usize = IVec::INLINE_BYTES_MAX;

/// A byte vector that is cheap to clone.
///
/// Up to 30 bytes are held inline; longer ones are shared and counted. A value that a scan returned may
/// point into its leaf, which stays in memory for as long as such a value is kept; at most an eighth of
/// the database's memory is on loan in this way, what exceeds it is copied. Anything that is `Into<IVec>`
/// can be stored, and an `IVec` derefs to `&[u8]`.
///
/// ```
/// use tree::IVec;
///
/// let long = IVec::from(vec![7; 100]);
/// let copy = long.clone(); // shares the bytes
/// assert_eq!(long, copy);
/// assert_eq!(IVec::from("key"), b"key");
/// ```
#[derive(Clone)]
pub struct IVec(Repr);

#[derive(Clone)]
enum Repr {
    Inline {
        len: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    Whole(Arc<[u8]>),
    Part {
        base: Arc<[u8]>,
        offset: u32,
        len: u32,
    },
    /// Bytes of a leaf, which stays in memory meanwhile.
    Lent {
        leaf: Lent,
        offset: u32,
        len: u32,
    },
}

const _: () = assert!(size_of::<IVec>() <= 32, "an IVec is four words");

impl IVec {
    /// Longest value that is held inline, in bytes.
    pub(crate) const INLINE_BYTES_MAX: usize = 30;

    /// A part of this value that shares its bytes.
    ///
    /// # Panics
    ///
    /// If `slice_offset + len` exceeds the length.
    ///
    /// ```
    /// # use tree::IVec;
    /// let whole = IVec::from(&[1, 2, 3]);
    /// assert_eq!(whole.subslice(1, 2), &[2, 3]);
    /// ```
    #[must_use]
    pub fn subslice(&self, slice_offset: usize, len: usize) -> Self {
        let own = self.len();
        assert!(
            slice_offset.checked_add(len).is_some_and(|end| end <= own),
            "{len} bytes at {slice_offset} are outside of an IVec of {own} bytes"
        );
        let (base, start) = match &self.0 {
            Repr::Inline { bytes, .. } => return Self::copied(&bytes[slice_offset..slice_offset + len]),
            Repr::Whole(base) => (base, slice_offset),
            Repr::Part { base, offset, .. } => (base, *offset as usize + slice_offset),
            Repr::Lent { leaf, offset, .. } => {
                return Self::lent(leaf, *offset as usize + slice_offset, len);
            }
        };
        if len == base.len() {
            return Self(Repr::Whole(base.clone()));
        }
        match (u32::try_from(start), u32::try_from(len)) {
            (Ok(offset), Ok(len_u32)) if len > INLINE_BYTES_MAX => {
                Self(Repr::Part { base: base.clone(), offset, len: len_u32 })
            }
            // A short part is cheaper inline, and one beyond 4 GiB does not fit the numbers.
            _ => Self::copied(&base[start..start + len]),
        }
    }

    /// The two, one after the other.
    #[inline]
    pub(crate) fn joined(first: &[u8], second: &[u8]) -> Self {
        let len = first.len() + second.len();
        if len > INLINE_BYTES_MAX {
            return Self(Repr::Whole([first, second].concat().into()));
        }
        let mut bytes = [0; INLINE_BYTES_MAX];
        let (to_first, to_second) = bytes[..len].split_at_mut(first.len());
        copy_short(to_first, first);
        copy_short(to_second, second);
        Self(Repr::Inline { len: len as u8, bytes })
    }

    /// A part of a leaf, copied if it is short. The leaf is at most as long as 32 bits say.
    #[inline]
    pub(crate) fn lent(leaf: &Lent, offset: usize, len: usize) -> Self {
        if len <= INLINE_BYTES_MAX {
            return Self::copied(&leaf[offset..offset + len]);
        }
        Self(Repr::Lent { leaf: leaf.clone(), offset: offset as u32, len: len as u32 })
    }

    #[inline]
    fn copied(bytes: &[u8]) -> Self {
        if bytes.len() > INLINE_BYTES_MAX {
            return Self(Repr::Whole(Arc::from(bytes)));
        }
        let mut inline = [0; INLINE_BYTES_MAX];
        copy_short(&mut inline[..bytes.len()], bytes);
        Self(Repr::Inline { len: bytes.len() as u8, bytes: inline })
    }
}

/// Copies as much as an inline value holds, in at most two moves of a fixed width: a call of the
/// library's copy costs more than the copy.
#[inline]
fn copy_short(to: &mut [u8], from: &[u8]) {
    #[inline]
    fn ends<const WIDTH: usize>(to: &mut [u8], from: &[u8]) {
        if let (Some(front), Some(back)) = (from.first_chunk::<WIDTH>(), from.last_chunk::<WIDTH>()) {
            to[..WIDTH].copy_from_slice(front);
            let at = to.len() - WIDTH;
            to[at..].copy_from_slice(back);
        }
    }
    debug_assert_eq!(to.len(), from.len(), "what is copied fits");
    match from.len() {
        0..4 => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
        4..8 => ends::<4>(to, from),
        8..16 => ends::<8>(to, from),
        16..=32 => ends::<16>(to, from),
        _ => to.copy_from_slice(from),
    }
}

impl Deref for IVec {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Whole(base) => base,
            Repr::Part { base, offset, len } => &base[*offset as usize..][..*len as usize],
            Repr::Lent { leaf, offset, len } => &leaf[*offset as usize..][..*len as usize],
        }
    }
}

impl DerefMut for IVec {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let shared = match &mut self.0 {
            Repr::Inline { .. } => false,
            Repr::Lent { .. } => true,
            Repr::Whole(base) | Repr::Part { base, .. } => Arc::get_mut(base).is_none(),
        };
        if shared {
            *self = Self(Repr::Whole(Arc::from(&**self)));
        }
        match &mut self.0 {
            Repr::Inline { len, bytes } => &mut bytes[..usize::from(*len)],
            // The bytes are this handle's alone by now, so nothing is copied here.
            Repr::Whole(base) => Arc::make_mut(base),
            Repr::Part { base, offset, len } => &mut Arc::make_mut(base)[*offset as usize..][..*len as usize],
            Repr::Lent { .. } => unreachable!("lent bytes were copied just now"),
        }
    }
}

impl Default for IVec {
    fn default() -> Self {
        Self::copied(&[])
    }
}

impl AsRef<[u8]> for IVec {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for IVec {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Borrow<[u8]> for IVec {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for &IVec {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl FromIterator<u8> for IVec {
    fn from_iter<T: IntoIterator<Item = u8>>(bytes: T) -> Self {
        Self::from(bytes.into_iter().collect::<Vec<u8>>())
    }
}

impl<'a> IntoIterator for &'a IVec {
    type Item = &'a u8;
    type IntoIter = std::slice::Iter<'a, u8>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<&[u8]> for IVec {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        Self::copied(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for IVec {
    fn from(bytes: &[u8; N]) -> Self {
        Self::copied(bytes)
    }
}

impl From<&str> for IVec {
    fn from(text: &str) -> Self {
        Self::copied(text.as_bytes())
    }
}

impl From<String> for IVec {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl From<&String> for IVec {
    fn from(text: &String) -> Self {
        Self::copied(text.as_bytes())
    }
}

impl From<&IVec> for IVec {
    fn from(other: &IVec) -> Self {
        other.clone()
    }
}

impl From<Vec<u8>> for IVec {
    fn from(bytes: Vec<u8>) -> Self {
        Self::copied(&bytes)
    }
}

impl From<Box<[u8]>> for IVec {
    fn from(bytes: Box<[u8]>) -> Self {
        Self::copied(&bytes)
    }
}

impl From<Arc<[u8]>> for IVec {
    fn from(bytes: Arc<[u8]>) -> Self {
        if bytes.len() > INLINE_BYTES_MAX { Self(Repr::Whole(bytes)) } else { Self::copied(&bytes) }
    }
}

impl From<IVec> for Arc<[u8]> {
    fn from(bytes: IVec) -> Self {
        match bytes.0 {
            Repr::Whole(base) => base,
            _ => Arc::from(&*bytes),
        }
    }
}

impl Hash for IVec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Ord for IVec {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for IVec {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: AsRef<[u8]>> PartialEq<T> for IVec {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl PartialEq<[u8]> for IVec {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl Eq for IVec {}

impl fmt::Debug for IVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashMap},
        sync::Arc,
    };

    use pagecache::mem::{PageBuf, PageMemory};

    use super::{INLINE_BYTES_MAX, IVec};

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| i as u8).collect()
    }

    #[test]
    fn parts_of_every_length_are_joined_whole() {
        for len in 0..=2 * INLINE_BYTES_MAX {
            let whole = bytes(len);
            assert_eq!(IVec::from(&whole[..]), whole);
            for at in 0..=len {
                assert_eq!(IVec::joined(&whole[..at], &whole[at..]), whole, "{at} of {len}");
            }
        }
    }

    #[test]
    fn lent_bytes_are_shared_until_they_are_written_to() {
        let memory = PageMemory::with_checks();
        let leaf = PageBuf::copy_of(&memory, &bytes(200));
        let lent = memory.lend(&leaf, usize::MAX).expect("nothing is lent yet");
        let value = IVec::lent(&lent, 10, 100);
        let part = value.subslice(20, 50);
        let short = value.subslice(1, 3);
        drop((leaf, lent));
        assert!(memory.lent_bytes() > 0, "the leaf is held by its values");
        assert_eq!(value, &bytes(200)[10..110]);
        assert_eq!(part, &bytes(200)[30..80]);
        assert_eq!(short, &[11, 12, 13]);
        let mut written = value.clone();
        written[0] = 99;
        assert_eq!((written[0], value[0]), (99, 10));
        assert_eq!(Arc::<[u8]>::from(value), bytes(200)[10..110].into());
        drop((part, written, short));
        assert_eq!((memory.lent_bytes(), memory.stats().buffers), (0, 0));
    }

    #[test]
    fn every_conversion_keeps_the_bytes_at_every_length() {
        for len in [0, 1, 23, 24, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 255, 256, 5000] {
            let want = bytes(len);
            let shared: Arc<[u8]> = Arc::from(&want[..]);
            let made = [
                IVec::from(&want[..]),
                IVec::from(want.clone()),
                IVec::from(want.clone().into_boxed_slice()),
                IVec::from(shared),
                want.iter().copied().collect(),
                IVec::from(&IVec::from(&want[..])),
            ];
            for ivec in made {
                assert_eq!(ivec, want, "length {len}");
                assert_eq!(&*Arc::<[u8]>::from(ivec), &want[..], "length {len}");
            }
        }
        assert_eq!(IVec::default(), []);
        assert_eq!(IVec::from("é"), "é".as_bytes());
        assert_eq!(IVec::from(&[1, 2, 3]), vec![1, 2, 3]);
    }

    #[test]
    fn every_subslice_of_a_subslice_is_that_of_the_slice() {
        for len in [0, 5, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 100] {
            let want = bytes(len);
            let whole = IVec::from(&want[..]);
            for start in 0..=len {
                for end in start..=len {
                    let part = whole.subslice(start, end - start);
                    assert_eq!(part, &want[start..end], "{start}..{end} of {len}");
                    let half = part.len() / 2;
                    assert_eq!(part.subslice(half, part.len() - half), &want[start + half..end]);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside of an IVec of 3 bytes")]
    fn a_subslice_beyond_the_end_is_refused() {
        let _ = IVec::from(&[1, 2, 3]).subslice(2, usize::MAX);
    }

    #[test]
    fn writing_never_changes_another_handle() {
        for len in [3, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 200] {
            let want = bytes(len);
            let first = IVec::from(&want[..]);
            let mut second = first.clone();
            let mut part = first.subslice(1, len - 1);
            second[0] = 99;
            part[0] = 98;
            assert_eq!(first, want, "length {len}");
            assert_eq!((second[0], &second[1..]), (99, &want[1..]), "length {len}");
            assert_eq!((part[0], &part[1..]), (98, &want[2..]), "length {len}");
        }
    }

    #[test]
    fn a_part_that_is_alone_is_written_in_place() {
        let mut part = IVec::from(bytes(200)).subslice(10, 100);
        let before = part.as_ptr();
        part[0] = 1;
        assert_eq!(part.as_ptr(), before);
        assert_eq!((part[0], part[1], part.len()), (1, 11, 100));
    }

    #[test]
    fn maps_find_it_by_slice() {
        let key = b"a key of more than thirty bytes, to be shared";
        let hashed: HashMap<IVec, u8> = HashMap::from([(IVec::from(key), 1)]);
        let sorted: BTreeMap<IVec, u8> = BTreeMap::from([(IVec::from(key), 2)]);
        assert_eq!(hashed.get(&key[..]), Some(&1));
        assert_eq!(sorted.get(&key[..]), Some(&2));
        let keys = ["a", "aa", "b"].map(IVec::from);
        assert!(keys.is_sorted_by(|left, right| left < right));
    }
}
