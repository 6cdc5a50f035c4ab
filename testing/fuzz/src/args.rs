//! Any device argument and any EAL argument: accepted, or refused with one sentence; never a panic.

use std::ffi::OsString;

use linecard_eal::EalArgs;
use linecard_pmd::DevArgs;

fn one_line(error: &impl std::fmt::Display) {
    assert!(!error.to_string().is_empty());
}

/// The input of one run.
pub type Input<'a> = &'a str;

/// Executes one run.
pub fn run(text: Input<'_>) {
    match DevArgs::parse(text) {
        Ok(args) => {
            let _ = (args.driver(), args.name(), args.value("path"), args.values("iface"));
            let _ = args.required("path").map_err(|error| one_line(&error));
            let _ = args.flag("server").map_err(|error| one_line(&error));
            let _ = args.number("queues", 1_u16..=8).map_err(|error| one_line(&error));
            let _ = args.mac("mac").map_err(|error| one_line(&error));
            let _ = args.choice("mode", &["a", "b"]).map_err(|error| one_line(&error));
            let _ = args.finish().map_err(|error| one_line(&error));
        }
        Err(error) => one_line(&error),
    }
    let words = text.split('\n').map(OsString::from);
    if let Err(error) = EalArgs::parse(words) {
        one_line(&error);
    }
}
