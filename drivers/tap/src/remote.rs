//! `remote=`: connects a tap interface to another by traffic control, as DPDK's driver does. Packets that the
//! remote interface receives are redirected into the tap interface, and so to this port. Packets that this
//! port sends leave by the remote interface.

use std::io;
use std::sync::Arc;

use linecard_netdev::netlink::{ACK, Request};
use linecard_netdev::{Interface, Namespace};
use linecard_pmd::error::Error;

/// `TC_H_INGRESS` and the handle of its queueing discipline (`linux/pkt_sched.h`).
const INGRESS: u32 = 0xffff_fff1;
const HANDLE: u32 = 0xffff_0000;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const EVERYTHING: u32 = (libc::ETH_P_ALL as u16).to_be() as u32;
/// `linux/pkt_cls.h`, `linux/tc_act/tc_mirred.h`.
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
const STOLEN: u32 = 4;
const EGRESS_REDIR: u32 = 1;
/// Matches if the terminal flag is set and no key differs.
const TERMINAL: u8 = 1;

/// Both redirections, removed when dropped.
pub(super) struct Redirections {
    /// The interfaces with a queueing discipline of ours.
    joined: Vec<Arc<Interface>>,
}

impl Redirections {
    /// Connects `tap` and the interface `remote` of the same namespace; returns the address that both have
    /// then.
    pub(super) fn join(
        port: &str,
        namespace: &Namespace,
        tap: &Arc<Interface>,
        remote: &str,
    ) -> Result<(Self, [u8; 6]), Error> {
        let remote = Arc::new(Interface::find_ethernet(port, namespace, remote)?);
        let mac = remote.info()?.mac.unwrap_or_default();
        let mut joined = Self { joined: Vec::new() };
        for (from, to) in [(&remote, tap), (tap, &remote)] {
            joined.redirect(port, from, to)?;
        }
        // Frames for the remote interface's address now belong to this port.
        tap.set_mac(mac)?;
        remote.set_up(true)?;
        Ok((joined, mac))
    }

    fn redirect(&mut self, port: &str, from: &Arc<Interface>, to: &Interface) -> Result<(), Error> {
        match from.ask(
            traffic(libc::RTM_NEWQDISC, ACK | CREATE, from.index(), HANDLE, INGRESS, 0)
                .attribute(libc::TCA_KIND, b"ingress\0"),
        ) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                return Err(Error::Argument {
                    device: port.into(),
                    problem: format!("interface {} redirects its traffic already", from.name()),
                    remedy: format!("remove that with 'tc qdisc del dev {} ingress'", from.name()),
                });
            }
            result => result.map_err(|error| from.refused("redirecting the traffic of", error))?,
        };
        self.joined.push(Arc::clone(from));
        from.ask(filter(from.index(), to.index()))
            .map_err(|error| from.refused("redirecting the traffic of", error))?;
        Ok(())
    }
}

impl Drop for Redirections {
    fn drop(&mut self) {
        for interface in &self.joined {
            // If the interface was removed, its filters were removed with it.
            let _: io::Result<_> =
                interface.ask(traffic(libc::RTM_DELQDISC, ACK, interface.index(), HANDLE, INGRESS, 0));
        }
    }
}

/// Creates a traffic control request: a `tcmsg`.
fn traffic(kind: u16, flags: u16, index: u32, handle: u32, parent: u32, info: u32) -> Request {
    let mut body = [0; 20];
    for (place, value) in body[4..].chunks_exact_mut(4).zip([index, handle, parent, info]) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
    Request::new(kind, flags, &body)
}

/// Redirects everything that `from` receives to the output of `to`.
fn filter(from: u32, to: u32) -> Request {
    let mut key = [0; 32];
    (key[0], key[2]) = (TERMINAL, 1);
    let mut mirred = [0; 28];
    let fields = [(8, STOLEN), (20, EGRESS_REDIR), (24, to)];
    fields.iter().for_each(|(at, value)| mirred[*at..*at + 4].copy_from_slice(&value.to_ne_bytes()));
    let priority = 1 << 16;
    traffic(libc::RTM_NEWTFILTER, ACK | CREATE, from, 0, HANDLE, priority | EVERYTHING)
        .attribute(libc::TCA_KIND, b"u32\0")
        .nested(libc::TCA_OPTIONS, |options| {
            options.nest(U32_SEL, |inside| inside.bytes(&key));
            options.nest(U32_ACT, |actions| {
                actions.nest(1, |action| {
                    action.nest(ACT_KIND, |inside| inside.bytes(b"mirred\0"));
                    action.nest(ACT_OPTIONS, |inside| {
                        inside.nest(MIRRED_PARMS, |parms| parms.bytes(&mirred));
                    });
                });
            });
        })
}
