//! vhost-user messages, right and wrong, and descriptors of all kinds to go with them.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::prng::Prng;

pub(crate) fn memory(len: u64) -> File {
    let fd = rustix::fs::memfd_create("hostile", MemfdFlags::CLOEXEC).expect("a memfd");
    let file = File::from(fd);
    file.set_len(len).expect("it grows");
    file
}

pub(crate) fn event() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}

/// Any kind of descriptor.
pub(crate) fn descriptor(dice: &mut Prng) -> OwnedFd {
    match dice.below(6) {
        0 | 1 => event(),
        2 => {
            let len = dice.edge() & 0xff_ffff;
            memory(len).into()
        }
        3 => UnixStream::pair().expect("a pair").0.into(),
        4 => File::open("/dev/zero").expect("zeros").into(),
        _ => File::open("/").expect("a folder").into(),
    }
}

/// One message on its way to a peer.
#[derive(Default)]
pub(crate) struct Message {
    pub(crate) request: u32,
    pub(crate) flags: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Message {
    pub(crate) fn new(request: u32, payload: &[u64]) -> Self {
        let payload = payload.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Self { request, flags: 1, payload, fds: Vec::new() }
    }

    pub(crate) fn with(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push(fd.into());
        self
    }

    /// Changes something about it.
    pub(crate) fn mutate(&mut self, dice: &mut Prng) {
        match dice.below(8) {
            0 => self.request = dice.below(48) as u32,
            1 => self.flags = dice.roll() as u32,
            2 => {
                self.payload = {
                    let len = dice.below(300) as usize;
                    dice.bytes(len)
                }
            }
            3 => self.payload.truncate(dice.below(self.payload.len() as u64 + 1) as usize),
            4 => {
                let value = dice.edge().to_ne_bytes();
                let words = self.payload.len() as u64 / 8;
                if words > 0 {
                    let at = dice.below(words) as usize * 8;
                    self.payload[at..at + 8].copy_from_slice(&value);
                }
            }
            5 => self.fds.clear(),
            6 => self.fds.extend((0..dice.below(12)).map(|_| descriptor(dice)).collect::<Vec<_>>()),
            _ => self.flags |= 8,
        }
    }

    /// The message, with a header that says that its payload has `size` bytes.
    pub(crate) fn bytes(&self, size: u32) -> Vec<u8> {
        let fields = [self.request, self.flags, size].map(u32::to_ne_bytes);
        [fields.concat(), self.payload.clone()].concat()
    }

    /// Sends it; sometimes its header lies about the length, or it comes in two parts. False when the peer is gone.
    pub(crate) fn send(&self, stream: &UnixStream, dice: &mut Prng) -> bool {
        let said = self.payload.len() as u32;
        let bytes = self.bytes(if dice.percent(2) { dice.edge() as u32 } else { said });
        let cut = if dice.percent(5) { dice.below(bytes.len() as u64) as usize } else { bytes.len() };
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().take(32).map(AsFd::as_fd).collect();
        send(stream, &bytes[..cut.max(1)], &fds)
            && (cut == bytes.len() || {
                std::thread::sleep(Duration::from_micros(dice.below(3000)));
                send(stream, &bytes[cut.max(1)..], &[])
            })
    }
}

pub(crate) fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).is_ok()
}

/// Requests by number (QEMU docs/interop/vhost-user.rst).
pub(crate) mod request {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const GET_CONFIG: u32 = 24;
    pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
    pub(crate) const ADD_MEM_REG: u32 = 37;
    pub(crate) const SET_STATUS: u32 = 39;
    pub(crate) const GET_STATUS: u32 = 40;
}

/// Two u32 in a word.
pub(crate) fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// What came from a frontend.
pub(crate) enum Heard {
    Message(Message),
    /// Nothing for a while.
    Silence,
    End,
}

/// Reads one message of a frontend, with the descriptors that came along.
pub(crate) fn hear(stream: &UnixStream) -> Heard {
    let mut header = [0; 12];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut header)];
    match rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::WAITALL) {
        Ok(got) if got.bytes == 12 => {}
        Err(Errno::AGAIN) => return Heard::Silence,
        _ => return Heard::End,
    }
    let fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let mut payload = vec![0; field(8).min(4096) as usize];
    if (&*stream).read_exact(&mut payload).is_err() {
        return Heard::End;
    }
    Heard::Message(Message { request: field(0), flags: field(4), payload, fds })
}
