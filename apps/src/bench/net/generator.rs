//! What a receiving port is offered: frames from a packet socket, the same for both sides.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linecard::eal::{CoreId, Memory, MemoryConfig, cores};
use linecard::mempool::{Burst, Packet, Pool, PoolConfig};
use linecard::pmd::{Port, PortConfig, ProbeContext, configure};

use crate::bench::loopback::console::Failure;

/// Packets per burst, as testpmd's.
const BURST: usize = 32;

/// A port at the far end, and packets for it.
pub(super) struct Generator {
    port: Port,
    pool: Pool,
    frame: Vec<u8>,
    core: CoreId,
}

impl Generator {
    /// Sends frames of `bytes` bytes from the interface of that name, on `core`.
    pub(super) fn new(netns: &str, interface: &str, bytes: usize, core: CoreId) -> Result<Self, Failure> {
        let make = || -> Result<Self, Box<dyn std::error::Error>> {
            let memory = Memory::new(MemoryConfig::default())?;
            let domain = memory.domain("generator")?;
            let pool = Pool::new(&domain, PoolConfig { packets: 1024, ..PoolConfig::default() })?;
            let context = ProbeContext { memory, domain, wait: Duration::from_secs(1) };
            let text = format!("net_af_packet0,iface={interface},netns={netns},framecnt=1");
            let device = linecard::drivers().probe(&context, &text)?;
            let port = configure(device, PortConfig::default()).and_then(|port| port.start(&pool))?;
            Ok(Self { port, pool, frame: frame(bytes), core })
        };
        make().map_err(|error| Failure::Program(format!("the generator: {error}")))
    }

    /// Sends until `stop`.
    pub(super) fn run(&mut self, stop: &AtomicBool) {
        // Unpinned it only disturbs more.
        let _ = cores::pin_current(self.core);
        let mut burst = Burst::new();
        while !stop.load(Ordering::Relaxed) {
            let had = burst.len();
            if !self.pool.get_bulk(&mut burst, BURST - had) {
                continue;
            }
            for packet in &mut burst[had..] {
                self.write(packet);
            }
            self.port.tx[0].tx_burst(&mut burst);
        }
    }

    fn write(&self, packet: &mut Packet) {
        if let Some(data) = packet.append(self.frame.len()) {
            data.copy_from_slice(&self.frame);
        }
    }
}

/// UDP to the discard port of nobody: the kernel behind an interface drops it early.
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
