//! Page images in segments: the `pages` file, behind its two superblocks.
//!
//! * [`layout`] says where blocks and segments lie; [`pages`] reads and writes them.
//! * [`superblocks`] creates a store, finds the newest superblock and publishes the next.
//! * [`segments`] counts live bytes and says which segment may be written over, and when; its
//!   states are in [`table`].
//! * [`writer`] appends frames, [`placement`] decides where they go.
//! * [`reader`] reads one frame, [`scan`] all of one segment.
//!
//! What is in a frame, and which frames a page consists of, is the caller's business.

pub(crate) mod layout;
pub(crate) mod pages;
pub(crate) mod placement;
pub(crate) mod reader;
pub(crate) mod scan;
pub(crate) mod segments;
pub(crate) mod stats;
pub(crate) mod superblocks;
mod table;
pub(crate) mod writer;

#[cfg(test)]
mod testdisk;
