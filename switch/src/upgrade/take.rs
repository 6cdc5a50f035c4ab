//! The successor's part of an upgrade.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use linecard_pmd::handover::HandedOver;

use super::channel::{Channel, Message, PortMoved, Received, UpgradeError};
use super::leave::monotonic;
use super::{ADDRESS, FORMAT, GONE, UpgradeRequest};
use crate::Switch;
use crate::api::{Client, ClientError, Code, PortSpec, Problem};
use crate::fdb::{Location, Station};
use crate::switch::MAX_PORTS;

/// How long the predecessor may take for each message.
const PATIENCE: Duration = Duration::from_secs(60);

/// The result of taking over.
///
/// ```
/// fn told(taken: &linecard_switch::upgrade::TakenOver) -> String {
///     format!("{} ports; no frame passed for {} µs", taken.ports, taken.pause.as_micros())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenOver {
    /// The process ID of the predecessor.
    pub pid: u32,
    /// The version of the predecessor's program.
    pub version: String,
    /// The number of ports handed over with their devices.
    pub ports: usize,
    /// The number of ports that have to be opened again.
    pub rest: usize,
    /// How long no worker moved a frame.
    pub pause: Duration,
}

/// A switch that takes over from another; see [the module](super). Each step waits for the predecessor. If
/// this and its switch are dropped before [`commit`](Self::commit) has returned, the predecessor stays as it
/// was.
///
/// ```no_run
/// use linecard_switch::upgrade::Successor;
/// fn take_over(switch: &linecard_switch::Switch) -> Result<(), Box<dyn std::error::Error>> {
///     switch.check()?;
///     let mut successor = Successor::ask("/run/linecard/switch.sock".as_ref(), "0.2.0")?;
///     successor.prepare(switch, |_ports| Ok(()))?;
///     successor.begin(switch)?;
///     println!("{:?}", successor.commit(switch)?);
///     successor.finish(switch);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Successor {
    channel: Channel,
    version: String,
    pid: u32,
    handed: usize,
    /// The keys of ports that are opened after the predecessor has closed them.
    rest: Vec<String>,
    kept: BTreeSet<String>,
    specs: Vec<PortSpec>,
    control: Option<(OwnedFd, Option<(u64, u64)>)>,
    frozen: (u64, u32),
}

impl From<ClientError> for UpgradeError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(problem) => problem.into(),
            ClientError::Broken(crate::api::LineError::System(error)) => error.into(),
            other => Problem::new(Code::Unavailable, other.to_string(), "").into(),
        }
    }
}

impl Successor {
    /// Asks the switch whose control socket is at `path` to hand over to a program of `version`.
    ///
    /// # Errors
    /// No switch answers there, or it refuses.
    pub fn ask(path: &Path, version: &str) -> Result<Self, UpgradeError> {
        let mut client = Client::connect(path)?;
        let asked = UpgradeRequest { format: FORMAT, version: version.into() };
        let () = client.call("upgrade", &asked, &[])?;
        Self::over(Channel::new(client.into_socket()))
    }

    /// As [`ask`](Self::ask), after the switch at the other end has agreed.
    pub(super) fn over(channel: Channel) -> Result<Self, UpgradeError> {
        channel.set_patience(Some(PATIENCE))?;
        channel.say(&Message::Hello)?;
        Ok(Self {
            channel,
            version: String::new(),
            pid: 0,
            handed: 0,
            rest: Vec::new(),
            kept: BTreeSet::new(),
            specs: Vec::new(),
            control: None,
            frozen: (0, 0),
        })
    }

    /// Prepares `switch`, which has no ports yet, for everything the predecessor has, while the predecessor
    /// keeps running. The workers of `switch` are halted from here on. `accept` may refuse: it gets the
    /// parameters of all ports.
    ///
    /// # Errors
    /// The predecessor's messages are invalid, or something of it cannot be taken over.
    pub fn prepare(
        &mut self,
        switch: &Switch,
        accept: impl FnOnce(&[PortSpec]) -> Result<(), Problem>,
    ) -> Result<(), UpgradeError> {
        // This thread will signal peers while no frame passes.
        linecard_eal::eventfd::prepare_thread();
        switch.halt()?;
        let prepared = self.receive_ports(switch).and_then(|()| Ok(accept(&self.specs)?));
        self.told(prepared)?;
        self.channel.set_urgent(true);
        self.channel.say(&Message::Prepared)
    }

    /// Tells the predecessor why this switch cannot go on.
    fn told<T>(&self, outcome: Result<T, UpgradeError>) -> Result<T, UpgradeError> {
        if let Err(error @ (UpgradeError::Refused(_) | UpgradeError::Malformed(_))) = &outcome {
            let problem = match error {
                UpgradeError::Refused(problem) => problem.clone(),
                other => Problem::new(Code::InvalidRequest, other.to_string(), "use two versions that fit"),
            };
            // The predecessor may have ended, which is then the error to report.
            let _ = self.channel.say(&Message::Refused { problem });
        }
        outcome
    }

