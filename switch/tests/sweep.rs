//! Containers that are gone without a word: their ports go, and nobody else's.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use linecard_eal::{Eal, EalArgs};
use linecard_lab::{Lab, wait_until};
use linecard_mempool::{Pool, PoolConfig};
use linecard_net_ring::RingDriver;
use linecard_netdev::Namespace;
use linecard_pmd::{ProbeContext, Registry};
use linecard_switch::api::{PortKind, PortSpec, SocketOrigin};
use linecard_switch::server::{Service, Sweeper};
use linecard_switch::state::{Saved, State};
use linecard_switch::{Switch, SwitchConfig};
use linecard_vhost_user::VhostDriver;
use serde_json::{Value, json};

const NAME: &str = "vport/net1";
static VHOST: VhostDriver = VhostDriver::new();

/// A switch, what answers for it, and the file in which it keeps its ports.
struct Bed {
    service: Option<Arc<Service>>,
    state: PathBuf,
    eal: Eal,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.service = None;
        let _ = std::fs::remove_file(&self.state);
    }
}

impl Bed {
    fn new(test: &str) -> Self {
        let eal =
            Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0).expect("a machine");
        let state = std::env::temp_dir().join(format!("switch-{test}-{}.json", std::process::id()));
        let _ = std::fs::remove_file(&state);
        let mut bed = Self { service: None, state, eal };
        bed.start(true);
        bed
    }

    /// Starts the switch, or starts it anew, with what is kept; it `remembers` what it saw of namespaces.
    fn start(&mut self, remembers: bool) {
        self.service = None;
        let domain = self.eal.default_domain();
        let pool = PoolConfig::default().packets(2048);
        let switch = Switch::start(
            SwitchConfig::new(
                Registry::new(&[&RingDriver, &VHOST]),
                ProbeContext::new(self.eal.memory().clone(), Arc::clone(&domain), Duration::from_secs(1)),
                Pool::new(&domain, pool).expect("a pool"),
                vec![self.eal.lcores().main().clone()],
            )
            .addresses(100)
            .age_seconds(300)
            .neigh_suppress(false),
        );
        let (switch, saved) = (switch.expect("a switch"), self.saved());
        for spec in &saved.ports {
            switch.restore(spec).expect("it is there, or waits");
        }
        let kept = saved.ports.iter().map(|spec| spec.key.clone());
        let service = Service::new(Arc::new(switch), Some(State::at(&self.state)), kept, "0.0.0");
        let seen = if remembers { saved.namespaces } else { Default::default() };
        self.service = Some(Arc::new(service.with_namespaces(seen)));
    }

    fn service(&self) -> &Arc<Service> {
        self.service.as_ref().expect("it was started")
    }

    fn saved(&self) -> Saved {
        State::at(&self.state).load().expect("it is readable")
    }

    fn ask(&self, method: &str, params: &Value, fds: Vec<std::os::fd::OwnedFd>) -> Value {
        let line = serde_json::to_vec(&json!({"id": 1, "method": method, "params": params})).expect("a line");
        let answer = self.service().answer(&line, fds);
        assert_eq!(answer.error, None);
        answer.result.unwrap_or_default()
    }

    /// What the plugin does for a container in the namespace of `lab`, which listens there.
    fn attach(&self, key: &str, lab: &Lab) {
        let origin = SocketOrigin::new(lab.path(), NAME);
        let listener = lab.run(|| listen().expect("it is free"));
        let mut spec = PortSpec::new(key, PortKind::VhostUserFd { origin: Some(origin) });
        spec.meta.insert("owner".into(), "linecard-cni".into());
        let spec = serde_json::to_value(&spec).expect("it can be written");
        assert_eq!(self.ask("port.add", &spec, vec![listener.into()])["created"], true);
    }

    fn ports(&self) -> Vec<String> {
        let list = self.ask("port.list", &Value::Null, Vec::new());
        let keys = list.as_array().into_iter().flatten().filter_map(|port| port["key"].as_str());
        keys.map(str::to_owned).collect()
    }

    fn kept(&self) -> Vec<String> {
        self.saved().ports.into_iter().map(|spec| spec.key).collect()
    }
}

fn listen() -> std::io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?)
}

/// A process in a namespace.
struct Inside(Child);

impl Inside {
    fn new(lab: &Lab) -> Self {
        Self(lab.run(|| Command::new("sleep").arg("infinity").spawn()).expect("it is started"))
    }

    fn end(mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ends");
    }
}

