//! The predecessor's part of an upgrade.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::channel::{Channel, Message, UpgradeError};
use super::{ADDRESS, FORMAT, GONE, UpgradeRequest};
use crate::Switch;
use crate::api::{Code, Problem};
use crate::fdb::{Location, Station};

/// How long a successor may take to prepare.
const PREPARING: Duration = Duration::from_secs(10);
/// How long a successor may take to build its rings, while no frame passes.
const BEGINNING: Duration = Duration::from_secs(2);
/// The interval of error messages about a successor that received everything and has not started.
const STARTING: Duration = Duration::from_secs(5);
/// The number of addresses in a message.
const ADDRESSES: usize = 4096;

/// What a successor receives besides the switch itself.
pub(crate) struct Extra<'a> {
    pub(crate) version: &'a str,
    /// The keys of ports that were added by request.
    pub(crate) kept: &'a BTreeSet<String>,
    /// The control socket, with device and inode of its path.
    pub(crate) control: Option<(BorrowedFd<'a>, Option<(u64, u64)>)>,
}

/// Checks that this switch can hand over in the requested format.
pub(crate) fn check(asked: &UpgradeRequest) -> Result<(), Problem> {
    if asked.format == FORMAT {
        return Ok(());
    }
    let shown: String = asked.version.chars().take(40).flat_map(char::escape_default).collect();
    Err(Problem::new(
        Code::InvalidParams,
        format!(
            "version {shown} takes over in format {}, and this switch hands over in format {FORMAT}",
            asked.format
        ),
        "restart the switch instead of upgrading it",
    ))
}

/// Hands everything over to the switch at the other end of `channel`. On success nothing is left here; on an
/// error everything is as it was. `started` is called when the successor has started, before anything is
/// released here.
pub(crate) fn leave(
    switch: &Switch,
    channel: &Channel,
    extra: &Extra<'_>,
    started: impl FnOnce(),
) -> Result<(), UpgradeError> {
    switch.table.start_journal();
    let left = prepare(switch, channel, extra).and_then(|()| give(switch, channel));
    switch.table.end_journal();
    match left {
        Ok(()) => {
            started();
            switch.release_ports();
            switch.forget_addresses();
            Ok(())
        }
        Err(error) => {
            for (key, problem) in switch.resume_ports() {
                tracing::error!("port {key} does not go on: {problem}");
            }
            switch.go_on();
            if !matches!(error, UpgradeError::Ended | UpgradeError::System(_)) {
                // The successor may have ended.
                let problem =
                    Problem::new(Code::Unavailable, error.to_string(), "the earlier switch goes on");
                let _ = channel.say(&Message::Refused { problem });
            }
            Err(error)
        }
    }
}

/// Lets the successor prepare while frames pass.
fn prepare(switch: &Switch, channel: &Channel, extra: &Extra<'_>) -> Result<(), UpgradeError> {
    channel.set_patience(Some(PREPARING))?;
    channel.expect(&Message::Hello)?;
    let ports = switch.hold_ports(|key| extra.kept.contains(key))?;
    let version = extra.version.to_owned();
    let spans = switch.sessions().values().cloned().collect();
    channel.say(&Message::Switch { version, pid: std::process::id(), ports: ports.len(), spans })?;
    for (record, handed) in ports {
        let (bytes, fds) = handed.map(|handed| (handed.state, handed.descriptors)).unwrap_or_default();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        channel.send(&Message::Port(record), &bytes, &fds)?;
    }
    let known = switch.table.list().into_iter().map(|(station, place)| (station, Some(place)));
    send_addresses(channel, &known.collect::<Vec<_>>())?;
    if let Some((listener, name)) = &extra.control {
        channel.send(&Message::Control { name: *name }, &[], &[*listener])?;
    }
    channel.say(&Message::Prepare)?;
    channel.expect(&Message::Prepared)
}

/// Stops moving frames and hands over the rest; returns once the successor moves frames.
fn give(switch: &Switch, channel: &Channel) -> Result<(), UpgradeError> {
    channel.set_patience(Some(BEGINNING))?;
    channel.set_urgent(true);
    let nanos = monotonic();
    switch.halt()?;
    let moved = switch.freeze_ports();
    channel.say(&Message::Frozen { nanos, seconds: switch.seconds() })?;
    send_addresses(channel, &switch.table.end_journal())?;
    for (moved, state) in moved {
        channel.send(&Message::Moved(moved), &state, &[])?;
    }
    channel.say(&Message::Begin)?;
    channel.expect(&Message::Ready)?;
    channel.say(&Message::Go)?;
    // Only the message or the end of the successor tells who has the ports: nothing else ends this loop.
    channel.set_patience(Some(STARTING))?;
    channel.set_urgent(false);
    let since = Instant::now();
    loop {
        match channel.expect(&Message::Started) {
            Err(UpgradeError::Late) => tracing::error!(
                "the new switch was given everything {} s ago and does not start; end its process to have this one go on",
                since.elapsed().as_secs()
            ),
            outcome => return outcome,
        }
    }
}

fn send_addresses(channel: &Channel, known: &[(Station, Option<Location>)]) -> Result<(), UpgradeError> {
    for piece in known.chunks(ADDRESSES) {
        let mut bytes = Vec::with_capacity(piece.len() * ADDRESS);
        for (station, place) in piece {
            bytes.extend(station.to_wire().to_ne_bytes());
            bytes.extend(place.map_or(GONE, Location::to_wire).to_ne_bytes());
        }
        channel.send(&Message::Addresses, &bytes, &[])?;
    }
    Ok(())
}

/// Returns the time in nanoseconds of a clock that all processes share.
pub(super) fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}
