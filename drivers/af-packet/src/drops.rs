//! What the kernel dropped because a ring was full.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use linecard_netdev::packet_socket::Socket;

#[derive(Debug, Default)]
struct Seen {
    total: u64,
    baseline: u64,
}

/// Drops of one socket, added up: the kernel starts from zero at every reading, whoever reads.
#[derive(Debug)]
pub(super) struct Drops {
    /// Weak: a control side that outlives its port must not keep the ring filling.
    socket: Weak<Socket>,
    seen: Mutex<Seen>,
}

impl Drops {
    pub(super) fn of(socket: &Arc<Socket>) -> Self {
        Self { socket: Arc::downgrade(socket), seen: Mutex::default() }
    }

    /// Frames dropped since the last reset.
    pub(super) fn count(&self) -> u64 {
        let seen = self.read();
        seen.total - seen.baseline
    }

    pub(super) fn reset(&self) {
        let mut seen = self.read();
        seen.baseline = seen.total;
    }

    /// Reads the kernel's number before its 32 bits overflow, or before the socket goes.
    #[cold]
    pub(super) fn collect(&self) {
        drop(self.read());
    }

    fn read(&self) -> MutexGuard<'_, Seen> {
        // The lock is held over the reading: of two readers each adds what it took from the kernel.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok((_, drops))) = self.socket.upgrade().map(|socket| socket.statistics()) {
            seen.total += u64::from(drops);
        }
        seen
    }
}