fn labs<const N: usize>(test: &str) -> Option<[Lab; N]> {
    let mut labs = Vec::new();
    for _ in 0..N {
        labs.push(Lab::new(test)?);
    }
    labs.try_into().ok()
}

#[test]
fn ports_of_containers_that_are_gone_are_removed() {
    let Some([gone, stays, held]) = labs("ports_of_containers_that_are_gone_are_removed") else { return };
    let bed = Bed::new("sweep");
    for (key, lab) in [("gone-net1", &gone), ("stays-net1", &stays), ("held-net1", &held)] {
        bed.attach(key, lab);
    }
    // Nor is one that is none of the plugin's.
    let other = json!({"key": "other", "type": "vdev", "device": "net_ring700"});
    bed.ask("port.add", &other, Vec::new());
    let address = json!({"mac": "02:00:00:00:00:07", "port": "gone-net1"});
    bed.ask("fdb.add", &address, Vec::new());
    let saved = bed.saved();
    assert_eq!((saved.ports.len(), saved.namespaces.len(), saved.fdb.len()), (4, 3, 1));
    assert!(bed.service().sweep().is_empty(), "all are there");

    // Their names are deleted, without DEL. One has a process yet.
    // Held, so that the socket in it can be looked for.
    let namespace = std::fs::File::open(gone.path()).expect("it is there");
    let namespace = Namespace::from_fd("gone", namespace.into());
    let process = Inside::new(&held);
    drop((gone, held));
    let sweeper = Sweeper::start(Arc::clone(bed.service()), Duration::from_millis(50)).expect("a thread");
    wait_until("a port that is removed", || !bed.ports().contains(&"gone-net1".to_owned()));
    assert_eq!(bed.ports(), ["held-net1", "other", "stays-net1"]);
    drop(sweeper);
    let saved = bed.saved();
    assert_eq!((bed.kept(), saved.namespaces.len(), saved.fdb.len()), (bed.ports(), 2, 0));
    let inside = |work: fn() -> bool| namespace.run(work).expect("we hold it");
    wait_until("a socket that is closed", || inside(|| listen().is_ok()));
    assert_eq!(bed.ask("stats", &Value::Null, Vec::new())["swept_ports"], 1);

    process.end();
    assert_eq!(bed.service().sweep(), ["held-net1"]);
    assert!(bed.service().sweep().is_empty());
    assert_eq!(bed.ports(), ["other", "stays-net1"]);
    assert!(!stays.run(|| listen().is_ok()), "it listens yet");
}

/// A container that ended while the switch was away has no port afterwards; what the switch has never seen stays.
#[test]
fn a_restarted_switch_removes_what_has_gone_meanwhile() {
    let Some([gone, stays]) = labs("a_restarted_switch_removes_what_has_gone_meanwhile") else { return };
    let mut bed = Bed::new("sweep-restart");
    bed.attach("gone-net1", &gone);
    bed.attach("stays-net1", &stays);
    bed.service = None;
    // While it is held, no other namespace of this machine gets its inode.
    let _held = std::fs::File::open(gone.path()).expect("it is there");
    drop(gone);
    // As a switch that does not see the namespaces of containers, in a container of its own.
    bed.start(false);
    assert_eq!((bed.ports().len(), bed.service().sweep().len()), (2, 0));
    bed.start(true);
    assert_eq!(bed.ports(), ["gone-net1", "stays-net1"], "one of them waits");
    assert_eq!(bed.service().sweep(), ["gone-net1"]);
    assert_eq!((bed.ports(), bed.kept()), (vec!["stays-net1".to_owned()], vec!["stays-net1".to_owned()]));
    assert!(bed.service().sweep().is_empty());
}

/// After a start of the machine nothing is left of any container, whatever its path leads to by then.
#[test]
fn nothing_survives_a_start_of_the_machine() {
    let mut bed = Bed::new("sweep-boot");
    let mut origin = SocketOrigin::new("/proc/self/ns/net", NAME);
    let inode =
        origin.namespace.as_ref().and_then(|made| made.split_once(':')).map(|(_, inode)| inode.to_owned());
    origin.namespace = inode.map(|inode| format!("another boot:{inode}"));
    let port = PortSpec::new("gone-net1", PortKind::VhostUserFd { origin: Some(origin) });
    let saved = Saved { ports: vec![port], ..Saved::default() };
    State::at(&bed.state).save(&saved).expect("it is written");
    bed.start(true);
    assert_eq!(bed.service().sweep(), ["gone-net1"]);
    assert!(bed.ports().is_empty() && bed.kept().is_empty());
}
