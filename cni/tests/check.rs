//! The check of plugins against plugins whose faults are known: Debian's, and the same ones broken on purpose.

mod common;

use std::path::Path;

use common::Folder;
use linecard_cni::check::{Finding, Subject, Verdict, check};
use linecard_cni::{Code, Error};

const FOLDER: &str = "/usr/lib/cni";

/// `None` where the test is skipped.
fn findings(test: &str, program: &Path) -> Option<Vec<Finding>> {
    if !Path::new(FOLDER).join("ptp").exists() {
        linecard_testing::skip(test, "no /usr/lib/cni/ptp; install containernetworking-plugins");
        return None;
    }
    let mut subject = Subject::new(program, None);
    subject.path.push(FOLDER.into());
    match check(&subject) {
        Ok(findings) => Some(findings),
        Err(Error { code: Code::Namespace, .. }) => match linecard_testing::in_user_namespace(test) {
            linecard_testing::Rerun::Done => None,
            linecard_testing::Rerun::Refused(why) => {
                linecard_testing::skip(test, &why);
                None
            }
        },
        Err(error) => panic!("{error}"),
    }
}

fn rules(findings: &[Finding], verdict: Verdict) -> Vec<&'static str> {
    let mut rules: Vec<_> =
        findings.iter().filter(|finding| finding.verdict == verdict).map(|finding| finding.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

fn told(findings: &[Finding]) -> String {
    let bad = findings.iter().filter(|finding| finding.verdict != Verdict::Pass);
    bad.map(|finding| format!("{finding}\n")).collect()
}

/// Verdicts expected of containernetworking-plugins 1.1.1.
#[test]
fn debians_plugins_get_the_verdicts_they_deserve() {
    let test = "debians_plugins_get_the_verdicts_they_deserve";
    for (name, failures) in [
        // They make results of their own, whatever `prevResult` says.
        ("bridge", &["CHAIN-1"][..]),
        ("ptp", &["CHAIN-1"][..]),
        ("host-local", &[][..]),
    ] {
        let Some(findings) = findings(test, &Path::new(FOLDER).join(name)) else { return };
        assert_eq!(rules(&findings, Verdict::Failure), failures, "{name}:\n{}", told(&findings));
        assert!(findings.iter().filter(|finding| finding.verdict == Verdict::Pass).count() > 40, "{name}");
        // libcni's skeleton answers VERSION with its newest version.
        assert!(rules(&findings, Verdict::Warning).contains(&"VERSION-3"), "{name}:\n{}", told(&findings));
    }
}

#[test]
fn each_fault_is_found() {
    let test = "each_fault_is_found";
    let folder = Folder::new("broken");
    for (rule, fault) in [
        (
            "VERSION-1",
            r#"[ "$CNI_COMMAND" != VERSION ] || { echo '{"cniVersion": "1.0.0", "supportedVersions": "1.0.0"}'; exit 0; }"#,
        ),
        ("VERSION-2", r#"[ "$CNI_COMMAND$CNI_NETNS" != VERSIONdummy ] || exit 1"#),
        ("ERROR-1", r#"case $CNI_COMMAND in FROB*) exit 0 ;; esac"#),
        ("ERROR-2", r#"[ "$CNI_COMMAND" != ADD ] || [ -n "$CNI_IFNAME" ] || { echo '{}'; exit 0; }"#),
        ("ERROR-4", r#"case $CNI_CONTAINERID in ..*) echo '{}'; exit 0 ;; esac"#),
        (
            "ADD-1",
            r#"[ "$CNI_COMMAND" != ADD ] || { real >/dev/null; echo '{"cniVersion": "0.1.0"}'; exit 0; }"#,
        ),
        (
            "ADD-2",
            r#"[ "$CNI_COMMAND" != ADD ] || { real | sed 's|"address": "[^"]*"|"address": "10.0.0.1"|'; exit 0; }"#,
        ),
        (
            "ADD-3",
            r#"[ "$CNI_COMMAND" != ADD ] || { real | sed 's|"name": "eth7"|"name": "eth8"|'; exit 0; }"#,
        ),
        ("ADD-5", r#"[ "$CNI_COMMAND" != ADD ] || { real || true; exit 0; }"#),
        ("CHECK-1", r#"[ "$CNI_COMMAND" != CHECK ] || { echo '{"code": 1, "msg": "no"}'; exit 1; }"#),
        (
            "DEL-1",
            r#"[ "$CNI_COMMAND$CNI_CONTAINERID" != DELcheck-never-added ] || { echo '{"code": 3, "msg": "unknown"}'; exit 1; }"#,
        ),
        ("DEL-4", r#"[ "$CNI_COMMAND" != DEL ] || exit 0"#),
        (
            "DEL-8",
            r#"[ "$CNI_COMMAND" != DEL ] || [ -z "$CNI_NETNS" ] || [ -e "$CNI_NETNS" ] || { echo '{"code": 8, "msg": "gone"}'; exit 1; }"#,
        ),
        (
            "DEL-9",
            r#"[ "$CNI_COMMAND" != DEL ] || [ -n "$CNI_NETNS" ] || { echo '{"code": 4, "msg": "CNI_NETNS"}'; exit 1; }"#,
        ),
        (
            "IPAM-1",
            r#"[ "$CNI_COMMAND" != ADD ] || { sed 's/linecard-check/another/' | /usr/lib/cni/ptp; exit; }"#,
        ),
    ] {
        let script = format!("#!/bin/sh\nreal() {{ /usr/lib/cni/ptp; }}\n{fault}\nreal\n");
        let program = folder.script(&format!("{rule}/ptp"), &script);
        let Some(findings) = findings(test, &program) else { return };
        assert!(
            rules(&findings, Verdict::Failure).contains(&rule),
            "{rule} was not found:\n{}",
            told(&findings)
        );
    }
}

#[test]
fn a_plugin_that_says_nothing_or_hangs_is_told() {
    let test = "a_plugin_that_says_nothing_or_hangs_is_told";
    let folder = Folder::new("silent");
    for script in [
        "#!/bin/sh\nexit 0\n",
        "#!/bin/sh\nkill -9 $$\n",
        "#!/bin/sh\nhead -c 100000 /dev/urandom\n",
        "no program",
    ] {
        let program = folder.script("ptp", script);
        let Some(findings) = findings(test, &program) else { return };
        assert!(rules(&findings, Verdict::Failure).contains(&"VERSION-1"), "{script}: {}", told(&findings));
    }
}
