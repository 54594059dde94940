//! What may happen to the bytes of a store: bits flip, files are cut or gone, sectors are lost, land in the
//! wrong place, or keep what they held before.

use std::ops::Range;

use pagecache::io::{FileId, Storage, sim::SimDisk};

use super::stores::Sample;

/// The unit that a device writes whole.
pub(super) const SECTOR_BYTES: usize = 512;

/// Swaps of two sectors that are tried for each sector.
const SWAPS: usize = 24;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Flip {
        file: FileId,
        byte: usize,
        bit: u8,
    },
    Cut {
        file: FileId,
        len: usize,
    },
    Gone {
        file: FileId,
    },
    /// Sectors that hold other bytes now, each with its offset.
    Sectors {
        what: &'static str,
        sectors: Vec<(FileId, usize, Vec<u8>)>,
    },
}

impl Damage {
    /// Does it to a disk with the sample's files on it.
    pub(super) fn apply(&self, sample: &Sample, disk: &SimDisk) {
        let done = match self {
            Damage::Flip { file, byte, bit } => {
                let flipped = sample.file(*file)[*byte] ^ 1 << bit;
                disk.damage(*file, *byte as u64, &[flipped])
            }
            Damage::Cut { file, len } => disk.damage_len(*file, *len as u64),
            Damage::Gone { file } => disk.remove(*file),
            Damage::Sectors { sectors, .. } => {
                sectors.iter().try_for_each(|(file, at, bytes)| disk.damage(*file, *at as u64, bytes))
            }
        };
        done.expect("the sample has its files");
    }

    /// The bytes that may differ now.
    pub(super) fn ranges<'s>(&'s self, sample: &'s Sample) -> impl Iterator<Item = (FileId, Range<usize>)> {
        let ranges: Vec<_> = match self {
            Damage::Flip { file, byte, .. } => vec![(*file, *byte..*byte + 1)],
            Damage::Cut { file, len } => vec![(*file, *len..sample.file(*file).len())],
            Damage::Gone { file } => vec![(*file, 0..sample.file(*file).len())],
            Damage::Sectors { sectors, .. } => {
                sectors.iter().map(|(file, at, bytes)| (*file, *at..*at + bytes.len())).collect()
            }
        };
        ranges.into_iter()
    }

    pub(super) fn is_flip(&self) -> bool {
        matches!(self, Damage::Flip { .. })
    }
}

/// Every bit of every file.
pub(super) fn flips(sample: &Sample) -> Vec<Damage> {
    let bytes = sample.files().flat_map(|(file, bytes)| (0..bytes.len()).map(move |byte| (file, byte)));
    bytes.flat_map(|(file, byte)| (0..8).map(move |bit| Damage::Flip { file, byte, bit })).collect()
}

/// Every file gone, every length of every file, and every sector zeroed, as it was before, or exchanged with others.
pub(super) fn coarse(sample: &Sample) -> Vec<Damage> {
    let mut cases = Vec::new();
    let mut sectors = Vec::new();
    for (file, bytes) in sample.files() {
        cases.push(Damage::Gone { file });
        cases.extend((0..bytes.len()).map(|len| Damage::Cut { file, len }));
        sectors.extend(bytes.chunks(SECTOR_BYTES).enumerate().map(|(n, now)| (file, n * SECTOR_BYTES, now)));
    }
    let one =
        |what, file, at: usize, bytes: Vec<u8>| Damage::Sectors { what, sectors: vec![(file, at, bytes)] };
    for (n, &(file, at, now)) in sectors.iter().enumerate() {
        if now.iter().any(|&byte| byte != 0) {
            cases.push(one("zeroed", file, at, vec![0; now.len()]));
        }
        let older = sample.older(file, at).filter(|older| *older != now);
        cases.extend(older.map(|older| one("as it was before", file, at, older.to_vec())));
        for step in 1..=SWAPS {
            // Near and far ones, each pair from one side only.
            let (other_file, other_at, other) = sectors[(n + step * step) % sectors.len()];
            if other.len() == now.len() && other != now && (file, at) != (other_file, other_at) {
                let sectors = vec![(file, at, other.to_vec()), (other_file, other_at, now.to_vec())];
                cases.push(Damage::Sectors { what: "exchanged", sectors });
            }
        }
    }
    cases
}
