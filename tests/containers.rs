//! The tutorial `docs/containers.md`: two podman containers without privileges exchange checked packets through the switch.

use std::path::Path;
use std::process::Command;

/// What the tutorial needs beside this repository.
const NEEDED: &[&str] = &["/usr/bin/podman", "/usr/sbin/runc", "/usr/bin/conmon", "/usr/lib/cni/host-local"];

/// The shell commands of a page, in order.
fn commands(page: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    text
}

#[test]
fn the_tutorial_works_as_it_is() {
    let test = "the_tutorial_works_as_it_is";
    if let Some(missing) = NEEDED.iter().find(|program| !Path::new(program).exists()) {
        let install = "install podman, runc, conmon and containernetworking-plugins";
        linecard_testing::skip(test, &format!("there is no {missing}; {install}"));
        return;
    }
    if !rustix::process::geteuid().is_root() {
        linecard_testing::skip(test, "podman with CNI networks needs root");
        return;
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/containers.md"))
        .expect("the page");
    // Whatever fails, what was started is ended; what the plugin and the switch keep is looked at before the folder goes.
    let script = format!(
        "set -eu\ntrap '[ -z \"${{dir:-}}\" ] || {{ podman rm --all --force --time 1 >/dev/null 2>&1 || true; \
         kill ${{switch:-}} 2>/dev/null || true; rm -rf \"$dir\"; }}' EXIT\n{}",
        commands(&page).replace("kill $switch\n", "ls $dir/state >$dir/left\n[ ! -s $dir/left ] || { echo \"left: $(cat $dir/left)\"; exit 1; }\nkill $switch\n")
    );
    let binary = Path::new(env!("CARGO_BIN_EXE_linecard"));
    let path = format!(
        "{}:{}",
        binary.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new("bash").args(["-c", &script]).env("PATH", path).output().expect("bash runs");
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(
        out.contains("20000 sent, 20000 came back checked, 0 lost, 0 duplicated, 0 corrupted"),
        "{out}\n{err}"
    );
}
