//! `/eal/…`: the command line, memory and lcores.

use crate::command::Row;
use crate::state::{Drops, LcoreUsage, State};
use crate::value::Value;

pub(crate) const COMMANDS: &[Row] = &[
    ("/eal/params", "Returns EAL commandline parameters used. Takes no parameters", |state, _| {
        Value::list(state.arguments.0.iter().map(String::as_str))
    }),
    ("/eal/app_params", "Returns app commandline parameters used. Takes no parameters", |state, _| {
        Value::list(state.arguments.1.iter().map(String::as_str))
    }),
    ("/eal/heap_list", "List of heap index setup. Takes no parameters", |_, _| Value::list([0_u64])),
    ("/eal/heap_info", "Returns malloc heap stats. Parameters: int heap_id", heap_info),
    ("/eal/lcore/list", "List of lcore ids. Takes no parameters", lcores),
    ("/eal/lcore/info", "Returns lcore info. Parameters: int lcore_id", lcore_info),
    ("/eal/lcore/usage", "Returns lcore cycles usage. Takes no parameters", usage),
    ("/linecard/drops", "Returns what the application itself dropped. Takes no parameters", drops),
];

/// All memory is reported as one heap, whose segments grow on demand.
fn heap_info(state: &State, given: Option<&str>) -> Value {
    if given.and_then(|text| text.parse::<u32>().ok()) != Some(0) {
        return Value::Null;
    }
    let usage = state.memory.usage();
    Value::object([
        ("Head_id", Value::from(0_u64)),
        ("Name", "socket_0".into()),
        ("Heap_size", usage.total().into()),
        ("Free_size", usage.total().saturating_sub(usage.zones).into()),
        ("Alloc_size", usage.zones.into()),
        ("Limit", usage.limit.map_or(Value::Null, Value::from)),
    ])
}

fn lcores(state: &State, _: Option<&str>) -> Value {
    Value::list(state.lcores.all().iter().map(|lcore| lcore.id.0))
}

fn lcore_info(state: &State, given: Option<&str>) -> Value {
    let id = given.and_then(|text| text.parse::<u32>().ok());
    let Some(lcore) = state.lcores.all().iter().find(|lcore| Some(lcore.id.0) == id) else {
        return Value::Null;
    };
    let main = lcore.id == state.lcores.main().id;
    let mut all = vec![
        ("lcore_id", Value::from(lcore.id.0)),
        ("socket", 0_u64.into()),
        ("role", if main { "MAIN".into() } else { "WORKER".into() }),
        ("cpuset", Value::list(lcore.cores.iter().map(|core| core.0))),
    ];
    if let Some(usage) = state.usages().into_iter().find(|usage| usage.lcore == lcore.id.0) {
        all.extend([
            ("total_cycles", Value::from(usage.total_cycles)),
            ("busy_cycles", usage.busy_cycles.into()),
        ]);
    }
    Value::object(all)
}

fn usage(state: &State, _: Option<&str>) -> Value {
    let usages = state.usages();
    let each = |of: fn(&LcoreUsage) -> u64| Value::list(usages.iter().map(of));
    Value::object([
        ("lcore_ids", each(|usage| usage.lcore.into())),
        ("total_cycles", each(|usage| usage.total_cycles)),
        ("busy_cycles", each(|usage| usage.busy_cycles)),
        ("hz", state.hz.into()),
    ])
}

fn drops(state: &State, _: Option<&str>) -> Value {
    let each = |Drops { port, queue, cause, packets }: Drops| {
        Value::object([
            ("port", Value::from(port)),
            ("queue", queue.into()),
            ("cause", cause.into()),
            ("packets", packets.into()),
        ])
    };
    Value::list(state.drops().into_iter().map(each))
}
