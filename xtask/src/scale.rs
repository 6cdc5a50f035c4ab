//! Counts instructions and cache misses per packet of the switch's own work, by the number of ports and
//! stations, with callgrind. `docs/guide/scale.md` has the table.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::budget;

/// Options of `cargo xtask scale`.
#[derive(Args)]
pub(crate) struct Options {
    /// Numbers of ports.
    #[arg(long, value_delimiter = ',', default_value = "2,64,1000", value_parser = clap::value_parser!(u16).range(2..=4096))]
    ports: Vec<u16>,
    /// Numbers of stations, at least 2.
    #[arg(long, value_delimiter = ',', default_value = "10,10000,100000", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    stations: Vec<u32>,
}

/// Packets of a trace (`switch/benches/scale.rs`), flooded bursts, and polls of empty queues.
const PACKETS: f64 = 16_384.0;
const FLOODED: f64 = 256.0;
const ROUNDS: f64 = 512.0;
/// The simulated caches: 48 KiB in 12 ways, and 2 MiB in 16 ways, the private caches of a server's core.
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=49152,12,64", "--LL=2097152,16,64"];

/// The counts of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    instructions: f64,
    /// Misses of the first-level data cache.
    first: f64,
    /// Misses of both caches.
    second: f64,
}

impl Counts {
    fn per(self, times: f64) -> Self {
        let Self { instructions, first, second } = self;
        Self { instructions: instructions / times, first: first / times, second: second / times }
    }

    fn less(self, other: Self) -> Self {
        Self {
            instructions: self.instructions - other.instructions,
            first: (self.first - other.first).max(0.0),
            second: (self.second - other.second).max(0.0),
        }
    }
}

/// Counts every cell and prints the tables of the guide.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let package = ["-p", "linecard-switch", "--features", "model"];
    let trace = budget::build("scale", &package)?;
    let mut text = String::from(
        "| ports | stations | look | learn | one flow a burst | mixed |\n|---:|---:|---:|---:|---:|---:|\n",
    );
    for ports in &options.ports {
        for stations in &options.stations {
            let count = |what, step| count(&trace, [what, &ports.to_string(), &stations.to_string()], step);
            let per_packet = |what| -> Result<Counts, String> {
                Ok(count(what, "forward")?.less(count(what, "drop_burst")?).per(PACKETS))
            };
            let (find, learn) = (count("table", "find")?.per(PACKETS), count("table", "learn")?.per(PACKETS));
            let cells = [find, learn, per_packet("flow")?, per_packet("mixed")?].map(cell).join(" | ");
            _ = writeln!(text, "| {ports} | {stations} | {cells} |");
        }
    }
    text += "\n| ports | to all, per copy | an empty round |\n|---:|---:|---:|\n";
    for ports in &options.ports {
        let count = |what, step| count(&trace, [what, &ports.to_string(), "10000"], step);
        let flood = count("flood", "flood")?.per(FLOODED * f64::from(ports - 1));
        let poll = count("poll", "poll")?.per(ROUNDS);
        _ = writeln!(text, "| {ports} | {} | {} |", cell(flood), cell(poll));
    }
    print!("{text}");
    Ok(())
}

/// Formats instructions, misses of the first cache, and misses of both.
fn cell(counts: Counts) -> String {
    format!("{:.0}; {:.2}; {:.2}", counts.instructions, counts.first, counts.second)
}

fn count(trace: &Path, arguments: [&str; 3], step: &str) -> Result<Counts, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--cache-sim=yes"])
        .args(CACHES)
        .arg(format!("--toggle-collect=*measured::{step}*"))
        .arg(trace)
        .args(arguments)
        .output()
        .map_err(|e| format!("valgrind could not be started ({e}); apt-get install valgrind"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let counts = parse(&log).filter(|counts| output.status.success() && counts.instructions > 0.0);
    counts.ok_or_else(|| format!("callgrind counted nothing for {step} on {arguments:?}:\n{log}"))
}

/// Parses callgrind's summary: the names of the events, and a number for each.
fn parse(log: &str) -> Option<Counts> {
    let line = |title: &str| log.lines().find_map(|line| line.split_once(title)).map(|(_, rest)| rest);
    let names: Vec<&str> = line("Events    : ")?.split_whitespace().collect();
    let numbers: Vec<f64> =
        line("Collected : ")?.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // Trailing zeros are omitted.
    let of = |name: &str| {
        let at = names.iter().position(|known| *known == name)?;
        Some(numbers.get(at).copied().unwrap_or(0.0))
    };
    Some(Counts {
        instructions: of("Ir")?,
        first: of("D1mr")? + of("D1mw")?,
        second: of("DLmr")? + of("DLmw")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_last_lines_are_read_by_name() {
        let log = "==1== Events    : Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw\n==1== Collected : 100 9 9 1 20 5 1 4 2\n";
        let counts = parse(log).expect("well formed");
        assert_eq!(counts, Counts { instructions: 100.0, first: 25.0, second: 6.0 });
        assert_eq!(
            cell(counts.less(Counts { instructions: 10.0, first: 30.0, second: 1.0 }).per(2.0)),
            "45; 0.00; 2.50"
        );
        assert_eq!(parse("==1== Collected : 5"), None);
        assert_eq!(parse("==1== Events    : Ir Dr\n==1== Collected : 5 6"), None);
        let zeros = log.replace("9 9 1 20 5 1 4 2", "9 9");
        assert_eq!(parse(&zeros), Some(Counts { instructions: 100.0, ..Counts::default() }));
    }
}
