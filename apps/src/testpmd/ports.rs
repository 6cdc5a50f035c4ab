//! The port table, indexed by port number.

mod slot;

use linecard::pmd::{Device, PortConfig};

pub(crate) use self::slot::{ETHER_OVERHEAD, PortRecord};
use super::engine::Queues;
use super::lane::PortRx;
use super::topology::Stream;
use crate::error::Error;

/// The most ports. DPDK's `RTE_MAX_ETHPORTS` is a build option: 32 by default, at most this number.
pub(crate) const MAX_PORTS: usize = 1024;

/// All ports. A number is reused only after its port was closed.
#[derive(Default)]
pub(crate) struct Ports(Vec<Option<PortRecord>>);

impl Ports {
    /// Adds a probed device under the smallest free number.
    pub(crate) fn add(
        &mut self,
        devargs: &str,
        device: Box<dyn Device>,
        config: PortConfig,
    ) -> Result<u16, Error> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        let id = u16::try_from(free).ok().filter(|_| free < MAX_PORTS).ok_or_else(|| {
            Error::Failed(format!("{MAX_PORTS} ports are attached, the most possible; detach one first"))
        })?;
        let slot = Some(PortRecord::new(id, devargs, device, config));
        match self.0.get_mut(free) {
            Some(place) => *place = slot,
            None => self.0.push(slot),
        }
        Ok(id)
    }

    pub(crate) fn get(&self, id: u16) -> Option<&PortRecord> {
        self.0.get(usize::from(id))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u16) -> Option<&mut PortRecord> {
        self.0.get_mut(usize::from(id))?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PortRecord> {
        self.0.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PortRecord> {
        self.0.iter_mut().flatten()
    }

    pub(crate) fn ids(&self) -> Vec<u16> {
        self.iter().map(|slot| slot.id).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn named(&self, name: &str) -> Option<u16> {
        self.iter().find(|slot| slot.name == name).map(|slot| slot.id)
    }

    /// Stops and drops a port.
    pub(crate) fn close(&mut self, id: u16) {
        if let Some(place) = self.0.get_mut(usize::from(id)) {
            if let Some(slot) = place {
                slot.stop();
            }
            *place = None;
        }
    }

    /// Takes the queues of a stream out of their ports: both or none.
    pub(crate) fn lend(&mut self, stream: &Stream) -> Option<Queues> {
        let rx_place = self.get_mut(stream.rx_port)?.live_mut()?.rx.get_mut(usize::from(stream.rx_queue))?;
        let rx = rx_place.take()?;
        let tx = self.get_mut(stream.tx_port).and_then(PortRecord::live_mut);
        let tx = tx.and_then(|live| live.tx.get_mut(usize::from(stream.tx_queue))?.take());
        match tx {
            Some(tx) => Some(Queues { stream: *stream, rx, tx }),
            None => {
                self.give_back_rx(stream, rx);
                None
            }
        }
    }

    fn give_back_rx(&mut self, stream: &Stream, rx: PortRx) {
        let live = self.get_mut(stream.rx_port).and_then(PortRecord::live_mut);
        if let Some(place) = live.and_then(|live| live.rx.get_mut(usize::from(stream.rx_queue))) {
            *place = Some(rx);
        }
    }

    /// Returns the queues of a stream to their ports.
    pub(crate) fn give_back(&mut self, queues: Queues) {
        let Queues { stream, rx, tx } = queues;
        self.give_back_rx(&stream, rx);
        let live = self.get_mut(stream.tx_port).and_then(PortRecord::live_mut);
        if let Some(place) = live.and_then(|live| live.tx.get_mut(usize::from(stream.tx_queue))) {
            *place = Some(tx);
        }
    }
}
