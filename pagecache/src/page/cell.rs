//! A page's cell of the mapping table: two words.
//!
//! `head` says what the page is: unallocated, allocated, free, evicted (each with the page's sequence
//! number where it has one), or the chain of its fragments. Every change of the page is one
//! compare-and-swap of this word. Of a store that was opened, a cell whose part of the page table was not read
//! says unallocated too ([`super::spans`]). A large value is an evicted page for good.
//!
//! `durable` points to where the page's durable form lies. It changes only under the write-back
//! claim, one bit of the word, and carries the bit by which readers say that they were here.
//!
//! * CELL-1: whoever swaps a chain out of `head` retires it, whole, through the epoch; so a node
//!   reached under a guard lives as long as the guard.
//! * CELL-2: a word with a number never returns: numbers only grow for a page.
//! * CELL-3: only the holder of the claim replaces the durable record, and retires the old one.

use std::{fmt, marker::PhantomData, ptr};

use super::{
    chain::{Node, free_chain},
    durable::Durable,
    table::ZeroInit,
};
use crate::{
    ids::PageSeq,
    mem::Placed,
    reclaim::Guard,
    sync::{AtomicPtr, AtomicU64, Ordering},
};

const TAG_BITS: u32 = 3;
const TAG_MASK: usize = (1 << TAG_BITS) - 1;
const EVICTED: usize = 1;
const FREE: usize = 2;
const ALLOCATED: usize = 3;

const ACCESSED: usize = 1;
const CLAIMED: usize = 2;
const FLAGS: usize = ACCESSED | CLAIMED;

/// The value of a `head` word: what a compare-and-swap expects.
pub(crate) struct Word<P>(*mut Node<P>);

impl<P> Clone for Word<P> {
    fn clone(&self) -> Word<P> {
        *self
    }
}

impl<P> Copy for Word<P> {}

impl<P> PartialEq for Word<P> {
    fn eq(&self, other: &Word<P>) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl<P> Eq for Word<P> {}

impl<P> fmt::Debug for Word<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.addr() & TAG_MASK {
            0 if self.0.is_null() => f.write_str("unallocated"),
            EVICTED => write!(f, "evicted at {}", self.0.addr() >> TAG_BITS),
            FREE => write!(f, "free at {}", self.0.addr() >> TAG_BITS),
            ALLOCATED => write!(f, "allocated at {}", self.0.addr() >> TAG_BITS),
            _ => f.write_str("chain"),
        }
    }
}

// SAFETY: a word is a number to compare; following it needs a guard (`Cell::head`).
unsafe impl<P: Send + Sync> Send for Word<P> {}
// SAFETY: as for `Send`.
unsafe impl<P: Send + Sync> Sync for Word<P> {}

impl<P> Word<P> {
    fn tagged(tag: usize, seq: PageSeq) -> Word<P> {
        let seq = usize::try_from(seq).expect("a page changes less than 2^61 times");
        Word(ptr::without_provenance_mut(seq << TAG_BITS | tag))
    }

    pub(crate) fn unallocated() -> Word<P> {
        Word(ptr::null_mut())
    }

    pub(crate) fn allocated(seq: PageSeq) -> Word<P> {
        Word::tagged(ALLOCATED, seq)
    }

    pub(crate) fn free(seq: PageSeq) -> Word<P> {
        Word::tagged(FREE, seq)
    }

    pub(crate) fn evicted(seq: PageSeq) -> Word<P> {
        Word::tagged(EVICTED, seq)
    }

    pub(crate) fn is_allocated(self) -> bool {
        self.0.addr() & TAG_MASK == ALLOCATED
    }
}

/// What a page is, as its head word said under a guard.
pub(crate) enum Head<'g, P> {
    Unallocated,
    Allocated(PageSeq),
    Free(PageSeq),
    Evicted(PageSeq),
    Chain(&'g Node<P>),
}

impl<P> Clone for Head<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Head<'_, P> {}

