//! `cargo xtask package`: builds packages of the command, and checks that they can be installed, run and
//! removed.

mod archive;
mod check;
mod deb;
mod files;
mod image;
mod rpm;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use files::Asset;

/// Options of `cargo xtask package`.
#[derive(Args)]
pub(crate) struct Options {
    /// The command, built already [default: built now, for release and without benchmarks].
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Make an RPM package besides; needs rpmbuild
    #[arg(long)]
    rpm: bool,
    /// Make a static binary and a container image of it, instead of packages
    #[arg(long = "static", conflicts_with = "rpm")]
    is_static: bool,
    /// Look at the package with lintian, and install, run and remove it on a bare root file system; with --static, load and run the image.
    #[arg(long)]
    check: bool,
}

/// Builds the package and prints its path.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let (metadata, target) = metadata()?;
    let stage = target.join("package");
    let time = commit_time()?;
    if options.is_static {
        return make_image(options, &metadata, &target, (&stage, time));
    }
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(&target)?,
    };
    files::stage(&binary, &stage, time, &metadata)?;
    let made = deb::build(&metadata, &stage, time)?;
    println!("{}", made.display());
    if options.check {
        check::check(&made, &stage)?;
    }
    let rpm = if options.rpm { rpm::build(&metadata, &stage, time)? } else { None };
    if let Some(made) = rpm {
        println!("{}", made.display());
        if options.check {
            let root = stage.join("root");
            check::bare(&root, &stage.join("linecard"))?;
            rpm::check(&made, &root)?;
        }
    }
    Ok(())
}

/// Builds the static binary and the image, and prints their paths.
fn make_image(
    options: &Options,
    metadata: &Metadata,
    target: &Path,
    (stage, time): (&Path, u64),
) -> Result<(), String> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => image::build(target)?,
    };
    let [plain, made] = image::make(&binary, metadata, stage, time)?;
    println!("{}\n{}", plain.display(), made.display());
    if options.check { image::check(&made, stage) } else { Ok(()) }
}

/// The packaging metadata in `apps/Cargo.toml`.
struct Metadata {
    version: String,
    description: String,
    deb: serde_json::Value,
    rpm: serde_json::Value,
    assets: Vec<Asset>,
}

impl Metadata {
    /// Returns a string of the Debian metadata.
    fn text(&self, name: &str) -> &str {
        self.deb[name].as_str().unwrap_or_default()
    }
}

fn metadata() -> Result<(Metadata, PathBuf), String> {
    let all = crate::shape::metadata()?;
    let target = all["target_directory"].as_str().ok_or("cargo metadata names no target folder")?.into();
    let packages = all["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let apps = packages.iter().find(|package| package["name"] == "linecard-apps");
    let apps = apps.ok_or("there is no package linecard-apps")?;
    let deb = apps["metadata"]["deb"].clone();
    let manifest = apps["manifest_path"].as_str().unwrap_or_default();
    let folder = Path::new(manifest).parent().unwrap_or(Path::new(".")).to_owned();
    let metadata = Metadata {
        version: apps["version"].as_str().unwrap_or_default().into(),
        description: apps["description"].as_str().unwrap_or_default().into(),
        assets: files::assets(&deb["assets"], &folder)?,
        deb,
        rpm: apps["metadata"]["generate-rpm"].clone(),
    };
    Ok((metadata, target))
}

fn build(target: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "-p", "linecard-apps", "--no-default-features"]);
    succeed(&mut command)?;
    Ok(target.join("release/linecard"))
}

/// Returns the time of the packaged commit, in seconds since 1970, so that the same sources give the same
/// package.
fn commit_time() -> Result<u64, String> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return text.parse().map_err(|_| format!("SOURCE_DATE_EPOCH={text} is no number of seconds"));
    }
    let text = output(Command::new("git").args(["log", "-1", "--format=%ct"]))?;
    text.trim().parse().map_err(|_| "git does not say when the last commit was made".to_owned())
}

/// Runs a command that must succeed.
fn succeed(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let status = command.status().map_err(|e| format!("{shown} could not be started: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown} failed ({status})")) }
}

/// Returns the output of a command.
fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|e| format!("{shown} could not be started: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{shown} failed ({}): {text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
