//! `linecard cni demo`: two containers, a switch and the plugin, without configuration.

use std::ffi::OsString;
use std::io::Read;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use linecard_apps_common::PrivateFolder;
use linecard_cni::Sandbox;
use serde::Serialize;

use super::ping::Report as Traffic;
use super::stage::{Attached, Stage, enter, in_user_namespace};
use super::{part::Part, told};
use crate::error::Error;
use crate::output::{Output, out};

/// Arguments of `linecard cni demo`.
#[derive(Args)]
pub(super) struct DemoArgs {
    /// Packets to send and check
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    count: u64,
    /// The most seconds that moving them may take
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// The containers and their addresses.
const CONTAINERS: [(&str, &str); 2] = [("demo-a", "10.245.0.1"), ("demo-b", "10.245.0.2")];
const IFNAME: &str = "net1";

/// The results of the demo.
#[derive(Debug, Serialize)]
struct Report {
    /// The demo was run by an ordinary user.
    user_namespace: bool,
    containers: Vec<Container>,
    traffic: Traffic,
    /// The leftovers after DEL.
    left: Vec<String>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Container {
    name: &'static str,
    ip: &'static str,
    mac: String,
    add_ms: f64,
    del_ms: f64,
}

pub(super) fn run(args: &DemoArgs) -> Result<ExitCode, Error> {
    enter()?;
    let started = Instant::now();
    let mut output = Output::standard();
    let mut say = |text: String| {
        if !args.json {
            out!(output, "{text}\n");
            output.flush();
        }
    };
    let stage = Stage::new("demo", PrivateFolder::new()?, true)?;
    say(format!(
        "switch      process {}{}",
        stage.switch.pid(),
        if in_user_namespace() { ", as an ordinary user in a user namespace" } else { "" }
    ));
    let sandboxes = [Sandbox::new().map_err(told)?, Sandbox::new().map_err(told)?];
    let (mut containers, mut attached) = (Vec::new(), Vec::new());
    for ((name, ip), sandbox) in CONTAINERS.into_iter().zip(&sandboxes) {
        let (port, container) = attach(&stage, name, ip, sandbox)?;
        let Container { mac, add_ms, .. } = &container;
        say(format!("container   {name}: port {IFNAME}, {ip}, {mac}, attached in {add_ms:.0} ms"));
        attached.push(port);
        containers.push(container);
    }
    let (traffic, good) = exchange(&stage, &sandboxes, args)?;
    for line in traffic.lines() {
        say(line);
    }
    // The last one first, as runtimes do.
    for (port, container) in attached.into_iter().zip(&mut containers).rev() {
        let start = Instant::now();
        port.detach()?;
        container.del_ms = milliseconds(start);
    }
    let left = stage.left(&sandboxes.each_ref())?;
    let nothing =
        if left.is_empty() { "nothing is left".into() } else { format!("LEFT: {}", left.join(", ")) };
    let ms: Vec<_> = containers.iter().map(|container| format!("{:.0}", container.del_ms)).collect();
    say(format!("detached    in {} ms; {nothing}", ms.join(" and ")));
    let good = good && left.is_empty();
    let (user_namespace, seconds) = (in_user_namespace(), started.elapsed().as_secs_f64());
    let report = Report { user_namespace, containers, traffic, left, seconds };
    if args.json {
        out!(output, "{}\n", serde_json::to_string(&report).unwrap_or_default());
    }
    output.finish(true)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn attach<'a>(
    stage: &'a Stage,
    name: &'static str,
    ip: &'static str,
    sandbox: &Sandbox,
) -> Result<(Attached<'a>, Container), Error> {
    let mut target = stage.target(name, IFNAME, sandbox)?;
    target.capabilities.insert("ips".into(), vec![format!("{ip}/24")].into());
    let start = Instant::now();
    let attached = Attached::new(&stage.network, target)?;
    let add_ms = milliseconds(start);
    let mac = attached.result()["interfaces"][0]["mac"].as_str().unwrap_or_default().to_owned();
    Ok((attached, Container { name, ip, mac, add_ms, del_ms: 0.0 }))
}

/// Moves packets from the first container to the second one and back; returns the results, and whether all
/// came back.
fn exchange(stage: &Stage, sandboxes: &[Sandbox; 2], args: &DemoArgs) -> Result<(Traffic, bool), Error> {
    let words = |words: &[&str]| -> Vec<OsString> { words.iter().map(Into::into).collect() };
    let [asking, answering] = sandboxes;
    let answer = words(&["cni", "answer", IFNAME]);
    let _answer = Part::start("answer", stage.folder(), Some(answering), &answer, Stdio::null())?;
    let count = args.count.to_string();
    let ask = words(&["cni", "ping", IFNAME, "--to", CONTAINERS[1].1, "--count", &count, "--json"]);
    let mut ask = Part::start("ping", stage.folder(), Some(asking), &ask, Stdio::piped())?;
    let status = ask.wait(Instant::now() + Duration::from_secs(args.seconds.into()), &stage.ended)?;
    let mut text = String::new();
    let _ = ask.stdout().map(|out| out.take(1 << 16).read_to_string(&mut text));
    match serde_json::from_str(&text) {
        Ok(report) => Ok((report, status.success())),
        Err(_) => Err(ask.failed(&format!("told nothing ({status})"))),
    }
}
