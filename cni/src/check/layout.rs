//! The layout of results.

use serde_json::Value;

use super::{Outcome, must};
use crate::address::{Cidr, Mac};
use crate::exec::Answer;
use crate::version::Version;

/// The result of a successful ADD.
pub(super) fn result(answer: &Answer, version: Version) -> Result<Value, (super::Verdict, String)> {
    must(answer.success, super::said(answer))?;
    let value: Value = serde_json::from_slice(&answer.stdout)
        .map_err(|error| (super::Verdict::Failure, format!("its result is not JSON: {error}")))?;
    must(value.is_object(), "its result is no object")?;
    must(
        value["cniVersion"] == version.as_str(),
        format!("its result has cniVersion {}, asked in {}", value["cniVersion"], version.as_str()),
    )?;
    Ok(value)
}

/// Checks everything in a result that does not depend on the purpose of the plugin.
pub(super) fn check(result: &Value, version: Version) -> Outcome {
    let interfaces = list(result, "interfaces")?;
    for entry in interfaces {
        must(entry["name"].is_string(), format!("an interface has no name: {entry}"))?;
        if let Some(mac) = entry.get("mac").and_then(Value::as_str).filter(|mac| !mac.is_empty()) {
            must(mac.parse::<Mac>().is_ok(), format!("'{mac}' is not an interface's address"))?;
        }
        if let Some(path) = entry.get("socketPath").and_then(Value::as_str).filter(|path| !path.is_empty()) {
            must(path.starts_with('/'), format!("the socketPath '{path}' is not absolute"))?;
        }
    }
    for entry in list(result, "ips")? {
        ip(entry, interfaces.len(), version)?;
    }
    for entry in list(result, "routes")? {
        let dst = entry["dst"].as_str().unwrap_or_default();
        must(
            dst.contains('/') && dst.parse::<Cidr>().is_ok(),
            format!("a route goes to '{dst}', not to a network"),
        )?;
    }
    must(matches!(result.get("dns"), None | Some(Value::Object(_) | Value::Null)), "'dns' is no object")
}

fn list<'a>(result: &'a Value, key: &str) -> Result<&'a [Value], (super::Verdict, String)> {
    match result.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err((super::Verdict::Failure, format!("'{key}' is no list: {other}"))),
    }
}

fn ip(entry: &Value, interfaces: usize, version: Version) -> Outcome {
    let text = entry["address"].as_str().unwrap_or_default();
    let cidr: Option<Cidr> = text.parse().ok().filter(|_| text.contains('/'));
    must(cidr.is_some(), format!("the address '{text}' is not of the form 10.1.0.5/24"))?;
    if let Some(index) = entry.get("interface").filter(|index| !index.is_null()) {
        let known = index.as_u64().is_some_and(|index| index < interfaces as u64);
        must(known, format!("the address {text} belongs to interface {index} of {interfaces}"))?;
    }
    if version.ips_say_version() {
        let want = if cidr.is_some_and(|cidr| cidr.address.is_ipv4()) { "4" } else { "6" };
        must(
            entry["version"] == want,
            format!("the address {text} has version {}, not {want}", entry["version"]),
        )?;
    }
    Ok(())
}
