//! Every order in which the steps of a few threads can come, on the real object: for protocols whose steps
//! are whole in themselves, taken under a lock or by one access to one word.
//!
//! What the memory does between two accesses is loom's business; here it is what the threads do.

/// One step of a thread.
pub(crate) type Step<S> = fn(&mut S);

/// Runs each order of the threads' steps on a state of its own and looks at what it leaves. Returns how
/// many there are.
pub(crate) fn each_order<S>(make: impl Fn() -> S, threads: &[&[Step<S>]], end: impl Fn(&mut S)) -> usize {
    let mut taken = vec![0; threads.len()];
    let mut order = Vec::new();
    let mut count = 0;
    visit(threads, &mut taken, &mut order, &mut |order| {
        let mut state = make();
        order.iter().for_each(|step| step(&mut state));
        end(&mut state);
        count += 1;
    });
    count
}

fn visit<S>(
    threads: &[&[Step<S>]],
    taken: &mut [usize],
    order: &mut Vec<Step<S>>,
    run: &mut impl FnMut(&[Step<S>]),
) {
    let mut is_end = true;
    for thread in 0..threads.len() {
        let Some(step) = threads[thread].get(taken[thread]) else { continue };
        is_end = false;
        taken[thread] += 1;
        order.push(*step);
        visit(threads, taken, order, run);
        order.pop();
        taken[thread] -= 1;
    }
    if is_end {
        run(order);
    }
}

/// True if some order breaks what the steps or the end assert.
pub(crate) fn some_order_fails<S>(
    make: impl Fn() -> S,
    threads: &[&[Step<S>]],
    end: impl Fn(&mut S),
) -> bool {
    let run = std::panic::AssertUnwindSafe(|| each_order(make, threads, end));
    std::panic::catch_unwind(run).is_err()
}

#[cfg(test)]
mod tests {
    use super::{each_order, some_order_fails};

    #[test]
    fn every_order_is_tried_once() {
        let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let count = each_order(
            String::new,
            &[&[|s| s.push('a'), |s| s.push('b')], &[|s| s.push('1'), |s| s.push('2')]],
            |s| assert!(seen.borrow_mut().insert(s.clone())),
        );
        assert_eq!((count, seen.borrow().len()), (6, 6));
        assert!(some_order_fails(String::new, &[&[|s| s.push('a')], &[|s| s.push('b')]], |s| assert_eq!(
            s,
            "ab"
        )));
    }
}
