//! A device behind a vhost-user socket, the port as client or as server (QEMU `docs/interop/vhost-user.rst`).
//!
//! ```text
//!   greet      GET_FEATURES · GET/SET_PROTOCOL_FEATURES · SET_OWNER · GET_QUEUE_NUM · GET_MAX_MEM_SLOTS
//!   agree      SET_STATUS acknowledge, driver · SET_FEATURES · SET_STATUS features-ok · GET_STATUS
//!   (rings)    SET_VRING_CALL · SET_MEM_TABLE · SET_VRING_{NUM,BASE,ADDR,KICK,ENABLE} · SET_STATUS driver-ok
//! ```

mod args;
mod connect;
mod dialogue;
mod memory;

use std::os::fd::AsFd;

use linecard_eal::eventfd::EventFd;
use linecard_virtio::{Features, RingAddrs};
use linecard_wire::payload::{Config, Payload, VringAddr, VringFd, VringState};
use linecard_wire::{FrontendReq, ProtocolFeatures};

pub(crate) use args::SocketOptions;
pub(crate) use connect::RETRY;

use crate::backend::{Backend, MemoryUpdate, Offer, Phase, RingId, RingSetup, Watched};
use crate::error::Error;
use dialogue::Dialogue;

/// The regions that every backend accepts in one table (QEMU `docs/interop/vhost-user.rst`, "Memory region
/// table").
const TABLE_REGIONS: usize = 8;

/// A backend connected by a socket.
#[derive(Debug)]
pub(crate) struct VhostUser {
    dialogue: Dialogue,
    offered: Features,
    protocol: ProtocolFeatures,
    /// The backend's queue pairs.
    pairs: u16,
    /// The memory regions that the backend accepts one by one; 0 if it accepts only tables.
    slots: usize,
}

fn wanted_protocol() -> ProtocolFeatures {
    ProtocolFeatures::MQ
        | ProtocolFeatures::REPLY_ACK
        | ProtocolFeatures::STATUS
        | ProtocolFeatures::CONFIGURE_MEM_SLOTS
}

impl VhostUser {
    /// Reads the backend's capabilities.
    fn greet(mut dialogue: Dialogue) -> Result<Self, Error> {
        let offered = Features::from_bits_retain(dialogue.ask(FrontendReq::GET_FEATURES, &[])?);
        let mut protocol = ProtocolFeatures::empty();
        if offered.contains(Features::PROTOCOL_FEATURES) {
            let theirs: u64 = dialogue.ask(FrontendReq::GET_PROTOCOL_FEATURES, &[])?;
            let mut wanted = wanted_protocol();
            // The configuration is requested only if an offered feature has a field in it.
            let told = Features::NET_MAC | Features::NET_MTU | Features::NET_SPEED_DUPLEX;
            wanted.set(ProtocolFeatures::CONFIG, offered.intersects(told));
            wanted.set(ProtocolFeatures::MTU, offered.contains(Features::NET_MTU));
            protocol = ProtocolFeatures::from_bits_truncate(theirs) & wanted;
            dialogue.tell(FrontendReq::SET_PROTOCOL_FEATURES, &protocol.bits().to_bytes(), &[])?;
            dialogue.set_acks(protocol.contains(ProtocolFeatures::REPLY_ACK));
        }
        dialogue.tell(FrontendReq::SET_OWNER, &[], &[])?;
        let mut greeted = Self { dialogue, offered, protocol, pairs: 1, slots: 0 };
        if protocol.contains(ProtocolFeatures::MQ) {
            let pairs: u64 = greeted.dialogue.ask(FrontendReq::GET_QUEUE_NUM, &[])?;
            greeted.pairs = u16::try_from(pairs).unwrap_or(u16::MAX);
        }
        if protocol.contains(ProtocolFeatures::CONFIGURE_MEM_SLOTS) {
            let slots: u64 = greeted.dialogue.ask(FrontendReq::GET_MAX_MEM_SLOTS, &[])?;
            greeted.slots = usize::try_from(slots).unwrap_or(usize::MAX);
        }
        Ok(greeted)
    }

    fn has(&self, feature: ProtocolFeatures) -> bool {
        self.protocol.contains(feature)
    }

    fn index(&self, ring: RingId) -> u32 {
        ring.index(self.pairs)
    }

    /// Sends a message about one ring with a descriptor. The message has one byte for the ring's number.
    fn ring_fd(&mut self, request: FrontendReq, ring: RingId, event: &EventFd) -> Result<(), Error> {
        let index = u8::try_from(self.index(ring)).map_err(|_| Error::RingNumber { ring })?;
        self.dialogue.tell(request, &VringFd { index, has_fd: true }.to_bytes(), &[event.as_fd()])
    }
}

