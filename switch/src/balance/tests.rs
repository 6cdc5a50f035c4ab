//! Queues that go from worker to worker, also while one of the two is stuck.

use std::sync::Condvar;
use std::thread::ThreadId;

use linecard_eal::{Eal, EalArgs, Lcore, LcoreId};
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_net_ring::RingDriver;
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::StartError;
use linecard_pmd::{Device, DeviceInfo, Driver, Error, Port, PortConfig, ProbeContext, Registry, RxQueue};
use linecard_testing::{wait_for, wait_until};

use super::*;
use crate::SwitchConfig;
use crate::api::PortKind;

/// What the queues of a test's devices do, and who polls them.
#[derive(Default)]
struct Scene {
    /// The worker that polls a queue of `net_stuck` is to stay there; and whether one does.
    stuck: Mutex<(bool, bool)>,
    changed: Condvar,
    /// Who polled which device last, and how often that was.
    polled: Mutex<BTreeMap<String, (Option<ThreadId>, u64)>>,
}

impl Scene {
    fn hold(&self, on: bool) {
        self.stuck.lock().expect("whole").0 = on;
        self.changed.notify_all();
    }

    /// Who polls a device from here on.
    fn poller(&self, device: &str) -> ThreadId {
        let seen = || self.polled.lock().expect("whole").get(device).copied().unwrap_or_default();
        let (_, before) = seen();
        wait_for("a queue that is polled", || {
            let (who, count) = seen();
            who.filter(|_| count > before + 1)
        })
    }
}

/// Rings whose receive queues have nothing and say who looks.
struct Watched(&'static str, Arc<Scene>);

struct WatchedDevice(Box<dyn Device>, Arc<Scene>, bool);

struct Looked {
    device: String,
    scene: Arc<Scene>,
    sticks: bool,
}

impl Driver for Watched {
    fn name(&self) -> &'static str {
        self.0
    }
    fn summary(&self) -> &'static str {
        "rings whose receive queues say who looks"
    }
    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let ring = RingDriver.probe(context, args)?;
        Ok(Box::new(WatchedDevice(ring, Arc::clone(&self.1), self.0 == "net_stuck")))
    }
}

impl Device for WatchedDevice {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn info(&self) -> DeviceInfo {
        self.0.info()
    }
    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let (device, scene, sticks) = (self.0.name().to_owned(), self.1, self.2);
        let mut port = self.0.start(config, pool)?;
        let looked = || Looked { device: device.clone(), scene: Arc::clone(&scene), sticks };
        port.rx = port.rx.iter().map(|_| Box::new(looked()) as _).collect();
        Ok(port)
    }
}

impl RxQueue for Looked {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        {
            let mut polled = self.scene.polled.lock().expect("whole");
            let (who, count) = polled.entry(self.device.clone()).or_default();
            *who = Some(std::thread::current().id());
            *count += 1;
        }
        let mut stuck = self.scene.stuck.lock().expect("whole");
        while self.sticks && stuck.0 {
            stuck.1 = true;
            stuck = self.scene.changed.wait(stuck).expect("whole");
        }
        stuck.1 &= !self.sticks;
        0
    }
    fn path(&self) -> &'static str {
        "looked"
    }
}

/// A switch with two workers. Port `stuck` and port `a` are polled by the first, `b` by the other.
struct Bed {
    switch: Switch,
    scene: Arc<Scene>,
    _eal: Eal,
}

fn spec(key: &str, device: &str, workers: &[u16]) -> PortSpec {
    let queues = workers.len().max(1) as u16;
    PortSpec {
        workers: workers.to_vec(),
        queues,
        ..PortSpec::new(key, PortKind::Vdev { device: device.into() })
    }
}

fn to(port: &str, queue: u16, worker: u16) -> QueueMove {
    QueueMove { port: port.into(), queue, worker }
}

