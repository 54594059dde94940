//! A page's durable form: what the persisted page table says of it, or will at the next checkpoint.
//!
//! Every page of a store that is in use has such a record, in memory or not. So it is one block of page memory,
//! with room for all that an ordinary page may need; a large value's list of extents alone is elsewhere.

use std::sync::Arc;

use crate::{
    format::{map::PARTS_MAX, value::Extents},
    ids::{FragmentAddr, PageSeq},
};

/// Delta-pages above an image, at most.
pub(crate) const DELTAS_MAX: usize = PARTS_MAX - 1;

/// A page's durable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Durable {
    pub(crate) seq: PageSeq,
    pub(crate) form: Form,
}

/// What a page is in its durable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// The page is free.
    Free,
    /// Its fragments lie there.
    Page(Image),
    /// It is a large value.
    Value(Arc<Extents>),
}

/// Where an image and the delta-pages above it lie, the image first.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Those beyond the count are zeros.
    parts: [Packed; PARTS_MAX],
    count: u8,
}

/// An address without the padding of [`FragmentAddr`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Packed {
    offset: [u32; 2],
    len: u32,
}

const _: () =
    assert!(size_of::<Durable>() == 64, "a record and its header are 80 bytes, which is a size class");

impl Durable {
    /// Bytes of memory that the record takes beside its own block.
    pub(crate) fn bytes_beside(&self) -> usize {
        self.value().map_or(0, |extents| extents.memory_bytes())
    }

    /// Where its fragments lie, of a page that has some.
    pub(crate) fn image(&self) -> Option<&Image> {
        match &self.form {
            Form::Page(image) => Some(image),
            Form::Free | Form::Value(_) => None,
        }
    }

    /// Where its bytes lie, of a page that is a value.
    pub(crate) fn value(&self) -> Option<&Arc<Extents>> {
        match &self.form {
            Form::Value(extents) => Some(extents),
            Form::Free | Form::Page(_) => None,
        }
    }

    /// Every address, the base or the first extent first; none if the page is free.
    pub(crate) fn parts(&self) -> impl Iterator<Item = FragmentAddr> {
        let fragments = self.image().into_iter().flat_map(Image::parts);
        fragments.chain(self.value().into_iter().flat_map(|extents| extents.addrs()))
    }
}

impl Image {
    /// An image without delta-pages.
    pub(crate) fn new(base: FragmentAddr) -> Image {
        let mut parts = [Packed::default(); PARTS_MAX];
        parts[0] = Packed::from(base);
        Image { parts, count: 1 }
    }

    /// An image and the delta-pages above it, [`DELTAS_MAX`] at most.
    pub(crate) fn of(parts: &[FragmentAddr]) -> Image {
        let mut image = Image::new(parts[0]);
        parts[1..].iter().for_each(|delta| image.push(*delta));
        image
    }

    /// Adds a delta-page above the others. There are fewer than [`DELTAS_MAX`] of them.
    pub(crate) fn push(&mut self, delta: FragmentAddr) {
        self.parts[usize::from(self.count)] = Packed::from(delta);
        self.count += 1;
    }

    /// Says that the part at `from` lies at `to` now.
    pub(crate) fn moved(&mut self, from: FragmentAddr, to: FragmentAddr) {
        let parts = &mut self.parts[..usize::from(self.count)];
        parts.iter_mut().filter(|part| part.addr() == from).for_each(|part| *part = Packed::from(to));
    }

    pub(crate) fn base(&self) -> FragmentAddr {
        self.parts[0].addr()
    }

    /// The oldest first.
    pub(crate) fn deltas(&self) -> impl ExactSizeIterator<Item = FragmentAddr> {
        self.parts[1..usize::from(self.count)].iter().map(Packed::addr)
    }

    fn parts(&self) -> impl Iterator<Item = FragmentAddr> {
        self.parts[..usize::from(self.count)].iter().map(Packed::addr)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.parts()).finish()
    }
}

impl From<FragmentAddr> for Packed {
    fn from(addr: FragmentAddr) -> Packed {
        Packed { offset: [addr.offset as u32, (addr.offset >> 32) as u32], len: addr.len }
    }
}

impl Packed {
    fn addr(&self) -> FragmentAddr {
        let [low, high] = self.offset.map(u64::from);
        FragmentAddr { offset: high << 32 | low, len: self.len }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{DELTAS_MAX, Durable, Form, Image};
    use crate::ids::FragmentAddr;

    #[test]
    fn an_image_says_where_each_part_was_put_or_moved() {
        let addr = |n: u64| FragmentAddr { offset: n * 0x1_2345_6789_abcd, len: u32::MAX - n as u32 };
        let all: Vec<FragmentAddr> = (0..=DELTAS_MAX as u64).map(addr).collect();
        for count in 1..=all.len() {
            let mut image = Image::of(&all[..count]);
            assert_eq!((image.base(), image.deltas().len()), (all[0], count - 1));
            assert!(image.deltas().eq(all[1..count].iter().copied()), "{image:?}");
            let to = FragmentAddr { offset: u64::MAX, len: 7 };
            image.moved(all[count - 1], to);
            image.moved(addr(99), addr(98));
            let durable = Durable { seq: 1, form: Form::Page(image) };
            assert!(durable.parts().eq(all[..count - 1].iter().copied().chain([to])), "{durable:?}");
        }
    }
}
