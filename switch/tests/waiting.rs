//! A port whose device makes whoever opens or closes it wait: nobody else does.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use linecard_eal::{Eal, EalArgs};
use linecard_mempool::{Pool, PoolConfig};
use linecard_net_ring::RingDriver;
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::StartError;
use linecard_pmd::{
    Device, DeviceInfo, Driver, Error, Port, PortConfig, ProbeContext, Registry, Running, RxQueue, TxQueue,
};
use linecard_switch::api::{PortKind, PortSpec, PortState};
use linecard_switch::{Switch, SwitchConfig};

const PATIENCE: Duration = Duration::from_secs(60);

/// Where the device holds whoever calls it, until it is told to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nowhere,
    Opening,
    Closing,
}

struct Gate {
    /// Where to hold, and whether somebody is held there.
    state: Mutex<(Held, bool)>,
    changed: Condvar,
}

static GATE: Gate = Gate { state: Mutex::new((Held::Nowhere, false)), changed: Condvar::new() };

impl Gate {
    fn state(&self) -> MutexGuard<'_, (Held, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Held) {
        *self.state() = (at, false);
        self.changed.notify_all();
    }

    /// Waits, if callers are to be held here.
    fn pass(&self, at: Held) {
        let mut state = self.state();
        while state.0 == at {
            state.1 = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_until_somebody_is_held(&self) {
        let held = self.changed.wait_timeout_while(self.state(), PATIENCE, |state| !state.1);
        assert!(!held.unwrap_or_else(PoisonError::into_inner).1.timed_out(), "nobody is held");
    }
}

/// A ring whose opening and closing take as long as [`GATE`] says.
struct SlowDriver;

impl Driver for SlowDriver {
    fn name(&self) -> &'static str {
        "net_slow"
    }
    fn summary(&self) -> &'static str {
        "a ring that takes its time"
    }
    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        GATE.pass(Held::Opening);
        Ok(Box::new(Slow(RingDriver.probe(context, args)?)))
    }
}

struct Slow<T: ?Sized>(Box<T>);

impl Device for Slow<dyn Device> {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn info(&self) -> DeviceInfo {
        self.0.info()
    }
    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let port = self.0.start(config, pool)?;
        Ok(Port { running: Box::new(Slow(port.running)), ..port })
    }
}

impl Running for Slow<dyn Running> {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        GATE.pass(Held::Closing);
        self.0.stop(rx, tx)
    }
}

fn switch(eal: &Eal) -> Switch {
    let domain = eal.default_domain();
    let pool = Pool::new(&domain, PoolConfig::default().packets(2048)).expect("a pool");
    let context = ProbeContext::new(eal.memory().clone(), domain, PATIENCE);
    let drivers = Registry::new(&[&RingDriver, &SlowDriver]);
    Switch::start(SwitchConfig::new(drivers, context, pool, vec![eal.lcores().main().clone()]))
        .expect("a switch")
}

fn spec(key: &str, device: &str) -> PortSpec {
    PortSpec::new(key, PortKind::Vdev { device: device.into() })
}

/// What others ask of the switch while `slow` is held: all of it is answered, or this never returns.
fn others_are_served(switch: &Switch) {
    assert!(switch.add(&spec("other", "net_ring7"), None).expect("a port").created);
    assert_eq!(switch.show("other").expect("it is there").state, PortState::Up);
    assert_eq!(switch.show("slow").expect("its name is taken").state, PortState::Waiting);
    switch.look_after();
    assert_eq!(switch.stats().ports.len(), 2);
    assert!(switch.workers().iter().all(|worker| worker.queues.iter().all(|queue| queue.port == "other")));
    assert!(switch.remove("other").expect("it goes"));
}

#[test]
fn only_who_opens_or_closes_a_slow_port_waits_for_it() {
    let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0).expect("a machine");
    let switch = switch(&eal);
    let slow = spec("slow", "net_slow0");

    GATE.set(Held::Opening);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| switch.add(&slow, None));
        GATE.wait_until_somebody_is_held();
        others_are_served(&switch);
        // Who wants the same port waits for the first, and finds its port.
        let second = scope.spawn(|| switch.add(&slow, None));
        assert!(!first.is_finished() && !second.is_finished());
        GATE.set(Held::Nowhere);
        assert!(first.join().expect("no panic").expect("a port").created);
        assert!(!second.join().expect("no panic").expect("a port").created);
    });
    assert_eq!(switch.show("slow").expect("it is there").state, PortState::Up);

    GATE.set(Held::Closing);
    std::thread::scope(|scope| {
        let remove = scope.spawn(|| switch.remove("slow"));
        GATE.wait_until_somebody_is_held();
        others_are_served(&switch);
        assert!(!remove.is_finished());
        GATE.set(Held::Nowhere);
        assert!(remove.join().expect("no panic").expect("it goes"));
    });
    assert!(switch.show("slow").is_err());

    // One that cannot be opened leaves neither a name nor a number.
    let (other, bad) = (spec("other", "net_ring8"), spec("slow", "net_slow0,nonsense=1"));
    switch.add(&bad, None).expect_err("there is no such argument");
    let id = switch.add(&other, None).expect("a port").port.id;
    assert_eq!((id, switch.list().len()), (0, 1));
}
