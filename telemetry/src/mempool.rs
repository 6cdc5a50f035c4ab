//! `/mempool/…`: pools.

use linecard_mempool::Pool;

use crate::command::Row;
use crate::state::State;
use crate::value::Value;

pub(crate) const COMMANDS: &[Row] = &[
    ("/mempool/list", "Returns list of available mempool. Takes no parameters", list),
    ("/mempool/info", "Returns mempool info. Parameters: pool_name", info),
];

fn list(state: &State, _: Option<&str>) -> Value {
    Value::list(state.pools.iter().map(Pool::name))
}

/// As in DPDK, the answer to an unknown name is an empty object.
fn info(state: &State, name: Option<&str>) -> Value {
    let Some(name) = name else { return Value::Null };
    state.pools.iter().find(|pool| pool.name() == name).map_or(Value::Object(Vec::new()), describe)
}

/// DPDK's members, as far as they apply, then those that only Linecard's pools have.
fn describe(pool: &Pool) -> Value {
    let (config, stats, domain) = (pool.config(), pool.stats(), pool.domain());
    Value::object([
        ("name", Value::from(pool.name())),
        ("pool_id", pool.id().into()),
        ("socket_id", 0_u64.into()),
        ("size", config.packets.into()),
        ("cache_size", config.cache.into()),
        ("elt_size", pool.stride().into()),
        ("header_size", 0_u64.into()),
        ("trailer_size", 0_u64.into()),
        ("private_data_size", 0_u64.into()),
        ("populated_size", stats.total.into()),
        ("mz_name", domain.name().into()),
        ("mz_len", (pool.stride() * stats.total).into()),
        ("mz_hugepage_sz", domain.page_kind().map_or(0, |kind| kind.bytes()).into()),
        ("mz_socket_id", 0_u64.into()),
        ("free", stats.free.into()),
        ("cached", stats.cached.into()),
        ("in_use", stats.in_use.into()),
        ("gets", stats.gets.into()),
        ("puts", stats.puts.into()),
        ("get_fail", stats.get_fail.into()),
    ])
}
