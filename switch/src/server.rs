//! The requests of the control socket.

mod clients;
mod kept;
mod sweep;

pub use self::clients::Server;
use self::clients::tell;
pub use self::sweep::Sweeper;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Switch;
use crate::api::{
    API, Answer, Code, FdbFilter, FdbFlushed, FdbRemoved, FdbStatic, LineError, PortKey, PortRemoved,
    PortSpec, Problem, Request, SpanKey, SpanRemoved, Version,
};
use crate::state::State;
use crate::upgrade::{self, Channel, Extra};

/// How long a client must be idle before its connection may be closed for another one. It is longer than a client that is about to
/// send a request waits for a core on a busy machine.
const IDLE: Duration = Duration::from_secs(30);

/// Carries out requests for a switch, and keeps on disk the changes that survive a restart.
pub struct Service {
    switch: Arc<Switch>,
    /// The file for ports that were added by request, and their keys: only these ports are written.
    state: Option<State>,
    kept: Mutex<BTreeSet<String>>,
    /// Static addresses, which are kept, too. Never locked before `kept`.
    statics: Mutex<Vec<FdbStatic>>,
    /// The network namespaces of containers as the switch saw them, by port key. Never locked before `kept`.
    namespaces: Mutex<BTreeMap<String, String>>,
    version: String,
    /// The control socket, which an upgrade hands over, and device and inode of its path.
    control: Option<Control>,
    /// Locked shared by each request and exclusively by an upgrade; the process that has taken over.
    successor: RwLock<Option<u32>>,
    /// No client is accepted during an upgrade.
    changing_hands: AtomicBool,
    /// Called with the process that has taken over, before anything is released here.
    left: Box<dyn Fn(u32) + Send + Sync>,
    /// How long a client must be idle before its connection may be closed for another one.
    idle: Duration,
}

/// A control socket, and device and inode of its path.
type Control = (OwnedFd, Option<(u64, u64)>);

impl Service {
    /// A service for `switch`, whose program has this version. Ports added by request are kept in `state`;
    /// `kept` lists the keys of those that were restored from it.
    pub fn new(
        switch: Arc<Switch>,
        state: Option<State>,
        kept: impl IntoIterator<Item = String>,
        version: &str,
    ) -> Self {
        let statics = Mutex::new(switch.statics());
        Self {
            switch,
            statics,
            state,
            kept: Mutex::new(kept.into_iter().collect()),
            namespaces: Mutex::default(),
            version: version.into(),
            control: None,
            successor: RwLock::default(),
            changing_hands: AtomicBool::new(false),
            left: Box::new(|_| ()),
            idle: IDLE,
        }
    }

    /// Sets how long a client must be idle before it is disconnected in favour of one more; 30 seconds by default.
    #[must_use]
    pub fn with_idle_limit(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// Adds what an earlier process [saw](crate::state::Saved::namespaces) of its containers' network
    /// namespaces.
    #[must_use]
    pub fn with_namespaces(self, seen: BTreeMap<String, String>) -> Self {
        Self { namespaces: Mutex::new(seen), ..self }
    }

    /// Adds the control socket, so that an upgrade can hand it over, with device and inode of its path if
    /// these are handed over too. `left` is called with the process that has taken over.
    #[must_use]
    pub fn with_control(
        self,
        listener: OwnedFd,
        name: Option<(u64, u64)>,
        left: impl Fn(u32) + Send + Sync + 'static,
    ) -> Self {
        Self { control: Some((listener, name)), left: Box::new(left), ..self }
    }

    /// Returns the process that has taken over, if one has.
    #[must_use]
    pub fn successor(&self) -> Option<u32> {
        // `None` during an upgrade.
        self.successor.try_read().ok().and_then(|successor| *successor)
    }

    /// Writes the ports that were added by request to the state file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self) -> Result<(), Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = kept.is_empty()
            && self.switch.statics().is_empty()
            && !self.switch.spans().iter().any(|info| info.kept)
            && self.switch.moves().is_empty()
            && self.state.as_ref().is_none_or(|state| !state.exists());
        if nothing { Ok(()) } else { self.save(&kept) }
    }