impl Backend for VhostUser {
    fn offer(&self) -> Offer {
        let regions = if self.slots > 0 { self.slots } else { TABLE_REGIONS };
        Offer { features: self.offered, pairs: self.pairs, regions }
    }

    fn details(&self) -> String {
        let names: Vec<&str> = self.protocol.iter_names().map(|(name, _)| name).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        format!("vhost-user protocol features: {names}")
    }

    fn enter(&mut self, phase: Phase) {
        self.dialogue.enter(phase);
    }

    fn status(&mut self) -> Result<Option<u8>, Error> {
        if !self.has(ProtocolFeatures::STATUS) {
            return Ok(None);
        }
        let status: u64 = self.dialogue.ask(FrontendReq::GET_STATUS, &[])?;
        // The message has more bits than the status.
        Ok(Some((status & 0xff) as u8))
    }

    fn set_status(&mut self, status: u8) -> Result<(), Error> {
        if self.has(ProtocolFeatures::STATUS) {
            self.dialogue.tell(FrontendReq::SET_STATUS, &u64::from(status).to_bytes(), &[])?;
        }
        Ok(())
    }

    fn set_features(&mut self, features: Features) -> Result<(), Error> {
        self.dialogue.tell(FrontendReq::SET_FEATURES, &features.bits().to_bytes(), &[])
    }

    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        if !self.has(ProtocolFeatures::CONFIG) || bytes.len() > Config::MAX_DATA {
            return Ok(false);
        }
        let question = Config { offset, flags: 0, data: vec![0; bytes.len()] }.to_bytes();
        let answer = self.dialogue.ask_bytes(FrontendReq::GET_CONFIG, &question)?;
        // A backend without these bytes sends an empty answer.
        let told = Config::from_bytes(&answer).ok().filter(|told| told.data.len() == bytes.len());
        if let Some(told) = &told {
            bytes.copy_from_slice(&told.data);
        }
        Ok(told.is_some())
    }

    /// Sent only to a backend that negotiated it.
    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        if !self.has(ProtocolFeatures::MTU) {
            return Ok(());
        }
        self.dialogue.tell(FrontendReq::NET_SET_MTU, &u64::from(mtu).to_bytes(), &[])
    }

    fn set_memory(&mut self, update: &MemoryUpdate<'_>) -> Result<(), Error> {
        match self.slots {
            0 => memory::table(&mut self.dialogue, update)?,
            _ => memory::one_by_one(&mut self.dialogue, update)?,
        }
        self.dialogue.barrier()
    }

    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error> {
        // DPDK's backends create the ring on this message.
        self.ring_fd(FrontendReq::SET_VRING_CALL, ring, call)
    }

    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error> {
        let index = self.index(ring.id);
        let state = |num| VringState { index, num }.to_bytes();
        let RingAddrs { desc, driver, device } = ring.addrs;
        let addr = VringAddr { index, flags: 0, desc, used: device, avail: driver, log: 0 };
        let dialogue = &mut self.dialogue;
        dialogue.tell(FrontendReq::SET_VRING_NUM, &state(u32::from(ring.size)), &[])?;
        dialogue.tell(FrontendReq::SET_VRING_BASE, &state(ring.base()), &[])?;
        dialogue.tell(FrontendReq::SET_VRING_ADDR, &addr.to_bytes(), &[])?;
        self.ring_fd(FrontendReq::SET_VRING_KICK, ring.id, ring.kick)
    }

    /// Without protocol features, rings start enabled.
    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error> {
        if self.offered.contains(Features::PROTOCOL_FEATURES) {
            let state = VringState { index: self.index(ring), num: u32::from(on) };
            self.dialogue.tell(FrontendReq::SET_VRING_ENABLE, &state.to_bytes(), &[])?;
        }
        Ok(())
    }

    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error> {
        let state = VringState { index: self.index(ring), num: 0 };
        let stood: VringState = self.dialogue.ask(FrontendReq::GET_VRING_BASE, &state.to_bytes())?;
        Ok(stood.num)
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.dialogue.barrier()
    }

    fn watched(&self) -> Option<Watched<'_>> {
        Some(self.dialogue.watched())
    }

    /// The backend must not send anything without a request.
    fn look(&mut self) -> Result<(), Error> {
        self.dialogue.uninvited()
    }
}
