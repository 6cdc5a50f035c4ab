//! The kernel's side of the device: its requests, and the requests to it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linecard_virtio::Features;

use crate::sys::{self, Entry, RingInfo};

/// `VIRTIO_ID_NET`.
const NETWORK: u32 = 1;
/// An alignment of rings that every driver supports.
const RING_ALIGN: u32 = 4096;
/// The time for a device's file to appear after the device was created.
const APPEARS: Duration = Duration::from_secs(5);

/// A request of the kernel, which waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The state of a ring (`VDUSE_GET_VQ_STATE`).
    RingState { index: u32 },
    /// The driver has set the status of the device (`VDUSE_SET_STATUS`).
    Status(u8),
    /// The driver's memory between these addresses has changed (`VDUSE_UPDATE_IOTLB`).
    Memory { start: u64, last: u64 },
    /// A request of a later kernel.
    Unknown(u32),
}

/// An answer to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// See [`RingInfo::state`].
    RingState {
        index: u32,
        state: [u16; 4],
    },
    Failed,
}

/// The interface of `/dev/vduse/NAME` that a relay needs.
pub(crate) trait Kernel: Send {
    /// Returns the descriptor that is readable when a request waits.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Returns the next request and its number, if one waits.
    fn request(&mut self) -> io::Result<Option<(u32, Request)>>;
    fn answer(&mut self, number: u32, answer: Answer) -> io::Result<()>;
    /// Returns the features that the driver and the device have negotiated.
    fn features(&self) -> io::Result<Features>;
    fn ring(&self, index: u32) -> io::Result<RingInfo>;
    /// Returns the first region of the driver's memory at or after `start`.
    fn region(&self, start: u64) -> io::Result<Option<(Entry, OwnedFd)>>;
    /// Returns whether a region's file is memory of the kernel itself, not of a process.
    fn owns(&self, file: BorrowedFd<'_>) -> bool;
    fn set_kick(&self, index: u32, kick: BorrowedFd<'_>) -> io::Result<()>;
    fn interrupt(&self, index: u32) -> io::Result<()>;
    fn set_link(&self, up: bool) -> io::Result<()>;
    /// Removes the device, unless a driver uses it.
    fn end(self);
}

/// The properties of a device to create.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) features: Features,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    pub(crate) max_size: u16,
}

/// A device in this kernel.
pub(crate) struct Vduse {
    control: File,
    device: File,
    name: [u8; sys::NAME_MAX],
    /// Whether the device existed before: a driver may be using it.
    pub(crate) was_there: bool,
}

impl Vduse {
    /// Creates the device, or takes over the existing one of that name that no process has open.
    pub(crate) fn open(plan: &Plan) -> Result<Self, (PathBuf, io::Error)> {
        let control_path = PathBuf::from("/dev/vduse/control");
        let control = open(&control_path).map_err(|error| (control_path.clone(), error))?;
        let mut name = [0; sys::NAME_MAX];
        name.iter_mut().zip(plan.name.bytes()).for_each(|(to, byte)| *to = byte);
        let was_there = match sys::create(&control, &mut configuration(name, plan)) {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => true,
            Err(error) => return Err((control_path, error)),
        };
        let path = Path::new("/dev/vduse").join(&plan.name);
        let device = appeared(&path).map_err(|error| (path.clone(), error))?;
        let this = Self { control, device, name, was_there };
        let ready = if was_there { Ok(()) } else { this.prepare(plan) };
        match ready.and_then(|()| Ok(rustix::fs::fcntl_setfl(&this.device, rustix::fs::OFlags::NONBLOCK)?)) {
            Ok(()) => Ok(this),
            Err(error) => Err((path, error)),
        }
    }

