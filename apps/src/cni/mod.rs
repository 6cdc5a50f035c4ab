//! `linecard cni`: the container plugin, and its commands for manual use.

mod answer;
mod bench;
mod check;
mod demo;
mod frame;
mod given;
mod install;
mod part;
mod ping;
mod port;
mod run;
mod stage;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use linecard_cni::Output as Answer;
use linecard_cni::netavark::Request;

use crate::error::Error;
use crate::output::Output;

/// Arguments of `linecard cni`.
#[derive(Args)]
#[command(
    after_help = "Container runtimes call this program by the name of its plugin type, with CNI_COMMAND set and no arguments."
)]
pub(crate) struct CniArgs {
    #[command(subcommand)]
    command: Option<CniCommand>,
}

#[derive(Subcommand)]
enum CniCommand {
    /// Answer ARP, ping and UDP echo on this container's port, until it is ended
    Answer(answer::AnswerArgs),
    /// Measure ADD and DEL of the plugin, one after another and many at once, and look for what is left
    ///
    /// Makes its own switch and namespaces, as `linecard cni demo`; its files are in memory, as those in /run are, unless
    /// TMPDIR names another folder. Exits with 0 when nothing is left.
    Bench(bench::BenchArgs),
    /// Test any CNI plugin against the specification
    ///
    /// Runs the plugin as a container runtime would, in network namespaces of its own; needs root. Exits with 0 when
    /// everything that the specification requires is kept.
    Check(check::CheckArgs),
    /// Attach two network namespaces to a switch, move checked packets between them, and remove everything again
    ///
    /// Needs no configuration: switch, namespaces and network are made for it. Runs as root, or as an ordinary user where the
    /// kernel allows user namespaces. Exits with 0 when nothing was lost and nothing is left.
    Demo(demo::DemoArgs),
    /// Write the plugin and a network to where container runtimes look for them
    ///
    /// May be repeated; says what it did. `--uninstall` takes both away again.
    Install(install::InstallArgs),
    /// Attach a network namespace by hand: ADD, a command in it, DEL
    ///
    /// For example: linecard cni run --network fast -- linecard cni answer net1
    Run(run::RunArgs),
    /// Runs a command until its standard input ends
    #[command(hide = true)]
    Part(part::PartArgs),
    /// Send checked packets from this container's port to another one's, and count what comes back
    ///
    /// The other end is `linecard cni answer`. Exits with 0 when every packet came back as it was sent.
    Ping(ping::PingArgs),
}

/// Returns whether a container runtime calls this program: it sets `CNI_COMMAND` and gives no arguments.
pub(crate) fn is_called_by_a_runtime(arguments: &[OsString]) -> bool {
    let alone = match arguments {
        [] => true,
        [command] => command == "cni",
        _ => false,
    };
    alone && std::env::var_os("CNI_COMMAND").is_some()
}

/// Runs the plugin: input from variables and standard input, output to standard output and the exit code.
///
/// # Errors
/// The answer cannot be written.
pub(crate) fn run_plugin() -> Result<ExitCode, Error> {
    tell(&linecard_cni::invoke(|name| std::env::var_os(name), std::io::stdin().lock()))
}

/// Runs the plugin for netavark: input from standard input, output to standard output and the exit code.
///
/// # Errors
/// The answer cannot be written.
pub(crate) fn answer_netavark(request: &Request) -> Result<ExitCode, Error> {
    tell(&request.answer(std::io::stdin().lock()))
}

fn tell(Answer { stdout, success }: &Answer) -> Result<ExitCode, Error> {
    let mut output = Output::standard();
    if !stdout.is_empty() {
        crate::output::out!(output, "{stdout}\n");
    }
    output.finish(true)?;
    Ok(if *success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a sub-command.
///
/// # Errors
/// The error of the sub-command.
pub(crate) fn run(args: &CniArgs) -> Result<ExitCode, Error> {
    match &args.command {
        None => Err(Error::Usage(
            "`linecard cni` is called by container runtimes, which set CNI_COMMAND; `linecard cni --help` lists what it \
             does for people"
                .into(),
        )),
        Some(CniCommand::Answer(args)) => answer::run(args),
        Some(CniCommand::Bench(args)) => bench::run(args),
        Some(CniCommand::Check(args)) => check::run(args),
        Some(CniCommand::Demo(args)) => demo::run(args),
        Some(CniCommand::Install(args)) => install::run(args),
        Some(CniCommand::Part(args)) => part::run(args),
        Some(CniCommand::Ping(args)) => ping::run(args),
        Some(CniCommand::Run(args)) => run::run(args),
    }
}

/// Converts an error of the plugin or its runtime for people.
pub(crate) fn told(error: linecard_cni::Error) -> Error {
    match error.details.is_empty() {
        true => Error::Failed(error.msg),
        false => Error::Failed(format!("{}; {}", error.msg, error.details)),
    }
}
