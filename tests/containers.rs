//! The tutorial `docs/guide/containers.md`: two podman containers without privileges exchange checked packets through the switch.

mod support;

use std::path::Path;

use support::page::{commands, shell};

/// What the tutorial needs beside this repository.
const NEEDED: &[&str] = &["/usr/bin/podman", "/usr/sbin/runc", "/usr/bin/conmon", "/usr/lib/cni/host-local"];

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
    // Whatever fails, what was started is ended; what the plugin and the switch keep is looked at before the folder goes.
    let script = format!(
        "set -eu\ntrap '[ -z \"${{dir:-}}\" ] || {{ podman rm --all --force --time 1 >/dev/null 2>&1 || true; \
         kill ${{switch:-}} 2>/dev/null || true; rm -rf \"$dir\"; }}' EXIT\n{}",
        commands("containers.md").replace("kill $switch\n", "ls $dir/state >$dir/left\n[ ! -s $dir/left ] || { echo \"left: $(cat $dir/left)\"; exit 1; }\nkill $switch\n")
    );
    let output = shell(&script).output().expect("bash runs");
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(
        out.contains("20000 sent, 20000 came back checked, 0 lost, 0 duplicated, 0 corrupted"),
        "{out}\n{err}"
    );
}