    /// Hands everything over to the program at the other end of `socket`, which asked for it in `request`;
    /// the socket cannot be used afterwards.
    fn upgrade(&self, socket: &UnixStream, request: Request) -> Result<(), LineError> {
        let asked =
            read(&request.method, request.params).and_then(|asked| upgrade::check(&asked).map(|()| asked));
        if let Err(problem) = asked {
            return tell(socket, &Answer { id: request.id, result: None, error: Some(problem) });
        }
        let mut successor = self.successor.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *successor {
            return tell(socket, &Answer { id: request.id, result: None, error: Some(replaced(pid)) });
        }
        // Before anything is promised: it fails if this process is out of descriptors.
        let channel = Channel::new(socket.try_clone()?);
        tell(socket, &Answer { id: request.id, result: Some(Value::Null), error: None })?;
        let pid =
            rustix::net::sockopt::socket_peercred(socket).map_or(0, |peer| peer.pid.as_raw_nonzero().get());
        let pid = u32::try_from(pid).unwrap_or_default();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let control = self.control.as_ref().map(|(listener, name)| (listener.as_fd(), *name));
        let extra = Extra { version: &self.version, kept: &kept, control };
        self.changing_hands.store(true, Ordering::Relaxed);
        let outcome = upgrade::leave(&self.switch, &channel, &extra, || {
            *successor = Some(pid);
            (self.left)(pid);
        });
        if let Err(error) = outcome {
            self.changing_hands.store(false, Ordering::Relaxed);
            tracing::warn!("process {pid} did not take over, and this switch goes on: {error}");
        }
        Ok(())
    }

    /// Carries out the request in one line. Descriptors that the request does not use are closed.
    #[must_use]
    pub fn answer(&self, line: &[u8], fds: Vec<OwnedFd>) -> Answer {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => {
                let problem = Problem::new(
                    Code::InvalidRequest,
                    format!("the line is no request: {error}"),
                    r#"send one line such as {"id":1,"method":"version"}"#,
                );
                return Answer { id: 0, result: None, error: Some(problem) };
            }
        };
        let id = request.id;
        let successor = self.successor.read().unwrap_or_else(PoisonError::into_inner);
        let done = match *successor {
            Some(pid) => Err(replaced(pid)),
            None => self.act(request, fds),
        };
        match done {
            Ok(result) => Answer { id, result: Some(result), error: None },
            Err(problem) => Answer { id, result: None, error: Some(problem) },
        }
    }

    fn act(&self, request: Request, mut fds: Vec<OwnedFd>) -> Result<Value, Problem> {
        let switch = &self.switch;
        let Request { method, params, .. } = request;
        if method != "port.add" && !fds.is_empty() {
            let message = format!("{method} takes no descriptor");
            return Err(Problem::new(Code::InvalidParams, message, "send none beside it"));
        }
        match method.as_str() {
            "version" => {
                let version = self.version.clone();
                result(&Version { version, api: API, pid: std::process::id() })
            }
            "port.add" => {
                let spec = PortSpec::read(params)?;
                if fds.len() > 1 {
                    let message = format!("{} descriptors came, and a port takes one", fds.len());
                    return Err(Problem::new(Code::InvalidParams, message, "send one"));
                }
                result(&self.add(&spec, fds.pop())?)
            }
            "port.remove" => {
                let PortKey { key } = read(&method, params)?;
                result(&PortRemoved { removed: self.remove(&key)? })
            }
            "port.list" => result(&switch.list()),
            "port.show" => result(&switch.show(&read::<PortKey>(&method, params)?.key)?),
            "fdb.list" => result(&switch.fdb(&read_or_default(&method, params)?)?),
            "fdb.flush" => result(&FdbFlushed { flushed: switch.flush(&read_or_default(&method, params)?)? }),
            "fdb.add" => result(&self.fix(&read(&method, params)?)?),
            "fdb.del" => result(&FdbRemoved { removed: self.unfix(&read(&method, params)?)? }),
            "workers" => result(&switch.workers()),
            "worker.move" => result(&self.move_queue(&read(&method, params)?)?),
            "span.set" => result(&self.set_span(&read(&method, params)?)?),
            "span.remove" => {
                result(&SpanRemoved { removed: self.remove_span(&read::<SpanKey>(&method, params)?.to)? })
            }
            "span.list" => result(&switch.spans()),
            "trace" => result(&switch.trace(&read(&method, params)?)?),
            "stats" => result(&switch.stats()),
            _ => {
                let shown: String = method.chars().take(40).flat_map(char::escape_default).collect();
                Err(Problem::new(
                    Code::UnknownMethod,
                    format!("there is no method '{shown}'"),
                    "version, port.add, port.remove, port.list, port.show, fdb.list, fdb.flush, fdb.add, fdb.del, span.set, span.remove, span.list, trace, workers, worker.move, stats and upgrade are there",
                ))
            }
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("switch", &self.switch).finish_non_exhaustive()
    }
}

