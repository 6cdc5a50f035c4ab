//! Log lines about a frontend are written by its port's own thread: whoever reads the log can make a writer wait, and a
//! polling thread serves other ports.

use std::fmt::Write;
use std::sync::Mutex;
use std::thread;

mod common;

use common::{Bench, Guest};
use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_virtio::{Buffer, Features};
use tracing::field::{Field, Visit};

/// The lines, each with the name of its thread.
static LINES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Records all lines of the process.
struct Recorder;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl tracing::Subscriber for Recorder {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let name = thread::current().name().unwrap_or_default().to_owned();
        LINES.lock().expect("no panic").push((name, text.0));
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// The threads that have written a line that contains `what`.
fn writers(what: &str) -> Vec<String> {
    let lines = LINES.lock().expect("no panic");
    lines.iter().filter(|(_, line)| line.contains(what)).map(|(name, _)| name.clone()).collect()
}

fn poll(bench: &mut Bench) {
    let mut packets = Burst::new();
    bench.rx.rx_burst(&mut packets);
    bench.pool.get_bulk(&mut packets, 1).expect("a packet");
    bench.tx.tx_burst(&mut packets);
    packets.clear();
}

#[test]
fn faults_that_polling_threads_find_are_logged_by_the_ports_thread() {
    tracing::subscriber::set_global_default(Recorder).expect("the only one");
    let polling = "the-poller";
    let body = || {
        for features in [Features::empty(), Features::RING_PACKED] {
            // A descriptor that leads nowhere, in each direction.
            let mut bench = Bench::new("faulty");
            let mut guest = Guest::start(&bench.path, features);
            bench.wait_link(true);
            let nowhere = Buffer { addr: 0x10, len: 100, token: 0 };
            guest.tx.post(nowhere);
            guest.tx.publish();
            guest.rx.post(nowhere);
            guest.rx.publish();
            let before = writers("ring stopped").len();
            (0..3).for_each(|_| poll(&mut bench));
            assert_eq!(bench.backend.peer().counters()[3], ("ring_faults", 2), "{features}");
            wait_until("both are logged", || writers("ring stopped").len() == before + 2);
        }
        // Memory that the frontend takes away.
        let mut bench = Bench::new("shrunk");
        let guest = Guest::start(&bench.path, Features::empty());
        bench.wait_link(true);
        guest.frontend.file.set_len(0).expect("shorter");
        wait_until("it is found", || {
            poll(&mut bench);
            !writers("took memory away; ring stopped").is_empty()
        });
    };
    let poller = thread::Builder::new().name(polling.into()).spawn(body).expect("a thread");
    poller.join().expect("no panic");
    assert_eq!(
        writers("ring stopped").iter().filter(|name| *name != "faulty" && *name != "shrunk").count(),
        0
    );
    let lines = LINES.lock().expect("no panic");
    // Apart from those of the test's own pools.
    let mine: Vec<_> =
        lines.iter().filter(|(name, line)| name == polling && !line.contains("domain=")).collect();
    assert!(mine.is_empty(), "{mine:?}");
    let told = |line: &str| line.contains("address 0x10");
    assert!(lines.iter().any(|(_, line)| told(line)), "the reason is missing: {lines:?}");
}
