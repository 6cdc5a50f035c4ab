//! A control socket at the path where `linecard capture` finds it.

use std::path::Path;
use std::time::Duration;

use linecard_eal::{Eal, runtime};
use rustix::process::{Pid, test_kill_process};

use super::{CaptureError, Hub, Server};
use linecard_pmd::port::Port;

/// A control socket in the directory for a `--file-prefix`. Dropping it also removes the directory if it is
/// then empty.
///
/// ```
/// use linecard_capture::{Client, ControlSocket, Hub};
/// let socket = ControlSocket::open(&Hub::new(), &format!("lc-doc-socket-{}", std::process::id()))?;
/// assert!(Client::connect(socket.path())?.list()?.is_empty());
/// # Ok::<(), linecard_capture::CaptureError>(())
/// ```
#[derive(Debug)]
pub struct ControlSocket {
    /// `Some` until drop.
    server: Option<Server>,
    prefix: String,
}

impl ControlSocket {
    /// Makes the ports of `hub` available to `linecard capture`.
    ///
    /// # Errors
    /// The directory, the socket or its thread cannot be created.
    pub fn open(hub: &Hub, prefix: &str) -> Result<Self, CaptureError> {
        let mut socket = Self { server: None, prefix: prefix.to_owned() };
        let serve = || {
            let folder = runtime::create(prefix)?;
            hub.serve(&folder.join(format!("control.{}", std::process::id())))
        };
        // A program that is ending may remove the empty directory at the same time.
        socket.server = Some(serve().or_else(|_| serve())?);
        Self::sweep();
        Ok(socket)
    }

    /// Removes what killed programs of this user left, under every prefix: sockets on which no program
    /// listens, and directories without sockets. [`open`](Self::open) does that too.
    ///
    /// ```
    /// linecard_capture::ControlSocket::sweep();
    /// ```
    pub fn sweep() {
        for prefix in names(&runtime::root()) {
            let folder = runtime::folder(&prefix);
            for name in names(&folder) {
                let Some(pid) = name.strip_prefix("control.").and_then(|pid| pid.parse().ok()) else {
                    continue;
                };
                let path = folder.join(&name);
                // A program in another PID namespace has no PID here, but it answers.
                if (is_gone(pid) || is_old(&path)) && is_deserted(&path) {
                    let _ = std::fs::remove_file(&path);
                }
            }
            // A directory with a socket stays; a program that is about to create one recreates the directory.
            runtime::remove(&prefix);
        }
    }

    /// The path to which clients connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.server.as_ref().map_or(Path::new(""), Server::path)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.server = None;
        runtime::remove(&self.prefix);
    }
}

/// Whether no process has this PID; asks the kernel, because `/proc` may be missing.
fn is_gone(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// The age from which a socket without a program is deserted, whatever process has its program's PID by now.
/// A program listens within milliseconds after it has created the name.
const OLD: Duration = Duration::from_secs(10);

/// Whether a file was created more than [`OLD`] ago.
fn is_old(path: &Path) -> bool {
    let created = std::fs::symlink_metadata(path).and_then(|data| data.modified()).ok();
    created.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > OLD)
}

/// Whether no program listens on a socket. For a live socket of another type the error differs; this never
/// waits.
fn is_deserted(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Makes started ports available to `linecard capture`, while the returned socket exists; `ports` are
/// numbered in order. The program is found by its process, or by the `--file-prefix` with which `eal` was
/// created.
///
/// A process has one such socket per prefix. If ports come and go, or one more virtual call per burst
/// matters, use a [`Hub`] and a [`ControlSocket`].
///
/// ```
/// # use linecard_eal::{Eal, EalArgs};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// use linecard_capture::{self as capture, Client};
/// # let prefix = format!("--file-prefix=lc-doc-serve-{}", std::process::id());
/// # let eal = Eal::new(&EalArgs::parse([prefix.as_str(), "--no-huge"])?.0)?;
/// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// # let domain = eal.default_domain();
/// # let context = ProbeContext::new(eal.memory().clone(), domain, std::time::Duration::ZERO);
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver]);
/// # let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let (socket, [mut port]) = capture::serve(&eal, [port])?;
/// assert_eq!(Client::connect(socket.path())?.list()?[0].name, "net_null0");
/// port.rx[0].rx_burst(&mut Burst::new());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`ControlSocket::open`].
pub fn serve<const N: usize>(
    eal: &Eal,
    ports: [Port; N],
) -> Result<(ControlSocket, [Port; N]), CaptureError> {
    let hub = Hub::new();
    let socket = ControlSocket::open(&hub, &eal.memory().config().name)?;
    let mut number = 0;
    let ports = ports.map(|port| {
        let watched = hub.watch(number, port);
        number = number.saturating_add(1);
        watched
    });
    Ok((socket, ports))
}
