//! DPDK's noisy: simulates a network function that delays packets and does lookups in a large memory.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use linecard::eal::Clock;
use linecard::eal::random::SplitMix64;
use linecard::mempool::{Burst, Packet};

use super::Mode;
use crate::testpmd::frames;
use crate::testpmd::settings::{Mac, ModeKind};

/// Bytes of a cache line, the unit of a lookup.
const LINE: usize = 64;

/// The values of the options `--noisy-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoisySettings {
    /// Size of a stream's buffer, a power of two; as in DPDK's ring, it holds one packet less. 0: packets are
    /// not buffered.
    pub(crate) buffer: u32,
    /// Milliseconds after which the whole buffer is sent; 0: never.
    pub(crate) flush_ms: u32,
    /// Size of the memory for lookups, in MiB.
    pub(crate) memory_mib: u32,
    /// Lookups for each packet.
    pub(crate) writes: u32,
    pub(crate) reads: u32,
    pub(crate) reads_writes: u32,
    /// How addresses are rewritten: io, mac, macswap or 5tswap.
    pub(crate) forward: ModeKind,
}

impl Default for NoisySettings {
    fn default() -> Self {
        Self {
            buffer: 0,
            flush_ms: 0,
            memory_mib: 0,
            writes: 0,
            reads: 0,
            reads_writes: 0,
            forward: ModeKind::Io,
        }
    }
}

impl NoisySettings {
    /// Modes that `--noisy-forward-mode` can name.
    pub(crate) const FORWARD: [ModeKind; 4] =
        [ModeKind::Io, ModeKind::Mac, ModeKind::MacSwap, ModeKind::FiveTupleSwap];

    /// Whether packets require lookups.
    pub(crate) const fn looks_up(&self) -> bool {
        self.writes > 0 || self.reads > 0 || self.reads_writes > 0
    }

    /// Allocates the lookup memory of one stream; returns an error message if that fails.
    pub(crate) fn memory(&self) -> Result<Vec<u8>, String> {
        let len = self.memory_mib as usize * 1024 * 1024;
        let mut memory = Vec::new();
        memory.try_reserve_exact(len).map_err(|error| {
            format!(
                "{} MiB for lookups of a stream cannot be had ({error}); lower --noisy-lkup-memory",
                self.memory_mib
            )
        })?;
        memory.resize(len, 0);
        Ok(memory)
    }
}

/// Implements [mode noisy](self).
pub(crate) struct Noisy {
    clock: Clock,
    /// The buffered packets, oldest first, each with its time of arrival in cycles.
    kept: VecDeque<(u64, Packet)>,
    /// The capacity of `kept`.
    room: usize,
    /// Cycles after which all of `kept` is sent.
    flush_after: Option<u64>,
    /// The time of the last flush, or of the first round.
    flushed: Option<u64>,
    flushing: bool,
    /// The times at which the packets of the burst were received.
    came: Vec<u64>,
    lookups: Lookups,
    forward: ModeKind,
    dst: Mac,
    src: Mac,
}

impl Noisy {
    /// Creates the mode of one stream with its lookup memory; `dst` and `src` are the addresses for mode mac.
    pub(crate) fn new(settings: NoisySettings, memory: Vec<u8>, [dst, src]: [Mac; 2], clock: Clock) -> Self {
        let room = settings.buffer.saturating_sub(1) as usize;
        let flush_after =
            (settings.flush_ms > 0).then(|| clock.cycles_in(Duration::from_millis(settings.flush_ms.into())));
        let NoisySettings { writes, reads, reads_writes, forward, .. } = settings;
        Self {
            kept: VecDeque::with_capacity(room),
            room,
            flush_after,
            flushed: None,
            clock,
            flushing: false,
            came: Vec::new(),
            lookups: Lookups::new(memory, [writes, reads, reads_writes]),
            forward,
            dst,
            src,
        }
    }