fn replaced(pid: u32) -> Problem {
    let message = format!("process {pid} has taken this switch over");
    Problem::new(Code::Unavailable, message, "connect again, and ask that one")
}

fn result(value: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|error| {
        Problem::new(Code::Internal, format!("the answer cannot be written: {error}"), "report this")
    })
}

fn read<P: DeserializeOwned>(method: &str, params: Value) -> Result<P, Problem> {
    serde_json::from_value(params).map_err(|error| {
        let text = error.to_string();
        Problem::new(Code::InvalidParams, format!("{method}: {text}"), "see the documentation of the method")
    })
}

fn read_or_default(method: &str, params: Value) -> Result<FdbFilter, Problem> {
    if params.is_null() { Ok(FdbFilter::default()) } else { read(method, params) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use linecard_eal::{Eal, EalArgs};
    use linecard_mempool::{Pool, PoolConfig};
    use linecard_pmd::{ProbeContext, Registry};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use serde_json::json;

    use super::*;
    use crate::SwitchConfig;

    /// Set to the test's name in a process of its own: the limit of descriptors is the whole process's.
    const CHILD: &str = "LINECARD_SWITCH_CHILD";

    #[test]
    fn clients_are_accepted_after_an_upgrade_without_descriptors() {
        const NAME: &str = "server::tests::clients_are_accepted_after_an_upgrade_without_descriptors";
        if std::env::var(CHILD).is_ok_and(|child| child == NAME) {
            return child();
        }
        let mut this = Command::new(std::env::current_exe().expect("this program"));
        let output = this.args(["--exact", NAME]).env(CHILD, NAME).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    fn child() {
        let args = EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0;
        let eal = Eal::new(&args).expect("a machine");
        let domain = eal.default_domain();
        let pool = Pool::new(&domain, PoolConfig::default().packets(64)).expect("a pool");
        let context = ProbeContext::new(eal.memory().clone(), domain, Duration::from_secs(1));
        let switch = Switch::start(SwitchConfig::new(Registry::new(&[]), context, pool, Vec::new()));
        let service = Service::new(Arc::new(switch.expect("a switch")), None, [], "1.2.3");
        let (_client, socket) = UnixStream::pair().expect("sockets");
        let params = json!({"format": upgrade::FORMAT, "version": "1.2.4"});
        let request = Request { id: 1, method: "upgrade".into(), params };
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).expect("a lower limit");
        let outcome = service.upgrade(&socket, request);
        setrlimit(Resource::Nofile, before).expect("the limit before");
        assert!(outcome.is_err(), "no descriptor is left");
        assert!(!service.changing_hands.load(Ordering::Relaxed));
    }
}
