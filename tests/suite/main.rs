//! One binary for every system test.
