//! The endpoint for Prometheus.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use linecard_mempool::Burst;

use super::*;
use crate::LcoreUsage;

fn get(address: &str, request: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // Whoever asks for too much is cut off, which may look like an error.
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn counters_are_offered_as_openmetrics_text() {
    let mut program = Program::new();
    let mut packets = Burst::new();
    program.port().rx[1].rx_burst(&mut packets);
    program.telemetry.set_lcore_usage(|| vec![LcoreUsage { lcore: 1, busy_cycles: 5, total_cycles: 7 }]);
    let text = program.telemetry.open_metrics();
    for line in [
        "linecard_port_received_packets_total{port=\"0\",device=\"net_null0\"} 64",
        "linecard_port_up{port=\"0\",device=\"net_null0\"} 1",
        "linecard_queue_packets_total{port=\"0\",device=\"net_null0\",direction=\"rx\",queue=\"1\"} 64",
        "linecard_queue_bursts_total{port=\"0\",device=\"net_null0\",direction=\"rx\",queue=\"1\"} 1",
        "linecard_pool_get_failures_total{pool=\"mb_pool_0\"} 0",
        "linecard_lcore_busy_cycles_total{lcore=\"1\"} 5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.ends_with("# EOF\n"));
    // Each sample is of the family above it, and no line is there twice.
    let (mut family, mut seen) = (String::new(), BTreeSet::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        assert!(seen.insert(line), "{line} twice");
        match line.strip_prefix("# TYPE ") {
            Some(rest) => rest.split(' ').next().unwrap_or_default().clone_into(&mut family),
            None if line.starts_with("# HELP") => assert!(line.contains(&family), "{line}"),
            None => assert!(line.starts_with(&family), "{line} after {family}"),
        }
    }
}

#[test]
fn requests_are_answered_and_bad_ones_refused() {
    let program = Program::new();
    let endpoint = program.telemetry.serve_metrics("127.0.0.1:0").unwrap();
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(20_000));
    for (request, want) in [
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        ("GET /metrics?name=x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
        ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
        ("\r\n\r\n", "HTTP/1.1 405 "),
    ] {
        let answer = get(endpoint.address(), request);
        assert!(answer.starts_with(want), "{request:?}: {answer}");
    }
    let answer = get(endpoint.address(), &long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(get(endpoint.address(), "GET /metrics HTTP/1.1\r\n\r\n").ends_with("# EOF\n"));
}

/// Half requests, held open, do not keep Prometheus out: the oldest goes.
#[test]
fn clients_that_never_finish_make_room() {
    let program = Program::new();
    let endpoint = program.telemetry.serve_metrics("127.0.0.1:0").unwrap();
    let half: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut client = TcpStream::connect(endpoint.address()).unwrap();
            let _ = client.write_all(b"GET /met");
            client
        })
        .collect();
    assert!(get(endpoint.address(), "GET /metrics HTTP/1.1\r\n\r\n").ends_with("# EOF\n"));
    drop(half);
}

#[test]
fn places_that_cannot_be_listened_at_are_refused_with_a_remedy() {
    let program = Program::new();
    let file = program.folder.join("file");
    std::fs::write(&file, "").unwrap();
    let file = format!("unix:{}", file.display());
    for address in
        ["", "9460", "host", "127.0.0.1:99999", "256.0.0.1:1", "unix:", "unix:/nonexistent/x", &file]
    {
        let refused = program.telemetry.serve_metrics(address).unwrap_err().to_string();
        assert!(refused.contains("name another place"), "{address}: {refused}");
    }
    // The socket of a program that is gone is replaced.
    let path = program.folder.join("metrics.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = format!("unix:{}", path.display());
    let endpoint = program.telemetry.serve_metrics(&address).unwrap();
    assert_eq!(endpoint.address(), address);
    drop(endpoint);
    assert!(!path.exists());
}
