//! The reference model: a ring behaves like a bounded `VecDeque`. The same model runs as unit test, property
//! test, fuzz target and under miri.

use std::collections::VecDeque;

use crate::{Adaptive, Config, Consumer, Error, Exclusive, Hts, Mode, Moved, Multi, Producer, Rts, Single};

/// One operation. Counts are reduced modulo slightly more than the capacity, so that any byte is useful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `enqueue`.
    Enqueue,
    /// `dequeue`.
    Dequeue,
    /// `enqueue_bulk` of this many elements.
    EnqueueBulk(u8),
    /// `enqueue_burst` of this many elements.
    EnqueueBurst(u8),
    /// `dequeue_bulk` of this many elements.
    DequeueBulk(u8),
    /// `dequeue_burst` of this many elements.
    DequeueBurst(u8),
    /// `reserve` the first number, write the second; publish or drop.
    Reserve(u8, u8, bool),
    /// `peek` at the first number, read the second; release or drop.
    Peek(u8, u8, bool),
}

impl Op {
    /// The operation that three bytes encode.
    ///
    /// ```
    /// use linecard_ring::model::Op;
    /// assert_eq!(Op::from_bytes([2, 7, 0]), Op::EnqueueBulk(7));
    /// ```
    #[must_use]
    pub const fn from_bytes([kind, n, k]: [u8; 3]) -> Self {
        match kind % 8 {
            0 => Self::Enqueue,
            1 => Self::Dequeue,
            2 => Self::EnqueueBulk(n),
            3 => Self::EnqueueBurst(n),
            4 => Self::DequeueBulk(n),
            5 => Self::DequeueBurst(n),
            6 => Self::Reserve(n, k, kind & 8 == 0),
            _ => Self::Peek(n, k, kind & 8 == 0),
        }
    }
}

/// Runs `ops` on a ring of `capacity + 1` (1 to 256) elements whose indices begin at `start`, in several
/// pairings of modes. Panics if it differs from a deque.
///
/// # Errors
/// Memory is short.
///
/// ```
/// use linecard_ring::model::{Op, run};
/// run(5, u32::MAX - 2, &[Op::EnqueueBurst(9), Op::Peek(3, 1, true), Op::DequeueBulk(4)])?;
/// # Ok::<(), linecard_ring::Error>(())
/// ```
pub fn run(capacity: u8, start: u32, ops: &[Op]) -> Result<(), Error> {
    let config = Config::exact(usize::from(capacity) + 1).start_index(start);
    both_views(config.heap::<u64, Single, Single>()?, ops);
    both_views(config.heap::<u64, Hts, Hts>()?, ops);
    both_views(config.heap::<u64, Single, Hts>()?, ops);
    no_views(config.heap::<u64, Multi, Multi>()?, ops);
    no_views(config.heap::<u64, Rts, Rts>()?, ops);
    no_views(config.heap::<u64, Adaptive, Adaptive>()?, ops);
    no_views(config.heap::<u64, Multi, Rts>()?, ops);
    no_views(config.heap::<u64, Rts, Hts>()?, ops);
    no_views(config.heap::<u64, Hts, Multi>()?, ops);
    no_views(config.heap::<u64, Single, Multi>()?, ops);
    no_views(config.heap::<u64, Rts, Single>()?, ops);
    Ok(())
}

/// The ring under test and the deque that it must equal.
struct Pair<P: Mode, C: Mode> {
    producer: Producer<u64, P>,
    consumer: Consumer<u64, C>,
    deque: VecDeque<u64>,
    next: u64,
}

fn both_views<P: Exclusive, C: Exclusive>(ends: (Producer<u64, P>, Consumer<u64, C>), ops: &[Op]) {
    let mut pair = Pair::new(ends);
    for &op in ops {
        match op {
            Op::Reserve(count, written, publish) => pair.reserve(count, written, publish),
            Op::Peek(count, read, release) => pair.peek(count, read, release),
            op => pair.step(op),
        }
        pair.compare();
    }
}

fn no_views<P: Mode, C: Mode>(ends: (Producer<u64, P>, Consumer<u64, C>), ops: &[Op]) {
    let mut pair = Pair::new(ends);
    for &op in ops {
        pair.step(op);
        pair.compare();
    }
}

