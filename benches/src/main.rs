//! Benchmarks beside other engines.
fn main() {}
