//! What a backend does with packets here: it sends every one back.

use std::sync::Arc;

use linecard_virtio::{
    DeviceConfig, DeviceQueue, Features, Head, Lookahead, PeerFault, SegList, packed, split,
};

use super::{Backend, Regions};

/// A pair of rings joined into a loop.
pub trait Echo: Send {
    /// Sends back what there is; returns how many packets.
    fn turn(&mut self) -> usize;
    /// Takes one packet without sending it back.
    fn take(&mut self) -> Option<Vec<u8>>;
    /// Sends one packet; false when the frontend has lent too few buffers.
    fn give(&mut self, frame: &[u8]) -> bool;
    /// Asks for a kick when packets come; true when some are there.
    fn sleep(&mut self) -> bool;
    /// Whether the frontend wants a call for what was given since this was last asked.
    fn call_needed(&mut self) -> bool;
}

struct Loop<T, R> {
    tx: T,
    rx: R,
    regions: Arc<Regions>,
    mergeable: bool,
    list: SegList,
}

impl Backend {
    /// The loop over rings `2 * pair` and `2 * pair + 1`.
    pub fn echo(&self, pair: usize) -> Box<dyn Echo> {
        match (self.packed(), self.features.contains(Features::IN_ORDER)) {
            (false, false) => self.joined(
                split::Device::<false, false>::new(&self.ring(2 * pair + 1), self.config(2 * pair + 1)),
                split::Device::<false, true>::new(&self.ring(2 * pair), self.config(2 * pair)),
            ),
            (false, true) => self.joined(
                split::Device::<true, false>::new(&self.ring(2 * pair + 1), self.config(2 * pair + 1)),
                split::Device::<true, true>::new(&self.ring(2 * pair), self.config(2 * pair)),
            ),
            (true, false) => self.joined(
                packed::Device::<false, false>::new(&self.ring(2 * pair + 1), self.config(2 * pair + 1)),
                packed::Device::<false, true>::new(&self.ring(2 * pair), self.config(2 * pair)),
            ),
            (true, true) => self.joined(
                packed::Device::<true, false>::new(&self.ring(2 * pair + 1), self.config(2 * pair + 1)),
                packed::Device::<true, true>::new(&self.ring(2 * pair), self.config(2 * pair)),
            ),
        }
    }

    fn config(&self, index: usize) -> DeviceConfig {
        let ring = &self.rings[index];
        DeviceConfig::default()
            .size(ring.size)
            .event_idx(self.features.contains(Features::EVENT_IDX))
            .indirect(self.features.contains(Features::INDIRECT_DESC))
            .base(ring.base)
    }

    fn joined<T: DeviceQueue + 'static, R: DeviceQueue + 'static>(
        &self,
        tx: Result<T, linecard_virtio::Error>,
        rx: Result<R, linecard_virtio::Error>,
    ) -> Box<dyn Echo> {
        Box::new(Loop {
            tx: tx.expect("a good ring"),
            rx: rx.expect("a good ring"),
            regions: self.regions.clone(),
            mergeable: self.features.contains(Features::NET_MRG_RXBUF),
            list: SegList::new(),
        })
    }
}

fn gather(list: &SegList) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in list.pieces() {
        for at in 0..piece.len as usize {
            // SAFETY: the queue translated the piece, which is mapped while the regions live.
            let place = unsafe { piece.ptr.add(at) };
            // SAFETY: `at` is inside the piece, which is mapped while the regions live.
            bytes.push(unsafe { place.read_volatile() });
        }
    }
    bytes
}

fn scatter(list: &SegList, bytes: &[u8]) -> usize {
    let mut done = 0;
    for piece in list.pieces() {
        for at in 0..(piece.len as usize).min(bytes.len() - done) {
            // SAFETY: `at` is below the piece's length, and the piece is mapped while the regions live.
            let place = unsafe { piece.ptr.add(at) };
            // SAFETY: inside the piece, which the queue says we may write.
            unsafe { place.write_volatile(bytes[done + at]) };
        }
        done += (piece.len as usize).min(bytes.len() - done);
    }
    done
}

impl<T: DeviceQueue, R: DeviceQueue> Loop<T, R> {
    fn next(&mut self) -> Result<Option<(Head, Vec<u8>)>, PeerFault> {
        let head = self.tx.peek_chain(&*self.regions, Lookahead::default(), &mut self.list)?;
        Ok(head.map(|head| (head, gather(&self.list))))
    }

    /// Header and frame into as many receive buffers as it takes; nothing when there are too few.
    fn receive(&mut self, frame: &[u8]) -> bool {
        let mut lists: Vec<(Head, SegList)> = Vec::new();
        let mut ahead = Lookahead::default();
        let need = 12 + frame.len();
        while lists.iter().map(|(head, _)| head.len as usize).sum::<usize>() < need {
            let mut list = SegList::new();
            let head = self.rx.peek_chain(&*self.regions, ahead, &mut list).expect("our frontend is good");
            let Some(head) = head else { return false };
            ahead = ahead.past(head);
            lists.push((head, list));
        }
        assert!(
            self.mergeable || lists.len() == 1,
            "a frame of {} bytes needs mergeable buffers",
            frame.len()
        );
        let mut bytes = vec![0; 10];
        bytes.extend_from_slice(&(lists.len() as u16).to_le_bytes());
        bytes.extend_from_slice(frame);
        let mut rest = &bytes[..];
        for (head, list) in lists {
            let wrote = scatter(&list, rest);
            rest = &rest[wrote..];
            self.rx.complete(head.used(wrote as u32));
        }
        self.rx.publish();
        true
    }
}

impl<T: DeviceQueue, R: DeviceQueue> Echo for Loop<T, R> {
    fn turn(&mut self) -> usize {
        let mut count = 0;
        while let Some((head, bytes)) = self.next().expect("our frontend is good") {
            assert_eq!(bytes[..10], [0; 10], "no offloads, so the header is zero");
            if !self.receive(&bytes[12..]) {
                break;
            }
            self.tx.complete(head.used(0));
            count += 1;
        }
        if count > 0 {
            self.tx.publish();
        }
        count
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let (head, bytes) = self.next().expect("our frontend is good")?;
        self.tx.complete(head.used(0));
        self.tx.publish();
        Some(bytes[12..].to_vec())
    }

    fn give(&mut self, frame: &[u8]) -> bool {
        self.receive(frame)
    }

    fn sleep(&mut self) -> bool {
        self.tx.set_notifications(true)
    }

    fn call_needed(&mut self) -> bool {
        self.rx.call_needed()
    }
}
