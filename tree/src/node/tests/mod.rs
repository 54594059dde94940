//! Tests of the node against plain maps, and against bytes that nobody wrote.

mod apart;
mod build;
mod chain;
mod hostile;
mod inner;
mod random;
mod split;
