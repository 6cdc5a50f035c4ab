//! Checks of plugins that assign addresses for other plugins.

use std::collections::BTreeSet;

use serde_json::Value;

use super::layout;
use super::{Bench, On, error_of, must, said, should};
use crate::environment::Command;
use crate::error::Error;
use crate::sandbox::Sandbox;
use crate::version::Version;

/// The number of containers that ask at once: more than the usual configurations have addresses for.
const MANY: usize = 12;

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), Error> {
    let version = bench.version.unwrap_or(Version::NEWEST);
    let pod = Sandbox::new()?;
    let netns = pod.path().to_string_lossy().into_owned();
    let config = bench.config();
    let on = |container| On { container, netns: Some(&netns) };
    let answer = bench.on(Command::Del, on("check-never-added"), &config);
    bench.tell("DEL-1", "DEL of an unknown container succeeds", must(answer.success, said(&answer)));

    let answer = bench.on(Command::Add, on("check-first"), &config);
    let result = layout::result(&answer, version);
    bench.tell("ADD-1", "ADD succeeds and answers in the version asked", result.clone().map(drop));
    let Ok(result) = result else { return Ok(()) };
    bench.tell("ADD-2", "the result has the version's layout", layout::check(&result, version));
    let ips = result["ips"].as_array().map_or(0, Vec::len);
    bench.tell("ADD-6", "an IPAM plugin gives addresses", must(ips > 0, "its result has no 'ips'"));
    let abbreviated = result["interfaces"].as_array().is_none_or(Vec::is_empty)
        && result["ips"].as_array().into_iter().flatten().all(|entry| entry["interface"].is_null());
    let outcome = must(abbreviated, format!("its result has interfaces: {result}"));
    bench.tell("ADD-7", "an IPAM plugin's result has no interfaces", outcome);

    if version.has_check() {
        let mut config = config.clone();
        config["prevResult"] = result;
        let answer = bench.on(Command::Check, on("check-first"), &config);
        bench.tell("CHECK-1", "CHECK after ADD succeeds", must(answer.success, said(&answer)));
        let answer = bench.on(Command::Check, on("check-never-added"), &config);
        let outcome = should(!answer.success, "it succeeds for a container that has no address");
        bench.tell("CHECK-3", "CHECK finds that there is no address", outcome);
    }
    let answer = bench.on(Command::Del, on("check-first"), &config);
    bench.tell("DEL-2", "DEL succeeds", must(answer.success, said(&answer)));
    let outcome = should(answer.stdout.is_empty(), format!("it writes {}", said(&answer)));
    bench.tell("DEL-3", "DEL writes nothing", outcome);
    let answer = bench.on(Command::Del, on("check-first"), &config);
    bench.tell("DEL-5", "DEL again succeeds", must(answer.success, said(&answer)));
    let answer = bench.on(Command::Del, On { container: "check-first", netns: None }, &config);
    bench.tell("DEL-9", "DEL without CNI_NETNS succeeds", must(answer.success, said(&answer)));
    exhaust(bench, &netns, &config);
    Ok(())
}

/// Uses up all addresses, and then checks that returned ones are assigned again.
fn exhaust(bench: &mut Bench<'_>, netns: &str, config: &Value) {
    let names: Vec<String> = (0..MANY).map(|number| format!("check-many-{number}")).collect();
    let on = |container| On { container, netns: Some(netns) };
    let answers: Vec<_> = names.iter().map(|name| bench.on(Command::Add, on(name), config)).collect();
    let given = answers.iter().filter(|answer| answer.success);
    let first = |answer: &crate::exec::Answer| {
        let value: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        value["ips"][0]["address"].to_string()
    };
    let addresses: Vec<String> = given.map(first).collect();
    let different: BTreeSet<&String> = addresses.iter().collect();
    // A plugin with an address in its configuration assigns that one.
    let fixed = config["ipam"].get("addresses").is_some();
    let outcome = must(fixed || different.len() == addresses.len(), format!("it gives {addresses:?}"));
    bench.tell("IPAM-5", "each container gets an address of its own", outcome);
    if let Some(answer) = answers.iter().find(|answer| !answer.success) {
        let outcome = error_of(answer).map(drop);
        bench.tell("IPAM-6", "without a free address, ADD fails with an error object", outcome);
    }
    for name in &names {
        let answer = bench.on(Command::Del, on(name), config);
        if !answer.success {
            bench.tell("DEL-2", "DEL succeeds", must(false, said(&answer)));
        }
    }
    let answer = bench.on(Command::Add, on("check-last"), config);
    bench.tell(
        "IPAM-7",
        "addresses that were given back can be given again",
        must(answer.success, said(&answer)),
    );
    let _ = bench.on(Command::Del, on("check-last"), config);
}