    fn rewrite(&self, packets: &mut Burst) {
        for packet in packets.iter_mut() {
            let Some(data) = packet.data_mut() else { continue };
            match self.forward {
                ModeKind::Mac => frames::set_macs(data, self.dst, self.src),
                ModeKind::MacSwap => frames::swap_macs(data),
                ModeKind::FiveTupleSwap => frames::swap_five_tuple(data),
                _ => return,
            }
        }
    }

    /// Buffers the received packets. Without room, the oldest buffered packets are sent: as many as were
    /// received, as in DPDK.
    fn buffer(&mut self, packets: &mut Burst, now: u64) {
        let received = packets.len();
        let free = self.room - self.kept.len();
        let beyond = (self.kept.len() + received).saturating_sub(self.room);
        let leave = if received <= free { 0 } else { received.min(self.kept.len()).max(beyond) };
        self.kept.extend(packets.drain(..received).map(|packet| (now, packet)));
        self.release(packets, leave);
    }

    /// Moves up to `count` buffered packets to `packets`, oldest first.
    fn release(&mut self, packets: &mut Burst, count: usize) {
        let count = count.min(packets.room()).min(self.kept.len());
        for (came, packet) in self.kept.drain(..count) {
            self.came.push(came);
            // `count` is at most the room.
            let _ = packets.push(packet);
        }
    }

    /// Sends all buffered packets, burst by burst, once the flush time has passed and a round has nothing
    /// else to send.
    fn flush(&mut self, packets: &mut Burst, now: u64) {
        let Some(after) = self.flush_after else { return };
        let since = now.wrapping_sub(*self.flushed.get_or_insert(now));
        self.flushing |= packets.is_empty() && since >= after;
        if self.flushing {
            self.release(packets, usize::MAX);
            self.flushing = !self.kept.is_empty();
            self.flushed = Some(now);
        }
    }
}

impl Mode for Noisy {
    fn step(&mut self, packets: &mut Burst) {
        self.rewrite(packets);
        self.lookups.of_packets(packets.len());
        self.came.clear();
        if self.room > 0 {
            let now = self.clock.cycles();
            self.buffer(packets, now);
            self.flush(packets, now);
        }
    }

    fn came(&self) -> &[u64] {
        &self.came
    }

    fn held(&self) -> usize {
        self.kept.len()
    }
}

/// Reads and writes random cache lines of a memory, to simulate lookups of routes or sessions.
struct Lookups {
    memory: Vec<u8>,
    /// Per packet: writes, reads, and reads that are followed by a write to another line.
    each: [u32; 3],
    random: SplitMix64,
}

impl Lookups {
    fn new(memory: Vec<u8>, each: [u32; 3]) -> Self {
        Self { memory, each, random: SplitMix64::new(0) }
    }

    fn of_packets(&mut self, count: usize) {
        if self.memory.is_empty() || self.each == [0; 3] {
            return;
        }
        for _ in 0..count {
            let [writes, reads, both] = self.each;
            (0..writes).for_each(|_| self.write());
            (0..reads).for_each(|_| self.read());
            (0..both).for_each(|_| {
                self.read();
                self.write();
            });
        }
    }

    fn read(&mut self) {
        let at = self.line();
        black_box(self.memory[at]);
    }

    fn write(&mut self) {
        let at = self.line();
        self.memory[at] = self.random.draw() as u8;
    }