/// One bit for each of 64 neighbouring pages: see [`super::pages`].
#[derive(Default)]
#[repr(transparent)]
pub(crate) struct DirtyBits(pub(crate) AtomicU64);

// SAFETY: a zero word has no bit set.
unsafe impl ZeroInit for DirtyBits {}

/// One page's two words.
#[repr(C)]
pub(crate) struct Cell<P> {
    head: AtomicPtr<Node<P>>,
    durable: AtomicPtr<Durable>,
    owns: PhantomData<(Placed<Node<P>>, Placed<Durable>)>,
}

impl<P> Default for Cell<P> {
    fn default() -> Cell<P> {
        Cell {
            head: AtomicPtr::new(ptr::null_mut()),
            durable: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }
}

// SAFETY: two null pointers are a cell of an unallocated page.
unsafe impl<P: Send + Sync + 'static> ZeroInit for Cell<P> {}

impl<P> Cell<P> {
    /// What the page is now, and the word that a change must expect.
    #[inline]
    pub(crate) fn head<'g>(&self, guard: &'g Guard) -> (Word<P>, Head<'g, P>) {
        // Acquire pairs with the Release of `install`: the chain's nodes are whole.
        let word = Word(self.head.load(Ordering::Acquire));
        (word, Cell::open(word, guard))
    }

