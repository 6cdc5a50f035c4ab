//! The XDP program on an interface, ours or another one, and its map of sockets.

use std::path::Path;
use std::sync::Arc;

use super::args::RedirectSource;
use super::bpf::{Attached, Mode, Program, Sockets};
use super::refusal::Context;
use linecard_netdev::{Interface, Namespace};
use linecard_pmd::error::Error;

/// An XDP program on an interface and its map of sockets, for a privileged process that sets them up for an
/// unprivileged one.
///
/// The kernel detaches the program when this is dropped or the process ends in any way. With the map pinned
/// and an XDP socket passed along, `net_af_xdp0,iface=…,map=PATH,fd=N` needs no rights except to open the
/// map.
///
/// ```no_run
/// use linecard_net_af_xdp::Redirect;
/// use linecard_netdev::{Interface, Namespace};
/// let host = Namespace::default();
/// let veth = Interface::find_ethernet("pod", &host, "veth0")?;
/// let redirect = Redirect::attach("pod", &host, &veth, 1)?;
/// redirect.pin("pod", "/sys/fs/bpf/pod".as_ref())?;
/// assert!(["native", "generic"].contains(&redirect.mode()));
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Debug)]
pub struct Redirect {
    pub(super) sockets: Arc<Sockets>,
    attached: Option<Attached>,
}

impl Redirect {
    /// Attaches the driver's own program to `interface`, for queues below `queues`: in the interface's driver
    /// if possible, else in the network stack.
    ///
    /// # Errors
    /// A missing permission, another program on the interface, or an interface without XDP.
    pub fn attach(
        port: &str,
        namespace: &Namespace,
        interface: &Interface,
        queues: u32,
    ) -> Result<Self, Error> {
        Self::by(port, namespace, interface, queues, &RedirectSource::Own(&[Mode::Native, Mode::Generic]))
    }

    pub(super) fn by(
        port: &str,
        namespace: &Namespace,
        interface: &Interface,
        queues: u32,
        way: &RedirectSource,
    ) -> Result<Self, Error> {
        let context = Context { port, iface: interface.name() };
        let (program, sockets, modes) = match way {
            RedirectSource::Map(path) => {
                let sockets = Sockets::pinned(path).map_err(|error| context.pinned("XSKMAP", path, error))?;
                return Ok(Self { sockets: Arc::new(sockets), attached: None });
            }
            RedirectSource::Own(modes) => {
                let sockets = Sockets::new(queues).map_err(|error| context.load(error))?;
                let program = Program::redirect(&sockets).map_err(|error| context.load(error))?;
                (program, sockets, *modes)
            }
            RedirectSource::Pinned(path, modes) => {
                let what = "XDP program with an XSKMAP";
                let (program, sockets) =
                    Program::pinned(path).map_err(|error| context.pinned(what, path, error))?;
                (program, sockets, *modes)
            }
        };
        let attached = namespace.enter(port, || put_on(context, &program, interface.index(), modes))??;
        Ok(Self { sockets: Arc::new(sockets), attached: Some(attached) })
    }

    /// Pins the map in a bpf file system. The file outlives this process and is removed by whoever pinned it.
    ///
    /// # Errors
    /// The name exists already, or there is no bpf file system.
    pub fn pin(&self, port: &str, path: &Path) -> Result<(), Error> {
        self.sockets.pin(path).map_err(|error| Error::System {
            port: port.into(),
            action: format!("pinning the map of sockets at {}", path.display()),
            source: error,
            remedy: "give a new name in a bpf file system, as in /sys/fs/bpf/NAME ('mount -t bpf bpf /sys/fs/bpf')".into(),
        })
    }

    /// Returns the readable mode of the program: `native`, `generic`, or `pinned map`.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        self.attached_mode().map_or("pinned map", word)
    }

    /// Returns the mode of the program that this value attached; `None` if another process attached it.
    pub(super) fn attached_mode(&self) -> Option<Mode> {
        self.attached.as_ref().map(|attached| attached.mode)
    }
}

/// Attaches `program` to the interface in the first of `modes` that works.
fn put_on(context: Context<'_>, program: &Program, index: u32, modes: &[Mode]) -> Result<Attached, Error> {
    let mut refused = None;
    for mode in modes {
        match Attached::new(program, index, *mode) {
            Ok(attached) => return Ok(attached),
            // Another program is attached, or a permission is missing: other modes do not help.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::EEXIST | libc::EPERM | libc::ENODEV)
                ) =>
            {
                return Err(context.attach(word(*mode), error));
            }
            Err(error) => {
                tracing::debug!(port = context.port, mode = word(*mode), %error, "XDP refused");
                refused = Some(context.attach(word(*mode), error));
            }
        }
    }
    Err(refused.unwrap_or_else(|| context.load(std::io::ErrorKind::InvalidInput.into())))
}

const fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    }
}
