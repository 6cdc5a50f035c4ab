//! `linecard capture`: packets of a running program's ports, into a pcapng file or a pipe.
//!
//! ```text
//!   find: control sockets by --file-prefix ─► clients, one per port ─► streams ─► output: pcapng, pcap or text
//! ```

pub(crate) mod extcap;
mod find;
mod output;
mod print;
mod rotate;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
pub(crate) use linecard::capture::ControlSocket;
use linecard::capture::pcap::encode::{Format, SNAPLEN};
use linecard::capture::{Client, Frame, Listed, Options, Stream, Totals};
use linecard::net::bpf::{self, Program};

pub(crate) use self::output::CaptureFile;
use self::print::Printer;
use self::rotate::{Condition, Heading, Rotating, Rotation};
use crate::error::Error;
use crate::output::{Output, err};
use crate::signals;

/// Which packets of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// Received
    In,
    /// Sent
    Out,
    /// All
    Both,
}

/// Arguments of `linecard capture`; dpdk-dumpcap's short options mean the same.
#[derive(Args, Debug)]
pub(crate) struct CaptureArgs {
    /// Port by number or name; several may be given [default: the only one]
    #[arg(short = 'p', short_alias = 'i', long = "port", alias = "interface", value_name = "PORT")]
    ports: Vec<String>,
    #[command(flatten)]
    what: What,
    /// The program's --file-prefix [default: whichever runs]
    #[arg(long, value_name = "PREFIX")]
    file_prefix: Option<String>,
    /// The program's process number, where several run
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// List the programs and their ports
    #[arg(short = 'D', long)]
    list: bool,
}

/// Which packets are taken, and where they go.
#[derive(Args, Debug)]
pub(crate) struct What {
    /// File to write, `-` for standard output; without it packets are shown as text
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
    /// Bytes to keep of each packet
    #[arg(short = 's', long = "snapshot-length", alias = "snaplen", value_name = "BYTES", default_value_t = SNAPLEN)]
    snaplen: u32,
    /// Stop after so many packets
    #[arg(short = 'c', long = "count", value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Only packets for which this expression of tcpdump's holds, as in 'tcp port 80'
    #[arg(short = 'f', long = "filter", value_name = "EXPRESSION", conflicts_with = "bytecode")]
    filter: Option<String>,
    /// Only packets that this program accepts: a file with what `tcpdump -y EN10MB -ddd EXPRESSION` printed
    #[arg(short = 'F', long = "filter-file", value_name = "FILE")]
    bytecode: Option<PathBuf>,
    /// Received packets, sent ones, or both
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Stop after `duration:SECONDS` or `packets:COUNT`, as dpdk-dumpcap's
    #[arg(short = 'a', long, value_name = "CONDITION", value_parser = autostop)]
    autostop: Vec<Autostop>,
    /// Begin another file after `filesize:KB`, `duration:SECONDS` or `packets:COUNT`, and keep `files:COUNT`; as dumpcap's
    #[arg(short = 'b', long, value_name = "CONDITION", value_parser = rotate::condition, requires = "write")]
    ring_buffer: Vec<Condition>,
    /// Say nothing but errors
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Write pcapng, which is the default
    #[arg(short = 'n', hide = true, conflicts_with = "pcap")]
    pcapng: bool,
    /// Write pcap instead of pcapng
    #[arg(short = 'P', long)]
    pcap: bool,
    /// MiB of the ring between each queue and this command
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    buffer: u32,
}

impl CaptureArgs {
    /// Everything of one port of a program, until it is ended.
    fn of_port(pid: u32, port: u16) -> Self {
        /// The defaults of the options.
        #[derive(clap::Parser)]
        struct Defaults {
            #[command(flatten)]
            args: CaptureArgs,
        }
        let Defaults { mut args } = clap::Parser::parse_from(["linecard"]);
        (args.pid, args.ports) = (Some(pid), vec![port.to_string()]);
        args
    }
}

/// A condition to stop, in dumpcap's syntax.
#[derive(Clone, Copy, Debug)]
enum Autostop {
    Seconds(u64),
    Packets(u64),
}

fn autostop(text: &str) -> Result<Autostop, String> {
    let (what, number) = text.split_once(':').unwrap_or((text, ""));
    let number = number.parse().ok().filter(|number| *number > 0);
    match (what, number) {
        ("duration", Some(seconds)) => Ok(Autostop::Seconds(seconds)),
        ("packets", Some(count)) => Ok(Autostop::Packets(count)),
        _ => Err("give duration:SECONDS or packets:COUNT".into()),
    }
}

