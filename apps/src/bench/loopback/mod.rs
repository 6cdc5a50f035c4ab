//! `linecard bench loopback`: two testpmds loop packets over vhost-user, ours and DPDK's at either end.
//!
//! ```text
//! backend (vhost-user), io ──tx──► frontend (virtio-user), mac       packets go round; the rate is the backend's
//!          core 1          ◄──rx──        core 0                     RX counter, the same both ways
//! ```

mod ceiling;
mod cell;
mod chart;
pub(in crate::bench) mod console;
mod machine;
mod markdown;
mod path;
mod report;
mod result;
mod sample;
mod schedule;
mod statistics;

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as File, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use self::cell::{Load, Position, Size};
use self::console::Interrupt;
use self::machine::Limits;
use self::path::Path;
use self::result::Row;
use self::sample::Bed;
use self::schedule::{Outcome, Progress, Schedule};
use super::{Error, choose_cores};

/// Options of `linecard bench loopback`.
#[derive(Debug, Args)]
pub(crate) struct LoopbackArgs {
    /// Who is at the ends, BACKEND/FRONTEND (vhost-user/virtio-user); all four by default
    #[arg(long, value_enum, value_delimiter = ',')]
    position: Vec<Position>,
    /// Paths of DPDK's virtio-user; all ten by default
    #[arg(long, value_enum, value_delimiter = ',')]
    path: Vec<Path>,
    /// Packet lengths in bytes without frame check sequence, or imix (64, 594 and 1518 bytes, 7:4:1)
    #[arg(long, value_delimiter = ',', default_value = "64", value_parser = Size::parse)]
    size: Vec<Size>,
    /// Descriptors per ring
    #[arg(long, value_delimiter = ',', default_value = "1024", value_parser = clap::value_parser!(u16).range(32..=32_768))]
    ring: Vec<u16>,
    /// Packets per burst
    #[arg(long, value_delimiter = ',', default_value = "32", value_parser = clap::value_parser!(u16).range(1..=512))]
    burst: Vec<u16>,
    /// Forward mode of the frontend; the backend's is io
    #[arg(long, default_value = "mac", value_parser = ["io", "mac", "macswap"])]
    fwd: String,
    /// Samples per row, all rows in turn; 10 by default, 3 with --quick
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: Option<u32>,
    /// Seconds over which a rate is taken; 1.5 by default, 0.5 with --quick
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// One split and one packed path, few and short samples: less than two minutes
    #[arg(long)]
    quick: bool,
    /// The two cores to run on, frontend then backend; the first allowed ones by default
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    cores: Vec<u32>,
    /// DPDK's testpmd; dpdk-testpmd on PATH by default
    #[arg(long, value_name = "FILE")]
    dpdk: Option<PathBuf>,
    /// Use ordinary pages for both sides even if hugepages are free
    #[arg(long)]
    no_huge: bool,
    /// Percent of a sample's time that others may take a core away, by the hypervisor or by the kernel
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    max_lost: f64,
    /// Involuntary context switches per second that a polling thread may have
    #[arg(long, default_value_t = 500.0, value_name = "COUNT")]
    max_switches: f64,
    /// Print one JSON object per row instead of a table
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print Markdown instead of a table
    #[arg(long)]
    markdown: bool,
    /// Draw a bar chart per load into this folder
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
}

/// For clap: a tenth of a second to an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give 0.1 to 3600 seconds".to_owned())
}

/// `--quick` starts no sample after this, and the last one takes some seconds more.
const QUICK: Duration = Duration::from_secs(100);

/// Measures and prints.
///
/// # Errors
/// Cores that may not be used, no place for sockets, output that cannot be written, or nothing measured at all.
pub(crate) fn run(args: &LoopbackArgs) -> Result<(), Error> {
    let start = Instant::now();
    let cores = match choose_cores(&args.cores)?[..] {
        [front, back] => [front, back],
        _ => return Err(Error::TwoCores),
    };
    let interrupt = watch_signals()?;
    let folder = crate::demo::PrivateFolder::new().map_err(|error| Error::Place(error.to_string()))?;
    let (warm_up, window) = args.times();
    let bed = Bed {
        cores,
        ours: env::current_exe().map_err(Error::Output)?,
        dpdk: args.dpdk.clone().or_else(|| on_path("dpdk-testpmd")),
        hugepages: !args.no_huge && super::peer::free_hugepages() >= Bed::HUGEPAGES,
        forward: args.fwd.clone(),
        warm_up,
        window,
        folder: folder.path().to_owned(),
        interrupt,
    };
    let (possible, missing) = args.positions(bed.dpdk.is_some());
    let (paths, loads) = (args.paths(), args.loads());
    let limits = Limits { share: args.max_lost / 100.0, switches: args.max_switches };
    let deadline = args.quick.then(|| start + QUICK);
    let mut progress = |progress: &Progress<'_>| tell(progress);
    let runs = args.runs();
    let schedule = Schedule { bed: &bed, runs, limits, deadline, progress: &mut progress };
    let outcome = schedule.run(cell::all(&possible, &paths, &loads))?;
    let mut rows = result::rows(&outcome);
    for &load in &loads {
        for &path in &paths {
            rows.extend(missing.iter().map(|&position| result::absent(position, path, load, ABSENT)));
        }
    }
    rows.sort_by_key(|row| loads.iter().position(|&load| load == row.load));
    args.print(&rows, &setting(&bed, &outcome, runs, &rows))?;
    if outcome.cut_short == Some("interrupted") {
        return Err(Error::Interrupted);
    }
    if rows.iter().all(|row| row.mpps.is_none()) {
        return Err(Error::Nothing(rows.iter().find_map(|row| row.note.clone()).unwrap_or_else(disturbed)));
    }
    Ok(())
}

