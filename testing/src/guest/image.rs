//! The files of a guest's system, in the format that the kernel unpacks when it starts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::parts::Parts;

/// `bad_sums` prints how many TCP segments arrived with a wrong checksum in its network namespace. The kernel
/// prints the names of its counters above their values, and appends new ones.
const BAD_SUMS: &str = r#"#!/bin/sh
exec awk '
  $1 == "Tcp:" && !at { for (i = 2; i <= NF; i++) if ($i == "InCsumErrors") at = i; next }
  $1 == "Tcp:" { print $at }
' /proc/net/snmp
"#;

pub(super) fn initramfs(parts: &Parts, folder: &Path, script: &str) -> PathBuf {
    let initramfs = folder.join("initramfs");
    std::fs::write(&initramfs, archive(parts, script)).expect("the initramfs is written");
    initramfs
}

/// Returns an initramfs: cpio, "newc" format (kernel:
/// Documentation/driver-api/early-userspace/buffer-format.rst).
fn archive(parts: &Parts, script: &str) -> Vec<u8> {
    const FOLDER: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    let mut bytes = Vec::new();
    let folders: BTreeSet<_> =
        parts.files.iter().flat_map(|(name, _)| Path::new(name).ancestors().skip(1)).collect();
    for folder in ["bin", "dev", "etc", "proc", "sys", "mods", "tmp"].map(Path::new).iter().chain(&folders) {
        entry(&mut bytes, &folder.to_string_lossy(), FOLDER, &[]);
    }
    let read = |path: &Path| std::fs::read(path).expect("a file of the guest");
    entry(&mut bytes, "bin/busybox", PROGRAM, &read(&parts.busybox));
    entry(&mut bytes, "bin/sh", 0o120_777, b"busybox");
    entry(&mut bytes, "bin/bad_sums", PROGRAM, BAD_SUMS.as_bytes());
    for module in &parts.modules {
        let name = module.file_name().expect("a name").to_string_lossy();
        entry(&mut bytes, &format!("mods/{name}"), PROGRAM, &read(module));
    }
    for (name, path) in &parts.files {
        entry(&mut bytes, name, PROGRAM, &read(path));
    }
    entry(&mut bytes, "init", PROGRAM, script.as_bytes());
    entry(&mut bytes, "TRAILER!!!", 0, &[]);
    bytes
}

fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let (inode, links) = (archive.len() as u32, 1_u32);
    let (len, name_len) = (data.len() as u32, name.len() as u32 + 1);
    archive.extend(b"070701");
    for field in [inode, mode, 0, 0, links, 0, len, 0, 0, 0, 0, name_len, 0] {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
