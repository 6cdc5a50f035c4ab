//! VIRTIO_F_RING_EVENT_IDX: how often the frontend wakes its backend, and how often it has itself woken.

mod support;

use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::{Armed, Port};
use linecard_virtio::Features;
use support::echo::Echo;
use support::{Bench, Place, attached};

/// More than a lap of a split ring's index.
const LAP_AND_MORE: usize = 66_000;
const FRAME: [u8; 60] = [7; 60];

/// What each kind of ring is asked for by.
const RINGS: [&str; 4] =
    ["packed_vq=0,in_order=0", "packed_vq=0,in_order=1", "packed_vq=1,in_order=0", "packed_vq=1,in_order=1"];

struct Field {
    bench: Bench,
    port: Port,
    echo: Box<dyn Echo>,
    features: Features,
    _backend: support::Backend,
    _place: Place,
}

impl Field {
    fn new(options: &str) -> Self {
        let (bench, place) = (Bench::new(1024), Place::new());
        let (port, backend, _) = attached(&bench, &place, &format!(",{options}"));
        let echo = backend.echo(0);
        Self { bench, port, echo, features: backend.features, _backend: backend, _place: place }
    }

    /// Times that the backend was woken for transmit queue 0.
    fn kicks(&self) -> u64 {
        let xstats = self.port.control.xstats();
        let counted = xstats.iter().find(|(name, _)| name == "tx_q0_notifications");
        counted.map(|(_, count)| *count).expect("it is counted")
    }

    /// The backend takes all that was sent.
    fn take_all(&mut self) {
        while self.echo.take().is_some() {}
    }

    fn receive(&mut self) -> usize {
        let mut burst = Burst::new();
        self.port.rx[0].rx_burst(&mut burst)
    }

    fn end(self) {
        drop(self.port.stop());
        self.bench.assert_whole();
    }
}

#[test]
fn it_is_agreed_where_it_is_offered_and_not_declined() {
    for (options, want) in [("queues=1", true), ("event_idx=1", true), ("event_idx=0", false)] {
        let field = Field::new(options);
        assert_eq!(field.features.contains(Features::EVENT_IDX), want, "{options}");
        assert_eq!(field.port.control.features().contains("EVENT_IDX"), want, "{options}");
        field.end();
    }
}

/// A backend that sleeps is woken by the first packet after its last, and not again before it has asked again.
#[test]
fn a_sleeping_backend_is_woken_once() {
    for (rings, event_idx) in RINGS.into_iter().flat_map(|rings| [(rings, true), (rings, false)]) {
        let name = format!("{rings},event_idx={}", u8::from(event_idx));
        let mut field = Field::new(&name);
        // Across a lap, so that what is remembered of the last question matters.
        for round in 0..2 {
            field.take_all();
            field.port.tx[0].reclaim();
            assert!(!field.echo.sleep(), "{name}: everything was taken");
            let before = field.kicks();
            for _ in 0..8 {
                field.bench.send(&mut field.port, 4);
                // Whoever comes next asks what is owed: nothing.
                assert_eq!(field.receive(), 0);
            }
            let woken = field.kicks() - before;
            assert_eq!(woken, if event_idx { 1 } else { 8 }, "{name}: round {round}");
            for _ in 0..LAP_AND_MORE / 32 * usize::from(round == 0) {
                field.take_all();
                field.bench.send(&mut field.port, 32);
            }
        }
        field.take_all();
        field.end();
    }
}

/// Calls are wanted when the queue is armed, one for each time, and otherwise at most once in a lap of the index.
#[test]
fn only_a_queue_that_is_armed_is_called() {
    for (rings, event_idx) in RINGS.into_iter().flat_map(|rings| [(rings, true), (rings, false)]) {
        let name = format!("{rings},event_idx={}", u8::from(event_idx));
        let mut field = Field::new(&name);
        let (mut came, mut calls) = (0, 0);
        while came < LAP_AND_MORE {
            assert!(field.echo.give(&FRAME), "{name}");
            calls += usize::from(field.echo.call_needed());
            came += field.receive();
        }
        assert!(calls <= usize::from(event_idx) * 2, "{name}: {calls} calls of a queue that is polled");
        assert_eq!(field.port.rx[0].arm(), Armed::Asleep, "{name}");
        assert!(field.echo.give(&FRAME) && field.echo.call_needed(), "{name}: it sleeps");
        assert!(field.echo.give(&FRAME));
        assert_eq!(field.echo.call_needed(), !event_idx, "{name}: it is on its way");
        assert_eq!(field.port.rx[0].arm(), Armed::Ready, "{name}: two are there");
        field.port.rx[0].disarm();
        wait_until("both came", || {
            came += field.receive();
            came == LAP_AND_MORE + 2
        });
        assert!(field.echo.give(&FRAME) && !field.echo.call_needed(), "{name}: nobody sleeps");
        field.end();
    }
}
