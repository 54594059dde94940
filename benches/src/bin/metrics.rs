//! What measuring costs: a read of a hot key with measurements off and on, and the measurement alone.
//!
//! All in one run, the rows in turns, medians of many rounds: `cargo run --release -p benches --bin metrics`.

use std::{hint::black_box, sync::Arc, time::Instant};

use pagecache::{
    io::{Clock, SystemClock},
    metrics::{Metrics, Work},
};
use tree::{Config, Db};

const KEYS: u64 = 1000;
const CALLS: u64 = 100_000;
const ROUNDS: usize = 31;

fn store(timing: bool) -> tree::Result<Db> {
    let db = Config::new().temporary(true).timing(timing).open()?;
    for number in 0..KEYS {
        db.insert(number.to_be_bytes(), vec![7; 100])?;
    }
    Ok(db)
}

/// Nanoseconds a call.
fn timed(mut call: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    (0..CALLS).for_each(&mut call);
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> tree::Result<()> {
    let (off, on) = (store(false)?, store(true)?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (none, some) = (Metrics::<Work>::off(), Metrics::<Work>::on(clock));
    let get = |db: &Db, call: u64| {
        let key = (call.wrapping_mul(0x9e37_79b9) % KEYS).to_be_bytes();
        let found = db.get_with(key, |value| value.map(<[u8]>::len));
        assert!(matches!(found, Ok(Some(100))), "{found:?}");
    };
    let mut rows: [(&str, Vec<f64>); 4] = [
        ("get, off", Vec::new()),
        ("get, on", Vec::new()),
        ("measurement, off", Vec::new()),
        ("measurement, on", Vec::new()),
    ];
    for _ in 0..ROUNDS {
        rows[0].1.push(timed(|call| get(&off, call)));
        rows[1].1.push(timed(|call| get(&on, call)));
        rows[2].1.push(timed(|_| drop(black_box(&none).time(Work::Get))));
        rows[3].1.push(timed(|_| drop(black_box(&some).time(Work::Get))));
    }
    let medians = rows.map(|(name, times)| (name, median(times)));
    for (name, ns) in medians {
        println!("{name:<20} {ns:>8.1} ns");
    }
    println!("off costs {:.2} % of a get", 100.0 * medians[2].1 / medians[0].1);
    print!("{}", on.profile());
    Ok(())
}
