//! The command line of `linecard bench loopback`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::cell::{Load, Memif, Position, Size};
use super::kind::{Kind, Offer};
use super::machine::Limits;
use super::path::Path;
use super::result;

/// Options of `linecard bench loopback`.
#[derive(Debug, Args)]
pub(crate) struct LoopbackArgs {
    /// Who is at the ends, BACKEND/FRONTEND (vhost-user/virtio-user); by default all that the kind of sample allows
    #[arg(long, value_enum, value_delimiter = ',')]
    position: Vec<Position>,
    /// Paths of DPDK's virtio-user, or all; all ten by default, four of them with --quick, --open, --zero-loss,
    /// --latency and --spare, one with --startup
    #[arg(long, value_delimiter = ',', value_parser = parse_path)]
    path: Vec<PathChoice>,
    /// Packet lengths in bytes without frame check sequence, 64K, imix (64, 594 and 1518 bytes, 7:4:1), or all
    #[arg(long, value_delimiter = ',', default_value = "64", value_parser = parse_size)]
    size: Vec<SizeChoice>,
    /// Descriptors per ring, or all (256 and 1024)
    #[arg(long, value_delimiter = ',', default_value = "1024", value_parser = parse_ring)]
    ring: Vec<Numbers>,
    /// Packets per burst, or all (1, 4, 8, 16, 32 and 64)
    #[arg(long, value_delimiter = ',', default_value = "32", value_parser = parse_burst)]
    burst: Vec<Numbers>,
    /// Forward mode of the frontend, and of a testpmd under test; the other backend's is io
    #[arg(long, default_value = "mac", value_parser = ["io", "mac", "macswap"])]
    pub(super) fwd: String,
    /// Open loop: checked packets at these rates in million per second, or max; losses and round trips
    #[arg(long, value_name = "RATE", value_delimiter = ',', value_parser = Offer::parse, group = "kind")]
    open: Vec<Offer>,
    /// Search the highest rates with no loss and with 0.5 % of it
    #[arg(long, group = "kind")]
    zero_loss: bool,
    /// Round trips of one packet in flight, back to back and at low load
    #[arg(long, group = "kind")]
    latency: bool,
    /// How many cycles per packet our end of a mixed pair has to spare, and how busy both ends are
    #[arg(long, group = "kind")]
    spare: bool,
    /// Time to the first packet, and memory
    #[arg(long, group = "kind")]
    startup: bool,
    /// Also DPDK's net_memif between two of its testpmds, with and without copies: rows of their own, and the ratio of ours
    /// to the better of them; with the closed loop
    #[arg(long, conflicts_with = "kind")]
    memif: bool,
    /// Samples per row, all rows in turn; 10 by default, 3 with --quick
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: Option<u32>,
    /// Seconds over which a rate is taken; 1.5 by default, 0.5 with --quick
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// Four paths with the same program at both ends, few and short samples: less than two minutes
    #[arg(long)]
    pub(super) quick: bool,
    /// Keep samples in FILE and go on from those that are there
    #[arg(long, value_name = "FILE", conflicts_with = "report")]
    pub(super) resume: Option<PathBuf>,
    /// Start no sample after so many seconds; run again with --resume to go on
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) budget: Option<Duration>,
    /// Measure nothing: print the samples of FILE
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// The two cores to run on, frontend then backend; the first allowed ones by default
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    pub(super) cores: Vec<u32>,
    /// DPDK's testpmd; dpdk-testpmd on PATH by default
    #[arg(long, value_name = "FILE")]
    pub(super) dpdk: Option<PathBuf>,
    /// Use ordinary pages for both sides even if hugepages are free
    #[arg(long)]
    pub(super) no_huge: bool,
    /// Percent of a sample's time that others may take a core away, by the hypervisor or by the kernel; 1 by default, 10 where
    /// pairs take turns, because that meets them all
    #[arg(long, value_name = "PERCENT")]
    max_lost: Option<f64>,
    /// Involuntary context switches per second that a polling thread may have
    #[arg(long, default_value_t = 500.0, value_name = "COUNT")]
    max_switches: f64,
    /// Let each pair run by itself and compare samples of one state of the machine; by default all pairs of a load live at
    /// once and take turns of 40 ms, so that whatever the machine does meets them all (closed loop and --latency)
    #[arg(long)]
    apart: bool,
    /// Compare samples of all states of the machine, not of one; figures scatter more, and none is rejected for it
    #[arg(long)]
    any_state: bool,
    /// Print one JSON object per row instead of a table
    #[arg(long, conflicts_with = "markdown")]
    pub(super) json: bool,
    /// Print Markdown instead of a table
    #[arg(long)]
    pub(super) markdown: bool,
    /// Draw a bar chart per kind and load into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(super) svg: Option<PathBuf>,
}

