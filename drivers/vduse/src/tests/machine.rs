//! A kernel and a driver of the test's own.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_eal::eventfd::EventFd;
use linecard_eal::shared::SharedBytes;
use linecard_lab::wait_until;
use linecard_virtio::{
    Buffer, Completion, DriverConfig, DriverQueue, Features, Layout, RingAddrs, RingMemory, packed, split,
};
use memmap2::{MmapOptions, MmapRaw};

use crate::kernel::{Answer, Kernel, Request};
use crate::sys::{Entry, RingInfo};

pub(super) const IOVA: u64 = 0x1000_0000;
const MEMORY: usize = 4 << 20;
pub(super) const SIZE: u16 = 64;
pub(super) const HEADER: usize = 12;

/// What the kernel knows of the device.
#[derive(Default)]
pub(super) struct State {
    pub(super) requests: VecDeque<(u32, Request)>,
    pub(super) answers: Vec<(u32, Answer)>,
    pub(super) asked: u32,
    pub(super) features: Features,
    pub(super) rings: [RingInfo; 2],
    pub(super) regions: Vec<(Entry, Arc<File>)>,
    pub(super) kicks: [Option<OwnedFd>; 2],
    pub(super) interrupts: [u32; 2],
    pub(super) link: bool,
    pub(super) ended: bool,
    /// Device and inode of the kernel's own memory.
    pub(super) of_kernel: Vec<(u64, u64)>,
}

/// A kernel of the test's own; outlives the processes that serve it.
#[derive(Clone)]
pub(super) struct Fake(Arc<(EventFd, Mutex<State>)>);

impl Fake {
    pub(super) fn new() -> Self {
        Self(Arc::new((EventFd::new().expect("an eventfd"), Mutex::default())))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, request: Request) -> Answer {
        let number = {
            let mut state = self.state();
            state.asked += 1;
            let number = state.asked;
            state.requests.push_back((number, request));
            number
        };
        self.0.0.signal();
        let answer = || self.state().answers.iter().find(|(to, _)| *to == number).map(|(_, answer)| *answer);
        wait_until("an answer", || answer().is_some());
        answer().expect("it came")
    }
}

impl Kernel for Fake {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
    fn request(&mut self) -> io::Result<Option<(u32, Request)>> {
        self.0.0.drain();
        Ok(self.state().requests.pop_front())
    }
    fn answer(&mut self, number: u32, answer: Answer) -> io::Result<()> {
        self.state().answers.push((number, answer));
        Ok(())
    }
    fn features(&self) -> io::Result<Features> {
        Ok(self.state().features)
    }
    fn ring(&self, index: u32) -> io::Result<RingInfo> {
        Ok(self.state().rings[index as usize])
    }
    fn region(&self, start: u64) -> io::Result<Option<(Entry, OwnedFd)>> {
        let state = self.state();
        let found = state
            .regions
            .iter()
            .filter(|(entry, _)| entry.last >= start)
            .min_by_key(|(entry, _)| entry.start);
        found.map(|(entry, file)| Ok((*entry, file.try_clone()?.into()))).transpose()
    }
    fn owns(&self, file: BorrowedFd<'_>) -> bool {
        let is = |stat: &rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let file = rustix::fs::fstat(file).expect("it is open");
        self.state().of_kernel.contains(&is(&file))
    }
    fn set_kick(&self, index: u32, kick: BorrowedFd<'_>) -> io::Result<()> {
        self.state().kicks[index as usize] = Some(kick.try_clone_to_owned()?);
        Ok(())
    }
    fn interrupt(&self, index: u32) -> io::Result<()> {
        self.state().interrupts[index as usize] += 1;
        Ok(())
    }
    fn set_link(&self, up: bool) -> io::Result<()> {
        self.state().link = up;
        Ok(())
    }
    fn end(self) {
        self.state().ended = true;
    }
}

/// Memory of the driver's at an I/O virtual address.
pub(super) struct Shared {
    pub(super) file: Arc<File>,
    pub(super) map: MmapRaw,
    pub(super) iova: u64,
}

