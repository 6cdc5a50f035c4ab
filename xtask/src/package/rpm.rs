//! Builds an RPM package with rpmbuild from the list for `cargo generate-rpm`, and checks that it can be
//! installed.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::check::{as_root, inside, tree};
use super::files::Asset;
use super::{Metadata, output, succeed};

/// Builds the package in `stage`; `None` without rpmbuild.
pub(super) fn build(metadata: &Metadata, stage: &Path, time: u64) -> Result<Option<PathBuf>, String> {
    if Command::new("rpmbuild").arg("--version").stdout(Stdio::null()).status().is_err() {
        linecard_testing::skip("package: rpm", "no program 'rpmbuild' on this machine; install rpm");
        return Ok(None);
    }
    let (top, files) = (stage.join("rpmbuild"), stage.join("rpmfiles"));
    for folder in [&top, &files] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let listed = listed(&metadata.rpm, &files)?;
    let specification = top.join("linecard.spec");
    fs::write(&specification, spec(metadata, &files, &listed)).map_err(|e| format!("linecard.spec: {e}"))?;
    let mut command = Command::new("rpmbuild");
    command.args(["-bb", "--quiet", "--define"]).arg(format!("_topdir {}", top.display()));
    // The binary is already stripped, and the same sources must give the same package.
    for macros in
        ["debug_package %{nil}", "__os_install_post %{nil}", "_build_id_links none", "_buildhost localhost"]
    {
        command.args(["--define", macros]);
    }
    command.args([
        "--define",
        "use_source_date_epoch_as_buildtime 1",
        "--define",
        "clamp_mtime_to_source_date_epoch 1",
    ]);
    succeed(command.arg(&specification).env("SOURCE_DATE_EPOCH", time.to_string()))?;
    let made = tree(&top.join("RPMS"))?.pop().ok_or("rpmbuild has made no package")?;
    let to = stage.join(made.file_name().unwrap_or_default());
    fs::rename(&made, &to).map_err(|e| format!("{}: {e}", to.display()))?;
    Ok(Some(to))
}

/// Copies the files below `root`; returns their lines of `%files`.
fn listed(metadata: &Value, root: &Path) -> Result<String, String> {
    let mut text = String::new();
    let assets =
        metadata["assets"].as_array().ok_or("apps/Cargo.toml has no [package.metadata.generate-rpm]")?;
    for asset in assets {
        let word = |name: &str| asset[name].as_str().ok_or_else(|| format!("{asset} has no {name}"));
        let (dest, mode) = (word("dest")?, word("mode")?);
        let number = u32::from_str_radix(mode, 8).map_err(|_| format!("{asset}: the mode is not octal"))?;
        let kind = match (asset["config"].as_bool(), asset["doc"].as_bool()) {
            (Some(true), _) => "%config(noreplace) ",
            (_, Some(true)) => "%doc ",
            _ => "",
        };
        for file in Asset::new(word("source")?.into(), dest.trim_start_matches('/'), number).files()? {
            let to = root.join(&file.path);
            let made =
                fs::create_dir_all(to.parent().unwrap_or(root)).and_then(|()| fs::write(&to, &file.bytes));
            let made = made.and_then(|()| fs::set_permissions(&to, fs::Permissions::from_mode(file.mode)));
            made.map_err(|e| format!("{}: {e}", to.display()))?;
            let _ = writeln!(text, "%attr({mode}, root, root) {kind}\"/{}\"", file.path);
        }
    }
    Ok(text)
}

fn spec(metadata: &Metadata, files: &Path, listed: &str) -> String {
    let word = |name: &str| metadata.rpm[name].as_str().unwrap_or_default();
    format!(
        "Name: {}\nVersion: {}\nRelease: 1\nSummary: {}\nLicense: {}\n\n%description\n{}\n\n%install\nmkdir -p %{{buildroot}}\n\
         cp -a {}/. %{{buildroot}}/\n\n%files\n{listed}",
        word("name"),
        metadata.version,
        word("summary"),
        word("license"),
        metadata.text("extended-description"),
        files.display()
    )
}

/// Checks that the package can be installed on the bare root file system, run, and erased.
pub(super) fn check(package: &Path, root: &Path) -> Result<(), String> {
    let names = output(Command::new("rpm").args(["-qpl"]).arg(package))?;
    for name in ["/usr/bin/linecard", "/usr/share/man/man1/linecard-testpmd.1", "/etc/linecard/switch.toml"] {
        if !names.lines().any(|line| line == name) {
            return Err(format!("{} does not hold {name}: {names}", package.display()));
        }
    }
    let before = tree(root)?;
    // The libraries are there without packages; Debian's rpm needs the option to install at all.
    let rpm = || {
        let mut command = as_root("rpm");
        command.args(["--root"]).arg(root).args(["--force-debian", "--nodeps", "--noscripts"]);
        command
    };
    succeed(rpm().arg("-i").arg(package))?;
    let version = output(&mut inside(root, &["--version"]))?;
    if !version.starts_with("linecard ") {
        return Err(format!("the installed command says {version:?} for its version"));
    }
    succeed(rpm().args(["-e", "linecard"]))?;
    let records =
        |path: &PathBuf| path.starts_with(root.join("var/lib/rpm")) || path.starts_with(root.join("root"));
    let left: Vec<PathBuf> =
        tree(root)?.into_iter().filter(|path| !before.contains(path) && !records(path)).collect();
    if !left.is_empty() {
        return Err(format!("the erased package left files behind: {left:?}"));
    }
    println!("the RPM was installed, run and erased");
    Ok(())
}