    #[inline]
    fn open<'g>(word: Word<P>, _guard: &'g Guard) -> Head<'g, P> {
        let addr = word.0.addr();
        let seq = (addr >> TAG_BITS) as PageSeq;
        match addr & TAG_MASK {
            // SAFETY: an untagged word is null or a node published by `install`, and is not freed
            // while the guard that was held at the load is (CELL-1).
            0 => match unsafe { word.0.as_ref() } {
                None => Head::Unallocated,
                Some(node) => Head::Chain(node),
            },
            EVICTED => Head::Evicted(seq),
            FREE => Head::Free(seq),
            _ => Head::Allocated(seq),
        }
    }

    fn swap(&self, expected: Word<P>, new: *mut Node<P>) -> bool {
        // SeqCst: the dirty scan clears its bit and then reads `head`; a writer swaps `head` and then
        // reads the bit. One of the two must see the other (see `pages`).
        self.swap_as(expected, new, Ordering::SeqCst)
    }

    fn swap_as(&self, expected: Word<P>, new: *mut Node<P>, publish: Ordering) -> bool {
        // Relaxed on failure: nothing is read then.
        self.head.compare_exchange(expected.0, new, publish, Ordering::Relaxed).is_ok()
    }

    /// Puts `node` above the chain that `expected` names, which it owns from now on. Gives the node
    /// back if the page has changed.
    pub(crate) fn push(&self, expected: Word<P>, node: Placed<Node<P>>) -> Result<Word<P>, Placed<Node<P>>> {
        let raw = Placed::into_raw(node);
        if self.swap(expected, raw) {
            return Ok(Word(raw));
        }
        // SAFETY: the swap failed, so the pointer made above is still ours alone.
        Err(unsafe { Placed::from_raw(raw) })
    }

    /// As [`Cell::push`] into a cell that is Allocated, with an ordering that a model chooses.
    #[cfg(all(test, loom))]
    fn push_as(&self, expected: Word<P>, node: Placed<Node<P>>, publish: Ordering) -> bool {
        self.swap_as(expected, Placed::into_raw(node), publish)
    }

    /// Puts a chain of fresh nodes, headed by `top`, in the place of all that `expected` names, and
    /// retires that.
    pub(crate) fn replace(
        &self,
        expected: Word<P>,
        top: Placed<Node<P>>,
        guard: &Guard,
    ) -> Result<Word<P>, Placed<Node<P>>>
    where
        P: Send + Sync + 'static,
    {
        self.replace_sharing(expected, top, 0, guard)
    }

    /// As [`Cell::replace`], where the old chain and the new one have fragments of so many bytes in common,
    /// which are no garbage.
    pub(crate) fn replace_sharing(
        &self,
        expected: Word<P>,
        top: Placed<Node<P>>,
        shared_bytes: usize,
        guard: &Guard,
    ) -> Result<Word<P>, Placed<Node<P>>>
    where
        P: Send + Sync + 'static,
    {
        let word = self.push(expected, top)?;
        Cell::retire(expected, shared_bytes, guard);
        Ok(word)
    }

    /// Puts a word without a chain in the place of all that `expected` names, and retires that.
    pub(crate) fn set(&self, expected: Word<P>, new: Word<P>, guard: &Guard) -> bool
    where
        P: Send + Sync + 'static,
    {
        let done = self.swap(expected, new.0);
        if done {
            Cell::retire(expected, 0, guard);
        }
        done
    }

    fn retire(word: Word<P>, shared_bytes: usize, guard: &Guard)
    where
        P: Send + Sync + 'static,
    {
        if word.0.addr() & TAG_MASK != 0 || word.0.is_null() {
            return;
        }
        // SAFETY: the word was swapped out by this thread, so no later reader can reach the chain and
        // nobody else retires it (CELL-1); it was made by `Placed::into_raw`.
        let chain = unsafe { Placed::from_raw(word.0) };
        let bytes = chain.chain_charge().saturating_sub(shared_bytes);
        chain.note_retired(bytes);
        let chain = RetiredChain { chain: Some(chain), bytes };
        guard.defer_bytes(bytes, move || drop(chain));
    }

    /// Sets and clears flag bits beside the durable record; returns the word before.
    ///
    /// AcqRel: taking the claim acquires what its last holder released with it, the durable record.
    fn set_flags(&self, set: usize, clear: usize) -> *mut Durable {
        let flagged = |word: *mut Durable| Some(word.map_addr(|addr| addr & !clear | set));
        let outcome = self.durable.fetch_update(Ordering::AcqRel, Ordering::Acquire, flagged);
        outcome.unwrap_or_else(|word| word)
    }

    /// Notes that a reader was here; writes only if no reader was since the clock hand last passed.
    #[inline]
    pub(crate) fn touch(&self) {
        // Relaxed: a hint for eviction; a stale value costs a wrong guess.
        if self.durable.load(Ordering::Relaxed).addr() & ACCESSED == 0 {
            self.set_flags(ACCESSED, 0);
        }
    }

    /// True if readers left a note.
    pub(crate) fn is_touched(&self) -> bool {
        // Relaxed: a stale note costs or saves a page one round.
        self.durable.load(Ordering::Relaxed).addr() & ACCESSED != 0
    }

    /// Takes the readers' note away and says if there was one.
    pub(crate) fn take_touch(&self) -> bool {
        self.set_flags(0, ACCESSED).addr() & ACCESSED != 0
    }

    /// The sole right to write the page back, or `None` if another thread has it.
    pub(crate) fn claim(&self) -> Option<Claim<'_, P>> {
        let before = self.set_flags(CLAIMED, 0);
        // Made only if it was free: a claim that is dropped gives the bit back, whoever holds it.
        (before.addr() & CLAIMED == 0).then(|| Claim { cell: self })
    }

    /// What the page's durable form is; `None` if it never had one.
    pub(crate) fn durable<'g>(&self, _guard: &'g Guard) -> Option<&'g Durable> {
        // Acquire pairs with the Release in `Claim::set_durable`.
        let word = self.durable.load(Ordering::Acquire).map_addr(|addr| addr & !FLAGS);
        // SAFETY: null or a record published by `set_durable` or `restore_as`, retired only through the epoch
        // (CELL-3), so it outlives the guard.
        unsafe { word.as_ref() }
    }

    /// Gives the cell its first words: where the page lies, and a head without a chain. One thread does
    /// so, while others may look (SPAN-2).
    pub(crate) fn restore(&self, durable: Option<Placed<Durable>>, head: Word<P>) {
        // Release: see `restore_as`.
        self.restore_as(durable, head.0, Ordering::Release);
    }

    /// As [`Cell::restore`], with changes above what is durable.
    pub(crate) fn restore_chain(&self, durable: Option<Placed<Durable>>, top: Placed<Node<P>>) {
        // Release: see `restore_as`.
        self.restore_as(durable, Placed::into_raw(top), Ordering::Release);
    }

    /// `publish` is Release and pairs with the Acquire of `head`: who sees the head sees where the page
    /// lies. The model shows that less will not do.
    fn restore_as(&self, durable: Option<Placed<Durable>>, head: *mut Node<P>, publish: Ordering) {
        if let Some(durable) = durable {
            // Relaxed: published with the head.
            let before = self.durable.swap(Placed::into_raw(durable), Ordering::Relaxed);
            assert!(before.is_null(), "nobody claims or touches a page that was not restored");
        }
        let before = self.head.swap(head, publish);
        assert!(before.is_null(), "a cell is restored once");
    }

    /// Gives all that the cell owns to the epoch: readers may still hold references into it. The
    /// cell is empty afterwards; its table is about to go.
    pub(crate) fn retire_all(&self, guard: &Guard)
    where
        P: Send + Sync + 'static,
    {
        Cell::retire(Word(self.head.swap(ptr::null_mut(), Ordering::AcqRel)), 0, guard);
        let durable = self.durable.swap(ptr::null_mut(), Ordering::AcqRel).map_addr(|addr| addr & !FLAGS);
        if !durable.is_null() {
            // SAFETY: swapped out by this thread alone; made by `Placed::into_raw` (CELL-3).
            let durable = unsafe { Placed::from_raw(durable) };
            guard.defer(move || drop(durable));
        }
    }
}