    fn receive_ports(&mut self, switch: &Switch) -> Result<(), UpgradeError> {
        let Received { message: Message::Switch { version, pid, ports, spans }, .. } =
            self.channel.receive()?
        else {
            return Err(UpgradeError::Malformed("it does not say who it is".into()));
        };
        if ports > MAX_PORTS {
            return Err(UpgradeError::Malformed(format!("it has {ports} ports, more than any switch")));
        }
        (self.version, self.pid) = (version, pid);
        for session in spans {
            switch.restore_span(&session.span, session.kept)?;
        }
        let mut came = 0;
        loop {
            let Received { message, bytes, fds } = self.channel.receive()?;
            match message {
                Message::Port(record) => {
                    came += 1;
                    let handed = record.handed.then_some(HandedOver { state: bytes, descriptors: fds });
                    let has_device = switch.adopt(&record, handed)?;
                    let spec = PortSpec::read(record.spec)?;
                    self.handed += usize::from(has_device);
                    if record.open && !has_device {
                        self.rest.push(spec.key.clone());
                    }
                    if record.kept {
                        self.kept.insert(spec.key.clone());
                    }
                    self.specs.push(spec);
                }
                Message::Addresses => restore(switch, &bytes)?,
                Message::Control { name } => {
                    let listener = fds.into_iter().next();
                    let none = || UpgradeError::Malformed("the control socket is missing".into());
                    self.control = Some((listener.ok_or_else(none)?, name));
                }
                Message::Prepare if came == ports => {
                    self.open_later(switch.await_ports());
                    return Ok(());
                }
                other => return Err(UpgradeError::Malformed(format!("{other:?} is not due"))),
            }
        }
    }

    /// Counts these ports, which had a device, among those that are opened when the predecessor has closed them.
    fn open_later(&mut self, ports: Vec<String>) {
        self.handed -= ports.len();
        self.rest.extend(ports);
    }

    /// Returns the keys of the ports that were added by request; known after [`prepare`](Self::prepare).
    #[must_use]
    pub fn kept(&self) -> &BTreeSet<String> {
        &self.kept
    }

    /// Returns the predecessor's listening control socket, with device and inode of its path; only the first
    /// call does.
    pub fn take_control(&mut self) -> Option<(OwnedFd, Option<(u64, u64)>)> {
        self.control.take()
    }

    /// Waits until the predecessor is halted, and restores its state here.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn begin(&mut self, switch: &Switch) -> Result<(), UpgradeError> {
        let begun = self.receive_rest(switch);
        self.told(begun)?;
        self.channel.say(&Message::Ready)
    }

    fn receive_rest(&mut self, switch: &Switch) -> Result<(), UpgradeError> {
        let Received { message: Message::Frozen { nanos, seconds }, .. } = self.channel.receive()? else {
            return Err(UpgradeError::Malformed("it does not say when it stopped".into()));
        };
        self.frozen = (nanos, seconds);
        switch.get_ready();
        let mut moved: Vec<(PortMoved, Vec<u8>)> = Vec::new();
        loop {
            let Received { message, bytes, .. } = self.channel.receive()?;
            match message {
                Message::Addresses => restore(switch, &bytes)?,
                Message::Moved(port) if moved.len() < MAX_PORTS => moved.push((port, bytes)),
                Message::Begin => break,
                other => return Err(UpgradeError::Malformed(format!("{other:?} is not due"))),
            }
        }
        // From here on this switch's clock continues the predecessor's.
        let here = switch.seconds() - switch.clock.load(Ordering::Relaxed);
        switch.clock.store(seconds.saturating_sub(here), Ordering::Relaxed);
        switch.table.tick(seconds);
        self.open_later(switch.begin_ports(&moved)?);
        Ok(())
    }

    /// Waits until the predecessor has handed everything over, and resumes the workers of `switch`.
    ///
    /// # Errors
    /// The predecessor resumes after all.
    pub fn commit(&mut self, switch: &Switch) -> Result<TakenOver, UpgradeError> {
        // If the predecessor gives up, at any time, it closes the connection.
        self.channel.set_patience(None)?;
        self.channel.expect(&Message::Go)?;
        // It does not matter whether the predecessor receives this: it has handed everything over.
        let _ = self.channel.say(&Message::Started);
        let failed = switch.resume_ports();
        self.open_later(switch.give_up(&mut switch.ports(), failed));
        switch.go_on();
        let pause = Duration::from_nanos(monotonic().saturating_sub(self.frozen.0));
        self.channel.set_urgent(false);
        let (pid, version) = (self.pid, self.version.clone());
        Ok(TakenOver { pid, version, ports: self.handed, rest: self.rest.len(), pause })
    }

    /// Waits until the predecessor has closed the ports that could not be handed over, and opens them.
    pub fn finish(self, switch: &Switch) {
        // With a limit: a predecessor that hangs while it ends is no reason to leave ports closed.
        let _ = self.channel.set_patience(Some(PATIENCE));
        self.channel.wait_for_end();
        switch.open_rest(&self.rest);
    }
}

/// Adds addresses to the table of `switch`, or removes them.
fn restore(switch: &Switch, bytes: &[u8]) -> Result<(), UpgradeError> {
    let malformed = || UpgradeError::Malformed("an address makes no sense".into());
    let (addresses, rest) = bytes.as_chunks::<ADDRESS>();
    if !rest.is_empty() {
        return Err(malformed());
    }
    let mut lost = 0_usize;
    for address in addresses {
        let (words, _) = address.as_chunks::<8>();
        let [station, place] = [0, 1].map(|n| words.get(n).copied().map_or(0, u64::from_ne_bytes));
        let station = Station::from_wire(station).ok_or_else(malformed)?;
        if place == GONE {
            switch.table.unset(station);
            continue;
        }
        let place = Location::from_wire(place).filter(|place| usize::from(place.port) < MAX_PORTS);
        lost += usize::from(!switch.table.restore(station, place.ok_or_else(malformed)?));
    }
    if lost > 0 {
        tracing::warn!("{lost} addresses that the earlier switch knew have no room here (--addresses)");
    }
    Ok(())
}
