//! (in progress)
pub(crate) mod table;
