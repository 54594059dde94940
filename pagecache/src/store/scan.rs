//! All frames of one segment, for the cleaner and the checker.
//!
//! Between frames may lie padding, and anything that an earlier use or a crash left. So a frame is
//! looked for at the segment's start, behind every frame found, behind every frame that was there
//! but is damaged, and at every block. One that is valid for its place was never written over since:
//! it may be superseded, which its page's entry tells.

use std::collections::BTreeSet;

use crate::{
    error::Failure,
    format::frame::{FRAME_HEADER_BYTES, FrameHeader},
    ids::FragmentAddr,
    store::pages::PagesFile,
};

/// A frame found in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) header: FrameHeader,
    pub(crate) addr: FragmentAddr,
}

impl PagesFile {
    /// The frames that start in `segment`, by their place, which is read into `bytes`.
    ///
    /// # Errors
    ///
    /// Only that of reading: damage is passed over.
    pub(crate) fn scan(&self, segment: u32, bytes: &mut Vec<u8>) -> Result<Vec<Found>, Failure> {
        let start = self.layout().segment_start(segment);
        let file_bytes = self.len()?;
        let end = file_bytes.min(start + self.layout().segment_bytes());
        let Some(len) = end.checked_sub(start) else { return Ok(Vec::new()) };
        bytes.resize(len as usize, 0);
        self.read(start, bytes)?;

        let mut found = Vec::new();
        let mut places = BTreeSet::from([0]);
        while let Some(place) = places.pop_first() {
            let Some(rest) = bytes.get(place as usize..).filter(|rest| rest.len() >= FRAME_HEADER_BYTES)
            else {
                break;
            };
            let claimed = FrameHeader::decode(rest).ok();
            match claimed.and_then(|claimed| self.whole(start + place, rest, claimed, file_bytes)) {
                Some(frame) => {
                    let end = place + u64::from(frame.addr.len);
                    places = places.split_off(&end);
                    places.insert(end);
                    found.push(frame);
                }
                None => {
                    places.insert(self.layout().block_up(place + 1));
                    places.extend(claimed.map(|claimed| place + claimed.frame_bytes()));
                }
            }
        }
        Ok(found)
    }

    /// The frame with the header `claimed` at `offset`, where `rest` starts, if it is whole.
    fn whole(&self, offset: u64, rest: &[u8], claimed: FrameHeader, file_bytes: u64) -> Option<Found> {
        let len = u32::try_from(claimed.frame_bytes()).ok()?;
        let addr = FragmentAddr { offset, len };
        self.layout().segments_of(addr).ok()?;
        if offset + u64::from(len) > file_bytes {
            return None;
        }
        let opened = match rest.get(..len as usize) {
            Some(frame) => self.seed().open(offset, frame).ok().map(|(header, _)| header),
            None => {
                let mut run = vec![0; len as usize];
                self.read(offset, &mut run).ok()?;
                self.seed().open(offset, &run).ok().map(|(header, _)| header)
            }
        };
        opened.map(|header| Found { header, addr })
    }
}
