//! One binary for every system test.
#![forbid(unsafe_code)]

mod concurrent;
mod crash;
mod fault;
mod first_write;
mod flip;
mod kill;
mod model;
mod pages;
mod sizes;
mod tidy;