impl Bed {
    fn new() -> Self {
        let args = EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0;
        let eal = Eal::new(&args).expect("a machine");
        let domain = eal.default_domain();
        let pool = PoolConfig::default().packets(2048);
        let scene = Arc::<Scene>::default();
        let drivers = ["net_stuck", "net_looked"].map(|name| -> &'static dyn Driver {
            // There are two in all, for as long as the test runs.
            Box::leak(Box::new(Watched(name, Arc::clone(&scene))))
        });
        let cores = eal.lcores().main().cores.clone();
        let switch = Switch::start(
            SwitchConfig::new(
                Registry::new(&drivers),
                ProbeContext::new(eal.memory().clone(), Arc::clone(&domain), PATIENCE),
                Pool::new(&domain, pool).expect("a pool"),
                (0..2).map(|id| Lcore { id: LcoreId(id), cores: cores.clone() }).collect(),
            )
            .addresses(100)
            .age_seconds(300)
            .neigh_suppress(false),
        )
        .expect("a switch");
        for (key, device, worker) in
            [("stuck", "net_stuck0", 0), ("a", "net_looked1", 0), ("b", "net_looked2", 1)]
        {
            switch.add(&spec(key, device, &[worker]), None).expect("a port");
        }
        Self { switch, scene, _eal: eal }
    }

    /// The first worker stands still.
    fn stick(&self) {
        self.scene.hold(true);
        wait_until("a worker that is stuck", || self.scene.stuck.lock().expect("whole").1);
    }

    /// Who polls the queues of a port, as the switch says.
    fn said(&self, port: &str) -> Vec<usize> {
        self.switch.ports()[port].open.as_ref().expect("it is open").queues.workers()
    }

    fn tx(&self, port: &str) -> Vec<usize> {
        self.switch.ports()[port].open.as_ref().expect("it is open").queues.placement().tx.clone()
    }
}

#[test]
fn nobody_waits_for_a_worker_that_is_stuck_but_who_asked_it() {
    let bed = Bed::new();
    let (switch, patience) = (&bed.switch, linecard_testing::PATIENCE);
    let [first, second] = ["net_looked1", "net_looked2"].map(|device| bed.scene.poller(device));
    bed.stick();
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| switch.move_within(&to("a", 0, 1), patience));
        wait_until("a move that is asked for", || {
            switch.ports()["a"].open.as_ref().is_some_and(|open| open.queues.placement().is_asked())
        });
        // All of these would wait for who holds the ports.
        assert_eq!(switch.list().len(), 3);
        switch.look_after();
        assert!(switch.add(&spec("c", "net_looked3", &[1]), None).expect("a port").created);
        assert_eq!(bed.scene.poller("net_looked3"), second);
        assert_eq!(bed.said("a"), [0], "it is not there yet");
        assert!(!mover.is_finished());
        bed.scene.hold(false);
        mover.join().expect("no panic").expect("it moves");
    });
    assert_eq!((bed.said("a"), bed.tx("a")), (vec![1], vec![1]), "it sends where it receives");
    assert_ne!(first, second);
    wait_until("the other worker polls it", || bed.scene.poller("net_looked1") == second);
}

