//! Concurrent histories of one store: is there an order in which each answer is right?
//!
//! [`checker`] decides it key by key; [`histories`] shows that it can say no. [`store`] records what
//! threads get from a real store, [`batches`] and [`scans`] look at several keys at once.

mod batches;
mod checker;
mod histories;
mod scans;
mod store;
