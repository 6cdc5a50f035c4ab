//! `linecard doctor`: what this machine offers for packet processing, and how to improve it.

mod checks;
mod fix;
mod vfio;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::error::Error;
use crate::output::{Output, out};

/// The 2 MiB pages that packets of a few ports need; what `--fix` and the report add to those in use.
const WANTED_2M: u64 = 512;

/// Arguments of `linecard doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Change settings of the kernel that make packets faster, each after asking; needs root
    #[arg(long, conflicts_with_all = ["json", "undo"])]
    fix: bool,
    /// With --fix: do not ask
    #[arg(long, requires = "fix")]
    yes: bool,
    /// Put back what --fix changed since the machine started
    #[arg(long, conflicts_with = "json")]
    undo: bool,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// Fully available.
    Ok,
    /// Forwarding works without it, but slower or with fewer kinds of ports.
    Degraded,
    /// Not available.
    Missing,
}

impl Status {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    status: Status,
    /// Forwarding is impossible without it.
    required: bool,
    detail: String,
    /// One command that improves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, required: false, detail: detail.into(), fix: None }
    }

    fn poor(name: &'static str, status: Status, detail: impl Into<String>, fix: &str) -> Self {
        Self { name, status, required: false, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

#[derive(Serialize)]
struct Report {
    /// Forwarding is possible.
    ready: bool,
    checks: Vec<Finding>,
}

/// Checks the machine and prints the findings.
///
/// # Errors
/// Forwarding is not possible, or the output cannot be written.
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Error> {
    if args.undo {
        let mut output = Output::standard();
        fix::undo(&fix::Place::here(), &mut output)?;
        output.finish(false)?;
        return Ok(ExitCode::SUCCESS);
    }
    let checks = checks::all();
    let report = Report { ready: checks.iter().all(|c| !c.required || c.status != Status::Missing), checks };
    let mut output = Output::standard();
    if args.json {
        let line = serde_json::to_string(&report).unwrap_or_default();
        out!(output, "{line}\n");
    } else {
        print(&mut output, &report);
    }
    if args.fix {
        out!(output, "\n");
        fix::fix(&fix::Place::here(), &report.checks, &mut output, |output, question| {
            if args.yes { Ok(true) } else { fix::on_terminal(output, question) }
        })?;
    }
    output.finish(false)?;
    Ok(if report.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(output: &mut Output, report: &Report) {
    for Finding { name, status, detail, fix, .. } in &report.checks {
        out!(output, "{:<9} {name:<14} {detail}\n", status.label());
        if let Some(fix) = fix {
            out!(output, "{:24} try: {fix}\n", "");
        }
    }
    let verdict = if report.ready {
        "packets can flow here; see them with: linecard demo"
    } else {
        "packets cannot flow here until what is missing above is there"
    };
    out!(output, "\n{verdict}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_says_something_and_bad_ones_name_a_command() {
        let findings = checks::all();
        assert!(findings.len() >= 10);
        for finding in findings {
            assert!(!finding.detail.is_empty(), "{}", finding.name);
            assert_eq!(finding.status == Status::Ok, finding.fix.is_none(), "{}", finding.name);
        }
    }

    #[test]
    fn the_report_is_one_json_object() {
        let report =
            Report { ready: true, checks: vec![Finding::poor("x", Status::Missing, "no x", "get x")] };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(
            text,
            r#"{"ready":true,"checks":[{"name":"x","status":"missing","required":false,"detail":"no x","fix":"get x"}]}"#
        );
    }
}