/// One path or all paths.
#[derive(Debug, Clone)]
struct PathChoice(Vec<Path>);

/// One size or all sizes.
#[derive(Debug, Clone)]
struct SizeChoice(Vec<Size>);

/// One number or the usual numbers.
#[derive(Debug, Clone)]
struct Numbers(Vec<u16>);

const ALL: &str = "all";
const SIZES: [Size; 9] = [
    Size::Bytes(64),
    Size::Bytes(128),
    Size::Bytes(256),
    Size::Bytes(512),
    Size::Bytes(1024),
    Size::Bytes(1518),
    Size::Imix,
    Size::Bytes(9000),
    Size::Bytes(u16::MAX),
];
/// The paths for the main figures; the others show the influence of the negotiated features.
const MAIN_PATHS: [Path; 4] =
    [Path::SplitMergeable, Path::SplitInorder, Path::PackedMergeable, Path::PackedInorder];

fn parse_path(text: &str) -> Result<PathChoice, String> {
    if text == ALL {
        return Ok(PathChoice(Path::value_variants().to_vec()));
    }
    let names = || Path::value_variants().iter().map(|path| path.name()).collect::<Vec<_>>().join(", ");
    let path = Path::from_str(text, false).map_err(|_| format!("give all, or one of {}", names()))?;
    Ok(PathChoice(vec![path]))
}

fn parse_size(text: &str) -> Result<SizeChoice, String> {
    if text == ALL {
        return Ok(SizeChoice(SIZES.to_vec()));
    }
    Size::parse(text).map(|size| SizeChoice(vec![size]))
}

fn parse_ring(text: &str) -> Result<Numbers, String> {
    numbers(text, &[256, 1024], 32..=32_768)
}

fn parse_burst(text: &str) -> Result<Numbers, String> {
    numbers(text, &[1, 4, 8, 16, 32, 64], 1..=512)
}

fn numbers(text: &str, usual: &[u16], range: std::ops::RangeInclusive<u16>) -> Result<Numbers, String> {
    if text == ALL {
        return Ok(Numbers(usual.to_vec()));
    }
    let number = text.parse().ok().filter(|number| range.contains(number));
    let number = number.ok_or_else(|| format!("give {} to {}, or all", range.start(), range.end()))?;
    Ok(Numbers(vec![number]))
}

/// Parses a tenth of a second to an hour, for clap.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give 0.1 to 3600 seconds".to_owned())
}

