//! The command line: sub-commands, help, version, completions, manual pages.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::error::Error;
use crate::output::Output;
use crate::{bench, capture, cni, demo, doctor, manual, port, switch, testpmd, top};

/// Userspace packet processing: virtio-user and vhost-user ports, without root and without hugepages.
#[derive(Parser)]
#[command(name = "linecard", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Start with `linecard demo`. `linecard doctor` says what this machine offers.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Forward packets between ports; takes dpdk-testpmd's arguments and console commands
    ///
    /// linecard testpmd [EAL options] -- [testpmd options]. `linecard testpmd --help` lists both.
    #[command(disable_help_flag = true)]
    Testpmd(Rest),
    /// Move checked packets between two processes over vhost-user and report rate and latency
    ///
    /// Needs no root, no hugepages and no configuration. Exits with 0 when nothing was lost or corrupted.
    Demo(demo::DemoArgs),
    /// Say what this machine offers for packet processing, and how to improve it
    ///
    /// Exits with 0 when packets can flow.
    Doctor(doctor::DoctorArgs),
    /// Measure ports, rings and packet pools, beside DPDK's when it is installed
    Bench(bench::BenchArgs),
    /// Capture packets of a running program's ports into a pcapng file or a pipe
    ///
    /// For example into Wireshark: linecard capture -p 0 -w - | wireshark -k -i -
    Capture(capture::CaptureArgs),
    /// Show what a running program does: rates, losses by cause, busy lcores, pools
    ///
    /// Asks the telemetry socket of a testpmd, of a program that calls linecard::telemetry::serve, or of a DPDK program.
    Top(top::TopArgs),
    /// Switch frames between virtual machines, containers and the kernel, on vhost-user sockets and taps
    ///
    /// For example: linecard switch --tap lc0 --port /run/vm1.sock --port /run/vm2.sock
    Switch(Box<switch::SwitchArgs>),
    /// Give containers ports on a switch: the CNI plugin `linecard`, and tools for it
    Cni(cni::CniArgs),
    /// Attach and detach ports of a switch for container engines that take devices by name (CDI)
    Port(port::PortArgs),
    /// Print shell completions
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
    /// Print a manual page
    Man {
        /// The command it is about, as in `bench loopback`; `linecard` itself by default
        command: Vec<String>,
        /// Write the pages of all commands into this folder instead, for packages
        #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
        folder: Option<PathBuf>,
    },
    /// One end of the demo
    #[command(hide = true)]
    DemoEnd(demo::EndArgs),
    /// One end of a benchmark
    #[command(hide = true)]
    BenchEnd(bench::EndArgs),
    /// Removes the folder of a killed demo or benchmark
    #[command(hide = true)]
    FolderEnd,
}

#[derive(Args)]
struct Rest {
    /// Arguments of the application
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Parses `arguments` and runs the requested command.
///
/// # Errors
/// An unusable command line, or the failure of the sub-command.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode, Error> {
    let all = std::iter::once(OsString::from("linecard")).chain(arguments.iter().cloned());
    let cli = match Cli::try_parse_from(all) {
        Ok(cli) => cli,
        Err(error) => return explain(&error, arguments),
    };
    match cli.command {
        Command::Testpmd(rest) => testpmd::run(&linecard::drivers(), &rest.arguments),
        Command::Demo(args) => demo::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => {
            bench::run(args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Capture(args) => capture::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Switch(args) => switch::run(&args),
        Command::Cni(args) => cni::run(&args),
        Command::Port(args) => port::run(&args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut documented(), "linecard", &mut text);
            print_all(&text)
        }
        Command::Man { folder: Some(folder), .. } => manual::write_all(documented(), &folder),
        Command::Man { command, .. } => print_all(&manual::page(documented(), &command)?),
        Command::DemoEnd(args) => demo::run_end(&args),
        Command::BenchEnd(args) => Ok(bench::run_end(&args)?),
        Command::FolderEnd => {
            linecard_apps_common::run_remover()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints help and version on standard output; turns every other result into an error of one sentence.
fn explain(error: &clap::Error, arguments: &[OsString]) -> Result<ExitCode, Error> {
    let (command, cases) = meant(arguments);
    let strings = |kind| match error.get(kind) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => Some(values.join(", ")),
        _ => None,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print_all(error.to_string().as_bytes()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if command == "linecard" => {
            Err(Error::Usage("no command given; try `linecard demo` or `linecard --help`".into()))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let cases = cases.join(", ");
            Err(Error::Usage(format!("`{command}` needs one of {cases}; `{command} --help` explains them")))
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = strings(ContextKind::InvalidArg).unwrap_or_else(|| "an argument".into());
            Err(Error::Usage(format!("`{command}` needs {missing}; `{command} --help` says what that is")))
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            let first = first.strip_prefix("error: ").unwrap_or(first);
            let remedy = match strings(ContextKind::ValidValue) {
                Some(values) => format!("give one of {values}"),
                None => format!("`{command} --help` lists what is possible"),
            };
            Err(Error::Usage(format!("{first}; {remedy}")))
        }
    }
}

/// Returns the command in `arguments`, as typed, and the names of its sub-commands.
fn meant(arguments: &[OsString]) -> (String, Vec<String>) {
    let (mut command, mut name) = (Cli::command(), "linecard".to_owned());
    // Options may precede the next word; their values are assumed not to be names of sub-commands.
    for word in arguments.iter().filter_map(|argument| argument.to_str()) {
        if let Some(below) = command.find_subcommand(word).cloned() {
            name = format!("{name} {word}");
            command = below;
        }
    }
    let visible = command.get_subcommands().filter(|below| !below.is_hide_set());
    (name, visible.map(|below| below.get_name().to_owned()).collect())
}

/// All commands with all options, including those of testpmd, which testpmd itself parses.
fn documented() -> clap::Command {
    Cli::command().mut_subcommand("testpmd", |testpmd| testpmd::describe(&testpmd))
}

fn print_all(text: &[u8]) -> Result<ExitCode, Error> {
    let mut output = Output::standard();
    output.print(format_args!("{}", String::from_utf8_lossy(text)));
    output.finish(false)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error is described with the words of the command that it concerns.
    #[test]
    fn errors_point_to_the_help_of_their_command() {
        for (line, want) in [
            ("", "no command given; try `linecard demo` or `linecard --help`"),
            ("--bogus", "unexpected argument '--bogus' found; `linecard --help` lists what is possible"),
            (
                "completions",
                "`linecard completions` needs <SHELL>; `linecard completions --help` says what that is",
            ),
            (
                "completions cmd",
                "invalid value 'cmd' for '<SHELL>'; give one of bash, elvish, fish, powershell, zsh",
            ),
            (
                "demo --bogus",
                "unexpected argument '--bogus' found; `linecard demo --help` lists what is possible",
            ),
        ] {
            assert_problem(line, want);
        }
    }

    fn assert_problem(line: &str, want: &str) {
        let arguments: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        let problem = run(&arguments).expect_err(line).to_string();
        assert!(problem.starts_with(want), "{line}: {problem}");
    }

    #[cfg(feature = "bench")]
    #[test]
    fn errors_point_to_the_help_of_a_benchmark() {
        assert_problem(
            "bench ring --bogus",
            "unexpected argument '--bogus' found; `linecard bench ring --help` lists",
        );
        assert_problem("bench", "`linecard bench` needs one of ring,");
    }

    #[cfg(not(feature = "bench"))]
    #[test]
    fn a_program_without_benchmarks_says_so() {
        assert_problem("bench ring --runs 1", "this program was built without benchmarks; ");
    }

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }
}
