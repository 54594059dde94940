//! A storage in memory that knows what a crash would leave of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use rustix::io::Errno;

use super::{
    chooser::Chooser,
    fault::{Call, Effect, FaultPlan, SyncFailure},
    outcome::SyncOutcome,
    state::{Event, State},
    trace::{Mark, Trace},
};
use crate::{
    io::{FileId, Operation, Storage, SyncReason},
    sync::Mutex,
};

/// The longest file. The bytes of a hole cost little, but not nothing.
const FILE_BYTES_MAX: u64 = 1 << 36;

/// A simulated disk with one store's directory on it.
///
/// Give it to a store as `Arc<dyn Storage>`, and keep a clone of the `Arc` to make crashes and faults.
/// While it records, it remembers every changing call; see [`SimDisk::trace`].
#[derive(Debug)]
pub struct SimDisk {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// The state before the first recorded event.
    base: State,
    events: Vec<Event>,
    marks: Vec<Mark>,
    records: bool,
    plan: FaultPlan,
    powered: bool,
    locked: bool,
    calls: u64,
    /// Files whose last sync lied about its failure; `None` stands for the directory.
    late: BTreeSet<Option<FileId>>,
    /// Up to where room was set aside for a file: a disk that gets full later keeps its word.
    aside: BTreeMap<FileId, u64>,
}

impl SimDisk {
    /// An empty disk that records what happens to it.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::with_state(State::default(), true)
    }

    /// An empty disk that records nothing: for long runs that crash only at their end.
    #[must_use]
    pub fn untraced() -> SimDisk {
        SimDisk::with_state(State::default(), false)
    }

    pub(super) fn with_state(state: State, records: bool) -> SimDisk {
        SimDisk {
            inner: Mutex::new(Inner {
                base: if records { state.clone() } else { State::default() },
                state,
                events: Vec::new(),
                marks: Vec::new(),
                records,
                plan: FaultPlan::new(),
                powered: true,
                locked: false,
                calls: 0,
                late: BTreeSet::new(),
                aside: BTreeMap::new(),
            }),
        }
    }

    /// The disk that a crash now would leave, seen after the power is back: no lock, no faults, and
    /// a record of its own if this disk keeps one.
    #[must_use]
    pub fn crash(&self, chooser: &mut Chooser) -> SimDisk {
        let inner = self.inner.lock();
        SimDisk::with_state(inner.state.crash(chooser), inner.records)
    }

    /// All recorded so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let inner = self.inner.lock();
        Trace::new(inner.base.clone(), inner.events.clone(), inner.marks.clone())
    }

    /// Notes a number at the present position of the record, as "operations acknowledged so far".
    /// [`Trace::marked`] finds it again.
    pub fn mark(&self, label: &'static str, value: u64) {
        let mut inner = self.inner.lock();
        if inner.records {
            let position = inner.events.len();
            inner.marks.push(Mark { position, label, value });
        }
    }

    /// Forgets the record, so that a trace begins here.
    pub fn restart_trace(&self) {
        let mut inner = self.inner.lock();
        inner.base = inner.state.clone();
        inner.events.clear();
        inner.marks.clear();
        inner.records = true;
    }

    /// From now on, these faults and no others; their counts begin at 1.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.inner.lock().plan = plan;
    }

    /// Changes the disk's size; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner.lock().plan.set_capacity(bytes);
    }

    /// All calls from now on fail and change nothing.
    pub fn cut_power(&self) {
        self.inner.lock().powered = false;
    }

    /// False after a power cut.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        self.inner.lock().powered
    }

    /// Changing calls so far, those that failed included: the range for [`Fault::once`](super::Fault::once).
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.inner.lock().calls
    }

    /// The lengths of all files together.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.inner.lock().state.bytes_total()
    }

    /// All bytes of a file as reads see them, if it has a name.
    #[must_use]
    pub fn contents(&self, file: FileId) -> Option<Vec<u8>> {
        let inner = self.inner.lock();
        let contents = inner.state.visible(file).ok()?;
        let mut bytes = vec![0; usize::try_from(contents.len()).ok()?];
        contents.read(0, &mut bytes).then_some(bytes)
    }

    /// A hash over names, bytes and what is pending: equal for disks that no crash tells apart.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.inner.lock().state.hash()
    }

    /// Changes bytes as a failing medium does: unrecorded, at once durable.
    ///
    /// # Errors
    ///
    /// `NotFound` if the file has no name.
    pub fn damage(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.lock().damage(|state| state.damage(file, offset, bytes))
    }

    /// Cuts or grows a file as [`SimDisk::damage`] changes bytes.
    ///
    /// # Errors
    ///
    /// `NotFound` if the file has no name.
    pub fn damage_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.inner.lock().damage(|state| state.damage_len(file, len))
    }
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

