//! A page of the guide whose shell commands are executed unchanged.

use std::path::Path;
use std::process::Command;

/// Returns the shell commands of page `name`, in order.
pub(crate) fn commands(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(name);
    let page = std::fs::read_to_string(page).expect("the page");
    let mut text = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => text += &format!("{line}\n"),
            _ => {}
        }
    }
    text
}

/// Returns a command that runs `script` with a limit of five minutes, with the program under test on its
/// PATH.
pub(crate) fn shell(script: &str) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_linecard")).parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("timeout");
    command.args(["300", "bash", "-c", script]).env("PATH", path);
    command
}
