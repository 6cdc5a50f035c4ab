//! `linecard switch ctl span`: port mirroring.

use clap::Subcommand;
use linecard_switch::api::{Client, Span, SpanInfo};

use super::ctl::print;
use super::text::table;
use crate::error::Error;
use crate::output::Output;

#[derive(Subcommand, Debug)]
pub(super) enum SpanCommand {
    /// Send copies to a port, which gets nothing else from here on; what it was set to before is replaced
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["ingress", "egress", "both"]))]
    Set {
        /// The port that gets the copies
        to: String,
        /// Copy what comes from this port; may be repeated
        #[arg(long, value_name = "KEY")]
        ingress: Vec<String>,
        /// Copy what goes to this port; may be repeated
        #[arg(long, value_name = "KEY")]
        egress: Vec<String>,
        /// Copy both; may be repeated
        #[arg(long, value_name = "KEY")]
        both: Vec<String>,
    },
    /// Send no more copies to a port, which is an ordinary one from here on; one without a session is no error
    Remove {
        /// The port that gets the copies
        to: String,
    },
}

/// Sets, removes or lists mirroring sessions, and prints the answer.
///
/// # Errors
/// The switch refuses or does not answer.
pub(super) fn run(
    client: &mut Client,
    output: &mut Output,
    json: bool,
    command: Option<&SpanCommand>,
) -> Result<(), Error> {
    match command {
        None => {
            let spans = client.span_list()?;
            print(output, json, &spans, || text(&spans));
        }
        Some(SpanCommand::Set { to, ingress, egress, both }) => {
            let with_both = |some: &[String]| [some, both].concat();
            let asked = Span { to: to.clone(), ingress: with_both(ingress), egress: with_both(egress) };
            let set = client.span_set(&asked)?;
            print(output, json, &set, || text(std::slice::from_ref(&set)));
        }
        Some(SpanCommand::Remove { to }) => {
            let removed = client.span_remove(to)?;
            let done = if removed { "gets no more copies" } else { "has no session" };
            print(output, json, &removed, || format!("{to} {done}\n"));
        }
    }
    Ok(())
}

fn text(spans: &[SpanInfo]) -> String {
    let list = |keys: &[String]| if keys.is_empty() { "-".to_owned() } else { keys.join(",") };
    let rows = spans.iter().map(|info| {
        let SpanInfo { absent, kept, span } = info;
        let by = if *kept { "request" } else { "configuration" };
        vec![span.to.clone(), list(&span.ingress), list(&span.egress), by.into(), list(absent)]
    });
    table(&["TO", "INGRESS", "EGRESS", "SET BY", "NOT THERE"], &rows.collect::<Vec<_>>())
}
