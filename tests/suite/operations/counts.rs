//! How often each thing happened, so that no run passes by doing too little.

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) gets: u64,
    pub(super) links: u64,
    pub(super) replaces: u64,
    pub(super) frees: u64,
    pub(super) allocates: u64,
    pub(super) reused_ids: u64,
    pub(super) batches: u64,
    pub(super) batches_given_up: u64,
    pub(super) checkpoints: u64,
    pub(super) closes: u64,
    pub(super) process_crashes: u64,
    pub(super) power_cuts: u64,
    pub(super) failures: u64,
    pub(super) full_disks: u64,
    pub(super) refused: u64,
    pub(super) compared: u64,
}

impl Counts {
    fn parts(&mut self) -> [&mut u64; 16] {
        let Counts {
            gets,
            links,
            replaces,
            frees,
            allocates,
            reused_ids,
            batches,
            batches_given_up,
            checkpoints,
            closes,
            process_crashes,
            power_cuts,
            failures,
            full_disks,
            refused,
            compared,
        } = self;
        [
            gets,
            links,
            replaces,
            frees,
            allocates,
            reused_ids,
            batches,
            batches_given_up,
            checkpoints,
            closes,
            process_crashes,
            power_cuts,
            failures,
            full_disks,
            refused,
            compared,
        ]
    }

    pub(super) fn and(mut self, mut other: Counts) -> Counts {
        self.parts().into_iter().zip(other.parts()).for_each(|(sum, more)| *sum += *more);
        self
    }

    /// Operations of the seed's model, batches counted as one, and restarts.
    pub(super) fn operations(&self) -> u64 {
        let restarts = self.closes + self.process_crashes + self.power_cuts;
        self.gets + self.links + self.replaces + self.frees + self.allocates + self.batches + restarts
    }

    pub(super) fn check_that_all_was_met(mut self) {
        let told = format!("{self:?}");
        assert!(self.parts().into_iter().all(|count| *count >= 5), "too little of something: {told}");
    }
}
