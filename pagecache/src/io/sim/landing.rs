//! The bytes of a file while chosen unsynced changes are put onto its durable ones.
//!
//! Sectors and lengths land independently: a sector beyond the length of the moment is kept, since a
//! later length may take it in. What lies beyond the final length is cut at the end.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    contents::{CHUNK_BYTES, Chunk, Contents},
    rng::Rng,
};

/// What a disk writes as a whole, or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A write cut at sector borders: each part and its offset.
pub(super) fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = bytes;
    let mut at = offset;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let to_border = SECTOR_BYTES - at % SECTOR_BYTES;
        let (part, after) = rest.split_at(rest.len().min(to_border as usize));
        let here = at;
        at += part.len() as u64;
        rest = after;
        Some((here, part))
    })
}

/// See the module's head.
pub(super) struct Landing {
    contents: Contents,
    len: u64,
    /// All below it was in the file before and was never cut off.
    floor: u64,
    /// Sectors above the floor that landed since they were last cut off.
    written: BTreeSet<u64>,
}

impl Landing {
    pub(super) fn new(durable: Contents) -> Landing {
        let len = durable.len();
        Landing { contents: durable, len, floor: len, written: BTreeSet::new() }
    }

    pub(super) fn length(&mut self, from: u64, to: u64) {
        if to < from {
            self.contents.set_len(self.contents.len().min(to));
            self.floor = self.floor.min(to);
            drop(self.written.split_off(&to.div_ceil(SECTOR_BYTES)));
        }
        self.len = to;
    }

    pub(super) fn sector(&mut self, offset: u64, bytes: &[u8]) {
        self.contents.write(offset, bytes);
        if offset + bytes.len() as u64 > self.floor {
            self.written.insert(offset / SECTOR_BYTES);
        }
    }

    /// The bytes, with `garbage` in sectors that belong to the file but were never written.
    pub(super) fn finish(mut self, garbage: Option<&mut Rng>, freed: &[Arc<Chunk>]) -> Contents {
        self.contents.set_len(self.len);
        let Some(rng) = garbage else {
            return self.contents;
        };
        // Where the old bytes end inside a sector, file systems clear the rest of it.
        let first = self.floor.div_ceil(SECTOR_BYTES);
        for sector in (first..self.len.div_ceil(SECTOR_BYTES)).filter(|sector| !self.written.contains(sector))
        {
            if let Some(bytes) = old_sector(rng, freed) {
                let at = sector * SECTOR_BYTES;
                let fits = (self.len - at).min(SECTOR_BYTES) as usize;
                self.contents.write(at, &bytes[..fits]);
            }
        }
        self.contents
    }
}

/// What a newly allocated sector may hold: nothing, anything, or what was freed before.
fn old_sector(rng: &mut Rng, freed: &[Arc<Chunk>]) -> Option<[u8; SECTOR_BYTES as usize]> {
    let mut bytes = [0; SECTOR_BYTES as usize];
    match rng.below(4) {
        0 => return None,
        1 => rng.fill(&mut bytes),
        _ => {
            let chunk = rng.pick(freed)?;
            let start = rng.index(CHUNK_BYTES / SECTOR_BYTES as usize) * SECTOR_BYTES as usize;
            bytes.copy_from_slice(&chunk.bytes()[start..start + SECTOR_BYTES as usize]);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Contents, Landing, Rng, sectors};

    #[test]
    fn a_write_is_cut_at_sector_borders() {
        let bytes: Vec<u8> = (0..1200_u32).map(|byte| byte as u8).collect();
        type Case<'c> = (u64, usize, &'c [(u64, usize)]);
        let cases: [Case<'_>; 5] = [
            (0, 0, &[]),
            (0, 512, &[(0, 512)]),
            (511, 2, &[(511, 1), (512, 1)]),
            (100, 1000, &[(100, 412), (512, 512), (1024, 76)]),
            (1024, 1200, &[(1024, 512), (1536, 512), (2048, 176)]),
        ];
        for (offset, len, want) in cases {
            let parts: Vec<_> = sectors(offset, &bytes[..len]).collect();
            let shape: Vec<_> = parts.iter().map(|(at, part)| (*at, part.len())).collect();
            assert_eq!(shape, want, "{len} bytes at {offset}");
            let joined: Vec<u8> = parts.into_iter().flat_map(|(_, part)| part.to_vec()).collect();
            assert_eq!(joined, &bytes[..len]);
        }
    }

    #[test]
    fn a_sector_waits_for_a_length_that_takes_it_in() {
        let mut landing = Landing::new(Contents::default());
        landing.sector(0, &[1; 512]);
        landing.sector(512, &[2; 512]);
        landing.length(512, 1024);
        let contents = landing.finish(None, &[]);
        let mut bytes = [0; 1024];
        assert!(contents.read(0, &mut bytes));
        assert_eq!((bytes[0], bytes[511], bytes[512], bytes[1023]), (1, 1, 2, 2));
    }

    #[test]
    fn garbage_comes_only_where_nothing_was_written() {
        let mut found = false;
        for seed in 0..50 {
            let mut durable = Contents::default();
            durable.write(0, &[7; 700]);
            let mut landing = Landing::new(durable);
            landing.length(700, 4096);
            landing.sector(2048, &[9; 512]);
            let contents = landing.finish(Some(&mut Rng::new(seed)), &[]);
            let mut bytes = [0; 4096];
            assert!(contents.read(0, &mut bytes), "seed {seed}");
            assert!(bytes[..700].iter().all(|&byte| byte == 7), "seed {seed}");
            assert!(bytes[700..1024].iter().all(|&byte| byte == 0), "seed {seed}");
            assert!(bytes[2048..2560].iter().all(|&byte| byte == 9), "seed {seed}");
            found |= bytes[1024..2048].iter().any(|&byte| byte != 0);
        }
        assert!(found);
    }
}
