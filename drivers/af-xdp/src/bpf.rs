//! The commands of `bpf(2)` that this driver needs. Structures are prefixes of `union bpf_attr`
//! (`linux/bpf.h`), which the kernel accepts.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::program;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;

const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// Marks a program that supports packets in several buffers (Linux 5.18).
const XDP_HAS_FRAGS: u32 = 1 << 5;
/// `linux/if_link.h`.
const FLAG_GENERIC: u32 = 1 << 1;
const FLAG_NATIVE: u32 = 1 << 2;

/// The place where the kernel runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the interface's driver, before an sk_buff exists.
    Native,
    /// In the network stack, on sk_buffs; works on every interface.
    Generic,
}

/// Plain data that the kernel reads and writes: integers only, valid for any bytes.
trait Attributes: Copy {}

macro_rules! attributes {
    ($($(#[$meta:meta])* struct $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        struct $name { $($field: $type),* }
        impl Attributes for $name {}
    )*};
}

attributes! {
    struct CreateMap { kind: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32, inner: u32, node: u32, name: [u8; 16] }
    struct Element { map: u32, pad: u32, key: u64, value: u64, flags: u64 }
    struct LoadProgram {
        kind: u32, instructions_len: u32, instructions: u64, licence: u64, log_level: u32, log_size: u32, log: u64,
        kernel: u32, flags: u32, name: [u8; 16],
    }
    struct Object { path: u64, fd: u32, flags: u32 }
    struct CreateLink { program: u32, target: u32, attach: u32, flags: u32 }
    struct DetachLink { link: u32 }
    struct Info { fd: u32, len: u32, info: u64 }
    struct ById { id: u32, next: u32, flags: u32 }
    /// Start of `struct bpf_map_info`.
    struct MapInfo { kind: u32, id: u32, key_size: u32, value_size: u32, max_entries: u32 }
    /// Start of `struct bpf_prog_info`, up to the identifiers of its maps.
    struct ProgramInfo {
        kind: u32, id: u32, tag: [u8; 8], jited_len: u32, xlated_len: u32, jited: u64, xlated: u64, load_time: u64,
        uid: u32, maps_len: u32, maps: u64,
    }
}

/// # Safety
/// Pointers in `attributes` are valid for the accesses of `command`, until the call returns.
unsafe fn call<T: Attributes>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is exclusively borrowed and has the given size; its pointers are valid, as the
    // caller promises.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
/// As for [`call`]; `command` returns a new descriptor.
unsafe fn open<T: Attributes>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises. The kernel opens all of them close-on-exec.
    let fd = unsafe { call(command, attributes) }?;
    // SAFETY: a new descriptor without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// The name shown by `bpftool`, at most 15 bytes.
fn named() -> [u8; 16] {
    *b"linecard_xsk\0\0\0\0"
}

/// A map of sockets by receive queue (`BPF_MAP_TYPE_XSKMAP`).
#[derive(Debug)]
pub(super) struct Sockets(OwnedFd);

impl Sockets {
    /// Creates a map for queues below `entries`.
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        let mut attributes = CreateMap {
            kind: MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: entries,
            name: named(),
            ..CreateMap::default()
        };
        // SAFETY: the attributes of this command contain no address, so the kernel accesses only them; they
        // outlive the call.
        unsafe { open(MAP_CREATE, &mut attributes) }.map(Self)
    }

    /// Opens the map that is pinned at `path`; `InvalidInput` if it is something else.
    pub(super) fn pinned(path: &Path) -> io::Result<Self> {
        let fd = get(path)?;
        match map_info(fd.as_fd()) {
            Ok(info) if info.kind == MAP_TYPE_XSKMAP => Ok(Self(fd)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Returns the number of queues that the map has room for.
    pub(super) fn entries(&self) -> io::Result<u32> {
        Ok(map_info(self.0.as_fd())?.max_entries)
    }

    /// Redirects the frames of `queue` to `socket`.
    pub(super) fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let socket = number(socket);
        let (key, value) = (&raw const queue, &raw const socket);
        let mut attributes = Element {
            map: number(self.0.as_fd()),
            key: key as u64,
            value: value as u64,
            ..Element::default()
        };
        // SAFETY: key and value have four bytes each, as the map defines, and outlive the call.
        unsafe { call(MAP_UPDATE, &mut attributes) }.map(drop)
    }

    /// Lets the frames of `queue` go to the kernel's stack again.
    pub(super) fn clear(&self, queue: u32) -> io::Result<()> {
        let key = &raw const queue;
        let mut attributes = Element { map: number(self.0.as_fd()), key: key as u64, ..Element::default() };
        // SAFETY: the key has four bytes, as the map defines, and outlives the call.
        unsafe { call(MAP_DELETE, &mut attributes) }.map(drop)
    }

    /// Pins the map in a bpf file system.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.0.as_fd(), path)
    }
}

/// A loaded XDP program.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

impl Program {
    /// Loads the driver's own program over `sockets`.
    pub(super) fn redirect(sockets: &Sockets) -> io::Result<Self> {
        // Kernels before 5.18 do not support the flag.
        Self::load(sockets, XDP_HAS_FRAGS).or_else(|_| Self::load(sockets, 0))
    }

    fn load(sockets: &Sockets, flags: u32) -> io::Result<Self> {
        let code = program::redirect(sockets.0.as_raw_fd());
        let licence: &CStr = program::LICENCE;
        let mut attributes = LoadProgram {
            kind: PROG_TYPE_XDP,
            instructions_len: code.len() as u32,
            instructions: code.as_ptr() as u64,
            licence: licence.as_ptr() as u64,
            flags,
            name: named(),
            ..LoadProgram::default()
        };
        // SAFETY: instructions and licence outlive the call, which only reads them.
        unsafe { open(PROG_LOAD, &mut attributes) }.map(Self)
    }

    /// Pins the program in a bpf file system.
    #[cfg(test)]
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.0.as_fd(), path)
    }

    /// Opens the program that is pinned at `path`, and its map of sockets; `InvalidInput` if it is no XDP
    /// program with one.
    pub(super) fn pinned(path: &Path) -> io::Result<(Self, Sockets)> {
        let fd = get(path)?;
        let mut maps = [0_u32; 16];
        let info = ProgramInfo {
            maps_len: maps.len() as u32,
            maps: maps.as_mut_ptr() as u64,
            ..ProgramInfo::default()
        };
        let refused = io::Error::from(io::ErrorKind::InvalidInput);
        // SAFETY: `maps` has room for `maps_len` identifiers and outlives the call.
        let Ok(info) = (unsafe { describe(fd.as_fd(), info) }) else { return Err(refused) };
        if info.kind != PROG_TYPE_XDP {
            return Err(refused);
        }
        for id in maps.into_iter().take(info.maps_len as usize) {
            // SAFETY: the attributes of this command contain no address, so the kernel accesses only them;
            // they outlive the call.
            let map = unsafe { open(MAP_GET_FD_BY_ID, &mut ById { id, ..ById::default() }) }?;
            if map_info(map.as_fd())?.kind == MAP_TYPE_XSKMAP {
                return Ok((Self(fd), Sockets(map)));
            }
        }
        Err(refused)
    }
}

