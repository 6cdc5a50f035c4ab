//! The allowed dependencies between crates, compared with `cargo metadata`.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// The allowed dependencies of the vhost-user backend; neither end depends on the other.
const BACKEND: &[&str] =
    &["linecard-pmd", "linecard-virtio", "linecard-mempool", "linecard-eal", "linecard-wire", "linecard-net"];
/// Those of the frontend, which uses kernel devices too.
const FRONTEND: &[&str] = &[
    "linecard-pmd",
    "linecard-netdev",
    "linecard-virtio",
    "linecard-mempool",
    "linecard-eal",
    "linecard-wire",
    "linecard-net",
];

/// Each crate with all other crates of the workspace that it may use. ARCHITECTURE.md shows the same table.
pub(super) const ALLOWED: &[(&str, &[&str])] = &[
    ("linecard-ring", &[]),
    ("linecard-net", &[]),
    ("linecard-wire", &[]),
    ("linecard-eal", &[]),
    ("linecard-mempool", &["linecard-eal", "linecard-net"]),
    ("linecard-virtio", &["linecard-eal", "linecard-net"]),
    ("linecard-testing", &[]),
    ("linecard-pmd", &["linecard-mempool", "linecard-eal", "linecard-net"]),
    ("linecard-netdev", &["linecard-pmd", "linecard-net"]),
    (
        "linecard-capture",
        &["linecard-pmd", "linecard-mempool", "linecard-ring", "linecard-eal", "linecard-net"],
    ),
    ("linecard-telemetry", &["linecard-pmd", "linecard-mempool", "linecard-eal"]),
    // No driver depends on another driver. A driver that wraps a port (a bad line, a file) uses the driver
    // interface.
    ("linecard-net-null", &["linecard-pmd", "linecard-mempool"]),
    ("linecard-net-impair", &["linecard-pmd", "linecard-mempool", "linecard-eal"]),
    ("linecard-net-ring", &["linecard-pmd", "linecard-mempool", "linecard-ring", "linecard-eal"]),
    ("linecard-net-pcap", &["linecard-pmd", "linecard-capture", "linecard-mempool"]),
    ("linecard-net-tap", &["linecard-pmd", "linecard-netdev", "linecard-mempool", "linecard-net"]),
    ("linecard-net-vxlan", &["linecard-pmd", "linecard-netdev", "linecard-mempool", "linecard-eal"]),
    (
        "linecard-net-af-packet",
        &["linecard-pmd", "linecard-netdev", "linecard-mempool", "linecard-eal", "linecard-net"],
    ),
    ("linecard-net-af-xdp", &["linecard-pmd", "linecard-netdev", "linecard-mempool", "linecard-eal"]),
    // Not a separate driver but another transport of the backend.
    (
        "linecard-net-vduse",
        &[
            "linecard-vhost-user",
            "linecard-wire",
            "linecard-virtio",
            "linecard-pmd",
            "linecard-mempool",
            "linecard-eal",
        ],
    ),
    ("linecard-virtio-user", FRONTEND),
    ("linecard-vhost-user", BACKEND),
    // For tests only: other crates may use it only in `[dev-dependencies]`.
    (
        "linecard-lab",
        &[
            "linecard-net-af-xdp",
            "linecard-netdev",
            "linecard-pmd",
            "linecard-mempool",
            "linecard-eal",
            "linecard-testing",
        ],
    ),
    (
        "linecard",
        &[
            "linecard-capture",
            "linecard-eal",
            "linecard-mempool",
            "linecard-net",
            "linecard-net-af-packet",
            "linecard-net-af-xdp",
            "linecard-net-impair",
            "linecard-net-null",
            "linecard-net-pcap",
            "linecard-net-ring",
            "linecard-net-tap",
            "linecard-net-vduse",
            "linecard-net-vxlan",
            "linecard-netdev",
            "linecard-pmd",
            "linecard-ring",
            "linecard-telemetry",
            "linecard-vhost-user",
            "linecard-virtio",
            "linecard-virtio-user",
        ],
    ),
    (
        "linecard-switch",
        &[
            "linecard-capture",
            "linecard-telemetry",
            "linecard-pmd",
            "linecard-mempool",
            "linecard-eal",
            "linecard-net",
        ],
    ),
    ("linecard-cni", &["linecard-switch", "linecard-netdev"]),
    ("linecard-smoltcp", &["linecard-pmd", "linecard-mempool", "linecard-net"]),
    ("linecard-tokio", &["linecard-pmd", "linecard-mempool"]),
    ("linecard-apps-common", &["linecard"]),
    ("linecard-bench", &["linecard", "linecard-switch", "linecard-apps-common"]),
    (
        "linecard-apps",
        &["linecard", "linecard-switch", "linecard-cni", "linecard-apps-common", "linecard-bench"],
    ),
    // The bodies of the fuzz targets; no product crate uses it.
    (
        "linecard-fuzz",
        &[
            "linecard-capture",
            "linecard-cni",
            "linecard-eal",
            "linecard-mempool",
            "linecard-net",
            "linecard-net-null",
            "linecard-pmd",
            "linecard-ring",
            "linecard-switch",
            "linecard-vhost-user",
            "linecard-virtio",
            "linecard-wire",
        ],
    ),
    ("xtask", &["linecard-testing"]),
];

/// Returns one sentence for each dependency that is not in the table, and for each crate that is missing from
/// it.
pub(super) fn check() -> Result<Vec<String>, String> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    Ok(packages.iter().flat_map(|package| broken_arrows(package, &ours)).collect())
}

pub(crate) fn metadata() -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .map_err(|e| format!("cargo metadata could not be started: {e}"))?;
    serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata is not JSON: {e}"))
}

fn broken_arrows(package: &Value, ours: &BTreeSet<&str>) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = ALLOWED.iter().find(|(room, _)| *room == name) else {
        return vec![format!(
            "room {name} is not in the table of arrows (xtask/src/shape/arrows.rs); add it"
        )];
    };
    let dependencies = package["dependencies"].as_array().cloned().unwrap_or_default();
    dependencies
        .iter()
        // The tests of a crate may use a peer from the other end.
        .filter(|d| d["kind"].as_str() != Some("dev"))
        .filter_map(|d| d["name"].as_str())
        .filter(|d| ours.contains(d) && !allowed.contains(d))
        .map(|d| format!("{name} → {d} is not an allowed arrow; allowed: {}", list(allowed)))
        .collect()
}

fn list(rooms: &[&str]) -> String {
    if rooms.is_empty() { "none".into() } else { rooms.join(", ") }
}