impl What {
    /// The number of packets after which to stop.
    fn most(&self) -> u64 {
        let asked = self.autostop.iter().filter_map(|stop| match stop {
            Autostop::Packets(count) => Some(*count),
            Autostop::Seconds(_) => None,
        });
        asked.chain(self.count).min().unwrap_or(u64::MAX)
    }

    /// The time after which to stop.
    fn time(&self) -> Option<Duration> {
        let asked = self.autostop.iter().filter_map(|stop| match stop {
            Autostop::Seconds(seconds) => Some(*seconds),
            Autostop::Packets(_) => None,
        });
        asked.chain(self.seconds).min().map(Duration::from_secs)
    }
}

/// A port that is being captured.
struct Source {
    client: Client,
    stream: Stream,
    name: String,
    /// Set when the program has ended the capture; `Some(None)` if it is no longer running.
    ended: Option<Option<Totals>>,
}

/// The signals that end a capture; SIGHUP too, so that the file is complete when the terminal closes.
const STOPS: [i32; 3] =
    [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];

/// The most records taken from one port before the next port.
const TURN: usize = 4096;

pub(crate) fn run(args: &CaptureArgs) -> Result<ExitCode, Error> {
    if args.list {
        let mut messages = Output::standard();
        find::list(&mut messages, args.file_prefix.as_deref())?;
        messages.finish(false)?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = options(&args.what)?;
    let sources = open(args, &options)?;
    take(&args.what, sources)
}

/// The same as [`run`], for one port of the program with this process number.
pub(crate) fn run_of(pid: u32, port: u16, what: &What) -> Result<ExitCode, Error> {
    let options = options(what)?;
    let path = find::program(None, Some(pid))?;
    let listed = Client::connect(&path)?.list()?;
    let [port] = find::ports(&listed, &[port.to_string()])?[..] else { return Ok(ExitCode::FAILURE) };
    let source = source(&path, port, &options)?;
    take(what, vec![source])
}

/// Captures packets, then prints the totals.
fn take(args: &What, mut sources: Vec<Source>) -> Result<ExitCode, Error> {
    let mut messages = Output::standard();
    let expression = args.filter.clone().unwrap_or_default();
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    let mut target = target(args, &names, expression)?;
    let stop = signals::stop_flag(&STOPS)?;
    if !args.quiet {
        err!(messages, "capturing on {}\n", names.join(", "));
    }
    let most = args.most();
    let result = drain(most, args.time(), &mut sources, &mut target, &stop);
    let totals: Vec<Option<Totals>> = sources.iter_mut().map(Source::close).collect();
    // Packets that arrived between the last turn and the end.
    let rest = result.and_then(|count| take_rest(most, &mut sources, &mut target, count));
    let ended = target.finish(&totals);
    let count = rest?;
    ended?;
    if !args.quiet {
        report(&mut messages, &sources, &totals, count);
    }
    messages.finish(false)?;
    Ok(ExitCode::SUCCESS)
}

fn target(args: &What, names: &[String], filter: String) -> Result<Target, Error> {
    let Some(path) = &args.write else { return Ok(Target::Text(Printer::new(names.len() > 1))) };
    let format = if args.pcap { Format::Pcap } else { Format::PcapNg };
    let head = Heading { format, names: names.to_vec(), snaplen: args.snaplen, filter };
    match Rotation::of(&args.ring_buffer)? {
        None => Ok(Target::File(head.create(path)?)),
        Some(_) if path == Path::new("-") => {
            Err(Error::Usage("-b makes several files; name one with -w, as in -w trace.pcapng".into()))
        }
        Some(rotation) => Ok(Target::Files(Box::new(Rotating::create(path, head, rotation)?))),
    }
}

fn options(args: &What) -> Result<Options, Error> {
    Ok(Options::default()
        .snaplen(args.snaplen)
        .filter(filter(args)?)
        .received(args.direction != Direction::Out)
        .sent(args.direction != Direction::In)
        .ring((args.buffer as usize) << 20))
}

/// Larger than the longest filter program: 4096 instructions of four numbers.
const LONGEST_FILTER: u64 = 1 << 18;

fn filter(args: &What) -> Result<Option<Program>, Error> {
    let usage = |error: bpf::Error| Error::Usage(error.to_string());
    if let Some(expression) = &args.filter {
        return bpf::compile(expression).map(Some).map_err(usage);
    }
    let Some(path) = &args.bytecode else { return Ok(None) };
    let read = |path| -> std::io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(LONGEST_FILTER).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read(path).map_err(|source| Error::System {
        action: format!("the filter in {} cannot be read", path.display()),
        source,
        remedy: "name a file with what `tcpdump -y EN10MB -ddd EXPRESSION` printed",
    })?;
    Program::from_ddd(&text).map(Some).map_err(usage)
}

/// Connects to the program, once per port.
fn open(args: &CaptureArgs, options: &Options) -> Result<Vec<Source>, Error> {
    let path = find::program(args.file_prefix.as_deref(), args.pid)?;
    let listed = Client::connect(&path)?.list()?;
    let ports = find::ports(&listed, &args.ports)?;
    ports.into_iter().map(|port| source(&path, port, options)).collect()
}

fn source(path: &Path, port: &Listed, options: &Options) -> Result<Source, Error> {
    let client = Client::connect(path)?;
    let stream = client.capture(port.id, options)?;
    Ok(Source { client, stream, name: port.name.clone(), ended: None })
}

/// The destination of packets.
enum Target {
    File(CaptureFile),
    Files(Box<Rotating>),
    Text(Printer),
}

impl Target {
    fn add(&mut self, source: usize, frame: &Frame<'_>) -> Result<(), Error> {
        match self {
            Self::File(file) => file.add(source, frame),
            Self::Files(files) => files.add(source, frame),
            Self::Text(printer) => {
                printer.add(source, frame);
                Ok(())
            }
        }
    }

    /// Writes buffered packets; false when the reader is gone.
    fn flush(&mut self) -> Result<bool, Error> {
        match self {
            Self::File(file) => file.flush(),
            Self::Files(files) => files.flush(),
            Self::Text(printer) => Ok(printer.flush()),
        }
    }

    fn finish(self, totals: &[Option<Totals>]) -> Result<(), Error> {
        match self {
            Self::File(file) => file.finish(totals),
            Self::Files(files) => files.finish(totals),
            Self::Text(mut printer) => {
                printer.flush();
                Ok(())
            }
        }
    }
}

/// Captures packets until a limit is reached, a signal arrives, or all sources or the reader are gone.
fn drain(
    most: u64,
    until: Option<Duration>,
    sources: &mut [Source],
    target: &mut Target,
    stop: &AtomicBool,
) -> Result<u64, Error> {
    let (start, mut count) = (Instant::now(), 0);
    loop {
        let before = count;
        turn(most, sources, target, &mut count)?;
        let reader = target.flush()?;
        let enough = count >= most;
        let late = until.is_some_and(|until| start.elapsed() >= until);
        if enough || late || !reader || stop.load(Ordering::Relaxed) {
            return Ok(count);
        }
        if count == before {
            if sources.iter().all(|source| source.ended.is_some()) {
                return Ok(count);
            }
            sources.iter_mut().for_each(Source::look);
        }
    }
}

/// Takes up to [`TURN`] packets from each port.
fn turn(most: u64, sources: &mut [Source], target: &mut Target, count: &mut u64) -> Result<(), Error> {
    for (i, source) in sources.iter_mut().enumerate() {
        for _ in 0..TURN {
            if *count >= most {
                return Ok(());
            }
            let Some(frame) = source.stream.next()? else { break };
            target.add(i, &frame)?;
            *count += 1;
        }
    }
    Ok(())
}

/// Takes the packets that remain in the rings after the end.
fn take_rest(most: u64, sources: &mut [Source], target: &mut Target, mut count: u64) -> Result<u64, Error> {
    // Bounded by the ring size in practice: its writer was told to stop.
    for _ in 0..1024 {
        let before = count;
        turn(most, sources, target, &mut count)?;
        if !target.flush()? || count == before {
            break;
        }
    }
    Ok(count)
}

impl Source {
    /// Waits briefly for packets or the end of the capture.
    fn look(&mut self) {
        const NAP: Duration = Duration::from_millis(2);
        if self.ended.is_none() && self.client.wait(NAP) {
            self.ended = Some(self.client.ended(NAP));
        } else if self.ended.is_some() {
            std::thread::sleep(NAP);
        }
    }

    /// Ends the capture; returns the program's totals, if it is still running.
    fn close(&mut self) -> Option<Totals> {
        match self.ended {
            Some(totals) => totals,
            None => self.client.stop(),
        }
    }
}

fn report(messages: &mut Output, sources: &[Source], totals: &[Option<Totals>], count: u64) {
    for (source, totals) in sources.iter().zip(totals) {
        match (source.ended, totals) {
            (Some(None), _) => err!(messages, "{}: the program is gone\n", source.name),
            (Some(Some(_)), _) => err!(messages, "{}: the port was stopped\n", source.name),
            _ => {}
        }
        if let Some(Totals { lost, .. }) = totals.filter(|totals| totals.lost > 0) {
            let hint = "ask for a larger --buffer, or less with -f and -s";
            err!(messages, "{}: {lost} packets were seen and not captured; {hint}\n", source.name);
        }
    }
    let plural = if count == 1 { "packet" } else { "packets" };
    err!(messages, "{count} {plural} captured\n");
}
