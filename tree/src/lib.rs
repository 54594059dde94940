//! An embedded ordered store.
#![forbid(unsafe_code)]

mod batch;
mod error;
mod ivec;
mod node;

pub use batch::Batch;
pub use error::{DiskPtr, Error, Result};
pub use ivec::IVec;
