//! The command line of `linecard bench net`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::cell::{Cell, Direction, Kind, Question};

/// Options of `linecard bench net`.
#[derive(Debug, Args)]
#[command(after_long_help = QUESTIONS)]
pub(crate) struct NetArgs {
    /// Drivers; all that this program has by default
    #[arg(value_enum, value_name = "DRIVER", conflicts_with_all = ["containers", "tcp"])]
    pub(super) driver: Vec<Kind>,
    /// Round trips of one frame in flight instead of rates: the port sends back what the far end sends
    #[arg(long, group = "question")]
    latency: bool,
    /// Frames from one container to another: two virtio-user processes and a switch with two vhost ports, beside veth
    /// pairs and a Linux bridge
    #[arg(long, group = "question")]
    containers: bool,
    /// One TCP connection between the kernels of two namespaces, through tap, vhost, virtio-user and tap, where ours leave
    /// segmentation and checksums to the far end; beside a veth pair
    #[arg(long, group = "question")]
    tcp: bool,
    /// Directions
    #[arg(long, value_enum, value_delimiter = ',', default_value = "rx,tx", conflicts_with = "question")]
    direction: Vec<Direction>,
    /// Frame lengths in bytes, the four of the frame check sequence included; 64 and 1518 by default, 64 with --latency
    /// and --containers
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(64..=1518), conflicts_with = "tcp")]
    size: Vec<u16>,
    /// Fresh processes of each side per row
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) runs: u32,
    /// Turns that each side has while its processes live; 10 by default
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with_all = ["containers", "tcp"])]
    slices: Option<u32>,
    /// Seconds over which a rate is taken in a turn, or round trips are made; 0.2 by default, 1 with --containers and
    /// --tcp
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// The two cores to run on, generator then port; the first allowed ones by default
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    pub(super) cores: Vec<u32>,
    /// More device arguments for our driver (of the virtio-user ports with --containers and --tcp), as in
    /// version=3,framecnt=2048
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "")]
    pub(super) args: String,
    /// More device arguments for DPDK's driver
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "")]
    pub(super) dpdk_args: String,
    /// DPDK's testpmd; dpdk-testpmd on PATH by default
    #[arg(long, value_name = "FILE")]
    pub(super) dpdk: Option<PathBuf>,
    /// Leave DPDK out
    #[arg(long, conflicts_with = "dpdk")]
    pub(super) no_peer: bool,
    /// Leave the kernel's side out: the C loop, the bridge, the veth pair
    #[arg(long)]
    pub(super) no_loop: bool,
    /// Print one JSON object per row instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// The text of `--help` below the options.
const QUESTIONS: &str = "\
Each run answers one question, with fresh processes in fresh namespaces. With --containers and
--tcp the sides are set up in turn; else they stand at once and rest, and work in short turns.
Ratios are medians of those within a turn, with the interval that holds them with 95 %
probability (bootstrap).

  (none)        Rates, per driver, direction and length. The port is a testpmd's (rxonly or
                txonly) on the second core. It receives what a packet socket on the first
                core sends, and what it sends the kernel behind the interface counts and
                drops. Million frames per second, and processor time per frame.
                kernel loop: a C program with the system calls or rings of the same kind and
                nothing around them (built by cc when first needed); about what the kernel
                itself can do.
  --latency     The testpmd (macswap) sends back each frame; the far end has one in flight
                and waits for it in a loop. Microseconds, half and 99 of 100 round trips
                below; smaller is better.
  --containers  Million frames per second that arrive. One testpmd on the second core
                switches (io) between two vhost ports; two testpmds with a virtio-user port
                each, the containers, share the first core: one sends, the other receives.
                dpdk: DPDK's testpmd switches, between the same containers.
                bridge: two namespaces, veth pairs, a Linux bridge, and our packet sockets
                at both ends, the sender on the first core and the receiver on the second.
  --tcp         Gigabit per second of one connection, tap | testpmd | vhost-user | testpmd |
                tap, both testpmds ours or both DPDK's, one on each core; sender and
                receiver are threads of this program, on either core.
                veth: the same connection through a veth pair.";

/// Parses a tenth of a second to a minute, for clap.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give 0.1 to 60 seconds".to_owned())
}

impl NetArgs {
    pub(super) fn question(&self) -> Question {
        match self {
            Self { latency: true, .. } => Question::Latency,
            Self { containers: true, .. } => Question::Containers,
            Self { tcp: true, .. } => Question::Tcp,
            _ => Question::Rate,
        }
    }

    /// Whether the sides of a row can be alive at the same time.
    fn sliced(&self) -> bool {
        matches!(self.question(), Question::Rate | Question::Latency)
    }

    /// Returns the turns of each side in a run.
    pub(super) fn slices(&self) -> u32 {
        if self.sliced() { self.slices.unwrap_or(10) } else { 1 }
    }

    /// Returns the duration of a turn.
    pub(super) fn seconds(&self) -> Duration {
        self.seconds.unwrap_or(if self.sliced() {
            Duration::from_millis(200)
        } else {
            Duration::from_secs(1)
        })
    }

    /// Returns the time before a turn's measurement; longer for processes that have just been started.
    pub(super) fn warm_up(&self) -> Duration {
        Duration::from_millis(if self.sliced() { 30 } else { 300 })
    }

    /// Returns the rows for these drivers.
    pub(super) fn cells(&self, kinds: &[Kind]) -> Vec<Cell> {
        let question = self.question();
        let sizes = match (&self.size[..], question) {
            ([], Question::Rate) => &[64, 1518],
            ([], _) => &[64][..],
            (asked, _) => asked,
        };
        let cell = Cell { question, kind: None, direction: None, size: None };
        let sized = |cell: Cell| sizes.iter().map(move |&size| Cell { size: Some(size), ..cell });
        let driver = |&kind: &Kind| Cell { kind: Some(kind), ..cell };
        match question {
            Question::Tcp => vec![cell],
            Question::Containers => sized(cell).collect(),
            Question::Latency => kinds.iter().map(driver).flat_map(sized).collect(),
            Question::Rate => {
                let directed =
                    |cell: Cell| self.direction.iter().map(move |&d| Cell { direction: Some(d), ..cell });
                kinds.iter().map(driver).flat_map(directed).flat_map(sized).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: NetArgs,
    }

    fn read(line: &str) -> Result<NetArgs, clap::Error> {
        let words = std::iter::once("net").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args)
    }

    fn rows(line: &str) -> Vec<String> {
        let args = read(line).expect("a good line");
        let kinds = if args.driver.is_empty() { Kind::ALL.to_vec() } else { args.driver.clone() };
        args.cells(&kinds).iter().map(Cell::to_string).collect()
    }

    #[test]
    fn each_question_has_its_rows() {
        assert_eq!(rows("").len(), 3 * 2 * 2);
        assert_eq!(rows("tap --direction tx"), ["tap tx 64 B", "tap tx 1518 B"]);
        assert_eq!(rows("af_xdp tap --latency"), ["af_xdp 64 B", "tap 64 B"]);
        assert_eq!(rows("--containers --size 64,1518"), ["containers 64 B", "containers 1518 B"]);
        assert_eq!(rows("--tcp"), ["tcp"]);
    }

    #[test]
    fn a_run_asks_one_question() {
        for line in
            ["--tcp --latency", "tap --tcp", "--tcp --size 64", "--latency --direction rx", "--seconds 0"]
        {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
