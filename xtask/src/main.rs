//! Tasks for developers and CI: `cargo xtask test`, `cargo xtask ci`, `cargo xtask shape`, `cargo xtask
//! budget`.
#![forbid(unsafe_code)]

mod api;
mod budget;
mod ci;
mod guide;
mod oldest;
mod package;
#[cfg(test)]
mod readmes;
mod rooms;
mod scale;
mod shape;
mod test;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Chores of the Linecard repository.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
enum Chore {
    /// Everything CI checks, in CI's order; stops at the first failure.
    Ci(ci::Options),
    /// What takes long: hostile peers for a minute, ten million batches each way, fuzz targets with random bytes.
    Torture(ci::Options),
    /// Each package built and tested alone, with all of its features, with each and with none; takes about an hour.
    Rooms(rooms::Options),
    /// Whether the stated rust-version builds everything.
    OldestRust,
    /// Every test, on any machine: says before how long it takes and what it needs, and after what was skipped and why.
    Test(test::Options),
    /// Boots a Linux guest in QEMU and runs commands in it, as in `cargo xtask vm 'ip link'`.
    Vm(vm::Options),
    /// Compares the arrows between crates with `cargo metadata`, and file and function sizes with their budgets.
    Shape(shape::Options),
    /// Compares the public items of every published crate with those that were accepted, in `docs/api`.
    Api(api::Options),
    /// Makes a Debian package of the command; with --check it is installed, run and removed.
    Package(package::Options),
    /// Writes the parts of the guide that the program knows (testpmd's reference), and makes the book if mdBook is there.
    Guide,
    /// Counts instructions per packet under callgrind and compares them with `benches/budget.txt`.
    Budget(budget::Options),
    /// Counts instructions and cache lines per packet of the switch by its ports and stations, for docs/guide/scale.md.
    Scale(scale::Options),
}

fn main() -> ExitCode {
    if let Some(rustdoc) = std::env::var_os(api::RUSTDOC) {
        return api::run_rustdoc(&rustdoc);
    }
    let outcome = match Chore::parse() {
        Chore::Ci(options) => ci::run(&options),
        Chore::Torture(options) => ci::torture(&options),
        Chore::Rooms(options) => rooms::run(&options),
        Chore::OldestRust => oldest::run(),
        Chore::Test(options) => test::run(&options),
        Chore::Vm(options) => vm::run(&options),
        Chore::Shape(options) => shape::run(&options),
        Chore::Api(options) => api::run(&options),
        Chore::Package(options) => package::run(&options),
        Chore::Guide => guide::run(),
        Chore::Budget(options) => budget::run(&options),
        Chore::Scale(options) => scale::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
