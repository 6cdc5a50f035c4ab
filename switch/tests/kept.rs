//! What was added by request and is kept in a file: whatever cannot be written is not done, and the request can be repeated.

#[allow(dead_code, reason = "nothing passes here")]
mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::Bed;
use linecard_switch::server::Service;
use linecard_switch::state::State;
use serde_json::{Value, json};

/// A folder of its own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switch-{test}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// Nothing can be written there while `act` runs.
    fn without(&self, act: impl FnOnce()) {
        let aside = self.0.with_extension("aside");
        std::fs::rename(&self.0, &aside).expect("it is renamed");
        act();
        std::fs::rename(&aside, &self.0).expect("it is renamed");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ask(service: &Service, method: &str, params: Value) -> Result<Value, String> {
    let line = serde_json::to_vec(&json!({"id": 1, "method": method, "params": params})).expect("a line");
    let answer = service.answer(&line, Vec::new());
    match answer.error {
        None => Ok(answer.result.unwrap_or_default()),
        Some(problem) => Err(problem.to_string()),
    }
}

/// How many ports, addresses and sessions are in the file.
fn written(path: &Path) -> [usize; 3] {
    let saved = State::at(path).load().expect("it is readable");
    [saved.ports.len(), saved.fdb.len(), saved.spans.len()]
}

#[test]
fn what_cannot_be_written_is_not_removed() {
    let folder = Folder::new("kept");
    let state = folder.0.join("state.json");
    let Bed { switch, .. } = Bed::new(1, &[json!({})]);
    let service = Service::new(Arc::new(switch), Some(State::at(&state)), [], "0.0.0");
    let (key, to) = (json!({"key": "a"}), json!({"to": "b"}));
    let address = json!({"mac": "02:00:00:00:00:07", "vlan": 0});
    let of_a = json!({"mac": "02:00:00:00:00:08", "vlan": 0, "port": "a"});
    for (key, ring) in [("a", 600), ("b", 601), ("c", 602)] {
        let port = json!({"key": key, "type": "vdev", "device": format!("net_ring{ring}")});
        assert_eq!(ask(&service, "port.add", port).expect("it is added")["created"], true);
    }
    let on_c = json!({"mac": "02:00:00:00:00:07", "vlan": 0, "port": "c"});
    ask(&service, "fdb.add", on_c.clone()).expect("it is put in");
    ask(&service, "fdb.add", of_a).expect("it is put in");
    ask(&service, "span.set", json!({"to": "b", "ingress": ["c"]})).expect("it is set");
    assert_eq!(written(&state), [3, 2, 1]);

    let requests = [("port.remove", &key), ("fdb.del", &address), ("span.remove", &to)];
    let there = |service: &Service| {
        let list =
            |method, params: Value| ask(service, method, params).expect("a list").as_array().map(Vec::len);
        [list("port.list", Value::Null), list("fdb.list", Value::Null), list("span.list", Value::Null)]
    };
    folder.without(|| {
        for (method, params) in requests.iter().chain(&requests) {
            let problem = ask(&service, method, (*params).clone()).expect_err("it cannot be written");
            assert!(problem.contains("cannot be written"), "{method}: {problem}");
        }
        // Nor is what was there before taken out by a request that could not put it in again.
        ask(&service, "fdb.add", on_c.clone()).expect_err("it cannot be written");
    });
    assert_eq!(there(&service), [Some(4), Some(2), Some(1)], "everything is as it was");
    assert_eq!(written(&state), [3, 2, 1]);

    for ((method, params), left) in requests.into_iter().zip([[2, 1, 1], [2, 0, 1], [2, 0, 0]]) {
        assert_eq!(ask(&service, method, params.clone()).expect("it goes")["removed"], true, "{method}");
        assert_eq!(written(&state), left, "{method}");
        assert_eq!(ask(&service, method, params.clone()).expect("it is gone")["removed"], false, "{method}");
    }
    assert_eq!(there(&service), [Some(3), Some(0), Some(0)]);
}

/// Queues are where they were moved to when the switch is started again, whoever asked for what; ports that go are forgotten.
#[test]
fn queues_stay_where_they_were_moved_to() {
    let folder = Folder::new("moves");
    let state = folder.0.join("state.json");
    let saved = || State::at(&state).load().expect("it is readable");
    let polled = |service: &Service, key: &str| -> Vec<u64> {
        let workers = ask(service, "workers", Value::Null).expect("a list");
        let queues = workers.as_array().into_iter().flatten().flat_map(|worker| {
            let queues = worker["queues"].as_array().into_iter().flatten();
            queues.map(|queue| (queue["port"].clone(), queue["queue"].as_u64(), worker["id"].as_u64()))
        });
        let mut queues: Vec<_> = queues.filter(|(port, ..)| port == key).collect();
        queues.sort_by_key(|(_, queue, _)| *queue);
        queues.into_iter().filter_map(|(.., worker)| worker).collect()
    };
    let port = |key: &str, ring: u16| json!({"key": key, "type": "vdev", "device": format!("net_ring{ring}"), "queues": 3, "workers": [2, 1]});
    let Bed { switch, .. } = Bed::new(3, &[]);
    let service = Service::new(Arc::new(switch), Some(State::at(&state)), [], "0.0.0");
    for (key, ring) in [("a", 610), ("b", 611)] {
        ask(&service, "port.add", port(key, ring)).expect("it is added");
        assert_eq!(polled(&service, key), [2, 1, 2]);
    }
    ask(&service, "worker.move", json!({"port": "a", "queue": 0, "worker": 0})).expect("it moves");
    assert_eq!((polled(&service, "a"), saved().moves["a"].clone()), (vec![0, 1, 2], vec![0, 1, 2]));
    // The port is still the one that was asked for.
    assert_eq!(ask(&service, "port.add", port("a", 610)).expect("it is there")["created"], false);
    folder.without(|| {
        let asked = json!({"port": "a", "queue": 1, "worker": 0});
        let problem = ask(&service, "worker.move", asked).expect_err("it cannot be written");
        assert!(problem.contains("the queue has moved, and a restart will not know"), "{problem}");
    });
    assert_eq!(polled(&service, "a"), [0, 0, 2]);
    ask(&service, "worker.move", json!({"port": "a", "queue": 1, "worker": 1})).expect("it moves");
    drop(service);

    let Bed { switch, .. } = Bed::new(3, &[]);
    let before = saved();
    switch.restore_moves(before.moves);
    for spec in &before.ports {
        switch.restore(spec).expect("it is back");
    }
    let kept = before.ports.iter().map(|spec| spec.key.clone());
    let service = Service::new(Arc::new(switch), Some(State::at(&state)), kept, "0.0.0");
    assert_eq!((polled(&service, "a"), polled(&service, "b")), (vec![0, 1, 2], vec![2, 1, 2]));
    ask(&service, "port.remove", json!({"key": "a"})).expect("it goes");
    assert!(saved().moves.is_empty());
    ask(&service, "port.add", port("a", 610)).expect("it is added");
    assert_eq!(polled(&service, "a"), [2, 1, 2], "a new port of that name was never moved");
    let wrong = json!({"key": "c", "type": "vdev", "device": "net_ring612", "workers": [3]});
    let problem = ask(&service, "port.add", wrong).expect_err("there is none");
    assert!(problem.starts_with("there is no worker 3; the last one is 2; "), "{problem}");
    let wrong = json!({"key": "c", "type": "vdev", "device": "net_ring612", "workers": [0, 1]});
    let problem = ask(&service, "port.add", wrong).expect_err("it has one queue");
    assert!(problem.starts_with("2 workers cannot poll 1 receive queues; "), "{problem}");
}
