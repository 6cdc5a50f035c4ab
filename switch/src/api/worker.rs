//! Workers as the control API describes them.

use serde::{Deserialize, Serialize};

/// A worker and the receive queues it polls: `workers`.
///
/// ```
/// fn load(worker: &linecard_switch::api::WorkerInfo) -> u64 {
///     worker.queues.iter().map(|queue| queue.rx_packets).sum()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The number of the worker, from 0.
    pub id: u16,
    /// The lcore on which it runs, as `--lcores` numbers it.
    pub lcore: u32,
    /// The CPU cores on which it may run.
    pub cores: Vec<u32>,
    /// The receive queues that it polls.
    pub queues: Vec<QueueInfo>,
}

/// A receive queue of a port.
///
/// ```
/// let queue: linecard_switch::api::QueueInfo = serde_json::from_str(r#"{"port":"a","queue":0,"rx_packets":7}"#)?;
/// assert_eq!(queue.rx_packets, 7);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueInfo {
    /// The key of the port.
    pub port: String,
    /// The number of the queue within its port.
    pub queue: u16,
    /// Frames received from the queue.
    pub rx_packets: u64,
}

/// A receive queue and the worker that is to poll it: `worker.move`. The assignment survives a restart of the
/// switch, as ports do that are kept.
///
/// ```
/// let asked: linecard_switch::api::QueueMove = serde_json::from_str(r#"{"port":"a","worker":1}"#)?;
/// assert_eq!((asked.queue, asked.worker), (0, 1));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueMove {
    /// The key of the port.
    pub port: String,
    /// The queue's number.
    #[serde(default)]
    pub queue: u16,
    /// The worker's number.
    pub worker: u16,
}

/// Computes which queues to move so that all workers have about the same load. `load` lists for each worker
/// the queues it polls and the number of frames received from each in some period. The busiest queues are
/// placed first, each with the worker that has the least load so far; a queue stays where it is if that costs
/// nothing.
///
/// ```
/// use linecard_switch::api::{QueueInfo, QueueMove, balance};
/// let queue = |port: &str, rx_packets| QueueInfo { port: port.into(), queue: 0, rx_packets };
/// let moves = balance(&[vec![queue("a", 100), queue("b", 90), queue("c", 10)], vec![]]);
/// assert_eq!(moves, [QueueMove { port: "b".into(), queue: 0, worker: 1 }, QueueMove { port: "c".into(), queue: 0, worker: 1 }]);
/// assert!(balance(&[vec![queue("a", 100)], vec![queue("b", 90)]]).is_empty());
/// ```
#[must_use]
pub fn balance(load: &[Vec<QueueInfo>]) -> Vec<QueueMove> {
    let mut queues: Vec<(usize, &QueueInfo)> = load
        .iter()
        .enumerate()
        .flat_map(|(worker, queues)| queues.iter().map(move |queue| (worker, queue)))
        .collect();
    queues.sort_by_key(|(_, queue)| std::cmp::Reverse(queue.rx_packets));
    let mut sums = vec![0_u64; load.len()];
    let mut moves = Vec::new();
    for (now, queue) in queues {
        let Some(least) = sums.iter().min().copied() else { break };
        // Idle queues stay, and so do those whose worker has the least load.
        let stays = queue.rx_packets == 0 || sums[now] == least;
        let to = if stays { now } else { sums.iter().position(|sum| *sum == least).unwrap_or(now) };
        sums[to] = sums[to].saturating_add(queue.rx_packets);
        if to != now {
            let worker = u16::try_from(to).unwrap_or(u16::MAX);
            moves.push(QueueMove { port: queue.port.clone(), queue: queue.queue, worker });
        }
    }
    moves
}
