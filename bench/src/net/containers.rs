//! Frames from one container to another on two cores.
//!
//! ```text
//!  switched   testpmd txonly ── virtio-user ══ vhost ── testpmd io ── vhost ══ virtio-user ── testpmd rxonly
//!                 core 0                                 core 1                                 core 0
//!  bridged    testpmd txonly ── packet socket ── veth ══ Linux bridge ══ veth ── packet socket ── testpmd rxonly
//!                 core 0                        (on the sender's core)                            core 1
//! ```
//! Three pollers share two cores. The containers, which are always ours, take turns on one core: each yields
//! when it is idle. The switch waits for room in a ring (`io` with retry), so that a receiver that does not
//! run at the moment loses nothing.

use linecard::eal::CoreId;

use super::cell::{Cell, Side};
use super::namespace::{NEAR, TestNamespace};
use super::sample::{Figure, Snapshot, Testbed, received};
use crate::loopback::console::{Console, Failure};

impl Testbed {
    /// Measures the rate at which frames arrive at a container.
    pub(super) fn containers(&self, cell: Cell, side: Side) -> Result<Figure, Failure> {
        if side == Side::Kernel { self.bridged(cell) } else { self.switched(cell, side) }
    }

    fn switched(&self, cell: Cell, side: Side) -> Result<Figure, Failure> {
        let sockets = ["from.sock", "to.sock"].map(|name| self.socket(name));
        let [first, second] = self.cores;
        let mut command = self.testpmd(side, "switch", [first, second]);
        for (at, socket) in sockets.iter().enumerate() {
            command.args(["--vdev", &format!("net_vhost{at},iface={},queues=1", socket.display())]);
        }
        command.args(Self::APP);
        let mut switch = Console::start("switch", &mut command, &self.interrupt)?;
        let container = |name: &'static str, socket| -> Result<Console, Failure> {
            let device = self.virtio_user(Side::Linecard, socket);
            self.container(name, &device, [second, first])
        };
        let mut sender = container("sender", &sockets[0])?;
        let mut receiver = container("receiver", &sockets[1])?;
        for line in ["set fwd io retry", "set burst tx delay 1 retry 10000", "start"] {
            switch.command(line)?;
        }
        let figure = self.passed(cell, &mut sender, &mut receiver)?;
        switch.command("stop")?;
        for console in [sender, receiver, switch] {
            console.finish()?;
        }
        Ok(figure)
    }

    fn bridged(&self, cell: Cell) -> Result<Figure, Failure> {
        let namespace = || TestNamespace::new().map_err(|error| Failure::Program(error.to_string()));
        let (middle, ends) = (namespace()?, [namespace()?, namespace()?]);
        middle.ip(&["link", "add", "lcbridge", "type", "bridge"])?;
        for (end, name) in ends.iter().zip(["lcfrom", "lcto"]) {
            let pid = end.pid().to_string();
            middle.ip(&["link", "add", name, "type", "veth", "peer", "name", NEAR, "netns", &pid])?;
            middle.ip(&["link", "set", name, "master", "lcbridge"])?;
            middle.quiet(name)?;
            end.quiet(NEAR)?;
        }
        middle.quiet("lcbridge")?;
        let [first, second] = self.cores;
        let start = |end: &TestNamespace, name: &'static str, cores| {
            end.run(|| self.container(name, &format!("net_af_packet0,iface={NEAR}"), cores))?
        };
        let mut sender = start(&ends[0], "sender", [second, first])?;
        let mut receiver = start(&ends[1], "receiver", [first, second])?;
        let figure = self.passed(cell, &mut sender, &mut receiver)?;
        for console in [sender, receiver] {
            console.finish()?;
        }
        Ok(figure)
    }

    fn container(&self, name: &'static str, device: &str, cores: [CoreId; 2]) -> Result<Console, Failure> {
        let mut command = self.testpmd(Side::Linecard, name, cores);
        command.args(["--vdev", device]).args(Self::APP);
        Console::start(name, &mut command, &self.interrupt)
    }

    /// Returns the rate according to the receiver's counter.
    fn passed(&self, cell: Cell, sender: &mut Console, receiver: &mut Console) -> Result<Figure, Failure> {
        receiver.command("set fwd rxonly")?;
        receiver.command("start")?;
        sender.command("set fwd txonly")?;
        sender.command(&format!("set txpkts {}", cell.bytes()))?;
        sender.command("start")?;
        let figure = self.between(1_000_000, || received(receiver).map(Snapshot::of))?;
        sender.command("stop")?;
        receiver.command("stop")?;
        Ok(figure)
    }
}
