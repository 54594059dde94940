//! How often each thing happened, so that no run passes by doing too little.

/// The counts by name, and all of them in a row: each is listed once.
macro_rules! counts {
    ($($count:ident)*) => {
        /// How often each thing happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(super) struct Counts {
            $(pub(super) $count: u64,)*
        }

        impl Counts {
            fn parts(&mut self) -> Vec<&mut u64> {
                vec![$(&mut self.$count),*]
            }
        }
    };
}

counts! {
    gets
    large
    links
    replaces
    frees
    allocates
    reused_ids
    batches
    batches_given_up
    checkpoints
    closes
    process_crashes
    power_cuts
    failures
    full_disks
    refused
    compared
}

impl Counts {
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
