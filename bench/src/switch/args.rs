//! The command line of `linecard bench switch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::middle::Kind;

/// Options of `linecard bench switch`.
#[derive(Debug, Args)]
#[command(after_long_help = METHOD)]
pub(crate) struct SwitchArgs {
    /// What forwards; all that this machine has by default
    #[arg(value_enum, value_name = "SWITCH")]
    pub(super) kinds: Vec<Kind>,
    /// Frame lengths in bytes, without the frame check sequence
    #[arg(long, value_delimiter = ',', default_value = "64,1518", value_parser = clap::value_parser!(u16).range(60..=1518))]
    pub(super) size: Vec<u16>,
    /// Turns: in each of them every switch is measured once, with fresh processes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) runs: u32,
    /// Seconds over which a rate is taken
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// The two cores to run on, the tester's then the switch's; the first allowed ones by default
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    pub(super) cores: Vec<u32>,
    /// Ports of `linecard-loaded`, two of which carry traffic
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(3..=1024))]
    pub(super) ports: u16,
    /// Addresses in the table of `linecard-loaded`, beside those of the traffic
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) addresses: u32,
    /// DPDK's testpmd; dpdk-testpmd on PATH by default
    #[arg(long, value_name = "FILE")]
    pub(super) dpdk: Option<PathBuf>,
    /// Print one JSON object per row instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// The text of `--help` below the options.
const METHOD: &str = "\
A testpmd of ours on the first core has two virtio-user ports and sends back what it receives;
what is measured polls the second core and forwards between the two. Million frames per second
each way, as the tester's ports count them: median, least and most of all turns. Ratios are
linecard's rate over that of the row, taken within turns, with the interval that holds their
median with 95 % probability (bootstrap).

  linecard         `linecard switch` with two vhost-user ports: it learns, ages, checks.
  linecard-loaded  The same with --ports ports and --addresses addresses in its table.
  linecard-io      `linecard testpmd --forward-mode=io`: no table.
  dpdk-io          `dpdk-testpmd --forward-mode=io`.
  ovs              Open vSwitch on DPDK, a flow from port to port. Needs 768 MiB of 2 MiB pages.
  memif            `dpdk-testpmd --forward-mode=io` between two net_memif ports, whose other ends
                   are a dpdk-testpmd's. Needs 2 MiB pages as well.

The kernel's bridge carries a thousandth of that and needs namespaces: `linecard bench net
--containers` has it.";

/// Parses a fifth of a second to a minute, for clap.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.2..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give 0.2 to 60 seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: SwitchArgs,
    }

    fn read(line: &str) -> Result<SwitchArgs, clap::Error> {
        let words = std::iter::once("switch").chain(line.split_whitespace());
        Command::try_parse_from(words).map(|command| command.args)
    }

    #[test]
    fn a_line_is_read() {
        let args = read("linecard dpdk-io --size 64 --runs 3 --seconds 0.5").expect("a good line");
        assert_eq!((args.kinds, args.size, args.runs), (vec![Kind::Linecard, Kind::DpdkIo], vec![64], 3));
        assert_eq!(read("").expect("nothing is needed").size, [64, 1518]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["bridge", "--size 59", "--size 1519", "--seconds 0", "--ports 2", "--runs 0"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
