//! Dirty pages: counted, visited, marked and unmarked.

use super::Pages;
use crate::reclaim::pin;

fn pages(count: usize) -> Pages<u64> {
    let pages = Pages::new();
    let guard = pin();
    (0..count).for_each(|pid| assert_eq!(pages.allocate(&guard).expect("an id"), pid));
    pages
}

#[test]
fn dirty_pages_are_counted_and_visited_from_anywhere() {
    let pages = pages(300);
    let marked = [0, 63, 64, 130, 299];
    assert!(marked.iter().all(|&pid| pages.mark_dirty(pid)), "news");
    assert!(!pages.mark_dirty(64), "no news");
    assert_eq!((pages.dirty_count(), pages.dirty_pages()), (5, marked.to_vec()));
    let (some, next) = pages.some_dirty(100, 2);
    assert_eq!((some, next), (vec![64, 130], 192));
    assert_eq!(pages.some_dirty(next, 2), (vec![299, 0, 63], 64));
    assert_eq!(pages.some_dirty(0, 99).0.len(), 5);
    pages.scan_dirty(|pid| pid != 64);
    assert_eq!((pages.dirty_count(), pages.dirty_pages()), (4, vec![0, 63, 130, 299]));
}

/// Beside a scan a page that was written back stays marked: between taking its bit and looking whether it
/// changed again, the scan would have passed it over.
#[test]
fn a_bit_is_not_taken_away_while_a_scan_is_under_way() {
    let pages = pages(2);
    pages.mark_dirty(1);
    pages.scan_dirty(|pid| {
        pages.mark_dirty(0);
        pages.unmark_dirty(0, || false);
        assert_eq!(pid, 1);
        true
    });
    assert_eq!(pages.dirty_pages(), [0, 1]);
    pages.unmark_dirty(0, || false);
    pages.unmark_dirty(1, || true);
    assert_eq!((pages.dirty_count(), pages.dirty_pages()), (1, vec![1]));
}
