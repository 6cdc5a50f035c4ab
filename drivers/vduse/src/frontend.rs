//! The vhost-user frontend of a relay, which passes the requests of the kernel's driver on to the port's
//! backend.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use linecard_virtio::Features;
use linecard_wire::payload::{Inflight, MemoryRegion, Payload, SingleRegion, VringAddr, VringFd, VringState};
use linecard_wire::{Connection, Error, FrontendReq as Req, OutMessage, ProtocolFeatures};

/// The time that the backend, which is in this process, has for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The reason why the backend does not carry out a request.
#[derive(Debug)]
pub(crate) enum Refusal {
    Connection(Error),
    /// The backend refused this request.
    Refused(Req),
    /// The backend answered another request.
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

/// A ring that the driver has set up.
pub(crate) struct Ring<'a> {
    pub(crate) index: u8,
    pub(crate) size: u16,
    /// The addresses of its three areas: descriptors, driver, device.
    pub(crate) areas: [u64; 3],
    /// The state in which it begins, in the form of `SET_VRING_BASE`.
    pub(crate) base: u32,
    pub(crate) kick: BorrowedFd<'a>,
    pub(crate) call: BorrowedFd<'a>,
}

/// A connection to the backend.
#[derive(Debug)]
pub(crate) struct Frontend {
    connection: Connection,
    /// The virtio features that the backend offers.
    pub(crate) offered: Features,
}

impl Frontend {
    /// Negotiates the protocol with the backend.
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

    /// Returns the bytes of a record for two rings of at most `queue_size` descriptors, in either layout.
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
        // Enable before the kick, which starts the ring. Buffers are available already, and a started ring
        // that is not enabled drops packets (vhost-user, "Ring states").
        self.tell(Req::SET_VRING_ENABLE, &state(1), &[])?;
        self.tell(Req::SET_VRING_KICK, &fd, &[ring.kick])
    }

    /// Stops a ring; returns its state.
    pub(crate) fn stop_ring(&mut self, index: u8) -> Result<u32, Refusal> {
        let asked = VringState { index: index.into(), num: 0 }.to_bytes();
        let answer = self.ask(Req::GET_VRING_BASE, &asked)?;
        Ok(VringState::from_bytes(&answer)?.num)
    }

    /// Fails if the backend has closed the connection, the only event without a request.
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
