//! Conversion of DPDK's `--log-level` to `tracing`.

use crate::error::{Error, Result};

/// DPDK's log types, and the targets of the corresponding messages here.
const TYPES: &[(&str, &str)] = &[
    ("lib.eal", "linecard_eal"),
    ("lib.ring", "linecard_ring"),
    ("lib.mempool", "linecard_mempool"),
    ("lib.mbuf", "linecard_mempool"),
    ("lib.ethdev", "linecard_pmd"),
    ("lib.vhost", "linecard_vhost_user"),
    ("lib.vhost.config", "linecard_vhost_user"),
    ("lib.vhost.data", "linecard_vhost_user"),
    ("pmd.net.virtio", "linecard_virtio_user"),
    ("pmd.net.virtio.init", "linecard_virtio_user"),
    ("pmd.net.virtio.driver", "linecard_virtio_user"),
    ("pmd.net.vhost", "linecard_vhost_user"),
    ("pmd.net.null", "linecard_pmd"),
    ("pmd.net.ring", "linecard_pmd"),
    ("pmd.net.pcap", "linecard_pmd"),
    ("pmd.net.tap", "linecard_pmd"),
    ("pmd.net.af_packet", "linecard_pmd"),
    ("user1", "linecard"),
    ("testpmd", "linecard"),
];

/// DPDK's levels from 1 on, and the corresponding levels of `tracing`.
const LEVELS: [(&str, &str); 8] = [
    ("emergency", "error"),
    ("alert", "error"),
    ("critical", "error"),
    ("error", "error"),
    ("warning", "warn"),
    ("notice", "info"),
    ("info", "info"),
    ("debug", "debug"),
];

/// Converts values of `--log-level` to directives for `tracing_subscriber::EnvFilter`; later ones override
/// earlier ones. A value is a level, `glob:level` or `regex,level`. A level is a number up to 8 (0 is off) or
/// a name, which may be shortened. As in DPDK, types that do not exist here are no error.
///
/// ```
/// let directives = linecard_eal::log::directives(["5", "pmd.net.virtio:8", "lib.vhost.*,debug"]).unwrap();
/// assert_eq!(directives, "warn,linecard_virtio_user=debug,linecard_vhost_user=debug");
/// ```
///
/// # Errors
/// [`Error::OptionValue`] for a level that does not exist.
pub fn directives<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut directives: Vec<String> = Vec::new();
    for value in values {
        let split =
            value.rfind([':', ',']).map(|at| (&value[..at], &value[at + 1..], value[at..].starts_with(',')));
        let Some((pattern, level, regex)) = split else {
            directives.push(parse_level(value, value)?.into());
            continue;
        };
        let level = parse_level(level, value)?;
        for target in targets(pattern, regex) {
            directives.push(format!("{target}={level}"));
        }
    }
    Ok(directives.join(","))
}

fn parse_level(text: &str, value: &str) -> Result<&'static str> {
    let level = match text.parse::<usize>() {
        Ok(0) => Some("off"),
        Ok(number) => LEVELS.get(number - 1).map(|(_, level)| *level),
        Err(_) if text.is_empty() => None,
        Err(_) => LEVELS.iter().find(|(name, _)| name.starts_with(text)).map(|(_, level)| *level),
    };
    level.ok_or_else(|| Error::OptionValue {
        option: "--log-level",
        value: value.into(),
        expected: "0 to 8, emergency, alert, critical, error, warning, notice, info or debug, after an optional pattern:",
    })
}

/// The targets whose DPDK types match, each once, in the order of the table.
fn targets(pattern: &str, regex: bool) -> Vec<&'static str> {
    // Type names have only letters and dots, so of regular expressions only "." and ".*" are supported.
    let glob = if regex {
        pattern.trim_matches(['^', '$']).replace("\\.", "\0").replace(".*", "*")
    } else {
        pattern.into()
    };
    let glob = if regex { glob.replace('.', "?").replace('\0', ".") } else { glob };
    let mut targets: Vec<&str> = Vec::new();
    for (name, target) in TYPES {
        if matches(glob.as_bytes(), name.as_bytes()) && !targets.contains(target) {
            targets.push(target);
        }
    }
    targets
}

/// Whether a glob of `*` and `?` matches a whole name.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    match (glob, name) {
        ([b'*', glob @ ..], _) => (0..=name.len()).any(|skip| matches(glob, &name[skip..])),
        ([b'?', glob @ ..], [_, name @ ..]) => matches(glob, name),
        ([a, glob @ ..], [b, name @ ..]) => a == b && matches(glob, name),
        (glob, name) => glob.is_empty() && name.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_dpdk() {
        for (value, wanted) in [
            ("8", "debug"),
            ("debug", "debug"),
            ("7", "info"),
            ("notice", "info"),
            ("w", "warn"),
            ("crit", "error"),
            ("0", "off"),
            ("lib.eal:info", "linecard_eal=info"),
            ("lib.v*:8", "linecard_vhost_user=debug"),
            ("pmd.net.virtio:8", "linecard_virtio_user=debug"),
            ("pmd.net.virtio.*,8", "linecard_virtio_user=debug"),
            ("^lib\\.ring$,error", "linecard_ring=error"),
            ("pmd.net.mlx5:debug", ""),
            ("lib.???:1", "linecard_eal=error"),
        ] {
            assert_eq!(directives([value]).unwrap(), wanted, "{value}");
        }
    }

    #[test]
    fn wrong_levels_are_named() {
        for value in ["", "9", "loud", "lib.eal:", "lib.eal:9", ":", "-1", "help"] {
            let error = directives([value]).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{value}\"")) && error.contains("warning"), "{error}");
        }
    }
}
