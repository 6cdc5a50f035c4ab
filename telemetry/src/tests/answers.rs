//! What DPDK's commands answer, member by member.

use linecard_mempool::Burst;
use linecard_testing::Prng;

use super::*;
use crate::{LcoreUsage, Value};

/// The members of DPDK 22.11's answers, in its order; what only we tell comes behind. Noted from its testpmd.
const MEMBERS: &[(&str, &str)] = &[
    ("/info", "version pid max_output_len"),
    (
        "/ethdev/stats,0",
        "ipackets opackets ibytes obytes imissed ierrors oerrors rx_nombuf q_ipackets q_opackets q_ibytes q_obytes \
         q_errors",
    ),
    ("/ethdev/link_status,0", "status speed duplex"),
    (
        "/ethdev/info,0",
        "name state nb_rx_queues nb_tx_queues port_id mtu rx_mbuf_size_min mac_addr promiscuous scattered_rx \
         all_multicast dev_started lro dev_configured rxq_state txq_state numa_node dev_flags rx_offloads tx_offloads \
         ethdev_rss_hf",
    ),
    (
        "/ethdev/xstats,0",
        "rx_good_packets tx_good_packets rx_good_bytes tx_good_bytes rx_missed_errors rx_errors tx_errors \
         rx_mbuf_allocation_errors rx_q0_packets rx_q0_bytes rx_q0_errors tx_q0_packets tx_q0_bytes",
    ),
    (
        "/mempool/info,mb_pool_0",
        "name pool_id socket_id size cache_size elt_size header_size trailer_size private_data_size populated_size \
         mz_name mz_len mz_hugepage_sz mz_socket_id",
    ),
    ("/eal/heap_info,0", "Head_id Name Heap_size Free_size Alloc_size"),
    ("/eal/lcore/usage", "lcore_ids total_cycles busy_cycles"),
];

#[test]
fn members_are_dpdks() {
    let program = Program::new();
    for (request, members) in MEMBERS {
        let Value::Object(answer) = program.telemetry.answer(request) else { panic!("{request}") };
        let Value::Object(found) = &answer[0].1 else { panic!("{request}: {answer:?}") };
        let found: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let mut from = found.iter();
        for member in members.split_whitespace() {
            assert!(
                from.any(|name| *name == member),
                "{request} lacks {member}, or has it too early: {found:?}"
            );
        }
    }
}

#[test]
fn numbers_are_those_of_the_program() {
    let mut program = Program::new();
    let mut packets = Burst::new();
    program.port().rx[1].rx_burst(&mut packets);
    program.port().tx[0].tx_burst(&mut packets);
    let stats = program.ask("/ethdev/stats,0");
    assert_eq!((stats["ipackets"].as_u64(), stats["opackets"].as_u64()), (Some(64), Some(64)));
    assert_eq!((&stats["q_ipackets"][0], &stats["q_ipackets"][1]), (&0.into(), &64.into()));
    assert_eq!(stats["q_errors"].as_array().unwrap().len(), 16);
    let shown = program.ask("/ethdev/xstats,0,hide_zero=true");
    assert_eq!(shown["rx_q1_packets"], 64);
    assert!(shown.as_object().unwrap().values().all(|value| *value != 0), "{shown}");
    let info = program.ask("/ethdev/info,0");
    assert_eq!(
        (&info["name"], &info["nb_rx_queues"], &info["mtu"]),
        (&"net_null0".into(), &2.into(), &1500.into())
    );
    assert_eq!(info["mac_addr"].as_str().unwrap().len(), 17);
    assert_eq!(info["rx_mbuf_size_min"], 2176);
    assert_eq!(program.ask("/ethdev/list"), serde_json::json!([0]));
    assert_eq!(program.ask("/mempool/list"), serde_json::json!(["mb_pool_0"]));
    let held = program.pool.get().unwrap();
    let pool = program.ask("/mempool/info,mb_pool_0");
    assert_eq!((&pool["size"], &pool["populated_size"]), (&1024.into(), &1024.into()));
    let sum: u64 = ["free", "cached", "in_use"].iter().map(|place| pool[*place].as_u64().unwrap()).sum();
    assert_eq!(sum, 1024);
    assert!(pool["in_use"].as_u64() >= Some(1));
    drop(held);
    program.telemetry.set_arguments(vec!["-l".into(), "0".into()], vec!["-i".into()]);
    assert_eq!(program.ask("/eal/params"), serde_json::json!(["-l", "0"]));
    assert_eq!(program.ask("/eal/app_params"), serde_json::json!(["-i"]));
    assert_eq!(program.ask("/eal/heap_list"), serde_json::json!([0]));
    let lcore = program.ask("/eal/lcore/list")[0].as_u64().unwrap();
    program.telemetry.set_lcore_usage(move || {
        vec![LcoreUsage { lcore: u32::try_from(lcore).unwrap(), busy_cycles: 3, total_cycles: 9 }]
    });
    assert_eq!(program.ask("/eal/lcore/usage")["busy_cycles"], serde_json::json!([3]));
    assert_eq!(program.ask(&format!("/eal/lcore/info,{lcore}"))["total_cycles"], 9);
}