#[test]
fn a_queue_is_not_lost_by_a_worker_that_answers_late() {
    let bed = Bed::new();
    let (switch, soon) = (&bed.switch, Duration::from_millis(1));
    let [first, second] = ["net_looked1", "net_looked2"].map(|device| bed.scene.poller(device));
    bed.stick();
    let late = |asked: &QueueMove| {
        // The other worker has to answer first, which takes it its time on a busy machine.
        let problem = wait_for("a worker that is late", || {
            switch
                .move_within(asked, soon)
                .err()
                .map(|problem| problem.to_string())
                .filter(|problem| problem.contains("worker 0"))
        });
        assert!(problem.contains("queue 0 of port") && problem.contains("stays where it is"), "{problem}");
    };
    late(&to("a", 0, 1));
    // Nor is one given to who does not poll it.
    late(&to("b", 0, 0));
    bed.scene.hold(false);
    // Once it answers it has read what it was asked, which nobody wants any more.
    let (tell, told) = channel();
    assert!(switch.remotes[0].tell(Command::Answer(tell)));
    told.recv_timeout(linecard_testing::PATIENCE).expect("it answers");
    assert_eq!((bed.said("a"), bed.said("b"), switch.moves().len()), (vec![0], vec![1], 0));
    assert_eq!((bed.scene.poller("net_looked1"), bed.scene.poller("net_looked2")), (first, second));
    // And it can be moved, and goes with its port.
    switch.move_within(&to("a", 0, 1), linecard_testing::PATIENCE).expect("it moves");
    assert_eq!(bed.said("a"), [1]);
    wait_until("the other worker polls it", || bed.scene.poller("net_looked1") == second);
    assert!(switch.remove("a").expect("it goes"));
    assert!(switch.add(&spec("a", "net_looked1", &[0]), None).expect("a port").created);
    assert_eq!(bed.scene.poller("net_looked1"), first);
}

/// Whoever is told twice does the last of it, and a queue that was asked for goes with its port.
#[test]
fn what_is_asked_last_is_done() {
    let bed = Bed::new();
    let (switch, patience) = (&bed.switch, linecard_testing::PATIENCE);
    bed.stick();
    std::thread::scope(|scope| {
        let asked = |port: &'static str| {
            switch.ports()[port].open.as_ref().is_some_and(|open| open.queues.placement().is_asked())
        };
        let mover = scope.spawn(|| switch.move_within(&to("a", 0, 1), patience));
        wait_until("a move that is asked for", || asked("a"));
        // It is there, so nothing is to be done, and what was asked before is not.
        switch.move_within(&to("a", 0, 0), patience).expect("it is there");
        bed.scene.hold(false);
        let problem = mover.join().expect("no panic").expect_err("it was asked for something else");
        assert_eq!(problem.code, Code::Unavailable, "{problem}");
    });
    assert_eq!(bed.said("a"), [0]);
    for (asked, want) in [
        (to("a", 0, 2), "there is no worker 2; the last one is 1"),
        (to("a", 1, 0), "port 'a' has no receive queue 1; it has 1"),
        (to("nobody", 0, 0), "there is no port 'nobody'"),
    ] {
        let problem = switch.move_queue(&asked).expect_err(want).to_string();
        assert!(problem.contains(want), "{problem}");
    }
}

#[test]
fn a_port_sends_where_it_receives() {
    let bed = Bed::new();
    let switch = &bed.switch;
    assert!(switch.add(&spec("two", "net_looked5", &[1, 0]), None).expect("a port").created);
    assert_eq!((bed.said("two"), bed.tx("two")), (vec![1, 0], vec![1, 0]));
    // Each worker has a transmit queue: there is nothing to move.
    switch.move_queue(&to("two", 0, 0)).expect("it moves");
    assert_eq!((bed.said("two"), bed.tx("two")), (vec![0, 0], vec![1, 0]));
    let both = spec("both", "net_looked6", &[0, 0]);
    assert!(switch.add(&both, None).expect("a port").created);
    assert_eq!(bed.tx("both"), [0, 1]);
    for (worker, queues) in [(1, 1), (0, 1), (1, 1)] {
        switch.move_queue(&to("a", 0, worker)).expect("it moves");
        assert_eq!((bed.said("a"), bed.tx("a").len()), (vec![usize::from(worker)], queues));
        assert_eq!(bed.tx("a"), [usize::from(worker)]);
    }
    assert_eq!(
        switch.moves().into_iter().collect::<Vec<_>>(),
        [("a".into(), vec![1]), ("two".into(), vec![0, 0])]
    );
    let problem = switch.add(&spec("far", "net_looked7", &[2]), None).expect_err("there is none");
    assert_eq!(problem.message, "there is no worker 2; the last one is 1");
}
