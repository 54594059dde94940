//! Page memory as its users see it: contents, lifetimes, accounting, and many threads at once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Barrier, Mutex, mpsc},
    thread,
};

use super::{MemoryStats, PageBuf, PageMemory, testing::Rng};
use crate::sync::set_stripe_hint;

const ALONE: bool = cfg!(any(feature = "malloc_pages", miri));

/// What fills the buffer number `tag`.
fn byte_of(tag: u64, at: usize) -> u8 {
    (tag.wrapping_mul(31) as usize).wrapping_add(at) as u8
}

fn tagged(memory: &PageMemory, tag: u64, len: usize) -> PageBuf {
    memory.build(len, |bytes| {
        assert!(bytes.iter().all(|byte| *byte == 0), "a new buffer is not zero");
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = byte_of(tag, at);
        }
    })
}

fn is_tagged(buf: &PageBuf, tag: u64) -> bool {
    buf.iter().enumerate().all(|(at, byte)| *byte == byte_of(tag, at))
}

/// Lengths as stores use them: most small, some near a class border, a few beyond every class.
fn some_len(rng: &mut Rng) -> usize {
    match rng.below(20) {
        0 => rng.below(3),
        1..=9 => rng.below(512),
        10..=16 => rng.below(16 << 10),
        17 | 18 => (64usize << rng.below(11)) - 17 + rng.below(4),
        _ => rng.below(200 << 10),
    }
}

#[test]
fn a_buffer_holds_what_was_written_at_every_length_and_alignment() {
    let memory = PageMemory::new();
    for len in (0..300).chain([4095, 4096, 8176, 8177, 65519, 65520, 65521, 1 << 20]) {
        let built = tagged(&memory, len as u64, len);
        let copied = PageBuf::copy_of(&memory, &built);
        assert_eq!(built.len(), len);
        assert_eq!(built[..], copied[..], "{len} bytes");
        assert!(is_tagged(&built, len as u64), "{len} bytes");
        assert!(built.as_ptr().addr().is_multiple_of(16), "{len} bytes");
        assert!(built.charged_bytes() >= len + 16, "{len} bytes");
        let most = if ALONE {
            len + 16
        } else {
            64.max((len + 16) * 9 / 8 + 15).max((len + 16).next_multiple_of(4096))
        };
        assert!(built.charged_bytes() <= most, "{len} bytes charged {}", built.charged_bytes());
    }
}

#[test]
fn a_handle_is_a_thin_pointer_and_debug_prints_no_bytes() {
    assert_eq!(size_of::<PageBuf>(), 8);
    assert_eq!(size_of::<Option<PageBuf>>(), 8);
    let secret = PageBuf::copy_of(&PageMemory::new(), b"secret");
    assert_eq!(format!("{secret:?}"), "PageBuf(6 bytes)");
}

#[test]
fn stats_are_exact_and_return_to_zero() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let memory = PageMemory::new();
        let mut held: Vec<PageBuf> = Vec::new();
        for step in 0..2_000 {
            if rng.below(5) < if step < 1_000 { 3 } else { 2 } || held.is_empty() {
                held.push(tagged(&memory, step, some_len(&mut rng)));
            } else if rng.below(4) == 0 {
                held.push(held[rng.below(held.len())].clone());
            } else {
                held.swap_remove(rng.below(held.len()));
            }
            if step % 50 == 0 {
                let mut distinct: Vec<&PageBuf> = held.iter().collect();
                distinct.sort_by_key(|buf| buf.as_ptr());
                distinct.dedup_by_key(|buf| buf.as_ptr());
                let stats = memory.stats();
                assert_eq!(stats.buffers, distinct.len(), "seed {seed}, step {step}");
                let charged: usize = distinct.iter().map(|buf| buf.charged_bytes()).sum();
                assert_eq!(stats.in_use_bytes, charged, "seed {seed}, step {step}");
                assert!(stats.reserved_bytes >= charged, "seed {seed}, step {step}: {stats:?}");
            }
        }
        held.clear();
        memory.trim();
        assert_eq!(memory.stats(), MemoryStats::default(), "seed {seed}");
    }
}

#[test]
fn a_small_store_takes_little_and_a_large_one_little_more_than_it_uses() {
    let memory = PageMemory::new();
    assert_eq!(memory.stats().reserved_bytes, 0);
    let mut held = vec![tagged(&memory, 0, 8 << 10)];
    assert!(memory.stats().reserved_bytes <= 64 << 10, "{memory:?}");
    let mut rng = Rng::new(1);
    while memory.stats().in_use_bytes < 24 << 20 {
        held.push(memory.build(2_000 + rng.below(8_000), |_| {}));
    }
    let stats = memory.stats();
    assert!(stats.reserved_bytes < stats.in_use_bytes + (5 << 20), "{stats:?}");
}

