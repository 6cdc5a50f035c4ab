//! A round: all rows of a group in fresh processes that are alive at the same time and take turns of some
//! milliseconds; the others are paused with SIGSTOP.
//!
//! Changes of the machine that last for seconds then affect all rows of a round equally, and cancel out in
//! the ratios within the round.
//!
//! ```text
//! row 1  ▁█▁▁▁▁▁▁▁▁█▁█▁▁▁      alternating order: 1 2 3 … 3 2 1 …
//! row 2  ▁▁▁█▁▁▁▁█▁▁▁▁▁█▁
//! row 3  ▁▁▁▁▁█▁█▁▁▁▁▁▁▁█
//! ```

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::cell::{Cell, Subject};
use super::console::{Console, Failure, Interrupted, apart};
use super::kind::{Kind, Metric};
use super::latency::PingPair;
use super::machine::{Disturbance, Watch};
use super::raw::Values;
use super::sample::{Pair, Rate};
use super::testbed::{Figure, Testbed};
use crate::pair::per;
use crate::stats::Summary;

/// Long compared with the cost of a switch (caches are warm again within a tenth of a millisecond), short
/// compared with the seconds for which a machine keeps its state.
pub(crate) const TURN: Duration = Duration::from_millis(40);
/// The ceiling has new threads in every turn; they run for this time before the measurement.
const LEAD: Duration = Duration::from_millis(4);
/// The most pairs of one group.
const MOST_PAIRS: usize = 10;

/// The result of a row: its figure and the backend's log.
pub(crate) type RowResult = Result<(Figure, String), String>;

/// Returns groups of cells that take turns: those of one load and one kind of ring, with memif and the
/// ceiling. Too many cells are divided by path.
pub(crate) fn groups(cells: &[Cell]) -> Vec<Vec<Cell>> {
    let mut groups = Vec::new();
    for load in cells.chunk_by(|a, b| (a.kind, a.load) == (b.kind, b.load)) {
        let beside: Vec<Cell> =
            load.iter().filter(|cell| !matches!(cell.subject, Subject::Pair(..))).copied().collect();
        for packed in [false, true] {
            let of_kind =
                |cell: &&Cell| matches!(cell.subject, Subject::Pair(_, path) if path.packed() == packed);
            let pairs: Vec<Cell> = load.iter().filter(of_kind).copied().collect();
            for part in parts(&pairs) {
                groups.push(part.iter().chain(&beside).copied().collect());
            }
        }
    }
    groups
}

/// Divides cells into as few parts as allowed; a path is never divided.
fn parts(pairs: &[Cell]) -> Vec<Vec<Cell>> {
    let path = |cell: &Cell| match cell.subject {
        Subject::Pair(_, path) => Some(path),
        Subject::Memif(_) | Subject::Ceiling => None,
    };
    let mut parts: Vec<Vec<Cell>> = Vec::new();
    for rows in pairs.chunk_by(|a, b| path(a) == path(b)) {
        match parts.last_mut().filter(|part| part.len() + rows.len() <= MOST_PAIRS) {
            Some(part) => part.extend(rows),
            None => parts.push(rows.to_vec()),
        }
    }
    parts
}

impl Testbed {
    /// Runs one round of a group; returns the results in its order.
    ///
    /// # Errors
    /// The user's interrupt. The failure of a row is returned as its result and does not affect the others.
    pub(crate) fn round(&self, cells: &[Cell]) -> Result<Vec<RowResult>, Interrupted> {
        let mut rows_in_turn: Vec<ActiveRow> =
            cells.iter().map(|&cell| ActiveRow::take(cell, self)).collect::<Result<_, _>>()?;
        let turns = self.window.as_millis().div_ceil(TURN.as_millis()).max(1);
        for turn in 0..turns {
            let position = TurnPosition { first: turn == 0, last: turn + 1 == turns };
            let count = rows_in_turn.len();
            for step in 0..count {
                let at = if turn % 2 == 0 { step } else { count - 1 - step };
                rows_in_turn[at].turn(self, position)?;
            }
        }
        rows_in_turn.into_iter().map(|row| row.end(self)).collect()
    }
}

/// The position of a turn in its round.
#[derive(Debug, Clone, Copy)]
struct TurnPosition {
    first: bool,
    last: bool,
}

/// The processes of a row.
enum RowState {
    /// None: the ceiling has new threads in every turn.
    Ceiling,
    /// Two testpmds between which packets circulate.
    Pair(Pair),
    /// One packet in flight.
    PingPair(PingPair),
    /// None any more, with the reason.
    Failed(String),
}

