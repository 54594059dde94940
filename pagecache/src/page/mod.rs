//! Pages in memory: the mapping table and the chains of fragments that its cells point to.
//!
//! Where a page's durable form lies is a word of its cell; who may change it is [`super::cache`]'s
//! business, what it looks like on disk [`super::format`]'s.

pub(crate) mod cell;
pub(crate) mod chain;
pub(crate) mod durable;
pub(crate) mod pages;
pub(crate) mod slot;
pub(crate) mod spans;
pub(crate) mod table;
