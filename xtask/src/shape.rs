//! The structure of the workspace: the allowed dependencies between crates, and the size limits of files and
//! functions.

mod arrows;
mod picture;
mod sizes;

pub(crate) use arrows::metadata;
use clap::Args;

/// Options of `cargo xtask shape`.
#[derive(Args)]
pub(crate) struct Options {
    /// Also print every file and function above the soft budget.
    #[arg(long)]
    all: bool,
    /// Draw docs/guide/crates.svg anew.
    #[arg(long)]
    draw: bool,
}

/// Fails with one sentence per violated rule.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    if options.draw {
        picture::write()?;
    }
    let mut broken = arrows::check()?;
    broken.extend(picture::check());
    let report = sizes::measure()?;
    report.print(options.all);
    broken.extend(report.past_the_limit());
    if broken.is_empty() {
        println!("shape: every arrow points down, every size is within its limit");
        return Ok(());
    }
    Err(format!("the shape is broken:\n  {}", broken.join("\n  ")))
}
