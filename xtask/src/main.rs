//! Chores that a person and CI both run: `cargo xtask ci`, `cargo xtask shape`.
#![forbid(unsafe_code)]

mod ci;
mod shape;

use std::process::ExitCode;

use clap::Parser;

/// Chores of the Linecard repository.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
enum Chore {
    /// Everything CI checks, in CI's order; stops at the first failure.
    Ci(ci::Options),
    /// Compares the arrows between crates with `cargo metadata`, and file and function sizes with their budgets.
    Shape(shape::Options),
}

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Ci(options) => ci::run(&options),
        Chore::Shape(options) => shape::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
