//! The slabs of one size class: which blocks are free. Numbers only; the arena knows the addresses.
//!
//! * A block is handed out at most once between two returns.
//! * A slab is listed in `partial` exactly when it has a free block, by how full it is. Blocks are taken
//!   from the fullest slabs, so that sparse ones drain and can serve another class.
//! * One wholly free slab is kept while the class has no other room, so that a class at a slab's edge
//!   does not carve and release at every step; the arena trims it before it maps new memory.

/// How finely slabs are told apart by how full they are.
const FILL_LEVELS: usize = 4;

/// The slabs of one size class. `S` names a slab to the arena.
#[derive(Debug)]
pub(super) struct Slabs<S> {
    slots: Vec<Option<Slab<S>>>,
    vacant: Vec<u32>,
    /// Slots of slabs with a free block, the fuller ones in the later lists.
    partial: [Vec<u32>; FILL_LEVELS],
    used_blocks: usize,
    /// Blocks of all slabs.
    blocks: usize,
    closed: bool,
}

#[derive(Debug)]
struct Slab<S> {
    name: S,
    capacity: u16,
    /// Blocks below this number have been handed out before.
    fresh: u16,
    free: Vec<u16>,
    /// Which list of `partial` names it, and where; of no meaning while it is full.
    level: u8,
    place_in_partial: u32,
}

/// A block that was handed out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken<S> {
    pub(super) slab: S,
    pub(super) block: u16,
    /// True if it was in use before, since its slab was carved.
    pub(super) recycled: bool,
}

/// A slab that is no longer among its class's, all its blocks being free.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Released<S> {
    pub(super) slab: S,
    /// Blocks below this number were in use before.
    pub(super) fresh: u16,
}

impl<S: Copy> Slabs<S> {
    pub(super) fn new() -> Slabs<S> {
        Slabs {
            slots: Vec::new(),
            vacant: Vec::new(),
            partial: [const { Vec::new() }; FILL_LEVELS],
            used_blocks: 0,
            blocks: 0,
            closed: false,
        }
    }

    /// Takes a free block, or `None` if a slab must be added first.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Taken<S>> {
        let slot = *self.partial.iter().rev().find_map(|list| list.last())?;
        let slab = self.slots[slot as usize].as_mut().expect("a listed slab");
        let (block, recycled) = match slab.free.pop() {
            Some(block) => (block, true),
            None => {
                slab.fresh += 1;
                (slab.fresh - 1, false)
            }
        };
        let name = slab.name;
        if slab.is_full() {
            self.unlist(slot);
        } else {
            self.relist(slot);
        }
        self.used_blocks += 1;
        Some(Taken { slab: name, block, recycled })
    }

    /// Takes a block back. Returns its slab if that is wholly free and must be released.
    #[inline]
    pub(super) fn give(&mut self, slot: u32, block: u16) -> Option<Released<S>> {
        let slab = self.slots[slot as usize].as_mut().expect("a slab in use");
        assert!(block < slab.fresh && slab.used() > 0, "block {block} was not handed out");
        let was_full = slab.is_full();
        slab.free.push(block);
        self.used_blocks -= 1;
        let is_unused = slab.used() == 0;
        if was_full {
            self.list(slot);
        } else {
            self.relist(slot);
        }
        let is_spare = !self.closed && self.partial.iter().map(Vec::len).sum::<usize>() == 1;
        (is_unused && !is_spare).then(|| self.remove(slot))
    }

    /// Adds a slab of `capacity` free blocks; `name` is told its slot.
    pub(super) fn add(&mut self, capacity: u16, name: impl FnOnce(u32) -> S) {
        let slot = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(None);
        }
        let slab =
            Slab { name: name(slot), capacity, fresh: 0, free: Vec::new(), level: 0, place_in_partial: 0 };
        self.slots[slot as usize] = Some(slab);
        self.blocks += usize::from(capacity);
        self.list(slot);
    }

    /// Lists a slab that has a free block.
    #[inline]
    fn list(&mut self, slot: u32) {
        let slab = self.slots[slot as usize].as_mut().expect("a slab in use");
        let list = &mut self.partial[slab.fill_level()];
        slab.level = slab.fill_level() as u8;
        slab.place_in_partial = list.len() as u32;
        list.push(slot);
    }

    /// Takes a slab off its list.
    #[inline]
    fn unlist(&mut self, slot: u32) {
        let slab = self.slots[slot as usize].as_ref().expect("a slab in use");
        let (level, place) = (usize::from(slab.level), slab.place_in_partial);
        let list = &mut self.partial[level];
        list.swap_remove(place as usize);
        if let Some(&moved) = list.get(place as usize) {
            self.slots[moved as usize].as_mut().expect("a listed slab").place_in_partial = place;
        }
    }

    /// Moves a slab to the list of how full it is now.
    #[inline]
    fn relist(&mut self, slot: u32) {
        let slab = self.slots[slot as usize].as_ref().expect("a slab in use");
        if slab.fill_level() != usize::from(slab.level) {
            self.unlist(slot);
            self.list(slot);
        }
    }

    /// Takes out every wholly free slab, to be released.
    pub(super) fn trim(&mut self) -> Vec<Released<S>> {
        let listed = self.partial.iter().flatten().copied();
        let spare: Vec<u32> = listed.filter(|slot| self.is_unused(*slot)).collect();
        spare.into_iter().map(|slot| self.remove(slot)).collect()
    }

    /// From now on keeps no wholly free slab; returns those that were kept.
    pub(super) fn close(&mut self) -> Vec<Released<S>> {
        self.closed = true;
        self.trim()
    }

    pub(super) fn used_blocks(&self) -> usize {
        self.used_blocks
    }

    /// Blocks that may be taken before a slab must be added.
    pub(super) fn free_blocks(&self) -> usize {
        self.blocks - self.used_blocks
    }

    pub(super) fn slabs(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    fn is_unused(&self, slot: u32) -> bool {
        self.slots[slot as usize].as_ref().is_some_and(|slab| slab.used() == 0)
    }

    fn remove(&mut self, slot: u32) -> Released<S> {
        self.unlist(slot);
        let slab = self.slots[slot as usize].take().expect("a slab in use");
        self.vacant.push(slot);
        self.blocks -= usize::from(slab.capacity);
        Released { slab: slab.name, fresh: slab.fresh }
    }
}

