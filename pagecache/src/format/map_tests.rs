//! What the persisted page table must hold: its bytes, and an error for every other byte.

use super::{Entry, MapChanges, MapPage, checksum};
use crate::ids::FragmentAddr;

fn at(offset: u64, len: u32) -> FragmentAddr {
    FragmentAddr { offset, len }
}

fn map_page() -> MapPage {
    MapPage {
        number: 3,
        entries: vec![
            (0, Entry::Present { seq: 1, parts: vec![at(8192, 100)] }),
            (7, Entry::Free { seq: 300 }),
            (
                255,
                Entry::Present {
                    seq: u64::MAX,
                    parts: vec![at(1, 2), at(3, 4), at(5, 6), at(u64::MAX / 2, u32::MAX)],
                },
            ),
        ],
    }
}

type Changed = Vec<(u8, Vec<(u16, Entry)>)>;

fn changes() -> Changed {
    let free = (9, Entry::Free { seq: 2 });
    vec![(2, map_page().entries), (255, vec![free])]
}

fn encode_changes(changes: Changed) -> Vec<u8> {
    MapChanges::encode(300, changes.len(), changes.into_iter())
}

/// A payload with all of its entries.
fn decode_changes(bytes: &[u8], crc: u32) -> Result<Changed, crate::DecodeError> {
    let listed = MapChanges::list(bytes, crc, 300)?;
    listed.iter().map(|changed| Ok((changed.page, changed.decode()?))).collect()
}

#[test]
fn map_pages_read_back() {
    let full = MapPage {
        number: u64::MAX,
        entries: (0..256)
            .map(|n| (n, Entry::Present { seq: u64::from(n), parts: vec![at(u64::from(n) * 8192, 8192)] }))
            .collect(),
    };
    assert_eq!(full.free_count(), 0);
    assert_eq!(map_page().free_count(), 254);
    for page in [MapPage { number: 0, entries: Vec::new() }, map_page(), full] {
        let bytes = page.encode();
        assert_eq!(MapPage::decode(&bytes, checksum(&bytes)), Ok(page));
    }
}

#[test]
fn changes_read_back() {
    for changes in [Vec::new(), changes()] {
        let bytes = encode_changes(changes.clone());
        assert_eq!(decode_changes(&bytes, checksum(&bytes)), Ok(changes));
    }
    let bytes = encode_changes(changes());
    assert!(MapChanges::list(&bytes, checksum(&bytes), 301).is_err(), "of another group");
}

#[test]
fn bytes_are_these() {
    let mut page = map_page();
    page.entries.pop();
    let want = [3, 2, 0xff, 1, 0, 1, 1, 0x80, 0x40, 100, 7, 0, 0xac, 2];
    assert_eq!(page.encode(), want);

    let want = [0xac, 2, 1, 255, 3, 9, 0, 2];
    let mut changes = changes();
    changes.remove(0);
    assert_eq!(encode_changes(changes), want);
}

/// Every cut and every changed bit, against the checksum on record and against one that fits: the
/// first must be an error, the second must not panic and, for cuts, be an error too.
pub(in crate::format) fn damage<T>(
    bytes: &[u8],
    decode: impl Fn(&[u8], u32) -> Result<T, crate::DecodeError>,
) {
    let crc = checksum(bytes);
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len], crc).is_err(), "cut to {len} bytes");
        assert!(decode(&bytes[..len], checksum(&bytes[..len])).is_err(), "cut to {len} bytes, sealed");
    }
    let mut changed = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&changed, crc).is_err(), "bit {bit}");
        let _must_not_panic = decode(&changed, checksum(&changed));
        changed[bit / 8] ^= 1 << (bit % 8);
    }
    changed.push(0);
    assert!(decode(&changed, checksum(&changed)).is_err(), "a byte too many");
}

#[test]
fn every_changed_bit_and_every_cut_is_an_error() {
    damage(&map_page().encode(), MapPage::decode);
    damage(&encode_changes(changes()), decode_changes);
}

#[test]
fn sealed_nonsense_is_an_error() {
    let map_pages: [(&str, &[u8]); 6] = [
        ("more entries than bytes", &[0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        ("a wrong free count", &[0, 0, 0]),
        ("five fragments", &[0, 1, 0xff, 1, 0, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("entries that do not ascend", &[0, 2, 0x80, 2, 4, 0, 1, 4, 0, 1]),
        (
            "an address past any file",
            &[0, 1, 0xff, 1, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
        ),
        ("a length past 32 bits", &[0, 1, 0xff, 1, 0, 1, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x10]),
    ];
    for (name, bytes) in map_pages {
        assert!(MapPage::decode(bytes, checksum(bytes)).is_err(), "{name}");
    }
    let changes: [(&str, &[u8]); 4] = [
        ("a map page twice", &[0xac, 2, 2, 4, 0, 4, 0]),
        ("more map pages than bytes", &[0xac, 2, 0xff, 0xff, 3, 0]),
        ("entries beyond the bytes", &[0xac, 2, 1, 4, 9, 1, 0, 1]),
        ("entries that do not ascend", &[0xac, 2, 1, 4, 6, 5, 0, 1, 5, 0, 1]),
    ];
    for (name, bytes) in changes {
        assert!(decode_changes(bytes, checksum(bytes)).is_err(), "{name}");
    }
}
