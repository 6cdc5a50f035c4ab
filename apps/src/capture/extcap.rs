//! Wireshark's external capture interface (extcap): lists ports of running programs among Wireshark's
//! interfaces.
//!
//! Wireshark runs every program in its extcap folder with options that begin with `--extcap-`: to list
//! interfaces, to query the link type and the settings of one, and to capture from it into a pipe. A symbolic
//! link to `linecard` in that folder is sufficient (`linecard capture --help`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use linecard::capture::pcap::encode::SNAPLEN;
use linecard::net::bpf;

use super::{CaptureArgs, Direction, find};
use crate::error::Error;
use crate::output::{Output, out};

/// The prefix of interface names: `linecard-PID-PORT`.
const PREFIX: &str = "linecard-";

/// The command line of an external capture interface.
#[derive(Parser)]
#[command(name = "linecard capture", disable_help_flag = true)]
struct ExtcapArgs {
    /// List interfaces
    #[arg(long = "extcap-interfaces")]
    interfaces: bool,
    /// Wireshark's version
    #[arg(long = "extcap-version", num_args = 0..=1)]
    _version: Option<Option<String>>,
    /// The interface that is meant
    #[arg(long = "extcap-interface", value_name = "INTERFACE")]
    interface: Option<String>,
    /// List link types
    #[arg(long = "extcap-dlts")]
    dlts: bool,
    /// List settings
    #[arg(long = "extcap-config")]
    config: bool,
    /// A setting whose values are to be listed again; none here has any
    #[arg(long = "extcap-reload-option", value_name = "OPTION")]
    _reload: Option<String>,
    /// Check a capture filter, or capture with it
    #[arg(long = "extcap-capture-filter", value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Capture
    #[arg(long)]
    capture: bool,
    /// Where to
    #[arg(long, value_name = "PATH")]
    fifo: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    #[arg(long, default_value_t = SNAPLEN)]
    snaplen: u32,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    buffer: u32,
}

/// Returns the arguments after `linecard` or `linecard capture`, if Wireshark started the program.
pub(crate) fn called(arguments: &[OsString]) -> Option<&[OsString]> {
    let rest = match arguments.split_first() {
        Some((word, rest)) if word == "capture" => rest,
        _ => arguments,
    };
    // Wireshark passes only options, in its own order.
    let option = |word: &OsString, start: &str| word.to_str().is_some_and(|word| word.starts_with(start));
    let options = rest.first().is_some_and(|first| option(first, "--"));
    (options && rest.iter().any(|word| option(word, "--extcap-"))).then_some(rest)
}

/// Executes Wireshark's request.
///
/// # Errors
/// The capture is not possible; Wireshark displays the sentence.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode, Error> {
    let words = std::iter::once(OsString::from("linecard")).chain(arguments.iter().cloned());
    let args = ExtcapArgs::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let first = first.strip_prefix("error: ").unwrap_or(first);
        Error::Usage(format!(
            "{first}; these are options for Wireshark, people want `linecard capture --help`"
        ))
    })?;
    let mut output = Output::standard();
    if args.interfaces {
        list(&mut output);
    } else {
        let interface = args.interface.as_deref().unwrap_or_default();
        let (pid, port) = parse(interface).ok_or_else(|| {
            Error::Usage(format!(
                "there is no interface {interface:?}; `linecard --extcap-interfaces` lists those there are"
            ))
        })?;
        if args.dlts {
            out!(output, "dlt {{number=1}}{{name=EN10MB}}{{display=Ethernet}}\n");
        } else if args.config {
            settings(&mut output);
        } else if args.capture {
            return capture(args, pid, port);
        } else if let Some(filter) = &args.filter {
            // Wireshark displays this output as the error of the filter.
            if let Err(error) = bpf::compile(filter) {
                out!(output, "{error}\n");
            }
        }
    }
    output.finish(false)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the process and the port of an interface.
fn parse(interface: &str) -> Option<(u32, u16)> {
    let (pid, port) = interface.strip_prefix(PREFIX)?.split_once('-')?;
    Some((pid.parse().ok()?, port.parse().ok()?))
}

fn list(output: &mut Output) {
    let version = env!("CARGO_PKG_VERSION");
    out!(output, "extcap {{version={version}}}{{display=Linecard ports}}\n");
    for (pid, prefix, port) in find::everything() {
        // A brace would end the value.
        let name: String = port.name.chars().filter(|c| !"{}".contains(*c) && !c.is_control()).collect();
        out!(
            output,
            "interface {{value={PREFIX}{pid}-{}}}{{display=Linecard {name} (process {pid}, {prefix})}}\n",
            port.id
        );
    }
}

fn settings(output: &mut Output) {
    out!(
        output,
        "arg {{number=0}}{{call=--direction}}{{display=Direction}}{{type=selector}}{{tooltip=Received packets, sent ones, or both}}\n\
         arg {{number=1}}{{call=--snaplen}}{{display=Snapshot length}}{{type=unsigned}}{{range=1,{SNAPLEN}}}{{default={SNAPLEN}}}\
         {{tooltip=Bytes to keep of each packet}}\n\
         arg {{number=2}}{{call=--buffer}}{{display=Buffer}}{{type=unsigned}}{{range=1,1024}}{{default=4}}\
         {{tooltip=MiB of the ring between each queue and this capture}}\n\
         value {{arg=0}}{{value=both}}{{display=Both}}{{default=true}}\n\
         value {{arg=0}}{{value=in}}{{display=Received}}{{default=false}}\n\
         value {{arg=0}}{{value=out}}{{display=Sent}}{{default=false}}\n"
    );
}

/// Captures into Wireshark's pipe until Wireshark closes it.
fn capture(args: ExtcapArgs, pid: u32, port: u16) -> Result<ExitCode, Error> {
    let Some(fifo) = args.fifo else {
        return Err(Error::Usage("--capture needs --fifo PATH, where the packets go".into()));
    };
    let mut line = CaptureArgs::of_port(pid, port);
    line.what.write = Some(fifo);
    line.what.snaplen = args.snaplen;
    line.what.direction = args.direction;
    line.what.buffer = args.buffer;
    // An empty field in Wireshark means no filter.
    line.what.filter = args.filter.filter(|filter| !filter.trim().is_empty());
    line.what.quiet = true;
    super::run(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wiresharks_calls_are_taken_for_such() {
        let called = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
            called(&words).map(<[OsString]>::len)
        };
        assert_eq!(called("--extcap-interfaces --extcap-version=4.0"), Some(2));
        assert_eq!(called("capture --extcap-interface x --extcap-dlts"), Some(3));
        assert_eq!(called("--capture --extcap-interface x --fifo y"), Some(5));
        for other in
            ["", "capture", "capture -D", "testpmd --extcap-interfaces", "--version", "demo --extcap-dlts"]
        {
            assert_eq!(called(other), None, "{other}");
        }
        for (interface, want) in [
            ("linecard-12-0", Some((12, 0))),
            ("linecard-12", None),
            ("linecard--1-0", None),
            ("linecard-1-99999", None),
            ("eth0", None),
            ("", None),
        ] {
            assert_eq!(parse(interface), want, "{interface}");
        }
    }
}
