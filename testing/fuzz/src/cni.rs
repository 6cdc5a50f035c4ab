//! Any environment and any standard input of the CNI plugin: accepted, or answered with an error; never a
//! panic. Nothing is attached, because the namespace of the container is not a namespace.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use linecard_cni::{Config, Environment, Network, invoke};

/// The input of one run: the environment variables, then the configuration.
pub type Input<'a> = (u8, [&'a [u8]; 3], &'a [u8]);

/// Executes one run.
pub fn run((command, [container, ifname, arguments], config): Input<'_>) {
    let os = |bytes: &[u8]| OsString::from(std::ffi::OsStr::from_bytes(bytes));
    let commands = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", "X"];
    let command = commands[usize::from(command) % commands.len()];
    let lookup = |name: &str| match name {
        "CNI_COMMAND" => Some(OsString::from(command)),
        "CNI_CONTAINERID" => Some(os(container)),
        "CNI_IFNAME" => Some(os(ifname)),
        "CNI_ARGS" => Some(os(arguments)),
        "CNI_NETNS" => Some("/dev/null".into()),
        "CNI_PATH" => Some("/nonexistent".into()),
        _ => None,
    };
    match Environment::read(lookup).map(|environment| Config::read(config, &environment)) {
        Ok(Ok(config)) => assert!(config.state_dir.is_absolute()),
        Ok(Err(error)) | Err(error) => {
            assert!(!error.msg.is_empty() && !error.details.is_empty(), "{error:?}")
        }
    }
    let _ = Network::parse(config);
    // The other commands work in the folders that the configuration names.
    if ["ADD", "VERSION", "X"].contains(&command) {
        let output = invoke(lookup, config);
        let told = serde_json::from_str::<serde_json::Value>(&output.stdout);
        assert!(told.is_ok_and(|told| output.success == told["code"].is_null()), "{}", output.stdout);
    }
}
