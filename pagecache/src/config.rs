//! Settings of a store, and the seams through which files, time and threads come in.
//! (in progress)

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct Config {}
