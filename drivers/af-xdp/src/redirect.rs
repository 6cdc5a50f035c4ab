//! How frames find our sockets: a program on the interface, ours or somebody's, and its map.

use std::path::Path;
use std::sync::Arc;

use super::args::RedirectSource;
use super::bpf::{Attached, Mode, Program, Sockets};
use super::refusal::Context;
use linecard_netdev::{Interface, Namespace};
use linecard_pmd::error::Error;

/// A map of sockets that an XDP program on an interface asks, for hosts that do it for somebody without privileges.
///
/// The program goes when this is dropped or the process ends, however it does. With the map pinned and an XDP socket
/// passed along, `net_af_xdp0,iface=…,map=PATH,fd=N` needs no rights but to open the map.
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
    /// Puts our program onto `interface`, for queues below `queues`, in the driver if that can, else in the stack.
    ///
    /// # Errors
    /// No permission, another program is there, or the interface takes none.
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

    /// Gives the map a name in a bpf file system, which outlives this process: whoever pins removes the file.
    ///
    /// # Errors
    /// There is something of that name, or no bpf file system.
    pub fn pin(&self, port: &str, path: &Path) -> Result<(), Error> {
        self.sockets.pin(path).map_err(|error| Error::System {
            port: port.into(),
            action: format!("pinning the map of sockets at {}", path.display()),
            source: error,
            remedy: "give a new name in a bpf file system, as in /sys/fs/bpf/NAME ('mount -t bpf bpf /sys/fs/bpf')".into(),
        })
    }

    /// Where the program runs, for people: `native`, `generic`, or `pinned map`.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        self.attached_mode().map_or("pinned map", word)
    }

    /// Where the kernel runs the program that we put onto the interface; `None` where somebody else did.
    pub(super) fn attached_mode(&self) -> Option<Mode> {
        self.attached.as_ref().map(|attached| attached.mode)
    }
}

/// Puts `program` onto the interface in the first of `modes` that works.
fn put_on(context: Context<'_>, program: &Program, index: u32, modes: &[Mode]) -> Result<Attached, Error> {
    let mut refused = None;
    for mode in modes {
        match Attached::new(program, index, *mode) {
            Ok(attached) => return Ok(attached),
            // Somebody else's program, or no rights: other modes do not help.
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
