//! `dump_…` and `set log`: the state of the process.

use std::fmt::Write as _;

use super::commands::Command;
use super::grammar::Values;
use crate::output::{err, out};
use crate::testpmd::layout;
use crate::testpmd::session::Session;

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "dump_mempool",
        help: "Dump the packet pool.",
        run: |session, _| dump_pool(session, None),
    },
    Command {
        pattern: "dump_mempool <text>",
        help: "Dump the packet pool of that name.",
        run: |session, values| dump_pool(session, Some(values.word(0))),
    },
    Command {
        pattern: "dump_devargs",
        help: "Dump the devices and their arguments.",
        run: |session, _| {
            let mut text = String::from("User device list:\n");
            for slot in session.ports.iter() {
                let bus = layout::bus(slot.driver());
                let _ = writeln!(text, "  [{bus}]: {} {}", slot.name, slot.devargs());
            }
            out!(session.out, "{text}");
        },
    },
    Command { pattern: "dump_lcores", help: "Dump the lcores and the cores they are on.", run: dump_lcores },
    Command {
        pattern: "dump_socket_mem",
        help: "Dump how much memory there is and is used.",
        run: dump_memory,
    },
    Command {
        pattern: "set log <text> <n>",
        help: "Set how much is logged, globally (global) or by parts of that name (pmd.*): 1 (errors alone) to 8 (all).",
        run: set_log,
    },
];

fn dump_pool(session: &mut Session, name: Option<&str>) {
    if name.is_some_and(|name| name != session.pool.name()) {
        return err!(session.out, "Cannot find mempool\n");
    }
    let (name, stats) = (session.pool.name(), session.pool.stats());
    out!(
        session.out,
        "mempool <{name}>\n  size={}\n  populated_size={}\n  elt_size={}\n  common_pool_count={}\n  \
         total_cache_count={}\n  in_use={}\n",
        stats.total,
        stats.total,
        session.options.mbuf_size(),
        stats.free,
        stats.cached,
        stats.in_use
    );
}

fn dump_lcores(session: &mut Session, _: &Values) {
    let mut text = String::new();
    for lcore in session.eal.lcores().all() {
        let cores: Vec<_> = lcore.cores.iter().map(|core| core.0.to_string()).collect();
        // DPDK reports this role for every lcore that is not a service core, including the main lcore.
        let _ = writeln!(text, "lcore {}, socket 0, role RTE, cpuset {}", lcore.id.0, cores.join(","));
    }
    out!(session.out, "{text}");
}

fn dump_memory(session: &mut Session, _: &Values) {
    let config = session.eal.memory().config();
    let limit = config.limit.map_or("unlimited".into(), |bytes| format!("{} MiB", bytes >> 20));
    let stats = session.pool.stats();
    let pool = (u64::from(session.options.mbuf_size()) * stats.total as u64) >> 20;
    out!(session.out, "Total   : limit: {limit}, of which the packet pool has about {pool} MiB\n");
}

fn set_log(session: &mut Session, values: &Values) {
    let (pattern, level) = (values.word(0), values.number(1));
    let wanted = if pattern == "global" { level.to_string() } else { format!("{pattern}:{level}") };
    let mut levels = session.log_levels.clone();
    levels.push(wanted);
    match linecard_apps_common::log::set(&levels, super::super::LOG_DEFAULT) {
        Ok(()) => session.log_levels = levels,
        Err(error) => err!(session.out, "set log {pattern} {level}: {error}\n"),
    }
}
