//! Reads one frame and believes nothing of it: place, length, owner and number must all agree.
//!
//! A frame of a running store is read under a [`Pin`]; while a store opens nothing is written, and
//! frames are read by address.

use crate::{
    error::{DecodeError, Failure},
    format::{
        frame::{Codec, FRAME_HEADER_BYTES, FrameHeader, FrameKind},
        packed::unpack,
    },
    ids::{FragmentAddr, PageSeq},
    store::{pages::PagesFile, segments::Pin},
};

/// A verified frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    header: FrameHeader,
    bytes: Vec<u8>,
    /// Where in `bytes` the payload begins.
    from: usize,
}

impl Frame {
    pub(crate) fn kind(&self) -> FrameKind {
        self.header.kind
    }

    /// As it was read. Its codec is that of the file, whatever the payload is by now.
    pub(crate) fn header(&self) -> FrameHeader {
        self.header
    }

    #[cfg(test)]
    pub(crate) fn pid(&self) -> u64 {
        self.header.pid
    }

    pub(crate) fn seq(&self) -> PageSeq {
        self.header.seq
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

impl PagesFile {
    /// Reads the frame that is pinned: it belongs to `pid`, and has the number `seq` if one is given.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] naming the place.
    pub(crate) fn read_pinned(&self, pin: &Pin, pid: u64, seq: Option<PageSeq>) -> Result<Frame, Failure> {
        self.read_frame(pin.addr(), pid, seq)
    }

    /// As [`PagesFile::read_pinned`], but a packed payload stays packed: for who writes it elsewhere.
    pub(crate) fn read_pinned_as_is(&self, pin: &Pin, pid: u64) -> Result<Frame, Failure> {
        let addr = pin.addr();
        let mut bytes = self.room_for(addr)?;
        self.read(addr.offset, &mut bytes)?;
        self.verify(addr, pid, None, bytes)
    }

    /// As [`PagesFile::read_pinned`], if no device has to be waited for; `None` if that may be.
    pub(crate) fn read_pinned_at_once(&self, pin: &Pin, pid: u64) -> Result<Option<Frame>, Failure> {
        let addr = pin.addr();
        let mut bytes = self.room_for(addr)?;
        match self.read_at_once(addr.offset, &mut bytes)? {
            true => self.unpacked(addr, self.verify(addr, pid, None, bytes)?).map(Some),
            false => Ok(None),
        }
    }

    /// As [`PagesFile::read_pinned`], while nothing can be written over the frame.
    pub(crate) fn read_frame(
        &self,
        addr: FragmentAddr,
        pid: u64,
        seq: Option<PageSeq>,
    ) -> Result<Frame, Failure> {
        let mut bytes = self.room_for(addr)?;
        self.read(addr.offset, &mut bytes)?;
        self.unpacked(addr, self.verify(addr, pid, seq, bytes)?)
    }

    /// The frame with its payload as it was before it was packed.
    fn unpacked(&self, addr: FragmentAddr, frame: Frame) -> Result<Frame, Failure> {
        match frame.header.codec {
            Codec::Plain => Ok(frame),
            Codec::Lz4 => {
                let bytes = unpack(frame.payload()).map_err(|found| self.corrupt(addr.offset, found))?;
                Ok(Frame { bytes, from: 0, ..frame })
            }
        }
    }

    /// Room for a frame that can lie there.
    fn room_for(&self, addr: FragmentAddr) -> Result<Vec<u8>, Failure> {
        self.layout().segments_of(addr).map_err(|found| self.corrupt(addr.offset, found))?;
        if u64::from(addr.len) > self.layout().segment_bytes() {
            self.check_inside(addr)?; // before that much is allocated
        }
        Ok(vec![0; addr.len as usize])
    }

    fn verify(
        &self,
        addr: FragmentAddr,
        pid: u64,
        seq: Option<PageSeq>,
        bytes: Vec<u8>,
    ) -> Result<Frame, Failure> {
        let corrupt = |found: DecodeError| self.corrupt(addr.offset, found);
        let (header, _) = self.seed().open(addr.offset, &bytes).map_err(corrupt)?;
        if header.pid != pid || seq.is_some_and(|seq| seq != header.seq) {
            let FrameHeader { pid: found_pid, seq: found_seq, .. } = header;
            let wanted = seq.map_or(String::new(), |seq| format!(" at change {seq}"));
            return Err(corrupt(DecodeError(format!(
                "a frame of page {found_pid} at change {found_seq} where page {pid}{wanted} should be"
            ))));
        }
        Ok(Frame { header, bytes, from: FRAME_HEADER_BYTES })
    }

    fn check_inside(&self, addr: FragmentAddr) -> Result<(), Failure> {
        let file_bytes = self.len()?;
        if addr.offset.saturating_add(u64::from(addr.len)) <= file_bytes {
            return Ok(());
        }
        let found = format!("the file ends at {file_bytes}, before the {} bytes needed here", addr.len);
        Err(self.corrupt(addr.offset, DecodeError(found)))
    }
}
