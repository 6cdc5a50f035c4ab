//! The time and disk space that the tests need, reported before they start.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An estimate from runs on two-core machines; with two other busy programs it takes about twice as long.
pub(super) const WHOLE: &str =
    "all of them take about 25 minutes on two cores, and building them the first time about 10 more";
/// The size of a complete build below `target`, and of the files that tests write.
const NEEDED: u64 = 9 << 30;

/// Returns the folder in which cargo builds.
pub(super) fn target_folder() -> Result<PathBuf, String> {
    let metadata = crate::shape::metadata()?;
    let folder = metadata["target_directory"].as_str().ok_or("cargo metadata names no target folder")?;
    std::fs::create_dir_all(folder).map_err(|e| format!("{folder} cannot be made: {e}"))?;
    Ok(folder.into())
}

/// Returns a sentence about free disk space, as an error if there is too little.
pub(super) fn check(target: &Path) -> Result<String, String> {
    // If a number is not available, the check succeeds.
    let (free, taken) = (number("df", &["-Pk"], target, 3, 1), number("du", &["-sk"], target, 0, 0));
    verdict(target, free, taken.unwrap_or(0))
}

fn verdict(target: &Path, free: Option<u64>, taken: u64) -> Result<String, String> {
    let (target, more) = (target.display(), NEEDED.saturating_sub(taken));
    let gib = |bytes: u64| format!("{:.1} GiB", (bytes >> 20) as f64 / 1024.0);
    match free {
        Some(free) if free < more => Err(format!(
            "the tests need {} more below {target}, {} are free: make room, or name a folder elsewhere with \
             CARGO_TARGET_DIR",
            gib(more),
            gib(free)
        )),
        Some(free) => Ok(format!(
            "disk: {} below {target}, {} there already, {} free",
            gib(NEEDED),
            gib(taken),
            gib(free)
        )),
        None => Ok(format!("disk: {} below {target}, {} there already", gib(NEEDED), gib(taken))),
    }
}

/// Runs a program for a folder, takes the number of KiB in one word of one line, and returns it in bytes.
fn number(program: &str, options: &[&str], folder: &Path, word: usize, line: usize) -> Option<u64> {
    let output = Command::new(program).args(options).arg(folder).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().nth(line)?.split_whitespace().nth(word)?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_said_before_anything_is_built() {
        let folder = Path::new("/t");
        let said = verdict(folder, Some(1 << 30), 0).expect_err("one of nine");
        assert!(said.starts_with("the tests need 9.0 GiB more below /t, 1.0 GiB are free: "), "{said}");
        let said = verdict(folder, Some(1 << 30), 8 << 30).expect("eight are there");
        assert_eq!(said, "disk: 9.0 GiB below /t, 8.0 GiB there already, 1.0 GiB free");
        assert!(verdict(folder, None, 0).is_ok(), "nobody knows");
    }

    #[test]
    fn the_machine_is_asked() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(number("df", &["-Pk"], folder, 3, 1).is_some());
        assert!(number("du", &["-sk"], folder, 0, 0).is_some_and(|bytes| bytes > 4096));
    }
}
