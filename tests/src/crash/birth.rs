//! Every cut through the first moments of a page cache, whole: its creation, an open that writes
//! nothing, a first page, a flush, a close.
//!
//! A store whose open returned is there after any crash, though nothing was written to it.

use std::sync::Arc;

use pagecache::{
    ConfigBuilder, PageGet, PagePtr,
    io::sim::{Effort, Explored, FaultPlan, Found, SimDisk, explore},
    pin,
};

use super::Problem;
use crate::{stepwise, strings::Pages};

/// The open returned.
const OPENED: &str = "opened";
/// The page was flushed.
const FLUSHED: &str = "flushed";
/// What the page holds.
const CONTENT: &str = "the first page";

fn open(disk: &Arc<SimDisk>, salt_seed: u64, create: bool) -> Result<Pages, Problem> {
    let config = stepwise(ConfigBuilder::new(), disk.clone())
        .salt_seed(salt_seed)
        .create(create)
        .block_bytes(1024)
        .log_segment_bytes(16 << 10)
        .log_capacity(64 << 10)
        .checkpoint_every_bytes(16 << 10)
        .store_segment_bytes(16 << 10)
        .build();
    Pages::start(config).map_err(|error| format!("open: {error:?}"))
}

fn live(disk: &Arc<SimDisk>) -> Result<(), Problem> {
    let pages = open(disk, 1, true)?;
    disk.mark(OPENED, 1);
    drop(pages);
    let pages = open(disk, 2, false)?;
    write(&pages)?;
    disk.mark(FLUSHED, 1);
    pages.close().map_err(|error| format!("close: {error:?}"))
}

/// Makes the page, durably.
fn write(pages: &Pages) -> Result<(), Problem> {
    let guard = pin();
    let pid = pages.allocate(&guard).map_err(|error| format!("allocate: {error:?}"))?;
    let written = pages.replace(pid, PagePtr::allocated(), CONTENT.to_owned(), &guard);
    written.map_err(|_| "replace failed".to_owned())?;
    pages.flush().map_err(|error| format!("flush: {error:?}"))
}

/// True if the page is there; it is whole then.
fn holds_page(pages: &Pages) -> Result<bool, Problem> {
    let guard = pin();
    match pages.read(0, &guard).map_err(|error| format!("read: {error}"))? {
        PageGet::Materialized(page, _) if page == CONTENT => Ok(true),
        PageGet::Materialized(page, _) => Err(format!("the page holds {page:?}")),
        _ => Ok(false),
    }
}

/// Shows every disk that a cut could leave; `plan` goes wrong on all of them.
///
/// # Errors
///
/// The first cut after which a store is missing, empty though its page was flushed, or unfit to
/// take another.
pub fn cut_everywhere(plan: &FaultPlan, seed: u64) -> Result<Explored, Box<Found>> {
    let disk = Arc::new(SimDisk::new());
    disk.set_faults(plan.clone());
    let lived = live(&disk);
    assert_eq!(lived, Ok(()), "no crash came in between");
    let trace = disk.trace();
    explore(&trace, &Effort::quick(seed), |case, disk| {
        disk.set_faults(plan.clone());
        let was = |label| trace.marked(label, case.position).is_some();
        let disk = Arc::new(disk);
        let pages = open(&disk, 3, !was(OPENED))?;
        match (holds_page(&pages)?, was(FLUSHED)) {
            (false, true) => return Err("the page was flushed and is gone".to_owned()),
            (false, false) => write(&pages)?,
            (true, _) => {}
        }
        drop(pages);
        if holds_page(&open(&disk, 4, false)?)? { Ok(()) } else { Err("a close lost the page".to_owned()) }
    })
}