/// A program attached to an interface. The kernel detaches it when the last descriptor is closed, so also
/// after SIGKILL.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) link: OwnedFd,
    pub(super) mode: Mode,
}

impl Attached {
    /// Attaches `program` to interface `index` of this thread's network namespace.
    pub(super) fn new(program: &Program, index: u32, mode: Mode) -> io::Result<Self> {
        let flags = match mode {
            Mode::Native => FLAG_NATIVE,
            Mode::Generic => FLAG_GENERIC,
        };
        let program = number(program.0.as_fd());
        let mut attributes = CreateLink { program, target: index, attach: ATTACH_XDP, flags };
        // SAFETY: the attributes of this command contain no address, so the kernel accesses only them; they
        // outlive the call.
        unsafe { open(LINK_CREATE, &mut attributes) }.map(|link| Self { link, mode })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // A child process that this process is starting holds copies of all descriptors until it executes its
        // program; the interface must be free before that. Kernels before 5.9 lack the command, and the close
        // detaches the program.
        let mut attributes = DetachLink { link: number(self.link.as_fd()) };
        // SAFETY: the attributes of this command contain no address, so the kernel accesses only them; they
        // outlive the call.
        let _ = unsafe { call(LINK_DETACH, &mut attributes) };
    }
}

fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attributes = Object { path: path.as_ptr() as u64, fd: number(object), flags: 0 };
    // SAFETY: the path ends with a zero byte and outlives the call.
    unsafe { call(OBJ_PIN, &mut attributes) }.map(drop)
}

/// Opens the object that is pinned at `path`.
fn get(path: &Path) -> io::Result<OwnedFd> {
    let text = c_path(path)?;
    let mut attributes = Object { path: text.as_ptr() as u64, ..Object::default() };
    // SAFETY: the path ends with a zero byte and outlives the call.
    let got = unsafe { open(OBJ_GET, &mut attributes) };
    // For a path without a pinned object, the kernel reports a missing permission.
    got.map_err(|error| if lies_elsewhere(path) { io::ErrorKind::InvalidInput.into() } else { error })
}

/// Returns whether `path` exists outside of a bpf file system.
fn lies_elsewhere(path: &Path) -> bool {
    /// `BPF_FS_MAGIC` of `linux/magic.h`.
    const BPF: u32 = 0xcafe_4a11;
    rustix::fs::statfs(path).is_ok_and(|system| u32::try_from(system.f_type) != Ok(BPF))
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    // SAFETY: a map's description contains no address, so the kernel writes only the description.
    unsafe { describe(map, MapInfo::default()) }
}

/// # Safety
/// Pointers in `info` are valid for the data that the kernel writes there.
unsafe fn describe<T: Attributes>(object: BorrowedFd<'_>, mut info: T) -> io::Result<T> {
    let mut attributes =
        Info { fd: number(object), len: size_of::<T>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: `info` has the given size and outlives the call; its pointers are valid, as the caller
    // promises.
    unsafe { call(OBJ_GET_INFO, &mut attributes) }?;
    Ok(info)
}