#[test]
fn memory_of_one_class_serves_another_once_it_is_free() {
    let memory = PageMemory::new();
    let fill =
        |len: usize| -> Vec<PageBuf> { (0..(4 << 20) / len).map(|_| memory.build(len, |_| {})).collect() };
    for len in [100, 1_000, 3_000, 9_000, 30_000, 60_000] {
        drop(fill(len));
    }
    let peak = memory.stats().reserved_bytes;
    assert!(peak < 10 << 20, "six rounds of 4 MiB reserved {peak} bytes");
}

fn on_stripe<T>(stripe: usize, work: impl FnOnce() -> T) -> T {
    set_stripe_hint(stripe);
    let done = work();
    set_stripe_hint(0);
    done
}

/// What one thread had taken and another gave back once stayed with the first one's stripe.
#[test]
fn blocks_that_one_thread_left_serve_another() {
    let memory = PageMemory::new();
    for len in [64, 150, 1_000, 3_000, 9_000] {
        let fill = || -> Vec<PageBuf> { (0..(2 << 20) / len).map(|_| memory.build(len, |_| {})).collect() };
        let mut held = on_stripe(0, fill);
        let before = memory.stats().held_bytes;
        // Every slab keeps a few.
        let mut at = 0;
        held.retain(|_| {
            at += 1;
            at % 7 == 0
        });
        let more: Vec<PageBuf> =
            on_stripe(3, || (0..held.len() * 4).map(|_| memory.build(len, |_| {})).collect());
        let after = memory.stats().held_bytes;
        assert!(after <= before + (128 << 10), "{len}: {} buffers took {after} of {before}", more.len());
        drop((held, more));
        memory.trim();
    }
}

#[test]
fn buffers_outlive_their_memory_handle() {
    for threads in [1, 4] {
        let memory = PageMemory::with_checks();
        let bufs: Vec<(u64, PageBuf)> =
            (0..200).map(|tag| (tag, tagged(&memory, tag, some_len(&mut Rng::new(tag))))).collect();
        let arena = Arc::downgrade(memory.arena());
        drop(memory);
        assert!(bufs.iter().all(|(tag, buf)| is_tagged(buf, *tag)));
        assert!(arena.upgrade().is_some());
        let parts = Mutex::new(bufs);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((tag, buf)) = { parts.lock().unwrap().pop() } {
                        assert!(is_tagged(&buf, tag));
                    }
                });
            }
        });
        assert!(arena.upgrade().is_none(), "the last buffer did not free the arena");
    }
}

#[test]
fn a_fill_that_fails_or_panics_leaks_nothing() {
    let memory = PageMemory::new();
    let failed = memory.try_build(5_000, |bytes| {
        bytes.fill(1);
        Err("no")
    });
    assert_eq!(failed.unwrap_err(), "no");
    let panicked = catch_unwind(AssertUnwindSafe(|| memory.build(5_000, |_| panic!("no"))));
    assert!(panicked.is_err());
    assert_eq!((memory.stats().buffers, memory.stats().in_use_bytes), (0, 0));
}

#[test]
#[should_panic(expected = "at most")]
fn a_length_beyond_32_bits_is_refused() {
    let _ = PageMemory::new().build(PageBuf::LEN_MAX + 1, |_| {});
}

/// Threads build, share, read, hand over and free at once; freed memory is checked throughout.
#[test]
fn threads_may_build_share_and_free_in_any_order() {
    const THREADS: u64 = 4;
    for seed in 0..6 {
        let memory = PageMemory::with_checks();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
        let start = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for (me, inbox) in receivers.into_iter().enumerate() {
                let (memory, senders, start) = (memory.clone(), senders.clone(), &start);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed * THREADS + me as u64);
                    let mut held: Vec<(u64, PageBuf)> = Vec::new();
                    start.wait();
                    for step in 0..1_500u64 {
                        while let Ok(message) = inbox.try_recv() {
                            held.push(message);
                        }
                        match rng.below(4) {
                            0 | 1 => {
                                let tag = rng.next();
                                held.push((tag, tagged(&memory, tag, some_len(&mut rng))));
                            }
                            2 if !held.is_empty() => {
                                let (tag, buf) = &held[rng.below(held.len())];
                                let _ = senders[rng.below(THREADS as usize)].send((*tag, buf.clone()));
                            }
                            _ if !held.is_empty() => {
                                let (tag, buf) = held.swap_remove(rng.below(held.len()));
                                assert!(is_tagged(&buf, tag), "seed {seed}, thread {me}, step {step}");
                            }
                            _ => {}
                        }
                        if step % 500 == 499 {
                            held.clear();
                            memory.trim();
                        }
                    }
                });
            }
            drop(senders);
        });
        memory.trim();
        assert_eq!(memory.stats(), MemoryStats::default(), "seed {seed}");
    }
}
