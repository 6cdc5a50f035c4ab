use super::*;

fn table(n: usize) -> Vec<AtomicU32> {
    (0..n).map(|_| AtomicU32::new(0)).collect()
}

#[cfg(not(loom))]
mod plain {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push(usize),
        Pop(usize),
    }

    /// The stack beside a `Vec`: every number is in the stack or in hand, never both.
    fn model(ops: &[Op]) {
        const N: usize = 40;
        let (links, stack) = (table(N), Stack::new());
        let (mut oracle, mut hand): (Vec<u32>, Vec<u32>) = (vec![], (0..N as u32).collect());
        for op in ops {
            match *op {
                Op::Push(n) => {
                    let chain = hand.split_off(hand.len() - n.min(hand.len()));
                    let [first, .., last] = chain[..] else { continue };
                    chain.windows(2).for_each(|pair| link(&links, pair[0], pair[1]));
                    stack.push_chain(&links, first, last);
                    oracle.extend(chain.iter().rev());
                }
                Op::Pop(n) => {
                    let want: Vec<u32> =
                        oracle.split_off(oracle.len() - n.min(oracle.len())).into_iter().rev().collect();
                    let mut got = vec![];
                    if let Some((first, count)) = stack.pop_chain(&links, n) {
                        got.push(first);
                        (1..count).for_each(|i| got.push(next(&links, got[i - 1])));
                    }
                    assert_eq!(got, want);
                    hand.extend(got);
                }
            }
            assert_eq!(stack.count(&links), oracle.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default()
        })]
        #[test]
        fn agrees_with_a_vec(ops in prop::collection::vec(
            prop_oneof![(2usize..9).prop_map(Op::Push), (0usize..12).prop_map(Op::Pop)], 0..60)) {
            model(&ops);
        }
    }

    #[test]
    fn threads_never_hold_the_same_number() {
        let n = if cfg!(miri) { 20 } else { 20_000 };
        let (links, stack) = (table(16), Stack::new());
        (0..16).for_each(|node| stack.push(&links, node));
        let owners: Vec<_> = (0..16).map(|_| std::sync::atomic::AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..n {
                        let Some(node) = stack.pop(&links) else { continue };
                        assert!(!owners[node as usize].swap(true, Ordering::Relaxed));
                        owners[node as usize].store(false, Ordering::Relaxed);
                        stack.push(&links, node);
                    }
                });
            }
        });
        let all: HashSet<u32> = std::iter::from_fn(|| stack.pop(&links)).collect();
        assert_eq!(all.len(), 16);
    }
}

#[cfg(loom)]
mod interleaved {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    struct Shared {
        stack: Stack,
        links: Vec<AtomicU32>,
        cells: Vec<UnsafeCell<u32>>,
    }

    fn shared(nodes: u32, pushed: u32) -> Arc<Shared> {
        let cells = (0..nodes).map(|_| UnsafeCell::new(0)).collect();
        let shared = Shared { stack: Stack::new(), links: table(nodes as usize), cells };
        (0..pushed).for_each(|node| shared.stack.push(&shared.links, node));
        Arc::new(shared)
    }

    /// Loom finds any two threads that touch the same cell without an order between them.
    fn touch(shared: &Shared, node: u32) {
        // SAFETY: the node was popped, so it is ours: that is what loom checks.
        shared.cells[node as usize].with_mut(|cell| unsafe { *cell += 1 });
    }

    #[test]
    fn a_popped_node_has_one_owner() {
        crate::sync::model(|| {
            let shared = shared(2, 2);
            let other = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    if let Some(node) = shared.stack.pop(&shared.links) {
                        touch(&shared, node);
                        shared.stack.push(&shared.links, node);
                    }
                })
            };
            if let Some((first, count)) = shared.stack.pop_chain(&shared.links, 2) {
                touch(&shared, first);
                if count == 2 {
                    let second = next(&shared.links, first);
                    touch(&shared, second);
                    link(&shared.links, second, first);
                    shared.stack.push_chain(&shared.links, second, first);
                } else {
                    shared.stack.push(&shared.links, first);
                }
            }
            other.join().unwrap();
            assert_eq!(shared.stack.count(&shared.links), 2);
        });
    }

    /// ABA: one thread stands in its pop with an old head while the other pops two and pushes the first one back.
    #[test]
    fn a_head_that_came_back_is_noticed() {
        crate::sync::model(|| {
            let shared = shared(3, 3);
            let other = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.stack.pop(&shared.links).inspect(|&node| touch(&shared, node)))
            };
            let first = shared.stack.pop(&shared.links);
            let second = shared.stack.pop(&shared.links);
            if let Some(first) = first {
                touch(&shared, first);
                shared.stack.push(&shared.links, first);
            }
            if let Some(second) = second {
                touch(&shared, second);
            }
            let third = other.join().unwrap();
            let out = second.iter().chain(&third).count();
            assert!(second != third || second.is_none());
            assert_eq!(shared.stack.count(&shared.links) + out, 3);
        });
    }

    #[test]
    fn what_was_written_before_a_push_is_read_after_the_pop() {
        crate::sync::model(|| {
            let shared = shared(2, 0);
            let other = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    touch(&shared, 0);
                    touch(&shared, 1);
                    link(&shared.links, 0, 1);
                    shared.stack.push_chain(&shared.links, 0, 1);
                })
            };
            if let Some(node) = shared.stack.pop(&shared.links) {
                // SAFETY: popped.
                assert_eq!(shared.cells[node as usize].with(|cell| unsafe { *cell }), 1);
                touch(&shared, node);
            }
            other.join().unwrap();
        });
    }
}
