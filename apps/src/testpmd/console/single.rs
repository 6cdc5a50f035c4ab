//! Commands that start, stop and count single queues.

use linecard::pmd::{Error, QueueId};

use super::grammar::Values;
use super::queues::queue;
use super::vlan::stopped;
use crate::output::{err, out};
use crate::testpmd::session::Session;

/// Returns the queue in the line; prints an error if the port does not have it.
fn named(session: &mut Session, values: &Values) -> Option<QueueId> {
    let receive = values.word(1) == "rxq";
    let number = queue(session, values.port(0), receive, values.number(2))?;
    Some(if receive { QueueId::Receive(number) } else { QueueId::Transmit(number) })
}

pub(super) fn turn(session: &mut Session, values: &Values) {
    let (id, start) = (values.port(0), values.word(3) == "start");
    let Some(queue) = named(session, values) else { return };
    let Some(control) = session.ports.get(id).and_then(|slot| slot.control()) else {
        return err!(session.out, "Please start port {id} first\n");
    };
    match if start { control.start_queue(queue) } else { control.stop_queue(queue) } {
        Ok(()) => {}
        Err(Error::Unsupported { .. }) => unsupported(session),
        Err(error) => err!(session.out, "error: {error}\n"),
    }
}

fn unsupported(session: &mut Session) {
    err!(
        session.out,
        "Function not supported in PMD\nnot supported here: queues that are stopped alone; instead: port stop P, or fewer queues: \
         port config all rxq N\n"
    );
}

pub(super) fn defer(session: &mut Session, values: &Values) {
    let (id, on) = (values.port(0), values.word(3) == "on");
    let Some(queue) = named(session, values) else { return };
    if session.ports.get(id).is_some_and(|slot| on && !slot.stops_queues()) {
        return unsupported(session);
    }
    let Some(slot) = stopped(session, id) else { return };
    slot.reshape(|config| {
        config.deferred.retain(|deferred| *deferred != queue);
        if on {
            config.deferred.push(queue);
        }
    });
}

pub(super) fn count(session: &mut Session, values: &Values) {
    let (id, number) = (values.port(0), values.number(2));
    let receive = values.word(1) == "rxq";
    let queues = session.ports.get(id).map(|slot| {
        let config = slot.config();
        if receive { config.rx_queues } else { config.tx_queues }
    });
    if queues.is_some_and(|queues| number >= queues.into()) {
        return err!(session.out, "Invalid queueid = {number}\n");
    }
    let Some(queue) = named(session, values) else { return };
    let Some(control) = session.ports.get(id).and_then(|slot| slot.control()) else {
        return err!(session.out, "Please start port {id} first\n");
    };
    match control.used_descriptors(queue) {
        Ok(used) => out!(session.out, "Used desc count = {used}\n"),
        Err(Error::Unsupported { .. }) => err!(
            session.out,
            "not supported here: descriptors that are counted; instead: show port stats P and show pool\n"
        ),
        Err(error) => err!(session.out, "error: {error}\n"),
    }
}
