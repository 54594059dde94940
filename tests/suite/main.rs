//! One binary for every system test.
#![forbid(unsafe_code)]

mod batches;
mod belongs;
mod concurrent;
mod copies;
mod counts;
mod crash;
mod fault;
mod first_write;
mod flip;
mod kill;
mod lazy;
mod linear;
mod memory;
mod model;
mod operations;
mod packing;
mod pages;
mod profile;
mod read_only;
mod reasons;
mod restart;
mod schedules;
mod shrinking;
mod sizes;
mod snapshots;
mod space;
mod tidy;
mod values;
mod waits;
