//! A relay with its own thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use linecard_eal::eventfd::EventFd;

use crate::kernel::Kernel;
use crate::relay::Relay;

/// The port's instructions to its relay.
#[derive(Debug)]
pub(crate) struct Wake {
    pub(crate) event: EventFd,
    pub(crate) link: AtomicBool,
    pub(crate) ended: AtomicBool,
}

/// A relay with its own thread. Dropping it ends the thread and stops the rings.
#[derive(Debug)]
pub(crate) struct Relaying {
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Relaying {
    pub(crate) fn start<K: Kernel + 'static>(name: &str, mut relay: Relay<K>) -> io::Result<Self> {
        let event = EventFd::new()?;
        let wake = Arc::new(Wake { event, link: AtomicBool::new(false), ended: AtomicBool::new(false) });
        let (theirs, port) = (Arc::clone(&wake), name.to_owned());
        let body = move || {
            let _span = tracing::info_span!("vduse", port).entered();
            let served = relay.serve(&theirs);
            if let Err(failure) = served.and_then(|()| relay.stop()) {
                tracing::error!(
                    "the device is not served any more: {failure}; stop the port and attach it again"
                );
            }
            // Refused if the device no longer exists.
            let _ = relay.kernel.set_link(false);
            relay.kernel.end();
        };
        let thread = std::thread::Builder::new().name("lc-vduse".into()).spawn(body)?;
        Ok(Self { wake, thread: Some(thread) })
    }

    /// Sets the link that the driver sees.
    pub(crate) fn set_link(&self, up: bool) {
        self.wake.link.store(up, Ordering::Release);
        self.wake.event.signal();
    }
}

impl Drop for Relaying {
    fn drop(&mut self) {
        self.wake.ended.store(true, Ordering::Release);
        self.wake.event.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