/// A chain on its way out; freed without recursion when it drops.
struct RetiredChain<P> {
    chain: Option<Placed<Node<P>>>,
    bytes: usize,
}

impl<P> Drop for RetiredChain<P> {
    fn drop(&mut self) {
        if let Some(chain) = self.chain.take() {
            chain.note_freed(self.bytes);
            free_chain(chain);
        }
    }
}

/// The sole right to change a page's durable record; given back on drop.
pub(crate) struct Claim<'c, P> {
    cell: &'c Cell<P>,
}

impl<P> Claim<'_, P> {
    /// What the page's durable form is, and stays while this claim is held.
    pub(crate) fn durable<'g>(&self, guard: &'g Guard) -> Option<&'g Durable> {
        self.cell.durable(guard)
    }

    /// Records what the page's durable form is from now on.
    pub(crate) fn set_durable(&self, durable: Placed<Durable>, guard: &Guard) {
        let new = Placed::into_raw(durable);
        let mut seen = self.cell.durable.load(Ordering::Relaxed);
        loop {
            let next = new.map_addr(|addr| addr | seen.addr() & FLAGS);
            // Release publishes the record; Acquire is for freeing the old one.
            match self.cell.durable.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        let old = seen.map_addr(|addr| addr & !FLAGS);
        if !old.is_null() {
            // SAFETY: this claim alone replaces the record (CELL-3), so nobody else retires `old`,
            // which `Placed::into_raw` made.
            let old = unsafe { Placed::from_raw(old) };
            guard.defer(move || drop(old));
        }
    }
}

impl<P> Drop for Claim<'_, P> {
    fn drop(&mut self) {
        self.cell.set_flags(0, CLAIMED);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Cell;

    /// A thread that was refused the claim gave it back in its holder's name: two threads wrote a page
    /// back, the older image became the durable one, and after an eviction the page was as of then.
    #[test]
    fn a_refused_claim_leaves_the_holder_its_own() {
        let cell: Cell<u64> = Cell::default();
        let held = cell.claim().expect("nobody has it");
        for _ in 0..3 {
            assert!(cell.claim().is_none(), "two holders");
        }
        drop(held);
        assert!(cell.claim().is_some(), "given back");
    }
}

#[cfg(all(test, loom))]
#[path = "cell_models.rs"]
mod models;

#[cfg(all(test, not(loom)))]
#[path = "cell_schedules.rs"]
mod schedules;

#[cfg(all(test, loom))]
#[path = "evict_models.rs"]
mod evict_models;
