//! The generator: sends frames from a packet socket to the port, identically for all sides, at full rate or
//! one at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linecard::eal::{CoreId, Memory, MemoryConfig, cores};
use linecard::mempool::{Burst, Packet, Pool, PoolConfig};
use linecard::pmd::{Port, PortConfig, ProbeContext, configure};

use crate::loopback::console::Failure;

/// Packets per burst, as in testpmd.
const BURST: usize = 32;
/// The time after which a frame counts as lost.
const PATIENCE: Duration = Duration::from_millis(100);

/// A port at the far end of the cable, and its packets.
pub(super) struct Generator {
    port: Port,
    pool: Pool,
    frame: Vec<u8>,
    core: CoreId,
}

impl Generator {
    /// Creates a generator of frames of `bytes` bytes on the interface `interface`, which runs on `core`.
    pub(super) fn new(netns: &str, interface: &str, bytes: usize, core: CoreId) -> Result<Self, Failure> {
        let make = || -> Result<Self, Box<dyn std::error::Error>> {
            let memory = Memory::new(MemoryConfig::default())?;
            let domain = memory.domain("generator")?;
            let pool = Pool::new(&domain, PoolConfig::default().packets(1024))?;
            let context = ProbeContext::new(memory, domain, Duration::from_secs(1));
            let text = format!("net_af_packet0,iface={interface},netns={netns},framecnt=64");
            let device = linecard::drivers().probe(&context, &text)?;
            let port = configure(device, PortConfig::default()).and_then(|port| port.start(&pool))?;
            Ok(Self { port, pool, frame: frame(bytes), core })
        };
        make().map_err(|error| Failure::Program(format!("the generator: {error}")))
    }

    /// Sends frames until `stop`.
    pub(super) fn run(&mut self, stop: &AtomicBool) {
        // Pinning is optional: without it the disturbance is only larger.
        let _ = cores::pin_current(self.core);
        let mut burst = Burst::new();
        while !stop.load(Ordering::Relaxed) {
            let had = burst.len();
            if self.pool.get_bulk(&mut burst, BURST - had).is_err() {
                continue;
            }
            for packet in &mut burst[had..] {
                self.write(packet);
            }
            self.port.tx[0].tx_burst(&mut burst);
        }
    }

    /// Sends one frame at a time for `time` or until `stop`; each after the previous one returned with its
    /// addresses swapped. Returns the round trips in nanoseconds, from before the call that sends until after
    /// the call that receives, and the number of lost frames.
    pub(super) fn ping(&mut self, time: Duration, stop: &AtomicBool) -> (Vec<u64>, u64) {
        let _ = cores::pin_current(self.core);
        let (start, mut trips, mut lost) = (Instant::now(), Vec::new(), 0);
        let mut burst = Burst::new();
        while start.elapsed() < time && !stop.load(Ordering::Relaxed) {
            let Some(mut packet) = self.pool.get() else { break };
            self.write(&mut packet);
            burst.clear();
            // An empty burst has room.
            let _ = burst.push(packet);
            let sent = Instant::now();
            self.port.tx[0].tx_burst(&mut burst);
            match self.back(sent) {
                Some(trip) if burst.is_empty() => trips.push(trip),
                _ => lost += 1,
            }
        }
        (trips, lost)
    }

    /// Waits for the sent frame. Only occasional frames of the kernel can arrive besides it.
    fn back(&mut self, sent: Instant) -> Option<u64> {
        let mut burst = Burst::new();
        loop {
            let came = self.port.rx[0].rx_burst(&mut burst) > 0;
            let trip = sent.elapsed();
            if came && burst.iter().any(|packet| packet.data().get(..6) == self.frame.get(6..12)) {
                return u64::try_from(trip.as_nanos()).ok();
            }
            burst.clear();
            if trip > PATIENCE {
                return None;
            }
        }
    }

    fn write(&self, packet: &mut Packet) {
        if let Some(data) = packet.append(self.frame.len()) {
            data.copy_from_slice(&self.frame);
        }
    }
}

/// Returns a UDP frame to the discard port of an unused address: the kernel behind an interface drops it
/// early.
fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; bytes];
    let length = |from: usize| u16::try_from(bytes - from).unwrap_or(u16::MAX).to_be_bytes();
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2]);
    frame[16..18].copy_from_slice(&length(14));
    frame[34..38].copy_from_slice(&[0, 9, 0, 9]);
    frame[38..40].copy_from_slice(&length(34));
    frame
}