impl<P: Mode, C: Mode> Pair<P, C> {
    fn new((producer, consumer): (Producer<u64, P>, Consumer<u64, C>)) -> Self {
        Self { producer, consumer, deque: VecDeque::new(), next: 0 }
    }

    fn free(&self) -> usize {
        self.producer.capacity() - self.deque.len()
    }

    /// A number from 0 to slightly more than the capacity.
    fn size(&self, count: u8) -> usize {
        usize::from(count) % (self.producer.capacity() + 3)
    }

    fn fresh(&mut self, count: usize) -> Vec<u64> {
        let first = self.next;
        self.next += count as u64;
        (first..self.next).collect()
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Enqueue => {
                let item = self.fresh(1)[0];
                let fits = self.free() > 0;
                assert_eq!(self.producer.enqueue(item), if fits { Ok(()) } else { Err(item) });
                if fits {
                    self.deque.push_back(item);
                }
            }
            Op::Dequeue => assert_eq!(self.consumer.dequeue(), self.deque.pop_front()),
            Op::EnqueueBulk(count) => self.enqueue(count, true),
            Op::EnqueueBurst(count) => self.enqueue(count, false),
            Op::DequeueBulk(count) => self.dequeue(count, true),
            Op::DequeueBurst(count) => self.dequeue(count, false),
            Op::Reserve(..) | Op::Peek(..) => (),
        }
    }

    fn enqueue(&mut self, count: u8, bulk: bool) {
        let items = self.fresh(self.size(count));
        let free = self.free();
        let moved =
            if bulk { self.producer.enqueue_bulk(&items) } else { self.producer.enqueue_burst(&items) };
        check(moved, items.len(), free, bulk);
        self.deque.extend(&items[..moved.count]);
    }

    fn dequeue(&mut self, count: u8, bulk: bool) {
        let mut out = vec![u64::MAX; self.size(count)];
        let moved =
            if bulk { self.consumer.dequeue_bulk(&mut out) } else { self.consumer.dequeue_burst(&mut out) };
        check(moved, out.len(), self.deque.len(), bulk);
        let want: Vec<_> = self.deque.drain(..moved.count).collect();
        assert_eq!(out[..moved.count], want);
        assert!(out[moved.count..].iter().all(|&item| item == u64::MAX), "wrote past what it moved");
    }

    fn compare(&self) {
        assert_eq!(self.producer.count(), self.deque.len());
        assert_eq!(self.consumer.count(), self.deque.len());
        assert_eq!(self.producer.free_count(), self.free());
        assert_eq!(self.consumer.free_count(), self.free());
    }
}

impl<P: Exclusive, C: Exclusive> Pair<P, C> {
    fn reserve(&mut self, count: u8, written: u8, publish: bool) {
        let count = self.size(count);
        let items = self.fresh(usize::from(written) % (count + 2));
        let free = self.free();
        let mut view = self.producer.reserve(count);
        assert_eq!(view.len(), count.min(free));
        let (first, rest) = items.split_at(items.len() / 2);
        let done =
            first.iter().take_while(|&&item| view.write(item).is_ok()).count() + view.write_slice(rest);
        assert_eq!(done, items.len().min(view.len()));
        assert_eq!(view.room(), view.len() - done);
        if publish {
            assert_eq!(view.publish(), done);
            self.deque.extend(&items[..done]);
        }
    }

    fn peek(&mut self, count: u8, read: u8, release: bool) {
        let count = self.size(count);
        let read = usize::from(read) % (count + 2);
        let mut view = self.consumer.peek(count);
        assert_eq!(view.len(), count.min(self.deque.len()));
        assert_eq!(view.get(view.len()), None);
        let read = read.min(view.len());
        for want in self.deque.iter().take(read) {
            assert_eq!(view.get(0).as_ref(), Some(want));
            assert_eq!(view.read().as_ref(), Some(want));
        }
        if release {
            assert_eq!(view.release(), read);
            self.deque.drain(..read);
        }
    }
}

/// Checks that a burst without concurrent access moved all it could, and that it did not overstate the rest.
fn check(moved: Moved, asked: usize, possible: usize, bulk: bool) {
    let want = if asked <= possible {
        asked
    } else if bulk {
        0
    } else {
        possible
    };
    assert_eq!(moved.count, want, "asked {asked}, possible {possible}, bulk {bulk}");
    assert!(moved.left <= possible - want, "{moved:?} of {possible}");
}