#[test]
fn a_port_that_stopped_is_down_and_all_zeros() {
    let mut program = Program::new();
    program.port.take().unwrap().stop();
    assert_eq!(program.ask("/ethdev/link_status,0"), serde_json::json!({"status": "DOWN"}));
    assert_eq!(program.ask("/ethdev/info,0")["dev_started"], 0);
    assert_eq!(program.ask("/ethdev/stats,0")["ipackets"], 0);
    assert_eq!(program.ask("/ethdev/xstats,0"), serde_json::json!({}));
}

#[test]
fn whatever_is_asked_the_answer_is_json() {
    let program = Program::new();
    // Null, as DPDK answers: no such command, no such port, no number.
    for request in [
        "/nonsense",
        "",
        ",",
        "/",
        "//",
        "/ethdev",
        "/ethdev/stats",
        "/ethdev/stats,",
        "/ethdev/stats,9",
        "/ethdev/stats,x",
        "/ethdev/stats,-1",
        "/ethdev/stats,0x0",
        "/ethdev/stats, 0",
        "/ethdev/stats,65536",
        "/ethdev/info,1",
        "/ethdev/xstats",
        "/ethdev/xstats,a,hide_zero=true",
        "/ethdev/link_status,7",
        "/ethdev/dump_priv,",
        "/mempool/info",
        "/mempool/info,",
        "/eal/heap_info",
        "/eal/heap_info,1",
        "/eal/heap_info,x",
        "/eal/lcore/info",
        "/eal/lcore/info,99999",
        "/help,/no",
        "\"",
        "\\",
        "\u{0}",
        "/ethdev/list\n",
        "é",
        "/help,\"",
        "quit",
    ] {
        if request == "/" {
            continue;
        }
        assert_eq!(program.ask(request), Json::Null, "{request:?}");
    }
    assert_eq!(program.ask("/mempool/info,none"), serde_json::json!({}), "as DPDK answers");
    assert_eq!(
        program.ask("/ethdev/stats,0,more")["ipackets"],
        0,
        "further parameters are ignored, as by DPDK"
    );
    // Every command in the list is explained.
    let list = program.ask("/");
    let list: Vec<&str> = list.as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert!(list.contains(&"/ethdev/stats") && list.contains(&"/"), "{list:?}");
    for path in list {
        assert!(
            program.ask(&format!("/help,{path}"))[path].as_str().is_some_and(|help| help.len() > 10),
            "{path}"
        );
    }
}

/// Requests made of pieces of good ones: each is answered by one object with the name that was asked for.
#[test]
fn requests_that_nobody_would_write_are_answered() {
    let program = Program::new();
    let mut dice = Prng::new(7);
    let pieces = [
        "/",
        "ethdev",
        "mempool",
        "eal",
        "/stats",
        "/info",
        "/xstats",
        "/list",
        "/help",
        ",",
        ",,",
        "0",
        "1",
        "-1",
        "65535",
        "4294967296",
        "99999999999999999999",
        "mb_pool_0",
        "hide_zero=true",
        " ",
        "\n",
        "\u{0}",
        "\"",
        "\\",
        "é",
        "{",
        "}",
        "lcore",
        "/usage",
        "x",
    ];
    for _ in 0..3000 {
        let request: String = (0..dice.of(&[1, 2, 3, 4, 6])).map(|_| dice.of(&pieces)).collect();
        let text = program.telemetry.answer(&request).to_string();
        let answer: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{request:?}: {e}: {text}"));
        let path = request.split(',').next().unwrap();
        assert!(
            answer.as_object().is_some_and(|answer| answer.len() == 1 && answer.contains_key(path)),
            "{request:?}: {text}"
        );
    }
}

#[test]
fn a_command_of_the_program_is_one_more_and_its_panic_is_null() {
    let program = Program::new();
    let telemetry = &program.telemetry;
    telemetry
        .add_command("/app/echo", "Returns its parameters.", |given| given.unwrap_or("nothing").into())
        .unwrap();
    telemetry.add_command("/app/fault", "Panics.", |_| panic!("on purpose")).unwrap();
    assert_eq!(program.ask("/app/echo,a,b"), "a,b");
    assert_eq!(program.ask("/app/echo"), "nothing");
    assert_eq!(program.ask("/app/fault"), Json::Null);
    assert_eq!(program.ask("/app/echo"), "nothing");
    for (path, want) in [
        ("app", "cannot be a command"),
        ("/", "cannot be"),
        ("/a,b", "a comma"),
        ("/info", "a command already"),
    ] {
        let refused = telemetry.add_command(path, "", |_| Value::Null).unwrap_err().to_string();
        assert!(refused.contains(want), "{path}: {refused}");
    }
}

#[test]
fn what_is_too_long_ends_early_and_is_json_all_the_same() {
    let nested = Value::object([
        ("list", Value::list((0..20).map(|n| format!("\"{n}\u{1}\\")))),
        ("deep", Value::object([("er", Value::List(vec![Value::list([1_u64, 22, 333]), Value::Null]))])),
    ]);
    let whole = nested.to_string();
    for most in 2..=whole.len() {
        let text = nested.within(most);
        assert!(text.len() <= most, "{most}: {text}");
        serde_json::from_str::<Json>(&text).unwrap_or_else(|e| panic!("{most}: {e}: {text}"));
    }
    assert_eq!(nested.within(whole.len()), whole);
}
