//! The files of a package: the generated ones, and the list in `apps/Cargo.toml`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Metadata, output, succeed};

/// An entry of the list: a file, or all files that match `*`; their destination; their mode.
pub(super) struct Asset {
    source: PathBuf,
    to: String,
    mode: u32,
}

/// Parses the list; paths are relative to `folder`.
pub(super) fn assets(list: &Value, folder: &Path) -> Result<Vec<Asset>, String> {
    let lines = list.as_array().ok_or("apps/Cargo.toml has no [package.metadata.deb] with assets")?;
    let read = |line: &Value| {
        let word = |at: usize| line[at].as_str().ok_or_else(|| format!("{line} is no [source, to, mode]"));
        let mode = u32::from_str_radix(word(2)?, 8).map_err(|_| format!("{line}: the mode is not octal"))?;
        Ok(Asset::new(folder.join(word(0)?), word(1)?, mode))
    };
    lines.iter().map(read).collect()
}

/// A file of the package.
pub(super) struct Packed {
    /// The path from the root, without a leading slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
}

impl Asset {
    /// Creates an entry: the files that match `source` go to `to`.
    pub(super) fn new(source: PathBuf, to: &str, mode: u32) -> Self {
        Self { source, to: to.to_owned(), mode }
    }

    /// Returns the files of the entry.
    pub(super) fn files(&self) -> Result<Vec<Packed>, String> {
        let mut sources = vec![self.source.clone()];
        if let Some((start, end)) = self.source.to_string_lossy().split_once('*') {
            let folder = Path::new(start);
            let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            sources = entries.flatten().map(|entry| entry.path()).collect();
            sources.retain(|path| path.to_string_lossy().ends_with(end));
            sources.sort();
        }
        let one = |source: &PathBuf| {
            let bytes = std::fs::read(source).map_err(|e| format!("{}: {e}", source.display()))?;
            let name =
                source.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let path = if self.to.ends_with('/') { format!("{}{name}", self.to) } else { self.to.clone() };
            Ok(Packed { path, mode: self.mode, bytes })
        };
        sources.iter().map(one).collect()
    }
}

/// Generates the files that are not in the repository: the stripped command, manual pages, completions, a
/// changelog.
pub(super) fn stage(binary: &Path, stage: &Path, time: u64, metadata: &Metadata) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(stage);
    let completions = stage.join("completions");
    std::fs::create_dir_all(&completions).map_err(|e| format!("{}: {e}", stage.display()))?;
    let (plain, debug) = (stage.join("linecard"), stage.join("linecard.debug"));
    // The debug information is kept next to the package.
    succeed(Command::new("objcopy").arg("--only-keep-debug").args([binary, &debug]))?;
    succeed(Command::new("strip").args(["--strip-all", "-o"]).args([&plain, binary]))?;
    documents(stage)?;
    let man = stage.join("man");
    succeed(Command::new(&plain).args(["man", "--folder"]).arg(&man))?;
    for (shell, name) in [("bash", "linecard.bash"), ("zsh", "_linecard"), ("fish", "linecard.fish")] {
        let text = output(Command::new(&plain).args(["completions", shell]))?;
        std::fs::write(completions.join(name), text).map_err(|e| format!("{name}: {e}"))?;
    }
    let date = output(Command::new("date").args(["-u", "-R", "-d", &format!("@{time}")]))?;
    let changelog = format!(
        "linecard ({}-1) unstable; urgency=medium\n\n  * CHANGELOG.md in the sources says what changed.\n\n -- {}  {date}",
        metadata.version,
        metadata.text("maintainer")
    );
    std::fs::write(stage.join("changelog"), changelog).map_err(|e| format!("changelog: {e}"))
}

/// Writes the documentation for the package: mdBook's includes are resolved, and links in pages of the root
/// lead to the packaged guide.
fn documents(stage: &Path) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    };
    let (from, to) = (root.join("docs/guide"), stage.join("guide"));
    std::fs::create_dir_all(&to).map_err(|e| format!("{}: {e}", to.display()))?;
    for page in Asset::new(from.join("*.md"), "/", 0o644).files()? {
        let mut text = String::from_utf8_lossy(&page.bytes).into_owned();
        while let Some((before, rest)) = text.split_once("{{#include ") {
            let (path, after) = rest.split_once("}}").ok_or("a page includes without }}")?;
            // Its links are relative to the repository's root; the package has another layout.
            let included = read(&from.join(path.trim()))?.replace("](docs/guide/", "](");
            text = format!("{before}{included}{after}");
        }
        write(&to.join(page.path.trim_start_matches('/')), text)?;
    }
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASING.md"] {
        write(&stage.join(name), read(&root.join(name))?.replace("](docs/guide/", "](guide/"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Returns the target of a link in a packed page, as a path in the package.
    fn target(page: &str, link: &str) -> PathBuf {
        let mut path = Path::new(page).parent().expect("a folder").to_owned();
        for part in Path::new(link).components() {
            match part {
                std::path::Component::ParentDir => drop(path.pop()),
                part => path.push(part),
            }
        }
        path
    }

    /// Pages are complete, and their links lead to files of the package.
    #[test]
    fn packed_pages_are_whole() {
        let (metadata, target_folder) = crate::package::metadata().expect("a list");
        documents(&target_folder.join("package")).expect("documents");
        let documents = metadata.assets.iter().filter(|asset| asset.to.starts_with("usr/share/doc/"));
        let files = documents.flat_map(|asset| asset.files().expect("files"));
        let packed: BTreeMap<PathBuf, Vec<u8>> =
            files.map(|file| (PathBuf::from(file.path), file.bytes)).collect();
        let mut lacking = Vec::new();
        for (page, bytes) in packed.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "md"))
        {
            let (page, text) = (page.to_string_lossy(), String::from_utf8_lossy(bytes));
            let prose: String = text.split("```").step_by(2).collect();
            assert!(!prose.contains("{{#include"), "{page} includes what is not packed");
            for rest in prose.split("](").skip(1) {
                let link = rest.split([')', ' ', '\n', '#']).next().unwrap_or_default();
                let path = target(&page, link);
                let there = packed.keys().any(|known| known.starts_with(&path));
                if !(link.is_empty() || link.contains("://") || there) {
                    lacking.push(format!("{page}: {link}"));
                }
            }
        }
        assert!(packed.len() > 30, "{packed:?}");
        assert!(lacking.is_empty(), "{lacking:#?}");
    }
}
