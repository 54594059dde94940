//! Which calls of a simulated disk fail, and how.

use crate::io::{FileId, Operation, SyncReason};

/// What a fault does to the call it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The device refuses (EIO). A sync is then as with [`SyncFailure::Forgotten`].
    Io,
    /// The disk is full (ENOSPC). A sync is then as with [`SyncFailure::Forgotten`].
    NoSpace,
    /// A write puts down this many bytes of its own, then the device refuses. Other calls: `Io`.
    Torn(usize),
    /// A sync fails in this way. Other calls: `Io`.
    Sync(SyncFailure),
    /// The power goes: this call and all later ones fail and change nothing.
    PowerCut,
}

/// What is left after a sync that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFailure {
    /// Unsynced changes are gone, and reads show the old bytes.
    Reverted,
    /// Reads go on to show the new bytes, but no later sync makes them durable; a crash may keep or
    /// lose each unit of them.
    Forgotten,
    /// As `Forgotten`, but this sync says that all is well, and the next one of the file fails.
    Late,
}

/// Makes one call fail, or all calls from one on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    first: u64,
    repeats: bool,
    operation: Option<Operation>,
    file: Option<FileId>,
    reason: Option<SyncReason>,
    effect: Effect,
    seen: u64,
}

impl Fault {
    /// Strikes the `k`-th matching call, counted from 1, with [`Effect::Io`]. All mutating calls
    /// match unless narrowed.
    #[must_use]
    pub fn once(k: u64) -> Fault {
        Fault {
            first: k,
            repeats: false,
            operation: None,
            file: None,
            reason: None,
            effect: Effect::Io,
            seen: 0,
        }
    }

    /// Strikes the `k`-th matching call, counted from 1, and all matching ones after it.
    #[must_use]
    pub fn from(k: u64) -> Fault {
        Fault { repeats: true, ..Fault::once(k) }
    }

    /// Only calls of this operation, which may be one that changes nothing, as a read.
    #[must_use]
    pub fn on(self, operation: Operation) -> Fault {
        Fault { operation: Some(operation), ..self }
    }

    /// Only calls for this file.
    #[must_use]
    pub fn of(self, file: FileId) -> Fault {
        Fault { file: Some(file), ..self }
    }

    /// Only syncs for this reason.
    #[must_use]
    pub fn because(self, reason: SyncReason) -> Fault {
        Fault { reason: Some(reason), ..self }
    }

    /// What it does.
    #[must_use]
    pub fn with(self, effect: Effect) -> Fault {
        Fault { effect, ..self }
    }

    fn matches(&self, call: &Call) -> bool {
        self.operation.map_or(call.operation.is_mutating(), |operation| operation == call.operation)
            && self.file.is_none_or(|file| call.file == Some(file))
            && self.reason.is_none_or(|reason| call.reason == Some(reason))
    }

    fn strike(&mut self, call: &Call) -> Option<Effect> {
        if !self.matches(call) {
            return None;
        }
        self.seen += 1;
        let struck = self.seen == self.first || (self.repeats && self.seen > self.first);
        struck.then_some(self.effect)
    }
}

/// A call that is about to happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) operation: Operation,
    pub(super) file: Option<FileId>,
    pub(super) reason: Option<SyncReason>,
}

/// Everything that goes wrong on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    faults: Vec<Fault>,
    syncs_lie: bool,
    dropped: Vec<SyncReason>,
    capacity: Option<u64>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn new() -> FaultPlan {
        FaultPlan::default()
    }

    /// Adds a fault. If several strike one call, the first one added counts.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> FaultPlan {
        self.faults.push(fault);
        self
    }

    /// Every sync says that all is well and makes nothing durable.
    #[must_use]
    pub fn lying_syncs(mut self) -> FaultPlan {
        self.syncs_lie = true;
        self
    }

    /// Syncs for this reason do nothing, as if the call had been forgotten.
    #[must_use]
    pub fn drop_reason(mut self, reason: SyncReason) -> FaultPlan {
        self.dropped.push(reason);
        self
    }

    /// The disk is full when the lengths of all files together would exceed this many bytes.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> FaultPlan {
        self.capacity = Some(bytes);
        self
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity.unwrap_or(u64::MAX)
    }

    pub(super) fn is_dropped(&self, reason: SyncReason) -> bool {
        self.syncs_lie || self.dropped.contains(&reason)
    }

    /// Counts the call for every fault, so that each one's count is its own.
    pub(super) fn strike(&mut self, call: &Call) -> Option<Effect> {
        self.faults.iter_mut().fold(None, |struck, fault| {
            let effect = fault.strike(call);
            struck.or(effect)
        })
    }
}
