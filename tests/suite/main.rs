//! One binary for every system test.
#![forbid(unsafe_code)]

mod model;
mod pages;
mod tidy;
