//! Reproducible tar, gzip and ar archives: the same files give the same bytes.

use std::collections::BTreeSet;
use std::io::Write as _;

use flate2::{Compression, GzBuilder};

use super::files::Packed;

/// Compresses at the best level, without name and time.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(|e| e.to_string())
}

/// Returns a tar file owned by root, including the folders of the files.
pub(super) fn tar(files: &[Packed], time: u64) -> Result<Vec<u8>, String> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders = BTreeSet::from([String::from("./")]);
    for file in files {
        let parts: Vec<&str> = file.path.split('/').collect();
        folders.extend((1..parts.len()).map(|end| format!("./{}/", parts[..end].join("/"))));
    }
    let mut add = |path: &str, mode: u32, bytes: &[u8], kind| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        let named = header.set_username("root").and_then(|()| header.set_groupname("root"));
        named.and_then(|()| archive.append_data(&mut header, path, bytes)).map_err(|e| format!("{path}: {e}"))
    };
    for folder in &folders {
        add(folder, 0o755, &[], tar::EntryType::Directory)?;
    }
    for file in files {
        add(&format!("./{}", file.path), file.mode, &file.bytes, tar::EntryType::Regular)?;
    }
    archive.into_inner().map_err(|e| e.to_string())
}

/// Returns an ar file in the format of deb(5).
pub(super) fn ar(members: &[(&str, Vec<u8>)], time: u64) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let head = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", bytes.len());
        archive.extend_from_slice(head.as_bytes());
        archive.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}
