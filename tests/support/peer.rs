//! A testpmd at the other end, started with arguments that both programs accept.

use std::time::Duration;

use super::console::{Kind, Testpmd};
use super::ours::free_hugepages;

/// Starts a testpmd that sends everything back through its only port; it forwards when this returns.
pub(crate) fn forwarder(kind: Kind, vdev: &str, tag: &str) -> Testpmd {
    start(kind, &[vdev], tag)
}

/// The same with any number of ports; an even number is forwarded in pairs.
pub(crate) fn start(kind: Kind, vdevs: &[&str], tag: &str) -> Testpmd {
    let mut peer = idle(kind, vdevs, tag, &[]);
    forward(&mut peer, "io");
    peer
}

/// Starts a console that does not forward yet; `app` are further options.
pub(crate) fn idle(kind: Kind, vdevs: &[&str], tag: &str, app: &[&str]) -> Testpmd {
    // The end of a long tag tells it from the others of this process.
    let tag = &tag[tag.len().saturating_sub(40)..];
    let prefix = format!("lc{}{tag}", std::process::id());
    let mut eal = vec!["-l", "0,1", "--no-pci", "-m", "256", "--file-prefix", &prefix];
    eal.extend(vdevs.iter().flat_map(|vdev| ["--vdev", vdev]));
    // A frontend can share at most eight regions: one file of hugepages, or that of --no-huge.
    eal.extend_from_slice(if free_hugepages() >= 128 {
        &["--in-memory", "--single-file-segments"]
    } else {
        &["--no-huge"]
    });
    let mut all = vec!["-i", "--nb-cores=1", "--total-num-mbufs=8192", "--rxd=256", "--txd=256"];
    all.extend_from_slice(app);
    Testpmd::start(kind, &eal, &all)
}

/// Starts forwarding in this mode; it forwards when this returns.
pub(crate) fn forward(peer: &mut Testpmd, mode: &str) {
    peer.type_line(&format!("set fwd {mode}"));
    peer.type_line("start");
    // Printed after `start` has discarded earlier packets.
    peer.expect(&format!("{mode} packet forwarding packets/burst"), Duration::from_secs(60));
}