const ABSENT: &str = "dpdk-testpmd is not on PATH; install dpdk-dev, or name it with --dpdk";

fn disturbed() -> String {
    "every sample was disturbed; end other work on these cores, or raise --max-lost and --max-switches".into()
}

impl LoopbackArgs {
    fn print(&self, rows: &[Row], setting: &[String]) -> Result<(), Error> {
        let charts = self.svg.as_ref().map_or(Ok(Vec::new()), |folder| draw(folder, rows, setting))?;
        if self.json {
            return report::json(rows);
        }
        if self.markdown {
            let words: Vec<String> = env::args().skip(1).collect();
            let command = format!("linecard {}", words.join(" "));
            let text = markdown::text(rows, setting, &command, &charts);
            return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
        }
        report::table(rows, setting)
    }

    fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 3 } else { 10 })
    }

    /// Warm-up and window.
    fn times(&self) -> (Duration, Duration) {
        let (warm_up, window) = if self.quick { (300, 500) } else { (700, 1500) };
        (Duration::from_millis(warm_up), self.seconds.unwrap_or(Duration::from_millis(window)))
    }

    fn paths(&self) -> Vec<Path> {
        match (&self.path[..], self.quick) {
            ([], true) => vec![Path::SplitMergeable, Path::PackedInorder],
            ([], false) => Path::value_variants().to_vec(),
            (paths, _) => paths.to_vec(),
        }
    }

    /// Positions that can be measured, and those that lack DPDK.
    fn positions(&self, dpdk: bool) -> (Vec<Position>, Vec<Position>) {
        let asked = if self.position.is_empty() {
            Position::value_variants().to_vec()
        } else {
            self.position.clone()
        };
        asked.into_iter().partition(|position| dpdk || !position.needs_dpdk())
    }

    fn loads(&self) -> Vec<Load> {
        let mut loads = Vec::new();
        for &size in &self.size {
            for &ring in &self.ring {
                loads.extend(self.burst.iter().map(|&burst| Load { size, ring, burst }));
            }
        }
        loads
    }
}

/// The first signal ends the run in order, with what there is; a second one ends it at once, and the programs see the end
/// of their input.
pub(in crate::bench) fn watch_signals() -> Result<Interrupt, Error> {
    let interrupt = Interrupt::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupt.0))?;
        flag::register(signal, Arc::clone(&interrupt.0))?;
    }
    Ok(interrupt)
}

/// The program of that name that a shell would run.
pub(in crate::bench) fn on_path(name: &str) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(runs)
}

/// A line per sample on standard error, for whoever waits.
fn tell(progress: &Progress<'_>) {
    let load = progress.cell.load;
    let what = match progress.cell.subject {
        cell::Subject::Ceiling => "ceiling".to_owned(),
        cell::Subject::Pair(position, path) => format!("{} {}", position.name(), path.name()),
    };
    let (run, said) = (progress.run + 1, &progress.said);
    let line = format!("run {run}: {what} {} ring {} burst {}: {said}\n", load.size, load.ring, load.burst);
    // Nobody has to watch.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Draws a chart per load that has anything to draw; their names, for a text in the folder above.
fn draw(folder: &File, rows: &[Row], setting: &[String]) -> Result<Vec<Option<String>>, Error> {
    let failed = |source| Error::Chart { folder: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut names = Vec::new();
    let caption = setting.iter().find(|line| line.starts_with("state")).map_or("", String::as_str);
    for group in report::by_load(rows) {
        let (Some(first), Some(svg)) = (group.first(), chart::draw(group, caption)) else {
            names.push(None);
            continue;
        };
        let name = chart::name(first);
        fs::write(folder.join(&name), svg).map_err(failed)?;
        let parent = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        names.push(Some(format!("{parent}/{name}")));
    }
    Ok(names)
}

/// What was measured where, in lines.
fn setting(bed: &Bed, outcome: &Outcome, runs: u32, rows: &[Row]) -> Vec<String> {
    let [front, back] = bed.cores;
    let pages = if bed.hugepages { "2 MiB hugepages" } else { "ordinary pages" };
    let dpdk = match (&bed.dpdk, &outcome.dpdk_version) {
        (None, _) => "absent".to_owned(),
        (Some(file), None) => file.display().to_string(),
        (Some(file), Some(version)) => format!("{version} ({})", file.display()),
    };
    let state = outcome.state.map_or_else(String::new, |state| {
        let line = rows.iter().filter_map(|row| row.hand_over).collect::<Vec<_>>();
        let clock = rows.iter().filter_map(|row| row.clock).collect::<Vec<_>>();
        let median = |values: &[f64]| super::stats::Summary::of(values).map_or(f64::NAN, |s| s.median);
        format!(
            "state {}: a cache line changes cores in {:.0} cycles, {:.2} core cycles per time-stamp cycle",
            state.name(),
            median(&line),
            median(&clock)
        )
    });
    let mut lines = vec![
        format!(
            "backend/frontend on cores {back} and {front}, {pages} for both; frontend forwards {}, backend io",
            bed.forward
        ),
        format!(
            "ours {}; dpdk {dpdk}; {runs} runs in turn, fresh processes, {:.1} s each",
            env!("CARGO_PKG_VERSION"),
            bed.window.as_secs_f64()
        ),
    ];
    lines.extend((!state.is_empty()).then_some(state));
    lines.extend(outcome.cut_short.map(|why| format!("ended early: {why}")));
    lines
}
