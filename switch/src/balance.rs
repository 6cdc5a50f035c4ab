//! Which worker polls which receive queue: shown, and changed while frames pass.

use std::sync::mpsc::channel;

use crate::Switch;
use crate::api::{Code, Problem, QueueInfo, QueueMove, WorkerInfo};
use crate::switch::{PATIENCE, no_port};
use crate::worker::Command;

impl Switch {
    /// Every worker, and what it polls.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let worker = |(id, lcore): (usize, &linecard_eal::Lcore)| WorkerInfo {
            id: u16::try_from(id).unwrap_or(u16::MAX),
            lcore: lcore.id.0,
            cores: lcore.cores.iter().map(|core| core.0).collect(),
            queues: Vec::new(),
        };
        let mut workers: Vec<_> = self.config.lcores.iter().enumerate().map(worker).collect();
        for entry in self.ports().values() {
            let placed = entry.open.iter().flat_map(|open| &open.placed);
            for (queue, placed) in (0..).zip(placed) {
                if let Some(worker) = workers.get_mut(placed.worker) {
                    worker.queues.push(QueueInfo {
                        port: entry.spec.key.clone(),
                        queue,
                        rx_packets: placed.packets.value(),
                    });
                }
            }
        }
        workers
    }

    /// Has another worker poll a receive queue. No frame is lost; frames that came before may be overtaken by those after.
    ///
    /// # Errors
    /// There is no such port, queue or worker, or a worker does not answer.
    pub fn move_queue(&self, asked: &QueueMove) -> Result<(), Problem> {
        let mut ports = self.ports();
        let entry = ports.get_mut(&asked.port).ok_or_else(|| no_port(&asked.port))?;
        let queues = entry.open.as_ref().map_or(0, |open| open.placed.len());
        let id = entry.id;
        let placed = entry.open.as_mut().and_then(|open| open.placed.get_mut(usize::from(asked.queue)));
        let Some(placed) = placed else {
            let message =
                format!("port '{}' has no receive queue {}; it has {queues}", asked.port, asked.queue);
            return Err(Problem::new(Code::NotFound, message, "`workers` lists all queues"));
        };
        let to = usize::from(asked.worker);
        let (Some(from), Some(to_remote)) = (self.remotes.get(placed.worker), self.remotes.get(to)) else {
            let message =
                format!("there is no worker {}; the last one is {}", asked.worker, self.remotes.len() - 1);
            return Err(Problem::new(Code::NotFound, message, "`workers` lists all"));
        };
        if placed.worker == to {
            return Ok(());
        }
        let (tell, taken) = channel();
        from.tell(Command::Take(id, asked.queue, tell));
        let Ok(Some(queue)) = taken.recv_timeout(PATIENCE) else {
            let message = format!("worker {} does not give the queue away", placed.worker);
            return Err(Problem::new(Code::Internal, message, "restart the switch, and report this"));
        };
        to_remote.tell(Command::Give(id, queue));
        placed.worker = to;
        Ok(())
    }
}
