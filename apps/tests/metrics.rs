//! Counters as testpmd and the switch serve them, read as they are served: by the rules of OpenMetrics, by promtool, and by
//! Prometheus itself.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use common::{PATIENCE, Running, Scratch, eventually, linecard, run, skip, testpmd};
use serde_json::Value;

/// A program that offers counters.
struct Program {
    running: Running,
    _scratch: Scratch,
    address: String,
}

impl Program {
    /// `mark` is what it says before the address.
    fn start(mut command: Command, scratch: Scratch, mark: &str) -> Self {
        command.env("RUNTIME_DIRECTORY", scratch.path()).env("XDG_RUNTIME_DIR", scratch.path());
        command.stdin(Stdio::piped()).stdout(std::fs::File::create(scratch.file("out")).unwrap());
        let running = Running::start(&mut command);
        let mut address = None;
        eventually("an address", || {
            let out = std::fs::read_to_string(scratch.file("out")).unwrap();
            let rest = out.split_once(mark).map(|(_, rest)| rest).filter(|rest| rest.contains('\n'));
            address = rest.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
            address.is_some()
        });
        Self { running, _scratch: scratch, address: address.expect("it was said") }
    }

    fn testpmd() -> Self {
        let eal = ["-m", "64", "--file-prefix", "lc", "--vdev", "net_null0", "--vdev", "net_null1"];
        let app = ["-i", "-a", "--metrics", "127.0.0.1:0", "--record-core-cycles"];
        Self::start(testpmd(&eal, &app), Scratch::new(), "testpmd: counters at ")
    }

    /// With ports that are up, down and waiting for a socket, and frames lost for a cause.
    fn switch() -> Self {
        let scratch = Scratch::new();
        let (socket, port) = (scratch.file("switch.sock"), scratch.file("a b\"c.sock"));
        let command = linecard(&[
            "switch",
            "--no-huge",
            "-m",
            "64",
            "--packets",
            "2048",
            "--state",
            "none",
            "--socket",
            &socket,
            "--vdev",
            "net_null0,size=64",
            "--port",
            &port,
            "--metrics",
            "127.0.0.1:0",
        ]);
        Self::start(command, scratch, "; counters at ")
    }

    /// The type of the answer, and the text.
    fn get(&self, accept: &str) -> (String, String) {
        let mut client = TcpStream::connect(&self.address).unwrap();
        write!(client, "GET /metrics HTTP/1.1\r\nHost: here\r\nAccept: {accept}\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let kind = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap();
        (kind.to_owned(), text.to_owned())
    }

    fn end(self) {
        self.running.signal(rustix::process::Signal::TERM);
        self.running.end(PATIENCE);
    }
}

/// The name and the labels of a sample, and its value, as OpenMetrics writes them (its section "ABNF").
fn sample(line: &str) -> Result<(&str, BTreeMap<&str, String>, &str), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    let is_name = |name: &str, more: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
        name.starts_with(|c: char| allowed(c) && !c.is_ascii_digit()) && name.chars().all(allowed)
    };
    if !is_name(name, ":") {
        return Err(format!("'{name}' is no name"));
    }
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(label, "") {
                return Err(format!("'{label}' is no label"));
            }
            let (value, after) = quoted(after)?;
            if labels.insert(label, value).is_some() {
                return Err(format!("label {label} twice"));
            }
            rest = match after.split_at_checked(1) {
                Some((",", after)) => after,
                Some(("}", after)) => {
                    rest = after;
                    break;
                }
                _ => return Err("labels do not end".into()),
            };
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no blank before the value")?;
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() && !value.contains(' ') => Ok((name, labels, value)),
        _ => Err(format!("'{value}' is no value")),
    }
}

/// An escaped string up to its quotation mark, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                other => return Err(format!("'{other:?}' cannot be escaped")),
            },
            c => value.push(c),
        }
    }
    Err("a value without end".into())
}

/// A family as it is being read.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    helped: bool,
    /// Labels of its samples; of a state set, without the state.
    metrics: Vec<BTreeMap<String, String>>,
}

