//! Checks of plugins that create interfaces: the life cycle of an attachment, and missing objects.

use std::path::Path;

use serde_json::{Value, json};

use super::layout;
use super::{Bench, IFNAME, OUR_IPAM, On, Outcome, Verdict, error_of, must, said, should, skipped};
use crate::environment::Command;
use crate::error::Error;
use crate::sandbox::Sandbox;
use crate::version::Version;

/// Records each call and assigns one address; fails ADD while a file `fail` exists.
const IPAM: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
config=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >>calls
printf '%s' "$config" >"config.$CNI_COMMAND"
version=$(printf '%s' "$config" | tr -d ' \n' | sed -n 's/.*"cniVersion":"\([0-9.]*\)".*/\1/p')
case $CNI_COMMAND in
ADD)
  [ ! -e fail ] || { echo '{"cniVersion": "'"$version"'", "code": 142, "msg": "told to fail", "details": ""}'; exit 1; }
  case $version in 0.*) four='"version": "4", ' ;; *) four= ;; esac
  echo '{"cniVersion": "'"$version"'", "ips": [{'"$four"'"address": "10.245.7.2/29", "gateway": "10.245.7.1"}], "dns": {}}' ;;
VERSION) echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}' ;;
esac
"#;

pub(super) fn write_ipam(folder: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(OUR_IPAM);
    let written = std::fs::write(&path, IPAM)
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)));
    written.map_err(|error| {
        Error::io(format!("writing {}", path.display()), &error, "set TMPDIR to another folder")
    })
}

/// One container and the plugin's input for it.
struct AttachmentCheck<'b, 'a> {
    bench: &'b mut Bench<'a>,
    version: Version,
    pod: Sandbox,
    netns: String,
    container: String,
}

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), Error> {
    let version = bench.version.unwrap_or(Version::NEWEST);
    let pod = Sandbox::new()?;
    let netns = pod.path().to_string_lossy().into_owned();
    let container = format!("check-{}", version.as_str());
    let mut attachment = AttachmentCheck { bench, version, pod, netns, container };
    attachment.strangers();
    if let Some(result) = attachment.add() {
        attachment.twice();
        attachment.check(&result)?;
        attachment.status_and_gc(&result);
        attachment.del(&result)?;
    }
    attachment.chain();
    attachment.delegation();
    Ok(())
}