impl<S> Slab<S> {
    #[inline]
    fn used(&self) -> usize {
        usize::from(self.fresh) - self.free.len()
    }

    /// Which list a slab with a free block belongs to.
    #[inline]
    fn fill_level(&self) -> usize {
        self.used() * FILL_LEVELS / (usize::from(self.capacity) + 1)
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.used() == usize::from(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::{Released, Slabs};
    use crate::mem::testing::Rng;

    #[test]
    fn blocks_are_handed_out_once_and_empty_slabs_come_back() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut slabs: Slabs<(u32, u32)> = Slabs::new();
            let (mut added, mut used) = (0, HashSet::new());
            let mut capacity = HashMap::new();
            for step in 0..3_000 {
                let grow = if step < 1_500 { 3 } else { 1 };
                if rng.below(4) < grow {
                    let Some(taken) = slabs.take() else {
                        let blocks = 1 + rng.below(8) as u16;
                        added += 1;
                        slabs.add(blocks, |slot| (slot, added));
                        capacity.insert(added, blocks);
                        continue;
                    };
                    assert!(taken.block < capacity[&taken.slab.1], "seed {seed}, step {step}: {taken:?}");
                    assert!(used.insert((taken.slab, taken.block)), "seed {seed}, step {step}: {taken:?}");
                } else if let Some(&(slab, block)) = used.iter().min_by_key(|_| rng.below(1_000)) {
                    used.remove(&(slab, block));
                    let others = used.iter().any(|(held, _)| *held == slab);
                    if let Some(released) = slabs.give(slab.0, block) {
                        assert!(released.slab == slab && !others, "seed {seed}, step {step}");
                        capacity.remove(&slab.1);
                    }
                }
                assert_eq!(slabs.used_blocks(), used.len(), "seed {seed}, step {step}");
                assert_eq!(slabs.slabs(), capacity.len(), "seed {seed}, step {step}");
                let blocks: usize = capacity.values().map(|blocks| usize::from(*blocks)).sum();
                assert_eq!(slabs.free_blocks(), blocks - used.len(), "seed {seed}, step {step}");
            }
            for released in slabs.close() {
                capacity.remove(&released.slab.1);
            }
            for (slab, block) in used {
                if slabs.give(slab.0, block).is_some() {
                    capacity.remove(&slab.1);
                }
            }
            assert!(capacity.is_empty(), "seed {seed}: never released {capacity:?}");
            assert_eq!((slabs.used_blocks(), slabs.slabs()), (0, 0), "seed {seed}");
        }
    }

    #[test]
    fn the_last_wholly_free_slab_stays_until_it_is_trimmed() {
        let mut slabs = Slabs::new();
        slabs.add(1, |slot| slot);
        let first = slabs.take().unwrap();
        assert!(!first.recycled);
        assert_eq!(slabs.give(first.slab, first.block), None);
        assert!(slabs.take().unwrap().recycled);
        assert_eq!(slabs.trim(), []);
        slabs.give(0, 0);
        assert_eq!(slabs.trim(), [Released { slab: 0, fresh: 1 }]);
        assert_eq!(slabs.take(), None);
    }

    #[test]
    #[should_panic(expected = "was not handed out")]
    fn a_block_returned_to_an_unused_slab_is_noticed() {
        let mut slabs = Slabs::new();
        slabs.add(4, |slot| slot);
        slabs.take();
        slabs.give(0, 0);
        slabs.give(0, 0);
    }
}
