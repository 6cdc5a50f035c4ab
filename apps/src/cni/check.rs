//! `linecard cni check`: tests any plugin against the specification.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use linecard_cni::check::{Finding, Subject, Verdict, check};

use super::told;
use crate::error::Error;
use crate::output::{Output, out};

/// Arguments of `linecard cni check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// The plugin: a path, or a name in --cni-path
    plugin: String,
    /// A file with the plugin's configuration, without cniVersion; a usual one for well-known plugins by default
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where the plugin, and those it uses, are
    #[arg(long, default_value = "/opt/cni/bin:/usr/lib/cni", value_name = "FOLDERS")]
    cni_path: std::ffi::OsString,
    /// Print one line of JSON for each rule
    #[arg(long)]
    json: bool,
    /// Print what is kept too
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Error> {
    let folders: Vec<PathBuf> = std::env::split_paths(&args.cni_path).collect();
    let program = match args.plugin.contains('/') {
        true => std::path::absolute(&args.plugin).unwrap_or_else(|_| args.plugin.clone().into()),
        false => linecard_cni::find_plugin(&args.plugin, &folders).map_err(told)?,
    };
    let config = args.config.as_ref().map(|file| {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::Usage(format!("{}: {error}; give a file that can be read", file.display()))
        })?;
        serde_json::from_str(&text).map_err(|error| {
            Error::Usage(format!("{}: {error}; give a plugin's configuration", file.display()))
        })
    });
    let mut subject = Subject::new(program, config.transpose()?);
    subject.path.extend(folders);
    let findings = check(&subject).map_err(told)?;
    tell(&findings, args)
}

fn tell(findings: &[Finding], args: &CheckArgs) -> Result<ExitCode, Error> {
    let mut output = Output::standard();
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    for finding in findings {
        if args.json {
            out!(output, "{}\n", serde_json::to_string(finding).unwrap_or_default());
        } else if args.verbose || finding.verdict != Verdict::Pass {
            out!(output, "{finding}\n");
        }
    }
    let failures = count(Verdict::Failure);
    if !args.json {
        out!(
            output,
            "{} rules kept, {} warnings, {} skipped, {failures} failures\n",
            count(Verdict::Pass),
            count(Verdict::Warning),
            count(Verdict::Skipped)
        );
    }
    output.finish(true)?;
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
