//! A control socket where `linecard capture` looks for it.

use std::path::Path;

use linecard_eal::{Eal, runtime};
use rustix::process::{Pid, test_kill_process};

use super::{CaptureError, Hub, Server};
use linecard_pmd::port::Port;

/// A control socket in the folder of a `--file-prefix`; removed with the folder, if it is the last one there.
///
/// ```
/// use linecard_capture::{Client, ControlSocket, Hub};
/// let socket = ControlSocket::open(&Hub::new(), &format!("lc-doc-socket-{}", std::process::id()))?;
/// assert!(Client::connect(socket.path())?.list()?.is_empty());
/// # Ok::<(), linecard_capture::CaptureError>(())
/// ```
#[derive(Debug)]
pub struct ControlSocket {
    /// There until drop.
    server: Option<Server>,
    prefix: String,
}

impl ControlSocket {
    /// Lets `linecard capture` see the ports of `hub`.
    ///
    /// # Errors
    /// The folder, the socket or its thread cannot be made.
    pub fn open(hub: &Hub, prefix: &str) -> Result<Self, CaptureError> {
        let mut socket = Self { server: None, prefix: prefix.to_owned() };
        let serve = || {
            let folder = runtime::create(prefix)?;
            hub.serve(&folder.join(format!("control.{}", std::process::id())))
        };
        // A program that ends just now may take the empty folder with it.
        socket.server = Some(serve().or_else(|_| serve())?);
        sweep();
        Ok(socket)
    }

    /// Where clients connect.
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

/// Removes what killed programs of this user left: sockets that nobody listens at, and folders of prefixes without any.
fn sweep() {
    for prefix in names(&runtime::root()) {
        let folder = runtime::folder(&prefix);
        for name in names(&folder) {
            let Some(pid) = name.strip_prefix("control.").and_then(|pid| pid.parse().ok()) else { continue };
            let path = folder.join(&name);
            // A program in another PID namespace has no number here, but it answers.
            if is_gone(pid) && is_deserted(&path) {
                let _ = std::fs::remove_file(&path);
            }
        }
        // Whoever has a socket there keeps it; who is about to make one makes the folder again.
        runtime::remove(&prefix);
    }
}

/// Whether no process has that number; asked of the kernel, as there may be no `/proc`.
fn is_gone(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// Whether nobody listens at a socket. Of another kind than ours, it would say so; it does not wait either way.
fn is_deserted(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Lets `linecard capture` see started ports, for as long as the first of what is returned lives; `ports` are numbered as
/// they come. The program is found by its process, or by the `--file-prefix` that `eal` was made with.
///
/// A process has one such socket for each prefix; for ports that come and go, and for a loop in which one more virtual
/// call per burst would count, use a [`Hub`] and a [`ControlSocket`].
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
