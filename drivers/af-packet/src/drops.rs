//! The frames that the kernel dropped because a ring was full.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use linecard_netdev::packet_socket::Socket;

#[derive(Debug, Default)]
struct Seen {
    total: u64,
    baseline: u64,
}

/// The sum of one socket's drops. The kernel resets its counter at every read, by any reader.
#[derive(Debug)]
pub(super) struct Drops {
    /// Weak, so that a control interface that outlives its port does not keep the socket open.
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

    /// Reads the kernel's counter before its 32 bits overflow, or before the socket is closed.
    #[cold]
    pub(super) fn collect(&self) {
        drop(self.read());
    }

    fn read(&self) -> MutexGuard<'_, Seen> {
        // The lock is held during the read, so that each reader adds the value that it took from the kernel.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok((_, drops))) = self.socket.upgrade().map(|socket| socket.statistics()) {
            seen.total += u64::from(drops);
        }
        seen
    }
}
