//! Loom: every interleaving (up to three preemptions) of a few bursts. `Track` makes loom fail on a slot that
//! is read or written without an order between the threads.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p linecard-ring --release --lib concurrent`

use loom::model::Builder;
use loom::thread;

use crate::{Adaptive, Config, Consumer, Ends, Exclusive, Hts, Mode, Multi, MultiThread, Rts, Single};

fn explore(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_duration = Some(std::time::Duration::from_secs(50));
    builder.check(body);
}

/// Two slots, indices right before the wrap.
fn ring<P: Mode, C: Mode>() -> Ends<u64, P, C> {
    Config::power_of_two(2).start_index(u32::MAX).heap().expect("room")
}

fn drain<M: Mode>(consumer: &Consumer<u64, M>) -> Vec<u64> {
    std::iter::from_fn(|| consumer.dequeue()).collect()
}

fn one_each_way<P: Mode + 'static, C: Mode + 'static>() {
    explore(|| {
        let (producer, consumer) = ring::<P, C>();
        let feeder = thread::spawn(move || {
            let mut sent = Vec::new();
            for items in [&[1, 2][..], &[3], &[4, 5]] {
                let count = producer.enqueue_burst(items).count;
                sent.extend(&items[..count]);
            }
            sent
        });
        let mut got = Vec::new();
        for _ in 0..3 {
            let mut out = [0; 2];
            let count = consumer.dequeue_burst(&mut out).count;
            got.extend(&out[..count]);
        }
        let sent = feeder.join().expect("feeder");
        got.extend(drain(&consumer));
        assert_eq!(got, sent);
    });
}

#[test]
fn single_to_single() {
    one_each_way::<Single, Single>();
}

#[test]
fn multi_to_multi() {
    one_each_way::<Multi, Multi>();
}

#[test]
fn adaptive_to_adaptive() {
    one_each_way::<Adaptive, Adaptive>();
}

#[test]
fn rts_to_rts() {
    one_each_way::<Rts, Rts>();
}

#[test]
fn hts_to_hts() {
    one_each_way::<Hts, Hts>();
}

/// Two producers compete for room; one consumer takes meanwhile.
fn two_producers<P: MultiThread + 'static>() {
    explore(|| {
        let config = Config::exact(3).start_index(u32::MAX);
        let (producer, consumer) = config.heap::<u64, P, Single>().expect("room");
        let rival = producer.clone();
        let feeder = thread::spawn(move || {
            usize::from(rival.enqueue(10).is_ok()) + usize::from(rival.enqueue(11).is_ok())
        });
        let other = thread::spawn(move || producer.enqueue_burst(&[20]).count);
        let mut out = [0; 3];
        let count = consumer.dequeue_burst(&mut out).count;
        let mut got = out[..count].to_vec();
        let sent = (feeder.join().expect("feeder"), other.join().expect("other"));
        got.extend(drain(&consumer));
        let of = |tag: u64| got.iter().copied().filter(move |item| item / 10 == tag);
        assert!(of(1).eq([10, 11].into_iter().take(sent.0)), "{got:?} of {sent:?}");
        assert!(of(2).eq([20].into_iter().take(sent.1)), "{got:?} of {sent:?}");
        assert_eq!(got.len(), sent.0 + sent.1);
    });
}

#[test]
fn two_multi_producers() {
    two_producers::<Multi>();
}

#[test]
fn two_adaptive_producers() {
    two_producers::<Adaptive>();
}

#[test]
fn two_rts_producers() {
    two_producers::<Rts>();
}

#[test]
fn two_hts_producers() {
    two_producers::<Hts>();
}

/// Two producers, each of which claims once, and a consumer that sees what the later one published while it knows
/// nothing of the earlier one: nobody is joined before the slots are read. That the first one's copy is done then
/// is told by the second one alone (in `Multi`: W2 to W1), which publishes for both.
fn later_publishes_for_earlier<P: MultiThread + 'static>() {
    explore(|| {
        let config = Config::exact(2).start_index(u32::MAX);
        let (producer, consumer) = config.heap::<u64, P, Single>().expect("room");
        let rival = producer.clone();
        let first = thread::spawn(move || rival.enqueue(1).is_ok());
        let second = thread::spawn(move || producer.enqueue(2).is_ok());
        let mut out = [0; 2];
        // Without this loom never runs both to their end before the look below.
        thread::yield_now();
        let both = consumer.dequeue_bulk(&mut out).count == 2;
        assert!(first.join().expect("first") && second.join().expect("second"));
        let mut got = if both { out.to_vec() } else { drain(&consumer) };
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
    });
}

#[test]
fn a_later_multi_producer_publishes_for_an_earlier() {
    later_publishes_for_earlier::<Multi>();
}

#[test]
fn a_later_adaptive_producer_publishes_for_an_earlier() {
    later_publishes_for_earlier::<Adaptive>();
}

#[test]
fn a_later_rts_producer_publishes_for_an_earlier() {
    later_publishes_for_earlier::<Rts>();
}

#[test]
fn a_later_hts_producer_publishes_for_an_earlier() {
    later_publishes_for_earlier::<Hts>();
}

/// Two consumers share what is there, while the producer refills the slots that they free.
fn two_consumers<C: MultiThread + 'static>() {
    explore(|| {
        let (producer, consumer) = ring::<Single, C>();
        assert_eq!(producer.enqueue_bulk(&[1, 2]).count, 2);
        let (one, two) = (consumer.clone(), consumer.clone());
        let one = thread::spawn(move || one.dequeue());
        let two = thread::spawn(move || two.dequeue());
        let more = usize::from(producer.enqueue(3).is_ok());
        let mut got = vec![one.join().expect("one"), two.join().expect("two")];
        got.extend(drain(&consumer).into_iter().map(Some));
        let mut got: Vec<_> = got.into_iter().flatten().collect();
        got.sort_unstable();
        assert_eq!(got, &[1, 2, 3][..2 + more]);
    });
}

#[test]
fn two_multi_consumers() {
    two_consumers::<Multi>();
}

#[test]
fn two_adaptive_consumers() {
    two_consumers::<Adaptive>();
}

#[test]
fn two_rts_consumers() {
    two_consumers::<Rts>();
}

#[test]
fn two_hts_consumers() {
    two_consumers::<Hts>();
}

/// A view publishes a prefix, another is dropped; the peer sees only what was published.
fn views<P: Exclusive + 'static, C: Exclusive + 'static>() {
    explore(|| {
        let (mut producer, mut consumer) = ring::<P, C>();
        let feeder = thread::spawn(move || {
            let mut view = producer.reserve(2);
            view.write(1).expect("two free slots");
            view.publish();
            let mut view = producer.reserve(1);
            _ = view.write(99);
            drop(view);
            producer.enqueue(2).is_ok()
        });
        let mut got = Vec::new();
        for _ in 0..2 {
            let mut view = consumer.peek(2);
            got.extend(view.read());
            view.release();
        }
        assert!(feeder.join().expect("feeder"), "one of two slots was free");
        got.extend(drain(&consumer));
        assert_eq!(got, [1, 2]);
    });
}

#[test]
fn single_views() {
    views::<Single, Single>();
}

#[test]
fn hts_views() {
    views::<Hts, Hts>();
}
