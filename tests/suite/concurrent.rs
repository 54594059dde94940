//! Threads that meet: on one key, one leaf, one page id, one log, and at the end of a store.

mod ends;
mod hot;
mod interposed;
mod keys;
mod stress;
