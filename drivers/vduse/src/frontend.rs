//! The vhost-user end of a relay: it tells the port's backend what the kernel's driver wants.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use linecard_virtio::Features;
use linecard_wire::payload::{Inflight, MemoryRegion, Payload, SingleRegion, VringAddr, VringFd, VringState};
use linecard_wire::{Connection, Error, FrontendReq as Req, OutMessage, ProtocolFeatures};

/// How long the backend may take for one answer. It is in this process.
const ANSWER: Duration = Duration::from_secs(10);

/// Why the backend does not do what it was told.
#[derive(Debug)]
pub(crate) enum Refusal {
    Connection(Error),
    /// It said no to this request.
    Refused(Req),
    /// It answered another request.
    Unasked(Req),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "the port's backend: {error}"),
            Self::Refused(request) => {
                write!(f, "the port's backend refuses {request:?}; its own message says why")
            }
            Self::Unasked(request) => {
                write!(f, "the port's backend answers another request than {request:?}")
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}

/// A ring as the driver has made it.
pub(crate) struct Ring<'a> {
    pub(crate) index: u8,
    pub(crate) size: u16,
    /// Addresses of its three areas: descriptors, driver, device.
    pub(crate) areas: [u64; 3],
    /// Where it begins, as `SET_VRING_BASE` says it.
    pub(crate) base: u32,
    pub(crate) kick: BorrowedFd<'a>,
    pub(crate) call: BorrowedFd<'a>,
}

/// A connection to the backend.
#[derive(Debug)]
pub(crate) struct Frontend {
    connection: Connection,
    /// Virtio features that the backend offers.
    pub(crate) offered: Features,
}

impl Frontend {
    /// Agrees with the backend on the protocol.
    pub(crate) fn greet(socket: UnixStream) -> Result<Self, Refusal> {
        let mut this = Self { connection: Connection::new(socket)?, offered: Features::empty() };
        this.offered = Features::from_bits_retain(this.number(Req::GET_FEATURES)?);
        let protocol = ProtocolFeatures::from_bits_truncate(this.number(Req::GET_PROTOCOL_FEATURES)?);
        let wanted = ProtocolFeatures::REPLY_ACK
            | ProtocolFeatures::CONFIGURE_MEM_SLOTS
            | ProtocolFeatures::INFLIGHT_SHMFD;
        let agreed = (protocol & wanted).bits().to_bytes();
        this.connection.send(&OutMessage::request(Req::SET_PROTOCOL_FEATURES, &agreed))?;
        this.tell(Req::SET_OWNER, &[], &[])?;
        Ok(this)
    }

    pub(crate) fn set_features(&mut self, features: Features) -> Result<(), Refusal> {
        let agreed = (features & self.offered) | Features::PROTOCOL_FEATURES;
        self.tell(Req::SET_FEATURES, &agreed.bits().to_bytes(), &[])
    }

    pub(crate) fn add_region(&mut self, region: MemoryRegion, file: BorrowedFd<'_>) -> Result<(), Refusal> {
        self.tell(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[file])
    }

    pub(crate) fn remove_region(&mut self, region: MemoryRegion) -> Result<(), Refusal> {
        self.tell(Req::REM_MEM_REG, &SingleRegion(region).to_bytes(), &[])
    }

    /// Bytes of a region for the records of two rings of at most `queue_size` descriptors, whatever their layout.
    pub(crate) fn record_len(&mut self, queue_size: u16) -> Result<u64, Refusal> {
        let asked = Inflight { mmap_size: 0, mmap_offset: 0, queues: 2, queue_size };
        let answer = self.ask(Req::GET_INFLIGHT_FD, &asked.to_bytes())?;
        Ok(Inflight::from_bytes(&answer)?.mmap_size)
    }

    pub(crate) fn set_record(
        &mut self,
        len: u64,
        queue_size: u16,
        file: BorrowedFd<'_>,
    ) -> Result<(), Refusal> {
        let place = Inflight { mmap_size: len, mmap_offset: 0, queues: 2, queue_size };
        self.tell(Req::SET_INFLIGHT_FD, &place.to_bytes(), &[file])
    }

    pub(crate) fn start_ring(&mut self, ring: &Ring<'_>) -> Result<(), Refusal> {
        let index = u32::from(ring.index);
        let state = |num| VringState { index, num }.to_bytes();
        let [desc, avail, used] = ring.areas;
        let addresses = VringAddr { index, flags: 0, desc, used, avail, log: 0 };
        let fd = VringFd { index: ring.index, has_fd: true }.to_bytes();
        self.tell(Req::SET_VRING_NUM, &state(ring.size.into()), &[])?;
        self.tell(Req::SET_VRING_BASE, &state(ring.base), &[])?;
        self.tell(Req::SET_VRING_ADDR, &addresses.to_bytes(), &[])?;
        self.tell(Req::SET_VRING_CALL, &fd, &[ring.call])?;
        // Before the kick, which starts the ring: buffers are there already, and a ring that is started and not enabled drops what
        // it finds (vhost-user, "Ring states").
        self.tell(Req::SET_VRING_ENABLE, &state(1), &[])?;
        self.tell(Req::SET_VRING_KICK, &fd, &[ring.kick])
    }

    /// Stops a ring; where it stands.
    pub(crate) fn stop_ring(&mut self, index: u8) -> Result<u32, Refusal> {
        let asked = VringState { index: index.into(), num: 0 }.to_bytes();
        let answer = self.ask(Req::GET_VRING_BASE, &asked)?;
        Ok(VringState::from_bytes(&answer)?.num)
    }

    /// What the backend says although nothing was asked: that it has gone.
    pub(crate) fn uninvited(&mut self) -> Result<(), Refusal> {
        self.connection.read()?;
        Ok(())
    }

    fn number(&mut self, request: Req) -> Result<u64, Refusal> {
        Ok(u64::from_bytes(&self.ask(request, &[])?)?)
    }

    fn ask(&mut self, request: Req, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.connection.send(&OutMessage::request(request, payload))?;
        self.reply(request)
    }

    fn tell(&mut self, request: Req, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Refusal> {
        self.connection.send(&OutMessage::request(request, payload).with_fds(fds).need_reply())?;
        match u64::from_bytes(&self.reply(request)?)? {
            0 => Ok(()),
            _ => Err(Refusal::Refused(request)),
        }
    }

    fn reply(&mut self, request: Req) -> Result<Vec<u8>, Refusal> {
        let message = self.connection.read_until(Instant::now() + ANSWER)?;
        let answers = message.is_reply() && message.request == request as u32;
        if answers { Ok(message.payload) } else { Err(Refusal::Unasked(request)) }
    }
}

impl AsFd for Frontend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
