//! A checker of linearizability for one key, after Wing and Gong (JPDC 1993), with Lowe's way of going
//! through the history in the order of its events (CPE 2017).
//!
//! It keeps every state that the key could be in: its value, and which of the operations that are
//! under way have taken effect. When an operation returns, only states in which it has taken effect, with the
//! answer that it gave, go on. If none is left, no order explains the history.

use std::collections::HashSet;

/// A value of the key; `None` for absent. Values are unique in a history.
pub type Value = Option<u64>;

/// What was asked of the key, and what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Returned this value.
    Get(Value),
    /// Set the first; returned the second as the value before.
    Insert(u64, Value),
    /// Took the key away; returned its value before.
    Remove(Value),
    /// Set the second if the value was the first; it was.
    Swapped(Value, Value),
    /// Would have swapped the first; the value was the second.
    Refused(Value, Value),
    /// Set the value, as part of a batch that answers nothing.
    Put(Value),
}

impl Op {
    /// The key's value after the operation, if it may take effect on `before`.
    fn apply(self, before: Value) -> Option<Value> {
        match self {
            Op::Get(seen) => (seen == before).then_some(before),
            Op::Insert(value, seen) => (seen == before).then_some(Some(value)),
            Op::Remove(seen) => (seen == before).then_some(None),
            Op::Swapped(old, new) => (old == before).then_some(new),
            Op::Refused(old, seen) => (seen == before && old != before).then_some(before),
            Op::Put(value) => Some(value),
        }
    }
}

/// An operation that has returned. No two moments of a history are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who called: a thread has one operation under way at a time.
    pub thread: u8,
    pub op: Op,
    pub called: u64,
    pub returned: u64,
}

/// What the key may be like: its value, and a bit for each thread whose operation is under way and has
/// taken effect.
type State = (u64, Value);

/// Says whether some order explains the history of a key that begins with `initial`.
///
/// # Errors
///
/// The operation whose answer no order explains, with what was under way.
pub fn check(history: &[Event], initial: Value) -> Result<(), String> {
    let mut moments: Vec<(u64, bool, &Event)> = Vec::with_capacity(2 * history.len());
    for event in history {
        if event.called >= event.returned || event.thread >= 64 {
            return Err(format!("no history: {event:?}"));
        }
        moments.push((event.called, false, event));
        moments.push((event.returned, true, event));
    }
    moments.sort_by_key(|(at, ..)| *at);
    let mut open: Vec<&Event> = Vec::new();
    let mut states: HashSet<State> = HashSet::from([(0, initial)]);
    for (_, returns, event) in moments {
        if !returns {
            open.push(event);
            continue;
        }
        let bit = 1 << event.thread;
        let reached = closure(&states, &open);
        states = reached
            .iter()
            .filter(|(done, _)| done & bit != 0)
            .map(|(done, value)| (done & !bit, *value))
            .collect();
        if states.is_empty() {
            return Err(format!("no order explains {event:?}; under way: {open:?}; possible: {reached:?}"));
        }
        open.retain(|other| other.thread != event.thread);
    }
    Ok(())
}

/// Every state that some of the operations under way can lead to.
fn closure(from: &HashSet<State>, open: &[&Event]) -> HashSet<State> {
    let mut reached = from.clone();
    let mut todo: Vec<State> = from.iter().copied().collect();
    while let Some((done, value)) = todo.pop() {
        for event in open {
            let bit = 1 << event.thread;
            if done & bit == 0
                && let Some(after) = event.op.apply(value)
                && reached.insert((done | bit, after))
            {
                todo.push((done | bit, after));
            }
        }
    }
    reached
}
