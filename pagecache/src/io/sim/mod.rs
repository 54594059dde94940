//! The same doors with crashes, faults and chosen schedules, all replayed by seeds.
//!
//! [`SimDisk`] remembers which bytes, lengths and names were synced, and records every call that
//! changes something. From that [`Trace`] come the disks that a power cut at any moment could have
//! left, and [`explore`] shows them to a check. [`FaultPlan`] makes calls fail. [`SimClock`] and
//! [`SimSpawner`] make time and background work move only when a test says so.
//!
//! Nothing here reads the real clock, a real file or a source of true randomness.

mod chooser;
mod contents;
#[cfg(test)]
mod crash_tests;
mod disk;
mod explore;
mod fault;
mod freed;
mod landing;
mod outcome;
#[cfg(test)]
mod proof;
mod rng;
mod spawn;
mod state;
mod trace;

pub use chooser::Chooser;
pub use disk::SimDisk;
pub use explore::{Case, Effort, Explored, Found, explore};
pub use fault::{Effect, Fault, FaultPlan, SyncFailure};
pub use rng::Rng;
pub use spawn::{SimClock, SimSpawner};
pub use trace::Trace;