fn refusal(effect: Effect) -> io::Error {
    match effect {
        Effect::NoSpace => Errno::NOSPC.into(),
        Effect::Io | Effect::Torn(_) | Effect::Sync(_) | Effect::PowerCut => Errno::IO.into(),
    }
}

impl Inner {
    /// Counts a call and says what strikes it on its way.
    fn admit(&mut self, call: Call) -> io::Result<Option<Effect>> {
        if !self.powered {
            return Err(no_power());
        }
        self.calls += u64::from(call.operation.is_mutating());
        let effect = self.plan.strike(&call);
        if effect == Some(Effect::PowerCut) {
            self.powered = false;
            return Err(no_power());
        }
        Ok(effect)
    }

    /// The same for calls that either happen or do not.
    fn admit_whole(&mut self, operation: Operation, file: FileId) -> io::Result<()> {
        match self.admit(Call { operation, file: Some(file), reason: None })? {
            None => Ok(()),
            Some(effect) => Err(refusal(effect)),
        }
    }

    fn apply(&mut self, event: Event) -> io::Result<()> {
        self.state.apply(&event)?;
        if self.records {
            self.events.push(event);
        }
        Ok(())
    }

    /// Damage is not an event: the record starts again from the damaged state.
    fn damage(&mut self, change: impl Fn(&mut State) -> io::Result<()>) -> io::Result<()> {
        change(&mut self.state)?;
        if self.records {
            self.base = self.state.clone();
            self.events.clear();
            self.marks.clear();
        }
        Ok(())
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return self.state.visible(file).map(drop);
        }
        self.apply(Event::Write { file, offset, bytes: Arc::from(bytes) })
    }

    /// How long the file may be at most.
    fn room(&self, file: FileId) -> io::Result<u64> {
        let others = self.state.bytes_total() - self.state.visible(file)?.len();
        Ok(self.plan.capacity_bytes().saturating_sub(others))
    }

    /// What a sync will really do, and what it will say.
    fn sync_fate(&mut self, effect: Option<Effect>, file: Option<FileId>, reason: SyncReason) -> SyncFate {
        if self.plan.is_dropped(reason) {
            return SyncFate { outcome: SyncOutcome::Nothing, says: Ok(()) };
        }
        let failed = |outcome| SyncFate { outcome, says: Err(Errno::IO.into()) };
        let was_late = self.late.remove(&file);
        match effect {
            Some(Effect::Sync(SyncFailure::Reverted)) => failed(SyncOutcome::Reverted),
            Some(Effect::Sync(SyncFailure::Late)) if !was_late => {
                self.late.insert(file);
                SyncFate { outcome: SyncOutcome::Forgotten, says: Ok(()) }
            }
            Some(effect) => SyncFate { outcome: SyncOutcome::Forgotten, says: Err(refusal(effect)) },
            None if was_late => failed(SyncOutcome::Forgotten),
            None => SyncFate { outcome: SyncOutcome::Durable, says: Ok(()) },
        }
    }
}

struct SyncFate {
    outcome: SyncOutcome,
    says: io::Result<()>,
}

fn no_power() -> io::Error {
    io::Error::other("the simulated power is off")
}

impl SimDisk {
    /// A sync that makes durable what `done` says, if no fault is in its way.
    fn sync_as(&self, file: FileId, reason: SyncReason, done: SyncOutcome) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let effect =
            inner.admit(Call { operation: Operation::Sync, file: Some(file), reason: Some(reason) })?;
        inner.state.visible(file)?;
        let SyncFate { outcome, says } = inner.sync_fate(effect, Some(file), reason);
        let outcome = if outcome == SyncOutcome::Durable { done } else { outcome };
        inner.apply(Event::Sync { file, reason, outcome })?;
        says
    }
}