impl Family {
    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (name, labels, value) = sample(line)?;
        let suffix = match self.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            "gauge" | "stateset" => "",
            other => return Err(format!("'{other}' is no type that is used here")),
        };
        if name.strip_suffix(suffix) != Some(self.name.as_str()) {
            return Err(format!("{name} is no sample of the {} {}", self.kind, self.name));
        }
        let whole = value.parse::<u64>().map_err(|_| "not whole or below zero")?;
        match self.kind.as_str() {
            "info" if whole != 1 => return Err("an info is 1".into()),
            "stateset" if whole > 1 || !labels.contains_key(self.name.as_str()) => {
                return Err("a state is 0 or 1, and named by a label of the family's name".into());
            }
            _ => {}
        }
        let metric: BTreeMap<String, String> = labels
            .into_iter()
            .filter(|(label, _)| self.kind != "stateset" || *label != self.name)
            .map(|(label, value)| (label.to_owned(), value))
            .collect();
        let last = self.metrics.last() == Some(&metric);
        if !last && self.metrics.contains(&metric) || last && self.kind != "stateset" {
            return Err("the samples of a metric are not together, or one is there twice".into());
        }
        self.metrics.push(metric);
        Ok(())
    }
}

/// Reads text by the rules of OpenMetrics 1.0.0; how many samples there are.
fn openmetrics(text: &str) -> Result<usize, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
    let (mut names, mut lines, mut count) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut family = Family::default();
    for line in body.split_terminator('\n') {
        let failed = |why: String| format!("{why}: {line}");
        if !line.starts_with('#') {
            family.sample(line).map_err(failed)?;
            let series = line.rsplit_once(' ').unwrap().0;
            if !lines.insert(series) {
                return Err(failed("twice".into()));
            }
            count += 1;
            continue;
        }
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => {
                if !names.insert(name) {
                    return Err(failed("a second family of that name".into()));
                }
                family = Family { name: name.into(), kind: kind.into(), ..Family::default() };
            }
            ["#", "HELP", name, help]
                if name == family.name && family.metrics.is_empty() && !family.helped =>
            {
                quoted(&format!("{help}\"")).map_err(failed)?;
                family.helped = true;
            }
            _ => return Err(failed("no description of the family".into())),
        }
    }
    Ok(count)
}

#[test]
fn the_rules_are_rules() {
    let good = "# TYPE a counter\n# HELP a A.\na_total{x=\"1\\\"\\\\\\n,}\"} 1\na_total{x=\"2\"} 0\n# TYPE b stateset\n\
                b{x=\"1\",b=\"on\"} 1\nb{x=\"1\",b=\"off\"} 0\n# TYPE c info\nc_info{v=\"1\"} 1\n# TYPE d gauge\nd 5\n# EOF\n";
    assert_eq!(openmetrics(good), Ok(6));
    for (was, is) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\n\n"),
        ("a_total{x=\"2\"} 0", "a{x=\"2\"} 0"),
        ("a_total{x=\"2\"} 0", "a_total{x=\"1\\\"\\\\\\n,}\"} 2"),
        ("a_total{x=\"2\"} 0", "a_total{x=\"2\"} -1"),
        ("a_total{x=\"2\"} 0", "a_total{x=\"2\"}  0"),
        ("a_total{x=\"2\"} 0", "a_total{x=\"2\",x=\"3\"} 0"),
        ("a_total{x=\"2\"} 0", "a_total{x=\"2} 0"),
        ("a_total{x=\"2\"} 0", "a_total{2=\"2\"} 0"),
        ("a_total{x=\"2\"} 0", "\na_total{x=\"2\"} 0"),
        ("b{x=\"1\",b=\"on\"} 1", "b{x=\"1\"} 1"),
        ("b{x=\"1\",b=\"on\"} 1", "b{x=\"1\",b=\"on\"} 2"),
        ("c_info{v=\"1\"} 1", "c_info{v=\"1\"} 0"),
        ("# TYPE d gauge", "# TYPE a gauge"),
        ("# TYPE d gauge", "# TYPE d number"),
        ("# HELP a A.", "# HELP b A."),
        ("# HELP a A.", "# HELP a A\\x."),
        ("# HELP a A.", "# A comment"),
    ] {
        openmetrics(&good.replacen(was, is, 1)).expect_err(&format!("{is} for {was}"));
    }
}

