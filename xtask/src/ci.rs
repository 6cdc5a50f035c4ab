//! The checks of CI, as commands that can be run individually.

use std::ops::Range;
use std::process::Command;
use std::time::Instant;

use clap::Args;

/// Options of `cargo xtask ci` and `cargo xtask torture`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only the steps whose name contains this.
    #[arg(long, conflicts_with_all = ["from", "until"])]
    only: Option<String>,
    /// Begin with the step of this name.
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
    /// End before the step of this name.
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Print the steps and their commands, run nothing.
    #[arg(long)]
    list: bool,
}

struct Step {
    name: &'static str,
    command: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const fn step(name: &'static str, command: &'static [&'static str]) -> Step {
    Step { name, command, environment: &[] }
}

/// Fuzz targets are only type-checked, because their fuzzer needs a C++ compiler. The tests of
/// `linecard-fuzz` run their code with random bytes.
const FUZZ_TARGETS: [&str; 7] = [
    "cargo",
    "check",
    "--manifest-path=fuzz/Cargo.toml",
    "--target-dir=target",
    "--no-default-features",
    "--features=libfuzzer",
    "--bins",
];

/// Packages the command that the tests used. The released command is a release build without benchmarks,
/// which takes longer than the rest of this step; `cargo xtask budget` and loom build optimized code.
const PACKAGE: [&str; 10] = [
    "cargo",
    "run",
    "-q",
    "-p",
    "xtask",
    "--",
    "package",
    "--rpm",
    "--check",
    "--binary=target/debug/linecard",
];

/// Packages every published crate as for crates.io.
macro_rules! packed_crates {
    ($($more:literal),*) => {
        &[
            "cargo", "package", "--workspace", "--allow-dirty", "--target-dir=target/crates", "--exclude=xtask",
            "--exclude=linecard-testing", "--exclude=linecard-lab", "--exclude=linecard-fuzz", $($more),*
        ]
    };
}

/// Checks the facade crate with only one driver.
macro_rules! one_driver {
    ($driver:literal) => {
        step(
            concat!("features: ", $driver),
            &["cargo", "check", "-p", "linecard", "--no-default-features", "--features", $driver],
        )
    };
}

const STEPS: &[Step] = &[
    step("format", &["cargo", "fmt", "--all", "--check"]),
    step("shape", &["cargo", "run", "-q", "-p", "xtask", "--", "shape"]),
    step("clippy", &["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    Step {
        name: "docs",
        command: &["cargo", "doc", "--workspace", "--no-deps"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    step("api", &["cargo", "run", "-q", "-p", "xtask", "--", "api"]),
    step("features: default", &["cargo", "check", "-p", "linecard"]),
    step("features: no driver", &["cargo", "check", "-p", "linecard", "--no-default-features"]),
    one_driver!("net_af_packet"),
    one_driver!("net_af_xdp"),
    one_driver!("net_impair"),
    one_driver!("net_null"),
    one_driver!("net_pcap"),
    one_driver!("net_ring"),
    one_driver!("net_tap"),
    one_driver!("net_vduse"),
    one_driver!("net_vhost"),
    one_driver!("net_virtio_pci"),
    one_driver!("net_virtio_user"),
    one_driver!("net_vxlan"),
    step("features: apps without bench", &["cargo", "check", "-p", "linecard-apps", "--no-default-features"]),
    step("features: ring without", &["cargo", "check", "-p", "linecard-ring"]),
    step("features: ring model", &["cargo", "check", "-p", "linecard-ring", "--features", "model"]),
    step("features: virtio without", &["cargo", "check", "-p", "linecard-virtio"]),
    step("features: virtio model", &["cargo", "check", "-p", "linecard-virtio", "--features", "model"]),
    // Their contents are built by other steps; `cargo xtask torture --only crates` builds them from the
    // packages.
    step("crates", packed_crates!("--no-verify")),
    step("build", &["cargo", "test", "--workspace", "--no-run"]),
    // The steps from here on need programs that a machine may not have.
    // The advisories come from the network and can change at any time: `cargo deny check advisories`.
    step("deny", &["cargo", "deny", "check", "bans", "licenses", "sources"]),
    step("test", &["cargo", "run", "-q", "-p", "xtask", "--", "test"]),
    step("package", &PACKAGE),
    step("fuzz targets", &FUZZ_TARGETS),
    step("oldest rust", &["cargo", "run", "-q", "-p", "xtask", "--", "oldest-rust"]),
];

/// Steps that take long and find more the longer they run.
const TORTURE: &[Step] = &[
    // Checks that each package is complete. This builds everything, because the workspace's artefacts come
    // from other files.
    Step {
        name: "crates",
        command: packed_crates!(),
        // The code is only compiled, never run.
        environment: &[("CARGO_PROFILE_DEV_OPT_LEVEL", "0"), ("CARGO_PROFILE_DEV_DEBUG", "0")],
    },
    Step {
        name: "hostile",
        command: &["cargo", "test", "-p", "linecard-apps", "--test", "hostile"],
        environment: &[("LINECARD_HOSTILE_SECONDS", "60")],
    },
    Step {
        name: "differential",
        command: &[
            "cargo",
            "test",
            "-p",
            "linecard-vhost-user",
            "-p",
            "linecard-virtio-user",
            "--lib",
            "differential",
        ],
        environment: &[("LINECARD_BATCHES", "10000000")],
    },
    Step {
        name: "upgrade",
        command: &[
            "cargo",
            "test",
            "-p",
            "linecard-apps",
            "--test",
            "switch_upgrade",
            "upgrades_under_traffic",
            "--",
            "--nocapture",
            "--test-threads=1",
        ],
        environment: &[("LINECARD_UPGRADES", "100")],
    },
    Step {
        name: "kill",
        command: &[
            "cargo",
            "test",
            "-p",
            "linecard-apps",
            "--test",
            "switch_kill",
            "killed_under_traffic",
            "--",
            "--nocapture",
            "--test-threads=1",
        ],
        environment: &[("LINECARD_KILLS", "100")],
    },
    // A second release build, for another target: `rustup target add x86_64-unknown-linux-musl`.
    step("static", &["cargo", "run", "-q", "-p", "xtask", "--", "package", "--static", "--check"]),
    // Ten million in total: four kinds of rings, with and without an event index, each end asleep.
    Step {
        name: "sleeps",
        command: &[
            "cargo",
            "test",
            "-p",
            "linecard",
            "--test",
            "both_ends",
            "cross_a_lap",
            "--",
            "--test-threads=1",
            "--nocapture",
        ],
        environment: &[("LINECARD_SLEEPS", "625000")],
    },
    Step {
        name: "fuzz",
        command: &["cargo", "test", "-p", "linecard-fuzz"],
        environment: &[("LINECARD_FUZZ_INPUTS", "1000000")],
    },
];

/// Runs the checks of CI in order and stops at the first that fails.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    run_steps(STEPS, options)
}

/// Runs the long checks, likewise.
pub(crate) fn torture(options: &Options) -> Result<(), String> {
    run_steps(TORTURE, options)
}

fn run_steps(steps: &[Step], options: &Options) -> Result<(), String> {
    let wanted = |s: &&Step| options.only.as_deref().is_none_or(|part| s.name.contains(part));
    for step in steps[between(steps, options)?].iter().filter(wanted) {
        println!("── {}: {}", step.name, step.command.join(" "));
        if options.list {
            continue;
        }
        let (program, arguments) = step.command.split_first().ok_or("a step without a command")?;
        let (began, used) = (Instant::now(), processor_seconds());
        let status = Command::new(program)
            .args(arguments)
            .envs(step.environment.iter().copied())
            .status()
            .map_err(|e| format!("{}: {program} could not be started: {e}", step.name))?;
        let (took, used) = (began.elapsed().as_secs(), processor_seconds() - used);
        println!("── {}: {took} s, {used} s of processors", step.name);
        if !status.success() {
            return Err(format!(
                "step '{}' failed ({status}); run it alone: {}",
                step.name,
                step.command.join(" ")
            ));
        }
    }
    Ok(())
}

/// The steps that `--from` and `--until` name.
fn between(steps: &[Step], options: &Options) -> Result<Range<usize>, String> {
    let place = |name: &Option<String>, without: usize| match name {
        None => Ok(without),
        Some(name) => steps
            .iter()
            .position(|step| step.name == name)
            .ok_or_else(|| format!("there is no step '{name}'; `--list` has them")),
    };
    let (from, until) = (place(&options.from, 0)?, place(&options.until, steps.len())?);
    if from < until { Ok(from..until) } else { Err("no step is left: --until comes before --from".into()) }
}

/// Returns the processor time of all child processes that have ended, in seconds: `cutime` and `cstime` of
/// proc(5), in ticks of a hundredth of a second. 0 without `/proc`.
fn processor_seconds() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in brackets, may contain any character.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().skip(13).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() / 100
}
