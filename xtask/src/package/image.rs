//! A static binary, and a container image with only that: an OCI image layout (image-spec 1.0) in a tar file,
//! built without a registry or a container engine.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::files::Packed;
use super::{Metadata, archive, output, succeed};

/// The name of the image after it is loaded.
const NAME: &str = "localhost/linecard:latest";
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds the static binary, as a release without benchmarks.
pub(super) fn build(target: &Path) -> Result<PathBuf, String> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let there = installed.is_ok_and(|list| String::from_utf8_lossy(&list.stdout).contains(TARGET));
    if !there {
        return Err(format!(
            "there is no standard library for static binaries; `rustup target add {TARGET}`"
        ));
    }
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "-p", "linecard-apps", "--no-default-features", "--target", TARGET]);
    succeed(&mut command)?;
    Ok(target.join(TARGET).join("release/linecard"))
}

/// Strips the binary, and builds the image from it.
pub(super) fn make(
    binary: &Path,
    metadata: &Metadata,
    stage: &Path,
    time: u64,
) -> Result<[PathBuf; 2], String> {
    std::fs::create_dir_all(stage).map_err(|e| format!("{}: {e}", stage.display()))?;
    let plain = stage.join("linecard-static");
    succeed(Command::new("strip").args(["--strip-all", "-o"]).args([&plain, binary]))?;
    let program = std::fs::read(&plain).map_err(|e| format!("{}: {e}", plain.display()))?;
    if !is_static(&program) {
        return Err(format!(
            "{} needs a dynamic linker, which an image of it alone has not",
            binary.display()
        ));
    }
    let image = stage.join("linecard-image.tar");
    let bytes = archive::tar(&layout(&program, metadata, time)?, time)?;
    std::fs::write(&image, bytes).map_err(|e| format!("{}: {e}", image.display()))?;
    Ok([plain, image])
}

/// Whether an ELF file has no interpreter (elf(5), PT_INTERP).
fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u64 = 3;
    let number = |at: usize, len: usize| {
        let bytes = program.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let headers = || Some((number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?));
    let Some((start, size, count)) = headers() else { return false };
    let kinds = (0..count).map(|entry| number(usize::try_from(start + entry * size).ok()?, 4));
    let mut kinds = kinds.peekable();
    program.starts_with(b"\x7fELF")
        && kinds.peek().is_some()
        && kinds.all(|kind| kind.is_some_and(|kind| kind != INTERPRETER))
}