impl RowState {
    /// Starts the processes of a row, lets packets circulate, and pauses the processes.
    fn of(Cell { kind, subject, load }: Cell, testbed: &Testbed) -> Result<Self, Failure> {
        let mut pair = match subject {
            Subject::Ceiling => return Ok(Self::Ceiling),
            Subject::Pair(position, path) if kind == Kind::Latency => {
                let ping_pair = testbed.ping_pair(position, path, load)?;
                signal([&ping_pair.pinger, &ping_pair.tested], Signal::STOP)?;
                return Ok(Self::PingPair(ping_pair));
            }
            Subject::Pair(position, path) => testbed.pair(position, path, load)?,
            Subject::Memif(memif) => testbed.memif(memif, load)?,
        };
        pair.go(testbed, load)?;
        pair.rest(testbed, testbed.warm_up)?;
        signal([&pair.front, &pair.back], Signal::STOP)?;
        Ok(Self::Pair(pair))
    }
}

/// A row during its round.
struct ActiveRow {
    cell: Cell,
    state: RowState,
    /// The figures of single turns, for subjects that have them.
    snapshots: Vec<Values>,
    ran: Duration,
    turns: u32,
    disturbed: Disturbance,
}

impl ActiveRow {
    fn take(cell: Cell, testbed: &Testbed) -> Result<Self, Interrupted> {
        Ok(Self {
            cell,
            state: apart(RowState::of(cell, testbed))?.unwrap_or_else(RowState::Failed),
            snapshots: Vec::new(),
            ran: Duration::ZERO,
            turns: 0,
            disturbed: Disturbance::default(),
        })
    }

    /// Runs one turn, unless the row has failed.
    fn turn(&mut self, testbed: &Testbed, position: TurnPosition) -> Result<(), Interrupted> {
        if let Err(why) = apart(self.run(testbed, position))? {
            // Ends the row's processes immediately, so that they cannot disturb the others.
            self.state = RowState::Failed(why);
        }
        Ok(())
    }

    fn run(&mut self, testbed: &Testbed, position: TurnPosition) -> Result<(), Failure> {
        let (ran, disturbance) = match &mut self.state {
            RowState::Failed(_) => return Ok(()),
            RowState::Pair(pair) => pair.turn(testbed, position)?,
            RowState::PingPair(ping_pair) => {
                let (values, disturbance) = ping_pair.turn()?;
                self.snapshots.push(values);
                (TURN, disturbance)
            }
            RowState::Ceiling => {
                let figure = testbed.ceiling(self.cell.load, LEAD, TURN)?;
                self.snapshots.push(figure.values);
                (TURN, figure.disturbance)
            }
        };
        self.ran += ran;
        self.turns += 1;
        self.disturbed.add(disturbance);
        Ok(())
    }

    /// Ends the row's processes and calculates its figures.
    fn end(self, testbed: &Testbed) -> Result<RowResult, Interrupted> {
        testbed.interrupt.check()?;
        let (ran, load) = (self.ran, self.cell.load);
        let ended = match self.state {
            RowState::Failed(why) => return Ok(Err(why)),
            RowState::Ceiling => Ok((mean(&self.snapshots), String::new())),
            RowState::PingPair(ping_pair) => signal([&ping_pair.pinger, &ping_pair.tested], Signal::CONT)
                .and_then(|()| ping_pair.end())
                .map(|()| (middle(&self.snapshots), String::new())),
            RowState::Pair(pair) => signal([&pair.front, &pair.back], Signal::CONT)
                .and_then(|()| pair.end(load, |snapshots| rate(snapshots, ran)))
                .map(|(mpps, log)| (Values::from([(Metric::Mpps, mpps)]), log)),
        };
        let disturbance = self.disturbed.over(self.turns);
        Ok(apart(ended)?.map(|(values, log)| (Figure { values, disturbance }, log)))
    }
}

/// Returns the mean of each figure; all turns have the same length.
fn mean(snapshots: &[Values]) -> Values {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred turns")]
    each(snapshots, |_, turns| turns.iter().sum::<f64>() / turns.len().max(1) as f64)
}

/// Returns the median of each figure, but for the maximum the maximum.
fn middle(snapshots: &[Values]) -> Values {
    each(snapshots, |metric, turns| {
        Summary::of(turns).map_or(f64::NAN, |s| if metric == Metric::Max { s.max } else { s.median })
    })
}

fn each(snapshots: &[Values], of: impl Fn(Metric, &[f64]) -> f64) -> Values {
    let metrics = snapshots.first().into_iter().flat_map(|first| first.keys().copied());
    let figure = |metric: Metric| {
        let turns: Vec<f64> = snapshots.iter().filter_map(|look| look.get(&metric).copied()).collect();
        (metric, of(metric, &turns))
    };
    metrics.map(figure).collect()
}