impl Shared {
    pub(super) fn at(iova: u64) -> Self {
        let file = rustix::fs::memfd_create("driver", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
        Self::of(iova, File::from(file))
    }

    /// Of the kernel's own memory, which knows no seals.
    pub(super) fn of_kernel(iova: u64, fake: &Fake) -> Self {
        let shared = Self::on_disk(iova);
        let stat = rustix::fs::fstat(&shared.file).expect("it is open");
        fake.state().of_kernel.push((stat.st_dev, stat.st_ino));
        shared
    }

    /// Of a file that is no memory.
    pub(super) fn on_disk(iova: u64) -> Self {
        // Beside the test's program, which is on a disk.
        let program = std::env::current_exe().expect("a program");
        let path = program.with_file_name(format!("vduse-{}-{iova:x}", std::process::id()));
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
        std::fs::remove_file(&path).expect("it is there");
        Self::of(iova, file)
    }

    fn of(iova: u64, file: File) -> Self {
        file.set_len(MEMORY as u64).expect("memory");
        let map = MmapOptions::new().len(MEMORY).map_raw(&file).expect("a mapping");
        Self { file: Arc::new(file), map, iova }
    }

    pub(super) fn entry(&self) -> (Entry, Arc<File>) {
        let entry = Entry { offset: 0, start: self.iova, last: self.iova + MEMORY as u64 - 1, access: 3 };
        (entry, Arc::clone(&self.file))
    }

    pub(super) fn bytes(&self, offset: usize, len: usize) -> SharedBytes {
        assert!(offset + len <= MEMORY);
        let at = NonNull::new(self.map.as_mut_ptr().wrapping_add(offset)).expect("mapped");
        // SAFETY: inside the mapping, which outlives the test's use of it; nothing refers to it.
        unsafe { SharedBytes::new(at, len) }
    }
}

/// The halves of a driver, whatever kind their rings are.
pub(super) trait Half: Send {
    fn post(&mut self, buffer: Buffer);
    fn take(&mut self) -> Vec<Completion>;
}

impl<Q: DriverQueue> Half for Q {
    fn post(&mut self, buffer: Buffer) {
        self.add(buffer).expect("room in the ring");
        self.publish();
    }
    fn take(&mut self) -> Vec<Completion> {
        let mut done = [const { MaybeUninit::uninit() }; 64];
        let n = self.complete(&mut done).expect("a well-behaved device");
        // SAFETY: `complete` initialised the first `n`.
        done[..n].iter().map(|c| unsafe { c.assume_init() }).collect()
    }
}

/// A driver with both rings in its memory; buffers lie in the second half of it.
pub(super) struct Guest {
    pub(super) memory: Shared,
    pub(super) rx: Box<dyn Half>,
    pub(super) tx: Box<dyn Half>,
}

impl Guest {
    pub(super) fn new(fake: &Fake, features: Features, layout: Layout) -> Self {
        Self::in_memory(Shared::at(IOVA), fake, features, layout)
    }

    pub(super) fn in_memory(memory: Shared, fake: &Fake, features: Features, layout: Layout) -> Self {
        let features = features | Features::VERSION_1 | Features::ACCESS_PLATFORM;
        let in_order = features.contains(Features::IN_ORDER);
        let rx = half(&memory, 0, (layout, in_order));
        let tx = half(&memory, 1, (layout, in_order));
        let mut state = fake.state();
        state.features = features;
        state.regions = vec![memory.entry()];
        for index in 0..2_usize {
            let addrs = RingAddrs::at(IOVA + ring_offset(index) as u64, layout, SIZE);
            state.rings[index] = RingInfo {
                index: index as u32,
                size: SIZE.into(),
                desc: addrs.desc,
                driver: addrs.driver,
                device: addrs.device,
                state: if layout == Layout::Packed { [1, 0, 1, 0] } else { [0; 4] },
                ready: 1,
            };
        }
        drop(state);
        Self { memory, rx, tx }
    }

    pub(super) fn buffer(half: usize, n: usize) -> usize {
        MEMORY / 2 + (half * usize::from(SIZE) + n) * 4096
    }

    pub(super) fn send(&mut self, n: usize, frame: &[u8]) {
        let offset = Self::buffer(1, n);
        let bytes = self.memory.bytes(offset, HEADER + frame.len());
        bytes.copy_from(&[0; HEADER]);
        bytes.slice(HEADER, frame.len()).expect("room").copy_from(frame);
        let len = (HEADER + frame.len()) as u32;
        self.tx.post(Buffer { addr: IOVA + offset as u64, len, token: n as u64 });
    }

    pub(super) fn post_receive(&mut self, n: usize) {
        let addr = IOVA + Self::buffer(0, n) as u64;
        self.rx.post(Buffer { addr, len: 2048, token: n as u64 });
    }

    /// What was received, without headers.
    pub(super) fn received(&mut self) -> Vec<Vec<u8>> {
        let read = |completion: Completion| {
            let mut bytes = vec![0; completion.len as usize];
            self.memory.bytes(Self::buffer(0, completion.token as usize), bytes.len()).copy_to(&mut bytes);
            bytes.split_off(HEADER)
        };
        self.rx.take().into_iter().map(read).collect()
    }
}

/// A half that wants to be told of what comes back.
fn boxed<Q: DriverQueue + Send + 'static>(mut queue: Q) -> Box<dyn Half> {
    queue.set_interrupts(true);
    Box::new(queue)
}

fn ring_offset(index: usize) -> usize {
    index * (MEMORY / 8)
}

fn half(memory: &Shared, index: usize, kind: (Layout, bool)) -> Box<dyn Half> {
    let zone = memory.bytes(ring_offset(index), kind.0.bytes(SIZE));
    let ring = RingMemory::in_zone(zone, kind.0, SIZE).expect("a ring");
    let config = DriverConfig::default().size(SIZE);
    macro_rules! driver {
        ($layout:ident, $in_order:literal) => {
            match index {
                0 => boxed($layout::Driver::<$in_order, true>::new(&ring, config).expect("a driver")),
                _ => boxed($layout::Driver::<$in_order, false>::new(&ring, config).expect("a driver")),
            }
        };
    }
    match kind {
        (Layout::Split, false) => driver!(split, false),
        (Layout::Split, true) => driver!(split, true),
        (Layout::Packed, false) => driver!(packed, false),
        (Layout::Packed, true) => driver!(packed, true),
    }
}