    fn prepare(&self, plan: &Plan) -> io::Result<()> {
        (0..2).try_for_each(|index| sys::set_max_size(&self.device, index, plan.max_size))
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Opens the file of a device, and waits for it to appear.
fn appeared(path: &Path) -> io::Result<File> {
    let until = Instant::now() + APPEARS;
    loop {
        match open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            outcome => return outcome,
        }
    }
}

fn configuration(name: [u8; sys::NAME_MAX], plan: &Plan) -> sys::DeviceConfig {
    let mut config = [0; sys::CONFIG_LEN];
    let fields = [&plan.mac[..], &[0; 2], &1_u16.to_le_bytes(), &plan.mtu.to_le_bytes()].concat();
    config.copy_from_slice(&fields);
    sys::DeviceConfig {
        name,
        vendor: 0,
        device: NETWORK,
        features: plan.features.bits(),
        rings: 2,
        align: RING_ALIGN,
        reserved: [0; 13],
        config_len: sys::CONFIG_LEN as u32,
        config,
    }
}

impl Kernel for Vduse {
    fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn request(&mut self) -> io::Result<Option<(u32, Request)>> {
        let mut bytes = [0; sys::MESSAGE_LEN];
        match (&self.device).read(&mut bytes) {
            Ok(_) => Ok(Some(read(&bytes))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn answer(&mut self, number: u32, answer: Answer) -> io::Result<()> {
        (&self.device).write_all(&written(number, answer))
    }

    fn features(&self) -> io::Result<Features> {
        sys::features(&self.device).map(Features::from_bits_retain)
    }

    fn ring(&self, index: u32) -> io::Result<RingInfo> {
        sys::ring(&self.device, index)
    }

    fn region(&self, start: u64) -> io::Result<Option<(Entry, OwnedFd)>> {
        match sys::region(&self.device, start, u64::MAX) {
            Ok(found) => Ok(Some(found)),
            // No such region.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks the name that the kernel gives such a file (Linux: `vduse_domain_create`); paths of other files
    /// begin with `/`. A request to the file itself could wait for its owner.
    fn owns(&self, file: BorrowedFd<'_>) -> bool {
        let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        name.is_ok_and(|name| name.as_os_str() == "anon_inode:[vduse-domain]")
    }

    fn set_kick(&self, index: u32, kick: BorrowedFd<'_>) -> io::Result<()> {
        sys::set_kick(&self.device, index, kick)
    }

    fn interrupt(&self, index: u32) -> io::Result<()> {
        sys::interrupt(&self.device, index)
    }

    fn set_link(&self, up: bool) -> io::Result<()> {
        sys::set_status_field(&self.device, if up { sys::LINK_UP } else { 0 })
    }

    fn end(self) {
        let Self { control, device, mut name, .. } = self;
        // The kernel does not remove a device that is open.
        drop(device);
        if let Err(error) = sys::destroy(&control, &mut name) {
            tracing::debug!(%error, "the device stays, for who has it");
        }
    }
}

/// Parses a request: its type, its number, and its payload at [`sys::PAYLOAD_AT`].
fn read(bytes: &[u8; sys::MESSAGE_LEN]) -> (u32, Request) {
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |four| u32::from_ne_bytes(*four));
    let address = |at: usize| bytes[at..].first_chunk().map_or(0, |eight| u64::from_ne_bytes(*eight));
    let request = match word(0) {
        0 => Request::RingState { index: word(sys::PAYLOAD_AT) },
        1 => Request::Status(bytes[sys::PAYLOAD_AT]),
        2 => Request::Memory { start: address(sys::PAYLOAD_AT), last: address(sys::PAYLOAD_AT + 8) },
        other => Request::Unknown(other),
    };
    (word(4), request)
}

/// Encodes an answer: the number of the request, a result, and the payload at [`sys::PAYLOAD_AT`].
fn written(number: u32, answer: Answer) -> [u8; sys::MESSAGE_LEN] {
    const FAILED: u32 = 1;
    let mut bytes = [0; sys::MESSAGE_LEN];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &number.to_ne_bytes());
    match answer {
        Answer::Done => {}
        Answer::Failed => put(4, &FAILED.to_ne_bytes()),
        Answer::RingState { index, state } => {
            put(sys::PAYLOAD_AT, &index.to_ne_bytes());
            for (n, half) in state.iter().enumerate() {
                put(sys::PAYLOAD_AT + 4 + 2 * n, &half.to_ne_bytes());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_have_the_kernels_shape() {
        let mut bytes = [0; sys::MESSAGE_LEN];
        bytes[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[sys::PAYLOAD_AT] = 1;
        assert_eq!(read(&bytes), (7, Request::RingState { index: 1 }));
        bytes[0] = 1;
        bytes[sys::PAYLOAD_AT] = 0xf;
        assert_eq!(read(&bytes), (7, Request::Status(0xf)));
        bytes[0] = 2;
        bytes[sys::PAYLOAD_AT + 8] = 0xff;
        assert_eq!(read(&bytes), (7, Request::Memory { start: 0xf, last: 0xff }));
        bytes[0] = 9;
        assert_eq!(read(&bytes), (7, Request::Unknown(9)));

        assert_eq!(written(3, Answer::Failed)[..8], [3, 0, 0, 0, 1, 0, 0, 0]);
        let told = written(3, Answer::RingState { index: 1, state: [1, 2, 3, 4] });
        assert_eq!(told[4..8], [0; 4]);
        assert_eq!(told[24..36], [1, 0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0]);
        assert!(told[36..].iter().all(|&byte| byte == 0));
    }
}
