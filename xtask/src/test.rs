//! `cargo xtask test`: runs every test, on any machine, and reports at the end what was skipped and why.

mod outcome;
mod room;
mod runner;

use std::path::Path;

use clap::Args;
use linecard_testing::{EXAMPLES, REQUIRE_ALL, SKIPS};

use outcome::Outcome;
use runner::Runner;

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run by `cargo test` though cargo-nextest is installed.
    #[arg(long)]
    cargo_test: bool,
    /// Only this package, as in `linecard-pmd`; may be given several times.
    #[arg(short, long)]
    package: Vec<String>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Runs the tests; fails if one of them fails.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let runner = Runner::choose(options.cargo_test);
    let target = room::target_folder()?;
    let whole = options.package.is_empty() && options.filter.is_none();
    println!(
        "tests by {}{}",
        runner.name(),
        if whole { format!("; {}", room::WHOLE) } else { String::new() }
    );
    if linecard_testing::required() {
        println!("{REQUIRE_ALL} is set: a test that would be skipped fails");
    }
    println!("{}", room::check(&target)?);

    let skips = target.join(format!("skips-{}.txt", std::process::id()));
    let examples = target.join("debug/examples");
    let mut environment = vec![(SKIPS, skips.as_os_str())];
    if options.package.is_empty() {
        // All examples are built before the first test.
        environment.push((EXAMPLES, examples.as_os_str()));
    }
    let outcome = runner.run(options, &environment);
    let skipped = outcome::skipped(&skips);
    _ = std::fs::remove_file(&skips);
    conclude(&outcome?, &skipped?)
}

/// Prints failures, skips, and the final line.
fn conclude(outcome: &Outcome, skipped: &[linecard_testing::Skip]) -> Result<(), String> {
    println!("{}", outcome.closing(skipped));
    match outcome.failed {
        0 => Ok(()),
        failed => Err(format!("{failed} of the tests failed; run one alone: cargo xtask test NAME")),
    }
}

/// The root of the workspace: cargo may start tasks in any folder of it.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
