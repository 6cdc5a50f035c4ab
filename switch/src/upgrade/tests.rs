//! Ports of which one step fails: they are opened anew, and all others go along.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linecard_eal::{Eal, EalArgs};
use linecard_mempool::{Pool, PoolConfig};
use linecard_net_ring::RingDriver;
use linecard_pmd::args::DevArgs;
use linecard_pmd::handover::{HandOver, HandedOver, Keep, Pending};
use linecard_pmd::{
    Device, DeviceInfo, Driver, Error, Port, PortConfig, ProbeContext, Registry, Running, RxQueue,
    StartError, TxQueue,
};

use super::*;
use crate::api::{PortKind, PortSpec, PortState};
use crate::keep::KeptPort;
use crate::{Switch, SwitchConfig};

/// Rings whose hand-over fails at `step=`.
struct Faulty;

impl Driver for Faulty {
    fn name(&self) -> &'static str {
        "net_faulty"
    }

    fn summary(&self) -> &'static str {
        "a step of its hand-over fails: step=NAME"
    }

    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(700);
        let ring = format!("net_ring{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let ring = RingDriver.probe(context, &DevArgs::parse(&ring)?)?;
        Ok(Box::new(FaultyDevice { ring, fails: args.required("step")?.into() }))
    }

    fn succeed(
        &self,
        context: &ProbeContext,
        args: &DevArgs,
        _: HandedOver,
    ) -> Result<Box<dyn Device>, Error> {
        if args.required("step")? == "succeed" {
            return Err(failure());
        }
        self.probe(context, args)
    }
}

fn failure() -> Error {
    let (port, what) = ("net_faulty".into(), "this step".into());
    Error::Unsupported { port, what, remedy: "do without".into() }
}

struct FaultyDevice {
    ring: Box<dyn Device>,
    fails: String,
}

impl Device for FaultyDevice {
    fn name(&self) -> &str {
        self.ring.name()
    }

    fn info(&self) -> DeviceInfo {
        self.ring.info()
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let Self { ring, fails } = *self;
        let Port { rx, tx, control, running } = ring.start(config, pool)?;
        Ok(Port { rx, tx, control, running: Box::new(FaultyPort { running, fails }) })
    }
}

struct FaultyPort {
    running: Box<dyn Running>,
    fails: String,
}

impl Running for FaultyPort {
    fn hand_over(&self) -> Option<&dyn HandOver> {
        Some(self)
    }

    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        self.running.stop(rx, tx)
    }
}

impl FaultyPort {
    fn step<T: 'static>(&self, name: &str, good: T) -> Pending<'_, T> {
        let outcome = if self.fails == name { Err(failure()) } else { Ok(good) };
        Box::new(|| outcome)
    }
}

impl HandOver for FaultyPort {
    fn hold(&self) -> Pending<'_, HandedOver> {
        self.step("hold", HandedOver::default())
    }

    fn freeze(&self) -> Pending<'_, Vec<u8>> {
        self.step("freeze", vec![1])
    }

    fn prepared(&self) -> Pending<'_, ()> {
        self.step("prepared", ())
    }

    fn begin(&self, state: &[u8]) -> Pending<'_, ()> {
        // As every driver refuses a state that is none.
        if state.is_empty() { Box::new(|| Err(failure())) } else { self.step("begin", ()) }
    }

    fn resume(&self) -> Pending<'_, ()> {
        self.step("resume", ())
    }

    fn release(&self) {}

    fn keep_in(&self, _: Arc<dyn Keep>) -> Pending<'_, ()> {
        self.step("keep_in", ())
    }

    fn recover(&self) -> Pending<'_, ()> {
        self.step("recover", ())
    }
}

static FAULTY: Faulty = Faulty;

/// A switch with one worker, and what it lives on.
struct Bed {
    switch: Switch,
    _eal: Eal,
}

impl Bed {
    fn new() -> Self {
        let args = EalArgs::parse(["--no-huge", "-m", "256"]).expect("arguments").0;
        let eal = Eal::new(&args).expect("a machine");
        let domain = eal.default_domain();
        let pool = Pool::new(&domain, PoolConfig::default().packets(1024)).expect("a pool");
        let context = ProbeContext::new(eal.memory().clone(), domain, Duration::from_secs(1));
        let (drivers, lcores) = (Registry::new(&[&FAULTY]), vec![eal.lcores().main().clone()]);
        let switch = Switch::start(SwitchConfig::new(drivers, context, pool, lcores));
        Self { switch: switch.expect("a switch"), _eal: eal }
    }
}

fn spec(step: &str) -> PortSpec {
    PortSpec::new(step, PortKind::Vdev { device: format!("net_faulty0,step={step}") })
}

#[test]
fn a_port_of_which_a_step_fails_does_not_end_an_upgrade() {
    const STEPS: [&str; 7] = ["none", "hold", "freeze", "succeed", "prepared", "begin", "resume"];
    let [old, new] = [Bed::new(), Bed::new()];
    for step in STEPS {
        old.switch.add(&spec(step), None).expect("it is added");
    }
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let kept = BTreeSet::new();
    let (taken, rest) = std::thread::scope(|scope| {
        let leaving = scope.spawn(|| {
            let extra = Extra { version: "1", kept: &kept, control: None };
            leave(&old.switch, &Channel::new(theirs), &extra, || ())
        });
        let mut successor = Successor::over(Channel::new(ours)).expect("it is asked");
        successor.prepare(&new.switch, |ports| {
            assert_eq!(ports.len(), STEPS.len());
            Ok(())
        })?;
        successor.begin(&new.switch)?;
        let taken = successor.commit(&new.switch)?;
        leaving.join().expect("no panic")?;
        let waiting = new.switch.list().into_iter().filter(|port| port.state == PortState::Waiting);
        let waiting: BTreeSet<_> = waiting.map(|port| port.spec.key).collect();
        successor.finish(&new.switch);
        Ok::<_, UpgradeError>((taken, waiting))
    })
    .expect("the upgrade goes on");
    assert_eq!((taken.ports, taken.rest), (1, 6));
    assert_eq!(rest, STEPS[1..].iter().map(|step| (*step).to_owned()).collect());
    let ports = new.switch.list();
    assert_eq!(ports.len(), STEPS.len());
    assert!(ports.iter().all(|port| port.state == PortState::Up), "{ports:?}");
    assert!(old.switch.list().is_empty());
}

#[test]
fn a_port_of_which_a_step_fails_does_not_end_a_recovery() {
    const STEPS: [&str; 4] = ["none", "succeed", "recover", "resume"];
    let bed = Bed::new();
    let kept = STEPS.iter().enumerate().map(|(id, step)| {
        let spec = serde_json::to_value(spec(step)).expect("a value");
        let (id, workers) = (u16::try_from(id).expect("few"), vec![0]);
        let record = PortRecord { id, spec, kept: false, open: true, handed: true, workers };
        KeptPort { record, handed: HandedOver::default() }
    });
    let recovered = bed.switch.recover(kept.collect(), None).expect("workers answer");
    let good: Vec<_> = recovered.iter().map(|(key, outcome)| (key.as_str(), outcome.is_ok())).collect();
    assert_eq!(good, [("none", true), ("succeed", false), ("recover", false), ("resume", false)]);
    assert_eq!(bed.switch.keys(), BTreeSet::from(["none".into()]));
    // They can be opened anew at once.
    for step in &STEPS[1..] {
        assert_eq!(bed.switch.restore(&spec(step)).expect("it is opened"), PortState::Up);
    }
}