#[test]
fn what_is_served_is_openmetrics() {
    for program in [Program::testpmd(), Program::switch()] {
        for accept in ["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", "*/*"] {
            let (kind, text) = program.get(accept);
            assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
            let count = openmetrics(&text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
            assert!(count > 50, "{count} samples in {text}");
        }
        program.end();
    }
}

/// Whether a program is not to be had, which is said.
fn lacks(test: &str, program: &str) -> bool {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    if !there {
        skip(test, &format!("no program '{program}' on this machine; install prometheus"));
    }
    !there
}

#[test]
fn promtool_reads_what_it_asks_for() {
    let test = "promtool_reads_what_it_asks_for";
    if lacks(test, "promtool") {
        return;
    }
    let both: [(Program, &[&str]); 2] = [
        (
            Program::testpmd(),
            &[
                "linecard_port_received_packets_total{port=\"0\"",
                "linecard_application_dropped_packets_total{port=\"1\",queue=\"0\",cause=\"tx_full\"}",
                "linecard_pool_packets{pool=\"mb_pool_0\",state=\"free\"}",
                "linecard_lcore_busy_cycles_total{",
                "linecard_queue_packets_total{",
            ],
        ),
        (
            Program::switch(),
            &[
                "linecard_switch_port_dropped_packets_total{port=\"net_null0\",cause=\"malformed\"}",
                "linecard_switch_port_state{port=\"port1\",linecard_switch_port_state=\"down\"} 1\n",
                "linecard_port_received_packets_total{port=\"",
            ],
        ),
    ];
    for (program, names) in both {
        let (kind, text) = program.get("text/plain;version=0.0.4;q=0.9,*/*;q=0.1");
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        for name in names {
            assert!(text.contains(name), "{name} in {text}");
        }
        let mut check = Command::new("promtool");
        check.args(["check", "metrics"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let said = run(&mut check, text.as_bytes());
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}\n{text}");
        program.end();
    }
}

/// What Prometheus answers a request.
fn ask(address: &str, path: &str) -> Option<Value> {
    let mut client = TcpStream::connect(address).ok()?;
    write!(client, "GET {path} HTTP/1.0\r\nHost: here\r\n\r\n").ok()?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// The value of an expression that is one number.
fn value(address: &str, expression: &str) -> Option<f64> {
    let query: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = ask(address, &format!("/api/v1/query?query={query}"))?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

#[test]
fn prometheus_scrapes_both() {
    let test = "prometheus_scrapes_both";
    if lacks(test, "prometheus") {
        return;
    }
    let programs = [("testpmd", Program::testpmd()), ("switch", Program::switch())];
    let scratch = Scratch::new();
    let jobs = programs.iter().map(|(job, program)| {
        format!("- job_name: {job}\n  static_configs: [{{targets: ['{}']}}]\n", program.address)
    });
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{}",
        jobs.collect::<String>()
    );
    std::fs::write(scratch.file("prometheus.yml"), config).unwrap();
    // Whoever takes the port in between has the test fail; it is this machine's own.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", scratch.file("prometheus.yml")));
    command.arg(format!("--storage.tsdb.path={}", scratch.file("data")));
    command.arg(format!("--web.listen-address={address}"));
    command.stdout(Stdio::null()).stderr(std::fs::File::create(scratch.file("said")).unwrap());
    let prometheus = Running::start(&mut command);
    for (job, program) in &programs {
        let what = format!("a scrape of {job} that succeeds");
        eventually(&what, || value(&address, &format!("up{{job='{job}'}}")) == Some(1.0));
        eventually("as many samples as there are: none is passed over", || {
            let (_, text) = program.get("application/openmetrics-text");
            let samples = openmetrics(&text).expect("it can be read");
            value(&address, &format!("scrape_samples_scraped{{job='{job}'}}")) == Some(samples as f64)
        });
    }
    // Types are what they are, and counters count.
    let metadata = ask(&address, "/api/v1/metadata").expect("an answer");
    for (name, kind) in [
        ("linecard_switch_port_received_packets", "counter"),
        ("linecard_switch_port_state", "stateset"),
        ("linecard_switch", "info"),
        ("linecard_port_up", "gauge"),
        ("linecard_pool_gets", "counter"),
    ] {
        assert_eq!(metadata["data"][name][0]["type"], kind, "{name}: {metadata}");
    }
    let packets = "linecard_switch_port_received_packets_total{port='net_null0'}";
    let first = value(&address, packets).expect("a number");
    eventually("a later scrape", || value(&address, packets) > Some(first));
    drop(prometheus);
    programs.into_iter().for_each(|(_, program)| program.end());
}
