//! The page of drivers names every driver, and every argument that each takes: a driver lists them when it refuses another.

use std::process::{Command, Stdio};

use super::common::{run, testpmd};
use super::read;

/// The drivers that testpmd lists.
fn drivers() -> Vec<String> {
    let help = run(&mut testpmd(&["--help"], &[]), b"").out;
    let (_, list) = help.split_once("devices for --vdev").expect("a list");
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with("net_")).map(str::to_owned).collect()
}

/// What a driver has to be given before it looks at other arguments.
fn needed(driver: &str) -> &'static str {
    match driver {
        "net_vhost" => ",iface=/nonexistent/guide.sock",
        "net_virtio_user" => ",path=/nonexistent/guide.sock",
        "net_virtio_pci" => ",addr=ffff:ff:1f.7",
        "net_af_packet" | "net_af_xdp" => ",iface=nosuch0",
        "net_impair" => ",on=[net_null1]",
        "net_vduse" => ",name=guide",
        "net_vxlan" => ",vni=1",
        _ => "",
    }
}

/// The arguments that a driver says it knows.
fn arguments(driver: &str) -> Vec<String> {
    let device = format!("{driver}0{},zz-unknown=1", needed(driver));
    let mut command: Command = testpmd(&["--in-memory", "-m", "64", "--vdev", &device], &[]);
    let said = run(command.stdout(Stdio::piped()), b"");
    let (_, known) = said.err.split_once("known: ").unwrap_or_else(|| panic!("{device}: {said:?}"));
    let known = known.lines().next().unwrap_or_default().trim_end_matches('.');
    known.split(", ").filter(|key| *key != "none").map(str::to_owned).collect()
}

#[test]
fn every_argument_of_every_driver_is_on_the_page() {
    let page = read("drivers.md");
    let drivers = drivers();
    assert!(drivers.len() >= 10, "{drivers:?}");
    let mut missing = Vec::new();
    for driver in &drivers {
        let heading = format!("\n### {driver}\n");
        let Some((_, section)) = page.split_once(&heading) else {
            missing.push(format!("a section for {driver}"));
            continue;
        };
        let section =
            section.split("\n### ").next().unwrap_or_default().split("\n## ").next().unwrap_or_default();
        for key in arguments(driver) {
            if !section.contains(&format!("`{key}`")) {
                missing.push(format!("{driver}: `{key}`"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/guide/drivers.md lacks {missing:#?}");
}
