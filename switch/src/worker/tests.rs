use linecard_eal::Stop;
use linecard_testing::{PATIENCE, wait_until};

use super::*;
use crate::fdb::Table;
use crate::forward::Inbox;

/// A queue whose first burst is a mistake of ours, and how often it was polled.
struct Mistaken(Arc<std::sync::atomic::AtomicU32>);

impl RxQueue for Mistaken {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        let polled = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(polled > 0, "as forwarding would");
        0
    }

    fn path(&self) -> &'static str {
        "mistaken"
    }
}

/// A worker that panics polls on, and does what it is told.
#[test]
fn a_panic_costs_a_worker_one_burst() {
    let inbox = Inbox { packets: Arc::new(ArrayQueue::new(8)), wake: Arc::default() };
    let (handle, mailbox) = WorkerHandle::new(Arc::clone(&inbox.wake));
    let engine = Engine::new(Arc::new(Table::new(16)), vec![inbox.clone()], false);
    let worker = Worker::new(engine, mailbox, inbox.packets, Instant::now(), Meter::new(0).0);
    let thread = std::thread::spawn(move || worker.run(&Stop::default()));
    let polled = Arc::default();
    let queue = Queue { number: 3, rx: Box::new(Mistaken(Arc::clone(&polled))), packets: Arc::default() };
    assert!(handle.give(Given { port: 0, queue, tx: None }).is_ok());
    wait_until("it is polled after the panic", || polled.load(Ordering::Relaxed) > 1);
    let (tell, taken) = channel();
    assert!(handle.tell(Command::Remove(0, tell)));
    let queues = taken.recv_timeout(PATIENCE).expect("the worker lives").rx;
    assert_eq!(queues.iter().map(|queue| queue.path()).collect::<Vec<_>>(), ["mistaken"]);
    drop(handle);
    thread.join().expect("it ends as it should");
}
