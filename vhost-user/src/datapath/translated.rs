//! A ring with addresses that an IOMMU translates. Its poller reports when it uses translations, so that the
//! control thread knows when it no longer uses one that was removed.
//!
//! A ring without an IOMMU does not use this type and has no overhead.

use std::sync::Arc;

use linecard_eal::quiescence::Reader;
use linecard_mempool::{Burst, Pool};
use linecard_pmd::direct::{Frame, Sink};
use linecard_pmd::offload::AcceptedOffloads;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::PeerFault;

use super::{DequeuePath, Done, EnqueuePath};
use crate::port::{RxLoss, TxLoss};
use crate::session::Kept;
use crate::slot::Path;

/// A path that reports when its poller is inside a burst.
struct Translated<P: ?Sized> {
    visits: Reader<Arc<Kept>>,
    path: Box<P>,
}

/// Wraps the path of a ring whose translations may be removed.
pub(super) fn translated(path: Path, visits: Reader<Arc<Kept>>) -> Path {
    match path {
        Path::Dequeue(path) => Path::Dequeue(Box::new(Translated { visits, path })),
        Path::Enqueue(path) => Path::Enqueue(Box::new(Translated { visits, path })),
    }
}

impl DequeuePath for Translated<dyn DequeuePath> {
    fn burst(&mut self, out: &mut Burst, pool: &Pool, stats: &QueueStats<RxLoss>) -> Result<Done, PeerFault> {
        let _inside = self.visits.enter();
        self.path.burst(out, pool, stats)
    }

    fn direct(
        &mut self,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
        sink: &mut Sink<'_>,
    ) -> Result<Done, PeerFault> {
        let _inside = self.visits.enter();
        self.path.direct(out, pool, stats, sink)
    }

    fn discard(&mut self, stats: &QueueStats<RxLoss>) -> Result<Done, PeerFault> {
        let _inside = self.visits.enter();
        self.path.discard(stats)
    }

    fn arm(&mut self) -> bool {
        self.path.arm()
    }

    fn disarm(&mut self) {
        self.path.disarm();
    }

    fn waiting(&mut self) -> u16 {
        self.path.waiting()
    }

    fn call_owed(&mut self) -> bool {
        self.path.call_owed()
    }

    fn base(&self) -> u32 {
        self.path.base()
    }

    fn name(&self) -> &'static str {
        self.path.name()
    }
}

impl EnqueuePath for Translated<dyn EnqueuePath> {
    fn burst(&mut self, packets: &mut Burst, stats: &QueueStats<TxLoss>) -> Result<Done, PeerFault> {
        let _inside = self.visits.enter();
        self.path.burst(packets, stats)
    }

    fn direct(&mut self, frames: &[Frame<'_>], stats: &QueueStats<TxLoss>) -> Result<Done, PeerFault> {
        let _inside = self.visits.enter();
        self.path.direct(frames, stats)
    }

    fn look_ahead(&mut self) {
        let _inside = self.visits.enter();
        self.path.look_ahead();
    }

    fn accepted(&self) -> AcceptedOffloads {
        self.path.accepted()
    }

    fn base(&self) -> u32 {
        self.path.base()
    }

    fn name(&self) -> &'static str {
        self.path.name()
    }
}
