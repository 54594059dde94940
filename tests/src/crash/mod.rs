//! Crashes along the history of a small store, each followed by an open and a look at what is left.
//!
//! A seed makes a history ([`driver`]); from it come the disks that a crash could have left: of the
//! process, whose unsynced sectors stay at risk, or of the power, with any of them lost or torn; at
//! quiet moments also with one superblock damaged. Each is opened, and must hold a state from the
//! newest durable one to the newest begun one ([`timeline`]). Then it is written to, and one in ten
//! crashes again within its own recovery, and so on.

mod birth;
mod check;
mod driver;
mod timeline;

pub use birth::cut_everywhere;
pub use check::{Counts, Failed, Proof, Seen};
pub use driver::{Driver, Keys, Mood, Problem, Reached};
pub use timeline::{Map, Put, Timeline, digest};