impl LoopbackArgs {
    pub(super) fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 3 } else { 10 })
    }

    /// Returns warm-up time and measuring window.
    pub(super) fn times(&self) -> (Duration, Duration) {
        let window = self.seconds.unwrap_or(Duration::from_millis(if self.quick { 500 } else { 1500 }));
        let warm_up = (window / 2).clamp(Duration::from_millis(250), Duration::from_millis(700));
        (warm_up, window)
    }

    pub(super) fn limits(&self) -> Limits {
        let lost = self.max_lost.unwrap_or(if self.together() { 10.0 } else { 1.0 });
        Limits { share: lost / 100.0, switches: self.max_switches, any_state: self.any_state }
    }

    /// Whether all pairs are alive at the same time and take turns.
    pub(super) fn together(&self) -> bool {
        matches!(self.kinds()[..], [Kind::Closed | Kind::Latency]) && !self.apart && !self.any_state
    }

    /// The requested memif rows.
    pub(super) fn memif(&self) -> &'static [Memif] {
        if self.memif { &Memif::BOTH } else { &[] }
    }

    /// The requested kinds of sample: one kind, or several offers.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let one = match self {
            Self { zero_loss: true, .. } => Kind::ZeroLoss,
            Self { latency: true, .. } => Kind::Latency,
            Self { spare: true, .. } => Kind::Spare,
            Self { startup: true, .. } => Kind::Startup,
            _ if !self.open.is_empty() => return self.open.iter().copied().map(Kind::Open).collect(),
            _ => Kind::Closed,
        };
        vec![one]
    }

    pub(super) fn paths(&self) -> Vec<Path> {
        let asked: Vec<Path> = self.path.iter().flat_map(|choice| choice.0.clone()).collect();
        match (asked.is_empty(), self.startup, self.quick || self.kinds() != [Kind::Closed]) {
            (false, ..) => asked,
            (true, true, _) => vec![Path::SplitMergeable],
            (true, false, true) => MAIN_PATHS.to_vec(),
            (true, false, false) => Path::value_variants().to_vec(),
        }
    }

    /// The requested positions that are available for this kind of sample.
    pub(super) fn positions(&self, kind: Kind) -> Vec<Position> {
        let possible = result::positions(kind);
        if self.position.is_empty() {
            let alike = self.quick && kind == Kind::Closed;
            return if alike { possible[..2].to_vec() } else { possible.to_vec() };
        }
        possible.iter().copied().filter(|position| self.position.contains(position)).collect()
    }

    pub(super) fn loads(&self) -> Vec<Load> {
        let flat = |choices: &[Numbers]| choices.iter().flat_map(|n| n.0.clone()).collect::<Vec<_>>();
        let (rings, bursts) = (flat(&self.ring), flat(&self.burst));
        let mut loads = Vec::new();
        for size in self.size.iter().flat_map(|choice| choice.0.clone()) {
            for &ring in &rings {
                loads.extend(bursts.iter().map(|&burst| Load { size, ring, burst }));
            }
        }
        loads
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LoopbackArgs,
    }

    fn read(line: &str) -> LoopbackArgs {
        let words = std::iter::once("loopback").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args).expect("a good line")
    }

    #[test]
    fn quick_covers_the_main_paths_with_equal_ends() {
        let args = read("--quick");
        assert_eq!(args.positions(Kind::Closed), [Position::OursOurs, Position::DpdkDpdk]);
        assert_eq!((args.paths(), args.runs()), (MAIN_PATHS.to_vec(), 3));
        let args = read("--quick --position ours/dpdk --path split --runs 5 --seconds 1");
        assert_eq!(
            (args.positions(Kind::Closed), args.paths()),
            (vec![Position::OursDpdk], vec![Path::Split])
        );
        assert_eq!((args.runs(), args.times().1), (5, Duration::from_secs(1)));
    }

    #[test]
    fn all_means_all() {
        let args = read("--path all --size all --ring all --burst all");
        assert_eq!(args.paths().len(), 10);
        assert_eq!(args.loads().len(), 9 * 2 * 6);
        let args = read("");
        assert_eq!((args.paths().len(), args.loads().len(), args.positions(Kind::Closed).len()), (10, 1, 4));
        assert_eq!(args.kinds(), [Kind::Closed]);
    }

    #[test]
    fn a_run_asks_one_question() {
        assert_eq!(read("--open 1,max").kinds(), [Kind::Open(Offer::mpps(1.0)), Kind::Open(Offer::Max)]);
        assert_eq!(read("--zero-loss").positions(Kind::ZeroLoss), Position::TESTED);
        assert_eq!(read("--startup").paths(), [Path::SplitMergeable]);
        assert_eq!(read("--spare").paths(), MAIN_PATHS);
        assert!(read("--quick").together() && !read("--quick --apart").together());
        assert!(
            read("--latency").together()
                && !read("--spare").together()
                && read("--quick").limits().share > read("--apart").limits().share
        );
        assert!(Line::try_parse_from(["loopback", "--zero-loss", "--latency"]).is_err());
        assert!(Line::try_parse_from(["loopback", "--zero-loss", "--memif"]).is_err());
        assert_eq!((read("").memif(), read("--memif").memif()), (&[][..], &Memif::BOTH[..]));
        assert!(Line::try_parse_from(["loopback", "--report", "a", "--resume", "b"]).is_err());
    }
}
