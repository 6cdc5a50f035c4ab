//! Clients of the control socket that hold their connections and ask nothing.

#[allow(dead_code, reason = "nothing passes here")]
mod common;

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use common::Bed;
use linecard_switch::api::Client;
use linecard_switch::server::{Server, Service};
use serde_json::json;

/// More than the server has at once.
const IDLE: usize = 100;

#[test]
fn idle_clients_make_room_for_who_asks() {
    let path = std::env::temp_dir().join(format!("switch-clients-{}", std::process::id()));
    let Bed { switch, .. } = Bed::new(1, &[json!({})]);
    let listener = UnixListener::bind(&path).expect("a socket");
    let service = Service::new(Arc::new(switch), None, [], "1.2.3").with_idle_limit(Duration::ZERO);
    let service = Arc::new(service);
    let server = Server::start(listener, service).expect("a thread");
    let ask = |client: &mut Client| client.version().map(|version| version.version);

    let idle: Vec<_> = (0..IDLE).map(|_| UnixStream::connect(&path).expect("the socket listens")).collect();
    let mut last = Client::connect(&path).expect("the socket listens");
    last.set_patience(Duration::from_secs(60)).expect("a socket");
    assert_eq!(ask(&mut last).expect("an answer"), "1.2.3");

    // The first that was accepted has been disconnected.
    assert_eq!((&idle[0]).read(&mut [0; 1]).expect("the end"), 0);

    drop(server);
    std::fs::remove_file(&path).expect("the name is still there");
}