/// Returns million packets per second between two snapshots, for the time in which the row ran.
fn rate(snapshots: Rate, ran: Duration) -> Result<f64, String> {
    let nanos = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX).max(1);
    Ok(per(snapshots.moved.saturating_mul(1000), nanos))
}

impl Pair {
    /// Runs for a turn; returns its duration. The counters are read at the start of the first turn and at the
    /// end of the last.
    fn turn(
        &mut self,
        testbed: &Testbed,
        position: TurnPosition,
    ) -> Result<(Duration, Disturbance), Failure> {
        let processes = [self.back.pid(), self.front.pid()];
        let watch = Watch::start(&processes);
        let mut start = Instant::now();
        signal([&self.front, &self.back], Signal::CONT)?;
        if position.first {
            self.back.command("show port stats 0")?;
            start = Instant::now();
        }
        testbed.interrupt.sleep(TURN)?;
        if position.last {
            self.back.command("show port stats 0")?;
        }
        let ran = start.elapsed();
        signal([&self.front, &self.back], Signal::STOP)?;
        let disturbance = watch.end(&processes, 1);
        self.back.check()?;
        self.front.check()?;
        Ok((ran, disturbance))
    }
}

impl PingPair {
    /// Measures round trips for about half a turn back to back, and for the other half at low load.
    fn turn(&mut self) -> Result<(Values, Disturbance), Failure> {
        let processes = [self.tested.pid()];
        let watch = Watch::start(&processes);
        signal([&self.pinger, &self.tested], Signal::CONT)?;
        let values = self.look(TURN / 2)?;
        signal([&self.pinger, &self.tested], Signal::STOP)?;
        let disturbance = watch.end(&processes, 1);
        self.tested.check()?;
        Ok((values, disturbance))
    }
}

/// Sends a signal to both ends.
fn signal(ends: [&Console; 2], signal: Signal) -> Result<(), Failure> {
    ends.into_iter().try_for_each(|end| send(end, signal))
}

fn send(end: &Console, signal: Signal) -> Result<(), Failure> {
    let pid = i32::try_from(end.pid()).ok().and_then(Pid::from_raw);
    // If the process has ended, the check that follows reports that with its last output.
    pid.map_or(Ok(()), |pid| match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::Program(format!("a program takes no signal: {error}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::cell::{Load, Memif, Position, Size, all};
    use crate::loopback::path::Path;
    use clap::ValueEnum;

    fn load(bytes: u16) -> Load {
        Load { size: Size::Bytes(bytes), ring: 256, burst: 32 }
    }

    #[test]
    fn rows_of_one_load_and_kind_of_ring_take_turns() {
        let paths = [Path::SplitMergeable, Path::SplitInorder, Path::PackedMergeable];
        let cells = all(Kind::Closed, &Position::PAIRS, &paths, &[load(64), load(1518)], &Memif::BOTH);
        let groups = groups(&cells);
        let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        assert_eq!(sizes, [11, 7, 11, 7]);
        for group in &groups {
            assert_eq!(group.last().map(|cell| cell.subject), Some(Subject::Ceiling));
            assert!(group.iter().all(|cell| cell.load == group[0].load));
        }
    }

    #[test]
    fn many_rows_are_parted_by_path() {
        let cells = all(Kind::Closed, &Position::PAIRS, Path::value_variants(), &[load(64)], &[]);
        let groups = groups(&cells);
        assert!(groups.iter().all(|group| group.len() <= MOST_PAIRS + 1), "{}", groups.len());
        let pairs: usize = groups.iter().map(|group| group.len() - 1).sum();
        assert_eq!((groups.len(), pairs), (6, 40));
        let alike = all(Kind::Closed, &Position::PAIRS[..2], Path::value_variants(), &[load(64)], &[]);
        assert_eq!(self::groups(&alike).len(), 2);
    }

    #[test]
    fn turns_are_put_together() {
        let snapshots = [(3.0, 9.0), (1.0, 7.0), (5.0, 8.0)]
            .map(|(p50, max)| Values::from([(Metric::P50, p50), (Metric::Max, max)]));
        assert_eq!(middle(&snapshots), Values::from([(Metric::P50, 3.0), (Metric::Max, 9.0)]));
        assert_eq!(mean(&snapshots), Values::from([(Metric::P50, 3.0), (Metric::Max, 8.0)]));
        assert_eq!(middle(&[]), Values::new());
    }

    #[test]
    fn the_rate_counts_the_time_of_the_turns() {
        assert_eq!(rate(Rate { moved: 8_000_000, per_second: 1 }, Duration::from_millis(400)), Ok(20.0));
    }
}
