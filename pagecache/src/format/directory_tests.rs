//! What a directory and an index must hold: their bytes, and an error for every other byte.

use super::{Directory, FrameRef, GroupRef, Index, MapPageRef};
use crate::{
    format::map::{checksum, tests::damage},
    ids::FragmentAddr,
};

fn at(offset: u64, len: u32, crc: u32) -> FrameRef {
    FrameRef { addr: FragmentAddr { offset, len }, crc }
}

fn index() -> Index {
    let page = |number, present, at| MapPageRef { number, present, at };
    Index {
        group: 300,
        map_pages: vec![page(0, 256, at(8192, 50, 0x0403_0201)), page(255, 0, at(9000, 60, 9))],
    }
}

fn directory() -> Directory {
    let changes = vec![at(8192, 50, 0x0403_0201), at(9000, 60, 0x0807_0605)];
    Directory {
        page_bound: 1000,
        groups: vec![
            GroupRef { number: 0, present: 5, index: None, changes },
            GroupRef { number: 3, present: 300, index: Some(at(1, 2, 0x0C0B_0A09)), changes: Vec::new() },
        ],
        recovery: Some((77, b"root".to_vec())),
        tally_cut: -1,
        tallies: vec![(1, -5), (0, i64::MAX)],
        segments: vec![(0, 110), (9, u32::MAX)],
    }
}

fn decode_index(bytes: &[u8], crc: u32) -> Result<Index, crate::DecodeError> {
    Index::decode(bytes, crc, 300)
}

#[test]
fn directories_and_indexes_read_back() {
    for directory in [Directory::default(), directory()] {
        let bytes = directory.encode();
        assert_eq!(Directory::decode(&bytes, checksum(&bytes)), Ok(directory));
    }
    for index in [Index { group: 300, map_pages: Vec::new() }, index()] {
        let bytes = index.encode();
        assert_eq!(decode_index(&bytes, checksum(&bytes)), Ok(index));
        assert!(Index::decode(&bytes, checksum(&bytes), 299).is_err(), "of another group");
    }
}

#[test]
fn bytes_are_these() {
    let want = [
        0xac, 2, 2, // group, map pages
        0, 0x80, 2, 0x80, 0x40, 50, 1, 2, 3, 4, // 0
        0xff, 1, 0, 0xa8, 0x46, 60, 9, 0, 0, 0, // 255
    ];
    assert_eq!(index().encode(), want);
    let want = [
        0xe8, 7, 2, // bound, groups
        0, 5, 0, 2, 0x80, 0x40, 50, 1, 2, 3, 4, 0xa8, 0x46, 60, 5, 6, 7, 8, // 0
        3, 0xac, 2, 1, 1, 2, 9, 10, 11, 12, 0, // 3
        1, 77, 0, 0, 0, 0, 0, 0, 0, 4, b'r', b'o', b'o', b't', // recovery
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // tally cut
        2, 1, 9, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, // tallies
        2, 0, 110, 9, 0xff, 0xff, 0xff, 0xff, 0xf, // segments
    ];
    assert_eq!(directory().encode(), want);
}

#[test]
fn every_changed_bit_and_every_cut_is_an_error() {
    damage(&index().encode(), decode_index);
    damage(&directory().encode(), Directory::decode);
}

#[test]
fn sealed_nonsense_is_an_error() {
    let indexes: [(&str, &[u8]); 3] = [
        ("a map page twice", &[0xac, 2, 2, 4, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]),
        ("a map page beyond the group", &[0xac, 2, 1, 0x80, 2, 0, 1, 1, 0, 0, 0, 0]),
        ("more pages than a map page has", &[0xac, 2, 1, 0, 0x81, 2, 1, 1, 0, 0, 0, 0]),
    ];
    for (name, bytes) in indexes {
        assert!(decode_index(bytes, checksum(bytes)).is_err(), "{name}");
    }
    let end = [0; 11];
    let directories: [(&str, &[u8], &[u8]); 6] = [
        ("a group twice", &[0, 2, 4, 0, 0, 0, 0, 0, 0, 0], &end),
        ("more pages than a group has", &[0, 1, 0, 0x81, 0x80, 4, 0, 0], &end),
        ("an index flag of two", &[0, 1, 0, 0, 2, 0], &end),
        ("a recovery flag of two", &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]),
        ("a segment twice", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 0, 1], &[]),
        (
            "a segment past 32 bits",
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x10, 1],
            &[],
        ),
    ];
    for (name, start, end) in directories {
        let bytes = [start, end].concat();
        assert!(Directory::decode(&bytes, checksum(&bytes)).is_err(), "{name}");
    }
}