    /// Returns the offset of a random cache line; DPDK's uses only the first 64th of its memory.
    fn line(&mut self) -> usize {
        let lines = (self.memory.len() / LINE) as u64;
        self.random.below(lines) as usize * LINE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testpmd::soft::tests::pool;

    fn noisy(buffer: u32, flush_ms: u32) -> Noisy {
        let settings = NoisySettings { buffer, flush_ms, ..NoisySettings::default() };
        Noisy::new(settings, Vec::new(), [Mac([2; 6]), Mac([4; 6])], Clock::calibrated())
    }

    /// Steps with packets that contain these numbers; returns the numbers of those that leave.
    fn step(mode: &mut Noisy, numbers: std::ops::Range<u8>) -> Vec<u8> {
        let pool = pool();
        let mut packets = Burst::new();
        for number in numbers {
            let mut packet = pool.get().expect("a packet");
            packet.append(60).expect("room").fill(number);
            packets.push(packet).expect("room");
        }
        mode.step(&mut packets);
        packets.iter().map(|packet| packet.data()[0]).collect()
    }

    #[test]
    fn without_a_buffer_packets_leave_at_once() {
        assert_eq!(step(&mut noisy(0, 0), 0..32).len(), 32);
    }

    /// The numbers are those of DPDK 22.11: its ring of 64 has room for 63.
    #[test]
    fn the_oldest_leave_when_there_is_no_room() {
        let mut mode = noisy(64, 0);
        assert!(step(&mut mode, 0..32).is_empty());
        assert_eq!(mode.held(), 32);
        assert_eq!(step(&mut mode, 32..64), (0..32).collect::<Vec<_>>(), "31 places are too few for 32");
        assert!(step(&mut mode, 64..95).is_empty(), "31 fit");
        assert_eq!(mode.held(), 63);
        assert_eq!(step(&mut mode, 95..96), vec![32]);
        assert_eq!((mode.held(), mode.came().len()), (63, 1));
    }

    #[test]
    fn a_burst_larger_than_the_buffer_loses_nothing() {
        let mut mode = noisy(8, 0);
        let left = step(&mut mode, 0..32);
        assert_eq!((left, mode.held()), ((0..25).collect::<Vec<_>>(), 7));
    }

    #[test]
    fn a_buffer_is_sent_after_its_time_and_not_before() {
        let mut mode = noisy(256, 1000);
        assert!(step(&mut mode, 0..64).is_empty());
        assert!(step(&mut mode, 64..128).is_empty());
        // A second ago, by the clock of the mode.
        let ago = mode.flush_after.expect("a time") * 2;
        mode.flushed = mode.flushed.map(|at| at.wrapping_sub(ago));
        assert_eq!(step(&mut mode, 0..0), (0..64).collect::<Vec<_>>());
        assert_eq!(step(&mut mode, 0..0), (64..128).collect::<Vec<_>>(), "the rest follows at once");
        assert_eq!((step(&mut mode, 0..0).len(), mode.held(), mode.flushing), (0, 0, false));
        assert!(step(&mut mode, 0..1).is_empty(), "and the time begins anew");
    }

    #[test]
    fn lookups_go_everywhere_and_as_often_as_asked() {
        let mut lookups = Lookups::new(vec![0; 64 * LINE], [1, 0, 0]);
        (0..10).for_each(|_| lookups.of_packets(100));
        let touched = lookups.memory.chunks(LINE).filter(|line| line[0] != 0).count();
        assert!(touched > 48, "{touched} of 64 lines");
        assert!(lookups.memory.chunks(LINE).all(|line| line[1..].iter().all(|byte| *byte == 0)));
        let before = lookups.memory.clone();
        lookups.each = [0, 5, 0];
        lookups.of_packets(100);
        assert!(lookups.memory == before, "reads change nothing");
        assert!(NoisySettings { memory_mib: u32::MAX, ..NoisySettings::default() }.memory().is_err());
    }

    #[test]
    fn addresses_change_as_the_forward_mode_says() {
        let settings = NoisySettings { forward: ModeKind::Mac, ..NoisySettings::default() };
        let mut mode = Noisy::new(settings, Vec::new(), [Mac([2; 6]), Mac([4; 6])], Clock::calibrated());
        assert_eq!(step(&mut mode, 7..8), vec![2]);
        mode.forward = ModeKind::MacSwap;
        assert_eq!(step(&mut mode, 7..8), vec![7]);
    }
}
