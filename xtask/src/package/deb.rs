//! A Debian package: deb(5), deb-control(5).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::files::Packed;
use super::{Metadata, archive};

/// Builds the package in `stage`.
pub(super) fn build(metadata: &Metadata, stage: &Path, time: u64) -> Result<PathBuf, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut files = Vec::new();
    for asset in &metadata.assets {
        files.extend(asset.files()?);
    }
    for (path, source) in [
        ("usr/share/doc/linecard/copyright", Path::new("packaging/copyright").to_owned()),
        ("usr/share/doc/linecard/changelog.Debian", stage.join("changelog")),
    ] {
        files.push(Packed { path: path.into(), mode: 0o644, bytes: read(&source)? });
    }
    for file in &mut files {
        if file.path.starts_with("usr/share/man/") || file.path.ends_with("/changelog.Debian") {
            file.path.push_str(".gz");
            file.bytes = archive::gzip(&file.bytes)?;
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let control = [
        ("control", control(metadata, &files)?),
        ("md5sums", sums(&files)),
        ("conffiles", conf_files(metadata)),
    ];
    let control: Vec<Packed> = control
        .into_iter()
        .map(|(name, text)| Packed { path: name.into(), mode: 0o644, bytes: text.into_bytes() })
        .collect();
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", archive::gzip(&archive::tar(&control, time)?)?),
        ("data.tar.gz", archive::gzip(&archive::tar(&files, time)?)?),
    ];
    let path = stage.join(format!("linecard_{}-1_{}.deb", metadata.version, architecture()?));
    std::fs::write(&path, archive::ar(&members, time)).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

fn architecture() -> Result<&'static str, String> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => {
            Err(format!("no name is known that Debian has for {other}; add it to xtask/src/package/deb.rs"))
        }
    }
}

fn control(metadata: &Metadata, files: &[Packed]) -> Result<String, String> {
    let program =
        files.iter().find(|file| file.path == "usr/bin/linecard").ok_or("there is no usr/bin/linecard")?;
    let depends = metadata.text("depends").replace("$auto", &libraries(&program.bytes));
    let kibibytes: usize = files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum();
    let mut text = String::new();
    for (name, value) in [
        ("Package", metadata.text("name")),
        ("Version", &format!("{}-1", metadata.version)),
        ("Architecture", architecture()?),
        ("Maintainer", metadata.text("maintainer")),
        ("Installed-Size", &kibibytes.to_string()),
        ("Depends", &depends),
        ("Section", metadata.text("section")),
        ("Priority", metadata.text("priority")),
        ("Description", &metadata.description),
    ] {
        let _ = writeln!(text, "{name}: {value}");
    }
    for line in metadata.text("extended-description").lines() {
        let _ = writeln!(text, " {line}");
    }
    Ok(text)
}

/// Returns the dependencies of a Rust program: a C library as new as the newest symbol that the program uses.
fn libraries(program: &[u8]) -> String {
    const MARK: &[u8] = b"GLIBC_2.";
    let versions = program.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let number = |at: usize| {
        let digits = program.get(at + MARK.len()..)?.iter().take_while(|byte| byte.is_ascii_digit());
        let digits: Vec<u8> = digits.copied().collect();
        String::from_utf8(digits).ok()?.parse::<u32>().ok()
    };
    let newest = versions.filter_map(|(at, _)| number(at)).max().unwrap_or(17);
    format!("libc6 (>= 2.{newest}), libgcc-s1 (>= 4.2)")
}

fn sums(files: &[Packed]) -> String {
    let configuration = |file: &&Packed| file.path.starts_with("etc/");
    let line = |file: &Packed| format!("{:x}  {}\n", md5::compute(&file.bytes), file.path);
    files.iter().filter(|file| !configuration(file)).map(line).collect()
}

fn conf_files(metadata: &Metadata) -> String {
    let files = metadata.deb["conf-files"].as_array().into_iter().flatten();
    files.filter_map(|file| file.as_str()).map(|file| format!("{file}\n")).collect()
}