impl AttachmentCheck<'_, '_> {
    fn on(&self) -> On<'_> {
        On { container: &self.container, netns: Some(&self.netns) }
    }

    fn run(&self, command: Command, config: &Value) -> crate::exec::Answer {
        self.bench.on(command, self.on(), config)
    }

    /// The configuration with the result of ADD.
    fn with(&self, result: &Value) -> Value {
        let mut config = self.bench.config();
        config["prevResult"] = result.clone();
        config
    }

    /// DEL for a container that was never attached.
    fn strangers(&mut self) {
        let config = self.bench.config();
        let on = On { container: "check-never-added", netns: Some(&self.netns) };
        let answer = self.bench.on(Command::Del, on, &config);
        self.bench.tell("DEL-1", "DEL of an unknown container succeeds", must(answer.success, said(&answer)));
    }

    fn add(&mut self) -> Option<Value> {
        let answer = self.run(Command::Add, &self.bench.config());
        let result = layout::result(&answer, self.version);
        let outcome = result.clone().map(drop);
        self.bench.tell("ADD-1", "ADD succeeds and answers in the version asked", outcome);
        let result = result.ok()?;
        self.bench.tell("ADD-2", "the result has the version's layout", layout::check(&result, self.version));
        let list = result["interfaces"].as_array().cloned().unwrap_or_default();
        let ours = list.iter().find(|entry| entry["name"] == IFNAME);
        let outcome =
            must(ours.is_some(), format!("no interface '{IFNAME}' among {list:?}")).and_then(|()| {
                let sandbox = ours.map(|entry| entry["sandbox"].clone()).unwrap_or_default();
                must(sandbox == self.netns.as_str(), format!("its sandbox is {sandbox}, not {}", self.netns))
            });
        self.bench.tell("ADD-3", "the result has the interface CNI_IFNAME with its sandbox", outcome);
        let there = self.pod.has_interface(IFNAME).unwrap_or(false);
        let outcome = should(there, format!("there is no interface '{IFNAME}' in the namespace"));
        self.bench.tell("ADD-4", "the interface is in the container", outcome);
        Some(result)
    }

    fn twice(&mut self) {
        let answer = self.run(Command::Add, &self.bench.config());
        let outcome = error_of(&answer).map(drop);
        self.bench.tell("ADD-5", "ADD of an interface that exists is refused", outcome);
    }

    fn check(&mut self, result: &Value) -> Result<(), Error> {
        if !self.version.has_check() {
            return Ok(());
        }
        let answer = self.run(Command::Check, &self.with(result));
        self.bench.tell("CHECK-1", "CHECK after ADD succeeds", must(answer.success, said(&answer)));
        let answer = self.run(Command::Check, &self.bench.config());
        let outcome = should(!answer.success, "it succeeds without one");
        self.bench.tell("CHECK-2", "CHECK needs prevResult", outcome);
        let other = Sandbox::new()?;
        let netns = other.path().to_string_lossy().into_owned();
        let text = result.to_string().replace(&self.netns, &netns);
        let config = self.with(&serde_json::from_str(&text).unwrap_or_default());
        let on = On { container: &self.container, netns: Some(&netns) };
        let answer = self.bench.on(Command::Check, on, &config);
        let outcome = should(!answer.success, "it succeeds in a namespace without the interface");
        self.bench.tell("CHECK-3", "CHECK finds that the interface is missing", outcome);
        Ok(())
    }

    fn status_and_gc(&mut self, result: &Value) {
        if !self.version.has_gc() {
            return;
        }
        let config = self.bench.config();
        let answer = self.bench.run(self.bench.base("STATUS").input(config.to_string().as_bytes()));
        let outcome = match answer.success {
            true => Ok(()),
            false => error_of(&answer).and_then(|error| {
                let known = matches!(error["code"].as_u64(), Some(50 | 51));
                must(known, format!("it fails with code {}, not 50 or 51", error["code"]))?;
                must(false, "ADD worked a moment ago, and STATUS says that it would not")
            }),
        };
        self.bench.tell("STATUS-1", "STATUS succeeds when ADD does", outcome);

        let mut config = self.bench.config();
        config["cni.dev/valid-attachments"] = json!([{"containerID": self.container, "ifname": IFNAME}]);
        config["cni.dev/attachments"] = config["cni.dev/valid-attachments"].clone();
        let answer = self.bench.run(self.bench.base("GC").input(config.to_string().as_bytes()));
        self.bench.tell("GC-1", "GC succeeds", must(answer.success, said(&answer)));
        let outcome = should(answer.stdout.is_empty(), format!("it writes {}", said(&answer)));
        self.bench.tell("GC-2", "GC writes nothing", outcome);
        let answer = self.run(Command::Check, &self.with(result));
        let outcome = must(answer.success, format!("CHECK fails after it: {}", said(&answer)));
        self.bench.tell("GC-3", "GC leaves valid attachments alone", outcome);
    }

    fn del(&mut self, result: &Value) -> Result<(), Error> {
        let answer = self.run(Command::Del, &self.with(result));
        self.bench.tell("DEL-2", "DEL succeeds", must(answer.success, said(&answer)));
        let outcome = should(answer.stdout.is_empty(), format!("it writes {}", said(&answer)));
        self.bench.tell("DEL-3", "DEL writes nothing", outcome);
        let outcome = must(!self.pod.has_interface(IFNAME)?, "it is still there");
        self.bench.tell("DEL-4", "the interface is gone", outcome);
        let answer = self.run(Command::Del, &self.with(result));
        self.bench.tell("DEL-5", "DEL again succeeds", must(answer.success, said(&answer)));
        let answer = self.run(Command::Add, &self.bench.config());
        let outcome = must(answer.success, said(&answer));
        self.bench.tell("DEL-6", "ADD works again afterwards", outcome);
        let answer = self.run(Command::Del, &self.bench.config());
        self.bench.tell("DEL-7", "DEL without prevResult succeeds", must(answer.success, said(&answer)));

        // The container no longer exists at the time of its DEL.
        let gone = Sandbox::new()?;
        let netns = gone.path().to_string_lossy().into_owned();
        let on = On { container: "check-gone", netns: Some(&netns) };
        let config = self.bench.config();
        let added = self.bench.on(Command::Add, on, &config);
        drop(gone);
        let outcome = match added.success {
            true => {
                let answer = self.bench.on(Command::Del, on, &config);
                must(answer.success, said(&answer))
            }
            false => skipped(format!("ADD fails: {}", said(&added))),
        };
        self.bench.tell("DEL-8", "DEL succeeds when the namespace is gone", outcome);
        let answer = self.bench.on(Command::Del, On { netns: None, ..on }, &config);
        let outcome = must(answer.success, said(&answer));
        self.bench.tell("DEL-9", "DEL without CNI_NETNS succeeds", outcome);
        Ok(())
    }

    /// Runs it as a second plugin, after one that made another interface.
    fn chain(&mut self) {
        let mut config = self.bench.config();
        let mut before = json!({
            "cniVersion": self.version.as_str(),
            "interfaces": [{"name": "before0", "mac": "02:00:00:00:00:77", "sandbox": self.netns}],
            "ips": [{"address": "10.244.0.2/24", "interface": 0}],
        });
        if self.version.ips_say_version() {
            before["ips"][0]["version"] = "4".into();
        }
        config["prevResult"] = before.clone();
        let answer = self.run(Command::Add, &config);
        let outcome = layout::result(&answer, self.version).and_then(|result| {
            layout::check(&result, self.version)?;
            let list = result["interfaces"].as_array().cloned().unwrap_or_default();
            let kept = list
                .iter()
                .any(|entry| entry["name"] == "before0" && entry["sandbox"] == self.netns.as_str());
            must(kept, "the interface of the plugin before it is missing from its result")
        });
        self.bench.tell("CHAIN-1", "ADD keeps the prevResult it was given", outcome);
        let answer = self.run(Command::Del, &config);
        self.bench.tell("CHAIN-2", "DEL in a chain succeeds", must(answer.success, said(&answer)));
    }

    /// Checks its calls of the IPAM plugin.
    fn delegation(&mut self) {
        if self.bench.subject.config["ipam"]["type"] != OUR_IPAM {
            return;
        }
        let folder = self.bench.folder.0.clone();
        let calls = |clear: bool| {
            let path = folder.join("calls");
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if clear {
                let _ = std::fs::remove_file(&path);
            }
            text
        };
        calls(true);
        let config = self.bench.config();
        let added = self.run(Command::Add, &config);
        let given: Value = std::fs::read(folder.join("config.ADD"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let same = given["name"] == config["name"] && given["ipam"] == config["ipam"];
        let line = format!("ADD {} {IFNAME}", self.container);
        let outcome = must(added.success, said(&added))
            .and_then(|()| {
                must(calls(true).contains(&line), "the IPAM plugin was not called with the same variables")
            })
            .and_then(|()| must(same, "the IPAM plugin did not get the whole configuration"));
        self.bench.tell("IPAM-1", "ADD calls the IPAM plugin", outcome);
        let prev: Value = serde_json::from_slice(&added.stdout).unwrap_or_default();
        if self.version.has_check() {
            let answer = self.run(Command::Check, &self.with(&prev));
            let outcome = must(answer.success, said(&answer))
                .and_then(|()| must(calls(true).contains("CHECK "), "the IPAM plugin was not called"));
            self.bench.tell("IPAM-2", "CHECK calls the IPAM plugin", outcome);
        }
        let answer = self.run(Command::Del, &self.with(&prev));
        let outcome = must(answer.success, said(&answer))
            .and_then(|()| must(calls(true).contains("DEL "), "the IPAM plugin was not called"));
        self.bench.tell("IPAM-3", "DEL calls the IPAM plugin", outcome);
        let failing = folder.join("fail");
        let outcome = match std::fs::write(&failing, "") {
            Err(error) => skipped(error.to_string()),
            Ok(()) => {
                let answer = self.run(Command::Add, &config);
                let refused = error_of(&answer).map(drop);
                refused.and_then(|()| self.after_failure(&calls(true)))
            }
        };
        let _ = std::fs::remove_file(&failing);
        self.bench.tell(
            "IPAM-4",
            "ADD fails when the IPAM plugin does, leaves nothing, and calls its DEL",
            outcome,
        );
        let _ = self.run(Command::Del, &config);
        calls(true);
    }

    fn after_failure(&self, calls: &str) -> Outcome {
        let left = self.pod.has_interface(IFNAME).unwrap_or(false);
        if left {
            return Err((Verdict::Warning, "the interface is left in the container".into()));
        }
        should(calls.contains("DEL "), "the IPAM plugin's DEL is not called")
    }
}
