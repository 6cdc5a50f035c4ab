//! VERSION, and the errors of a plugin about invalid input.

use serde_json::{Value, json};

use super::{Bench, IFNAME, Outcome, Role, error_of, must, said, should};
use crate::version::Version;

/// Rules VERSION-1 to 3; returns which of our versions the plugin supports.
pub(super) fn versions(bench: &mut Bench<'_>) -> Vec<Version> {
    let ask = |bench: &Bench<'_>, asked: &str, noise: bool| {
        let mut run = bench.base("VERSION").input(json!({"cniVersion": asked}).to_string().as_bytes());
        if noise {
            run = run.variable("CNI_CONTAINERID", "dummy").variable("CNI_NETNS", "dummy");
            run = run.variable("CNI_IFNAME", "dummy").variable("CNI_PATH", "dummy");
        } else {
            run = run.without("CNI_PATH");
        }
        bench.run(run)
    };
    let answer = ask(bench, "1.0.0", false);
    let value: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
    let list: Vec<&str> =
        value["supportedVersions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let known: Vec<Version> = list.iter().filter_map(|text| Version::parse(text).ok()).collect();
    let outcome = must(answer.success, said(&answer))
        .and_then(|()| must(!list.is_empty(), format!("no list of supportedVersions: {}", said(&answer))))
        .and_then(|()| {
            must(list.iter().all(|text| is_version(text)), format!("supportedVersions is {list:?}"))
        });
    bench.tell("VERSION-1", "VERSION lists the versions, with no other variable set", outcome);

    let noisy = ask(bench, "1.0.0", true);
    bench.tell("VERSION-2", "VERSION ignores other variables", must(noisy.success, said(&noisy)));

    let echoed = ["0.3.1", "1.0.0"].iter().try_for_each(|asked| {
        let answer = ask(bench, asked, false);
        let value: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        let got = &value["cniVersion"];
        // libcni's own skeleton answers with its newest version, which runtimes accept.
        should(got == asked, format!("asked with {asked}, it answers with {got}"))
    });
    bench.tell("VERSION-3", "VERSION answers with the cniVersion of the question", echoed);
    known
}

fn is_version(text: &str) -> bool {
    let mut parts = text.splitn(3, '.');
    let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    let first_two = number(parts.next()) && number(parts.next());
    first_two && parts.next().is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The variables of an attachment, in the order of the specification.
const ATTACHMENT: [(&str, &str); 3] =
    [("CNI_CONTAINERID", "check-errors"), ("CNI_NETNS", "/proc/self/ns/net"), ("CNI_IFNAME", IFNAME)];

/// Rules ERROR-1 to 7.
pub(super) fn check(bench: &mut Bench<'_>, versions: &[Version]) {
    bench.version = versions.last().copied();
    let config = bench.config().to_string();
    bench.version = None;

    let answer = bench.run(bench.base("FROBNICATE").input(config.as_bytes()));
    bench.tell("ERROR-1", "an unknown CNI_COMMAND is refused with code 4", has_code(&answer, 4));

    for (at, command) in ["ADD", "DEL"].into_iter().enumerate() {
        // An IPAM plugin need not use the namespace.
        let needed: &[usize] =
            if at == 0 && bench.subject.role == Role::Interface { &[0, 1, 2] } else { &[0, 2] };
        let outcome = needed.iter().try_for_each(|missing| {
            let mut run = bench.base(command).input(config.as_bytes());
            for (index, (name, value)) in ATTACHMENT.iter().enumerate() {
                if index != *missing {
                    run = run.variable(name, *value);
                }
            }
            let answer = bench.run(run);
            let name = ATTACHMENT[*missing].0;
            let error =
                error_of(&answer).map_err(|(verdict, why)| (verdict, format!("without {name}: {why}")))?;
            has_code(&answer, 4)?;
            should(
                error.to_string().contains(name),
                format!("without {name}, its message does not name it: {error}"),
            )
        });
        let rule = if at == 0 { "ERROR-2" } else { "ERROR-3" };
        bench.tell(
            rule,
            &format!("{command} without a required variable is refused with code 4 and its name"),
            outcome,
        );
    }

    let outcome = ["../../etc/x", "-x", "a/b", "a b"].iter().try_for_each(|id| {
        let mut run = bench.base("ADD").input(config.as_bytes()).variable("CNI_CONTAINERID", *id);
        run = run.variable("CNI_NETNS", ATTACHMENT[1].1).variable("CNI_IFNAME", IFNAME);
        let answer = bench.run(run);
        error_of(&answer).map_err(|(verdict, why)| (verdict, format!("CNI_CONTAINERID={id}: {why}")))?;
        has_code(&answer, 4)
    });
    bench.tell("ERROR-4", "a container ID that is not allowed is refused with code 4", outcome);

    let with = |bench: &Bench<'_>, input: &[u8]| {
        let mut run = bench.base("ADD").input(input);
        for (name, value) in ATTACHMENT {
            run = run.variable(name, value);
        }
        bench.run(run)
    };
    let outcome = ["", "{", "nonsense", "[]"].iter().try_for_each(|input| {
        let answer = with(bench, input.as_bytes());
        error_of(&answer).map_err(|(verdict, why)| (verdict, format!("input '{input}': {why}")))?;
        has_code(&answer, 6)
    });
    bench.tell("ERROR-5", "input that is not JSON is refused with code 6", outcome);

    let mut other = bench.config();
    other["cniVersion"] = "9.9.9".into();
    let answer = with(bench, other.to_string().as_bytes());
    bench.tell("ERROR-6", "a cniVersion that is not supported is refused with code 1", has_code(&answer, 1));

    let shape = error_of(&answer).and_then(|error| {
        should(error["cniVersion"].is_string(), format!("its error has no cniVersion: {error}"))
    });
    bench.tell("ERROR-7", "an error is an object with cniVersion, code and msg", shape);
}

/// Failing is required, the code is only recommended: many plugins use 100 or 999 for everything.
fn has_code(answer: &crate::exec::Answer, code: u64) -> Outcome {
    let error = error_of(answer)?;
    should(error["code"] == code, format!("the code is {}, not {code}", error["code"]))
}
