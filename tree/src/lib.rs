//! An embedded ordered store.
