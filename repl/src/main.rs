//! The shell on the store.
fn main() {}