impl Storage for SimDisk {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        let mut inner = self.inner.lock();
        inner.admit_whole(Operation::Exists, file)?;
        Ok(inner.state.exists(file))
    }

    fn create(&self, file: FileId) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.admit_whole(Operation::Create, file)?;
        inner.apply(Event::Create(file))
    }

    fn len(&self, file: FileId) -> io::Result<u64> {
        let mut inner = self.inner.lock();
        inner.admit_whole(Operation::Len, file)?;
        Ok(inner.state.visible(file)?.len())
    }

    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.admit_whole(Operation::Read, file)?;
        if inner.state.visible(file)?.read(offset, buf) {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let effect = inner.admit(Call { operation: Operation::Write, file: Some(file), reason: None })?;
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= FILE_BYTES_MAX);
        let end = end.ok_or(Errno::FBIG)?;
        match effect {
            None => {}
            Some(Effect::Torn(kept)) => {
                inner.write(file, offset, &bytes[..kept.min(bytes.len())])?;
                return Err(Errno::IO.into());
            }
            Some(effect) => return Err(refusal(effect)),
        }
        let aside = inner.aside.get(&file).copied().unwrap_or(0);
        let room = inner.room(file)?.max(inner.state.visible(file)?.len()).max(aside);
        if end > room {
            // As a real disk does: what fits is written before the error shows.
            let fits = room.saturating_sub(offset).min(bytes.len() as u64) as usize;
            inner.write(file, offset, &bytes[..fits])?;
            return Err(Errno::NOSPC.into());
        }
        inner.write(file, offset, bytes)
    }

    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.admit_whole(Operation::SetLen, file)?;
        if len > FILE_BYTES_MAX {
            return Err(Errno::FBIG.into());
        }
        if len > inner.room(file)? && len > inner.state.visible(file)?.len() {
            return Err(Errno::NOSPC.into());
        }
        // What lies behind a cut goes back.
        inner.aside.retain(|of, aside| *of != file || *aside <= len);
        inner.apply(Event::SetLen { file, len })
    }

    /// Room is no matter where there is no limit; where there is one, the caller has to write.
    fn allocate(&self, file: FileId, offset: u64, len: u64) -> io::Result<bool> {
        let mut inner = self.inner.lock();
        inner.state.visible(file)?;
        let takes = inner.powered && inner.plan.capacity_bytes() == u64::MAX;
        if takes {
            let aside = inner.aside.entry(file).or_default();
            *aside = (*aside).max(offset.saturating_add(len));
        }
        Ok(takes)
    }

    fn sync(&self, file: FileId, reason: SyncReason) -> io::Result<()> {
        self.sync_as(file, reason, SyncOutcome::Durable)
    }

    fn write_durably(&self, file: FileId, offset: u64, bytes: &[u8], reason: SyncReason) -> io::Result<()> {
        self.write_at(file, offset, bytes)?;
        self.sync_as(file, reason, SyncOutcome::DurableIn { offset, len: bytes.len() })
    }

    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.admit_whole(Operation::Rename, from)?;
        inner.apply(Event::Rename { from, to })?;
        if from != to {
            // The file takes what its syncs still owe along; what it replaces is owed nothing.
            inner.late.remove(&Some(to));
            if inner.late.remove(&Some(from)) {
                inner.late.insert(Some(to));
            }
        }
        Ok(())
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.admit_whole(Operation::Remove, file)?;
        inner.aside.remove(&file);
        inner.apply(Event::Remove(file))
    }

    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let effect =
            inner.admit(Call { operation: Operation::SyncNames, file: None, reason: Some(reason) })?;
        let SyncFate { outcome, says } = inner.sync_fate(effect, None, reason);
        inner.apply(Event::SyncNames { reason, outcome })?;
        says
    }

    fn lock(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if !inner.powered {
            return Err(no_power());
        }
        if inner.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inner.locked = true;
        Ok(())
    }

    fn unlock(&self) {
        self.inner.lock().locked = false;
    }

    fn path(&self, file: FileId) -> PathBuf {
        PathBuf::from("simulated").join(file.name())
    }
}
