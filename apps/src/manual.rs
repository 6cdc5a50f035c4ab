//! Manual pages, generated from the definition of the command line.

use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

use crate::error::Error;

/// Returns the page of the command with these names below `root`.
///
/// # Errors
/// There is no such command.
pub(crate) fn page(mut root: Command, names: &[String]) -> Result<Vec<u8>, Error> {
    root.build();
    for name in names {
        let known = root.find_subcommand(name).filter(|found| !found.is_hide_set()).cloned();
        root = known.ok_or_else(|| {
            Error::Usage(format!("there is no command '{name}' to explain; `linecard --help` lists them"))
        })?;
    }
    render(root)
}

/// Writes the page of every command into a folder, which is created if missing: `linecard.1`,
/// `linecard-testpmd.1` and so on.
///
/// # Errors
/// A page cannot be written.
pub(crate) fn write_all(mut root: Command, folder: &Path) -> Result<ExitCode, Error> {
    let failed = |source| Error::System {
        action: format!("the manual pages cannot be written into {}", folder.display()),
        source,
        remedy: "name a folder that may be written",
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    root.build();
    let mut commands = vec![root];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|below| !below.is_hide_set()).cloned());
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        std::fs::write(folder.join(format!("{name}.1")), render(command)?).map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(command: Command) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text).map_err(|source| Error::System {
        action: "the manual page cannot be written".into(),
        source,
        remedy: "free memory and try again",
    })?;
    Ok(text)
}
