//! Checks that each published crate has its own README, whose program is compiled with its documentation.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Returns what is wrong with the README of one package, if anything.
fn fault(package: &Value) -> Option<String> {
    let name = package["name"].as_str()?;
    let manifest = Path::new(package["manifest_path"].as_str()?);
    let folder = manifest.parent()?;
    if package["readme"] != "README.md" {
        return Some(format!("{name}: write readme = \"README.md\" in {}", manifest.display()));
    }
    let Ok(text) = fs::read_to_string(folder.join("README.md")) else {
        return Some(format!("{name}: there is no README.md in {}", folder.display()));
    };
    // The README of the repository begins with the project's name.
    let title = if name == "linecard" { "# Linecard".to_owned() } else { format!("# {name}") };
    if text.lines().next() != Some(&title) {
        return Some(format!("{name}: the first line of its README is not '{title}'"));
    }
    if !text.contains("```rust") {
        return Some(format!("{name}: its README has no program"));
    }
    let included = "#[cfg(doctest)]\n#[doc = include_str!(\"../README.md\")]";
    let compiled =
        fs::read_to_string(folder.join("src/lib.rs")).is_ok_and(|source| source.contains(included));
    (!compiled).then(|| format!("{name}: src/lib.rs does not compile the README's program: {included}"))
}

#[test]
fn each_published_crate_has_a_readme_of_its_own() {
    let metadata = crate::shape::metadata().expect("cargo metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    // `publish = false` is an empty list of registries.
    let published = || packages.iter().filter(|package| package["publish"] != serde_json::json!([]));
    let faults: Vec<_> = published().filter_map(fault).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(published().count() > 20, "{} packages are published", published().count());
}

#[test]
fn a_readme_that_is_missing_or_another_crates_is_found() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../eal/Cargo.toml");
    let package = |name: &str, readme: Value| serde_json::json!({ "name": name, "readme": readme, "manifest_path": manifest.to_str() });
    assert_eq!(fault(&package("linecard-eal", "README.md".into())), None);
    for (name, readme, part) in [
        ("linecard-eal", Value::Null, "write readme"),
        ("linecard-ring", "README.md".into(), "'# linecard-ring'"),
    ] {
        assert!(fault(&package(name, readme)).is_some_and(|said| said.contains(part)), "{part}");
    }
}
