//! testpmd's options for manuals and completions only; the program itself parses its arguments in DPDK's way.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, Command};
use linecard::eal::EalArgs;

use super::console;
use super::options;

/// Returns `command` with the options and their help texts.
pub(crate) fn describe(command: &Command) -> Command {
    let mut described = Command::new("testpmd")
        .about(command.get_about().cloned().unwrap_or_default())
        .long_about(command.get_long_about().cloned().unwrap_or_default())
        .override_usage("linecard testpmd [EAL options] -- [testpmd options]")
        .disable_help_flag(true)
        .after_long_help(console_commands());
    let mut seen = Seen::default();
    for option in EalArgs::options() {
        let id = match (option.long, option.short) {
            (Some(name), _) => format!("eal-{name}"),
            (None, letter) => format!("eal-{}", letter.unwrap_or_default()),
        };
        let (value, required) = option.value.map_or((None, true), |(name, required)| (Some(name), required));
        let heading = if option.acts { "EAL options" } else { "EAL options without effect here" };
        let arg = seen.option(id, option.short, option.long, value, required);
        described = described.args(arg.map(|arg| arg.help(option.help).help_heading(heading)));
    }
    for option in options::described() {
        let value = Some(option.value).filter(|value| !value.is_empty());
        let arg = seen.option(option.name.to_owned(), option.short, Some(option.name), value, true);
        described =
            described.args(arg.map(|arg| arg.help(option.help).help_heading("testpmd options, after --")));
    }
    for (name, valued) in options::accepted() {
        let arg = seen.option(name.to_owned(), None, Some(name), valued.then_some("value"), true);
        let help = "accepted because DPDK's command lines have it, without effect";
        described =
            described.args(arg.map(|arg| arg.help(help).help_heading("testpmd options without effect here")));
    }
    described
}

/// Names already in use: the EAL part and the testpmd part both have options such as `--help`.
#[derive(Default)]
struct Seen {
    letters: BTreeSet<char>,
    names: BTreeSet<&'static str>,
}

impl Seen {
    fn option(
        &mut self,
        id: String,
        short: Option<char>,
        long: Option<&'static str>,
        value: Option<&'static str>,
        required: bool,
    ) -> Option<Arg> {
        let short = short.filter(|letter| self.letters.insert(*letter));
        let long = long.filter(|name| self.names.insert(name));
        if short.is_none() && long.is_none() {
            return None;
        }
        let mut arg = Arg::new(id);
        if let Some(letter) = short {
            arg = arg.short(letter);
        }
        if let Some(name) = long {
            arg = arg.long(name);
        }
        Some(match value {
            None => arg.action(ArgAction::SetTrue),
            Some(name) => arg.value_name(name).num_args(if required { 1..=1 } else { 0..=1 }),
        })
    }
}

/// The console commands and their help texts.
fn console_commands() -> String {
    let mut text = String::from("Console commands:\n");
    for (pattern, help) in console::described() {
        text.push_str(&format!("\n{pattern}\n    {help}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_the_help_is_described_once() {
        let described = describe(&Command::new("testpmd"));
        described.clone().debug_assert();
        let known: BTreeSet<&str> = described.get_arguments().filter_map(Arg::get_long).collect();
        let help = format!("{}{}", EalArgs::help_text(), options::help());
        let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
        for name in words.filter_map(|word| word.strip_prefix("--")).filter(|name| !name.is_empty()) {
            assert!(known.contains(name), "--{name}");
        }
        assert!(known.contains("vdev") && known.contains("forward-mode") && known.contains("metrics"));
    }
}
