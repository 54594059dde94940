//! Shows a check the disks that crashes during a recorded history could have left.

use std::{collections::HashSet, fmt};

use super::{
    chooser::Chooser,
    disk::SimDisk,
    rng::{fold, mix},
    trace::Trace,
};

/// How many of the possible disks are tried at each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// With at most this many pending units, every subset is tried (at most 16).
    pub all_subsets_units_max: usize,
    /// Of the subsets that lack one unit, and of those that have one alone, at most this many each;
    /// with more units than that, those that the seed chooses.
    pub single_units_max: usize,
    /// Subsets that the seed chooses, every second one with garbage in unwritten sectors.
    pub random: usize,
    /// Also the death of the process alone.
    pub process_crashes: bool,
    /// Every position that is a multiple of this, and the last.
    pub position_step: usize,
    /// Decides all that is chosen.
    pub seed: u64,
}

impl Effort {
    /// For tests that run at every change.
    #[must_use]
    pub fn quick(seed: u64) -> Effort {
        Effort {
            all_subsets_units_max: 5,
            single_units_max: 64,
            random: 4,
            process_crashes: true,
            position_step: 1,
            seed,
        }
    }

    /// The ways to crash with this many units pending.
    fn choosers(&self, units: usize, position: usize) -> Vec<Chooser> {
        let seed = mix(fold(self.seed, position as u64));
        let mut choosers = vec![Chooser::none(), Chooser::all(), Chooser::none().with_garbage(seed)];
        choosers.push(Chooser::all().with_garbage(seed));
        if self.process_crashes {
            choosers.push(Chooser::process_crash());
        }
        if units <= self.all_subsets_units_max.min(16) {
            choosers.extend((0..1_u64 << units).map(Chooser::mask));
        } else {
            for unit in spread(units, self.single_units_max, seed) {
                choosers.push(Chooser::all_but(unit));
                choosers.push(Chooser::only(unit));
            }
        }
        for round in 0..self.random as u64 {
            let chooser = Chooser::random(mix(seed ^ round));
            choosers.push(if round % 2 == 1 { chooser.with_garbage(mix(seed ^ !round)) } else { chooser });
        }
        choosers
    }
}

/// All numbers below `count`, or `max` of them at equal distances from a seeded start.
fn spread(count: usize, max: usize, seed: u64) -> impl Iterator<Item = usize> {
    let picks = count.min(max);
    let start = if picks < count { (seed % count as u64) as usize } else { 0 };
    (0..picks).map(move |pick| (start + pick * count / picks) % count)
}

/// One crash: enough to make it again with [`Trace::crash_at`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Where in the trace.
    pub position: usize,
    /// What survives.
    pub chooser: Chooser,
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Crashes made.
    pub crashes: u64,
    /// Disks shown to the check: those that differ, in themselves or in what was marked.
    pub distinct: u64,
}

/// A crash after which the check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The crash.
    pub case: Case,
    /// What the check said.
    pub problem: String,
    /// The last calls before the crash.
    pub calls: Vec<String>,
    /// The units that were pending; the chooser's numbers mean these.
    pub units: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.problem)?;
        writeln!(f, "after a crash at position {}: {:?}", self.case.position, self.case.chooser)?;
        writeln!(f, "calls before:")?;
        for call in &self.calls {
            writeln!(f, "  {call}")?;
        }
        writeln!(f, "pending units:")?;
        for (number, unit) in self.units.iter().enumerate() {
            writeln!(f, "  {number}: {unit}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Found {}

/// Makes crashes all along the trace and shows each distinct disk to `check`, which says what is
/// wrong with it.
///
/// A disk is shown again if a value marked since differs: the same bytes may be right before an
/// acknowledgement and wrong after it.
///
/// # Errors
///
/// The first crash that `check` objects to.
pub fn explore(
    trace: &Trace,
    effort: &Effort,
    mut check: impl FnMut(&Case, SimDisk) -> Result<(), String>,
) -> Result<Explored, Box<Found>> {
    let mut explored = Explored::default();
    let mut seen = HashSet::new();
    for position in positions(trace.len(), effort.position_step) {
        let marks = trace.marks_hash(position);
        for chooser in effort.choosers(trace.unit_count_at(position), position) {
            let disk = trace.crash_at(position, &mut chooser.clone());
            explored.crashes += 1;
            if !seen.insert(fold(marks, disk.hash())) {
                continue;
            }
            explored.distinct += 1;
            let case = Case { position, chooser };
            if let Err(problem) = check(&case, disk) {
                let calls = trace.calls_before(position, 12);
                let units = trace.units_at(position);
                return Err(Box::new(Found { case, problem, calls, units }));
            }
        }
    }
    Ok(explored)
}

fn positions(last: usize, step: usize) -> impl Iterator<Item = usize> {
    (0..last).step_by(step.max(1)).chain([last])
}

#[cfg(test)]
mod tests {
    use super::{positions, spread};

    #[test]
    fn units_are_all_taken_or_spread_evenly() {
        assert_eq!(spread(5, 9, 3).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(spread(0, 9, 3).count(), 0);
        let mut few: Vec<_> = spread(100, 10, 7).collect();
        few.sort_unstable();
        few.dedup();
        assert_eq!(few.len(), 10);
        assert!(few.windows(2).all(|pair| pair[1] - pair[0] == 10), "{few:?}");
    }

    #[test]
    fn the_last_position_is_never_left_out() {
        assert_eq!(positions(7, 3).collect::<Vec<_>>(), [0, 3, 6, 7]);
        assert_eq!(positions(0, 0).collect::<Vec<_>>(), [0]);
    }
}
