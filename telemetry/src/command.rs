//! The commands, and the answers to requests.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::server::{MAX_OUTPUT, greeting};
use crate::state::State;
use crate::value::Value;
use crate::{eal, ethdev, mempool};

type Run = Arc<dyn Fn(&State, Option<&str>) -> Value + Send + Sync>;

/// The implementation of a command.
#[derive(Clone)]
pub(crate) struct Command {
    help: String,
    run: Run,
}

impl Command {
    pub(crate) fn new(
        help: &str,
        run: impl Fn(&State, Option<&str>) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self { help: help.to_owned(), run: Arc::new(run) }
    }
}

/// A row of the table: path, help text, function.
pub(crate) type Row = (&'static str, &'static str, fn(&State, Option<&str>) -> Value);

/// DPDK 22.11's commands with its help texts; the lcore commands are those of 23.03.
const GENERAL: &[Row] = &[
    ("/", "Returns list of available commands, Takes no parameters", list),
    ("/info", "Returns DPDK Telemetry information. Takes no parameters", |_, _| greeting()),
    ("/help", "Returns help text for a command. Parameters: string command", help),
];

/// The commands that every program has.
pub(crate) fn built_in() -> BTreeMap<String, Command> {
    let rows = [GENERAL, ethdev::COMMANDS, mempool::COMMANDS, eal::COMMANDS].into_iter().flatten();
    rows.map(|(path, help, run)| ((*path).to_owned(), Command::new(help, run))).collect()
}

/// The answer to `request`: an object whose only member is named after the command.
pub(crate) fn answer(state: &State, request: &str) -> Value {
    // DPDK splits a request at its first comma; the rest are the parameters.
    let (path, parameters) = match request.split_once(',') {
        Some((path, parameters)) => (path, Some(parameters).filter(|given| !given.is_empty())),
        None => (request, None),
    };
    let value = state.commands.get(path).map_or(Value::Null, |command| {
        let answered = catch_unwind(AssertUnwindSafe(|| (command.run)(state, parameters)));
        answered.unwrap_or_else(|panic| {
            tracing::error!(
                "the telemetry command {path} panicked; report this as a fault of whoever added it"
            );
            // The payload of a panic may itself panic when it is dropped.
            std::mem::forget(panic);
            Value::Null
        })
    });
    Value::object([(path, value)])
}

/// The bytes sent to a client.
pub(crate) fn reply(state: &State, request: &str) -> String {
    answer(state, request).within(MAX_OUTPUT)
}

fn list(state: &State, _: Option<&str>) -> Value {
    Value::list(state.commands.keys().map(String::as_str))
}

fn help(state: &State, path: Option<&str>) -> Value {
    let Some(path) = path else {
        return state.commands.get("/help").map_or(Value::Null, |command| command.help.as_str().into());
    };
    state
        .commands
        .get(path)
        .map_or(Value::Null, |command| Value::object([(path, command.help.as_str().into())]))
}