/// Returns the files of the layout.
fn layout(program: &[u8], metadata: &Metadata, time: u64) -> Result<Vec<Packed>, String> {
    let file = |path: &str, mode, bytes: &[u8]| Packed { path: path.into(), mode, bytes: bytes.to_vec() };
    // Folders that programs expect, each with an empty file.
    let inside = [
        file("usr/bin/linecard", 0o755, program),
        file("tmp/.keep", 0o644, b""),
        file("run/.keep", 0o644, b""),
        file("etc/passwd", 0o644, b"root:x:0:0:root:/:/usr/bin/linecard\n"),
    ];
    let layer = archive::tar(&inside, time)?;
    let packed = archive::gzip(&layer)?;
    let created =
        output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{time}")]))?;
    let config = json!({
        "created": created.trim(),
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/linecard"],
            "Labels": {
                "org.opencontainers.image.title": metadata.text("name"),
                "org.opencontainers.image.version": metadata.version,
                "org.opencontainers.image.description": metadata.description,
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let described = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", &config),
        "layers": [described("layer.v1.tar+gzip", &packed)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = described("manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": NAME });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let blob = |bytes: &[u8]| {
        file(&format!("blobs/sha256/{}", digest(bytes).trim_start_matches("sha256:")), 0o644, bytes)
    };
    Ok(vec![
        file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
        file("index.json", 0o644, index.as_bytes()),
        blob(&config),
        blob(&manifest),
        blob(&packed),
    ])
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

/// Settings with which podman runs on any machine, including CI.
const SETTINGS: &str =
    "[containers]\ndefault_ulimits = []\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

/// Checks that podman loads the image, and that its command forwards packets without privileges.
pub(super) fn check(image: &Path, stage: &Path) -> Result<(), String> {
    let there = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !there("podman") || !Path::new("/usr/sbin/runc").exists() {
        linecard_testing::skip(
            "package: image",
            "no podman with runc on this machine; install podman and runc",
        );
        return Ok(());
    }
    let store = stage.join("podman");
    std::fs::create_dir_all(&store).map_err(|e| format!("{}: {e}", store.display()))?;
    let settings = store.join("containers.conf");
    std::fs::write(&settings, SETTINGS).map_err(|e| format!("{}: {e}", settings.display()))?;
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", &settings).arg("--root").arg(store.join("root"));
        command.arg("--runroot").arg(store.join("run")).args(["--storage-driver", "vfs"]);
        command.args(["--runtime", "/usr/sbin/runc"]).args(arguments);
        command
    };
    let tried = load_and_run(&podman, image);
    // No other image uses these layers, and they take space.
    let _ = podman(&["rmi", "--all", "--force"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = std::fs::remove_dir_all(&store);
    tried?;
    println!("the image was loaded and run");
    Ok(())
}

fn load_and_run(podman: &dyn Fn(&[&str]) -> Command, image: &Path) -> Result<(), String> {
    output(podman(&["load", "--quiet", "-i"]).arg(image))?;
    let limits = ["run", "--rm", "--network", "none", "--cap-drop", "ALL", "--user", "1000"];
    let limits =
        [&limits[..], &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", NAME]].concat();
    let version = output(&mut podman(&[&limits[..], &["--version"]].concat()))?;
    if !version.starts_with("linecard ") {
        return Err(format!("the command of the image says {version:?} for its version"));
    }
    let said = output(&mut podman(&[&limits[..], &["demo", "--seconds", "1"]].concat()))?;
    if !said.contains("0 lost, 0 duplicated, 0 reordered, 0 corrupted") {
        return Err(format!("packets were not moved in a container of the image: {said}"));
    }
    // One round of a loop: the first burst returns.
    let testpmd = ["testpmd", "--no-huge", "--in-memory", "-m", "64", "--vdev", "net_ring0", "--"];
    let options = ["--port-topology=loop", "--total-num-mbufs=4096", "-i"];
    let mut command =
        podman(&[&limits[..limits.len() - 1], &["--interactive", NAME], &testpmd, &options].concat());
    let said = answers(&mut command, "start tx_first\nstop\nquit\n")?;
    if said.contains("Bye...") && !said.contains("TX-packets: 0 ") {
        return Ok(());
    }
    Err(format!("testpmd did not forward in a container of the image: {said}"))
}

/// Runs a command with these lines as its input; returns its output.
fn answers(command: &mut Command, lines: &str) -> Result<String, String> {
    let shown = format!("{command:?}");
    let failed = |e: std::io::Error| format!("{shown}: {e}");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(failed)?;
    // Dropped here, so that the command sees the end of its input.
    child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(lines.as_bytes())).map_err(failed)?;
    let done = child.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(said);
    }
    Err(format!("{shown} failed ({}): {said}{}", done.status, String::from_utf8_lossy(&done.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_linker_is_told_from_one_that_does_not() {
        let own = std::fs::read(std::env::current_exe().expect("a name")).expect("this program");
        assert_eq!(is_static(&own), cfg!(target_feature = "crt-static"));
        // The same without its interpreter.
        let mut bare = own.clone();
        let (start, size, count) = (0x20, 0x36, 0x38);
        let number = |at: usize, len: usize| {
            own[at..at + len].iter().rev().fold(0_usize, |sum, b| sum << 8 | usize::from(*b))
        };
        for entry in 0..number(count, 2) {
            let at = number(start, 8) + entry * number(size, 2);
            if bare[at] == 3 {
                bare[at] = 4;
            }
        }
        assert!(is_static(&bare));
        for broken in [&b""[..], b"\x7fELF", &own[..0x39], b"#!/bin/sh\n"] {
            assert!(!is_static(broken));
        }
    }

    #[test]
    fn every_blob_has_the_name_of_its_bytes_and_is_named_by_another() {
        let metadata = Metadata {
            version: "1.2.3".into(),
            description: "d".into(),
            deb: json!({ "name": "linecard" }),
            rpm: json!({}),
            assets: Vec::new(),
        };
        let files = layout(b"program", &metadata, 0).expect("a layout");
        let text = |path: &str| {
            let file = files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path}"));
            assert!(
                !path.starts_with("blobs/")
                    || path.ends_with(digest(&file.bytes).trim_start_matches("sha256:"))
            );
            serde_json::from_slice::<serde_json::Value>(&file.bytes).expect("JSON")
        };
        let blob = |value: &serde_json::Value| {
            format!("blobs/{}", value["digest"].as_str().expect("a digest").replace(':', "/"))
        };
        let index = text("index.json");
        let manifest = text(&blob(&index["manifests"][0]));
        let config = text(&blob(&manifest["config"]));
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.2.3");
        let layer = files.iter().find(|file| file.path == blob(&manifest["layers"][0])).expect("a layer");
        assert_eq!(manifest["layers"][0]["size"], layer.bytes.len());
        assert_eq!(
            layout(b"program", &metadata, 0).expect("again").last().map(|file| file.bytes.clone()),
            files.last().map(|file| file.bytes.clone())
        );
    }
}
