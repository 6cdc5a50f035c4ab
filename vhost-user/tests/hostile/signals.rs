//! Frontends whose call eventfds are watched by so many that a signal takes milliseconds: whoever signals wakes all of them.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use linecard_lab::{Watchers, processor_time, wait_until};
use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{Payload, VringFd};

use crate::bystander::{Neighbours, alone, thread_called};
use crate::common::{Guest, eventfd, socket_path, take_count};
use crate::traffic::Traffic;

/// Signals of each test.
const SIGNALS: usize = 100;

/// Most that so many signals may cost a thread of ours, where one takes `took`: half of what they would cost if it sent them
/// all. On a quiet machine it pays for one or two of them, on a busy one up to twenty have been seen.
fn most(took: Duration) -> Duration {
    took * SIGNALS as u32 / 2
}

/// Processor time of `thread`, of this process.
fn time_of(thread: libc::pid_t) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).expect("it runs");
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

/// The thread that polls the port, and another with packets, pays for a few signals at most, and for none that takes long: no
/// round of the other port takes as long as half a signal. It is the thread's processor time that is measured, so nothing of
/// what the machine does besides is in it. All packets of the other pass.
#[test]
fn calls_that_take_long_cost_the_polling_thread_a_few() {
    const TEST: &str = "calls_that_take_long_cost_the_polling_thread_a_few";
    let _alone = alone();
    for features in [Features::empty(), Features::RING_PACKED] {
        let control = Control::new();
        let path = socket_path("calls");
        let port = Backend::new(&control, BackendConfig::new("calls", &path, Mode::Listen)).expect("a port");
        let mut traffic = Traffic::new(&control);
        traffic.poll_too(&port);
        let mut guest = Guest::start(&path, features);
        guest.rx.interrupts(true);
        let call = &guest.frontend.calls[0];
        let Some((watchers, took)) = Watchers::slowing(TEST, call) else { return };
        take_count(call);
        let mut pass = |guest: &mut Guest| {
            let began = processor_time();
            traffic.pass();
            let spent = processor_time() - began;
            assert_eq!(guest.received().len(), 1, "a packet for the slow one too");
            spent
        };
        guest.post_receive(0, 2 * SIGNALS, 2048);
        let rounds: Vec<_> = (0..SIGNALS).map(|_| pass(&mut guest)).collect();
        let (slow, longest) = (rounds.iter().sum::<Duration>(), rounds.iter().max().copied().expect("some"));
        // Its driver is told all the same, if late.
        wait_until("a call", || take_count(&guest.frontend.calls[0]) > 0);
        drop(watchers);
        let ordinary: Duration = (0..SIGNALS).map(|_| pass(&mut guest)).sum();
        println!(
            "{features}: a signal takes {took:?}, {SIGNALS} rounds {slow:?}, the longest {longest:?}, and all {ordinary:?} without it"
        );
        assert!(longest < took / 2, "a round took {longest:?}, one signal {took:?}");
        assert!(slow < ordinary + most(took), "{SIGNALS} rounds took {slow:?}, one signal {took:?}");
    }
}

/// A ring that runs is called at once by whatever eventfd it is given: the port's thread pays for a few. Nobody else
/// notices anything.
#[test]
fn calls_that_take_long_cost_the_control_thread_a_few() {
    const TEST: &str = "calls_that_take_long_cost_the_control_thread_a_few";
    let mut ports = Neighbours::new("given");
    let mut guest = Guest::start(&ports.bad, Features::empty());
    let event = eventfd();
    let Some((watchers, took)) = Watchers::slowing(TEST, &event) else { return };
    take_count(&event);
    let thread = thread_called("bad");
    let ring = VringFd { index: 0, has_fd: true }.to_bytes();
    let mut give = |event: &OwnedFd| {
        let before = time_of(thread);
        for _ in 0..SIGNALS {
            guest.frontend.good(Req::SET_VRING_CALL, &ring, &[event.as_fd()]);
        }
        time_of(thread) - before
    };
    let mut slow = None;
    ports.assert_unnoticed(|| {
        // The budget lasts for the first.
        let spent = give(&event);
        slow.get_or_insert(spent);
    });
    let slow = slow.expect("it was tried");
    wait_until("a call", || take_count(&event) > 0);
    drop(watchers);
    let ordinary = give(&event);
    println!("a signal takes {took:?}, {SIGNALS} requests {slow:?}, and {ordinary:?} without it");
    assert!(slow < ordinary + most(took), "{SIGNALS} requests took {slow:?}, one signal {took:?}");
}
