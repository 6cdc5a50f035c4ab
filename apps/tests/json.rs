//! `show … json` on testpmd's console: each answer is one line of JSON that says what the text says.

mod common;

use common::{Scratch, answers};
use serde_json::{Value, json};

const TWO: [&str; 7] = ["-m", "64", "--in-memory", "--vdev", "net_null0", "--vdev", "net_null1"];
const APP: [&str; 4] = ["-i", "--total-num-mbufs=4096", "--rxq=2", "--txq=2"];

/// What each line is answered, as JSON; lines that are no questions are null.
fn ask(lines: &[&str]) -> Vec<Value> {
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let said = answers(&TWO, &APP, &(input + "quit\n"));
    let parse = |(line, answer): (&&str, &String)| {
        if !line.ends_with("json") {
            return Value::Null;
        }
        assert_eq!(answer.lines().count(), 1, "{line}: {answer:?}");
        serde_json::from_str(answer).unwrap_or_else(|error| panic!("{line}: {error}: {answer:?}"))
    };
    lines.iter().zip(&said).map(parse).collect()
}

#[test]
fn every_show_command_answers_in_json() {
    let lines = [
        "show port info all json",
        "show port summary 1 json",
        "show port stats all json",
        "show port xstats 0 json",
        "show config rxtx json",
        "show config cores json",
        "show config fwd json",
        "show config txpkts json",
        "set rxpkts 64,128",
        "show config rxpkts json",
        "show config txtimes json",
        "show config rxoffs json",
        "show fwd stats all json",
        "show pool json",
        "show port 0 macs json",
        "show port 0 gso json",
        "show port 0 rx_offload capabilities json",
        "show port 0 tx_offload configuration json",
        "show rxq info 0 1 json",
        "show txq info 1 0 json",
        "show device info all json",
        "show device info net_null1 json",
        "show port 0 mcast_macs json",
        "show port 0 rss-hash json",
        "port config all rss udp",
        "show port 0 rss-hash key json",
        "show port 0 rss reta 4 (0xf) json",
        "show capture json",
    ];
    let all = ask(&lines);
    let of = |line: &str| &all[lines.iter().position(|known| *known == line).unwrap()];
    let info = of("show port info all json");
    assert_eq!((info[0]["name"].as_str(), info[1]["port_id"].as_u64()), (Some("net_null0"), Some(1)));
    assert_eq!((&info[0]["nb_rx_queues"], &info[0]["link"]["status"]), (&json!(2), &json!("UP")));
    assert_eq!(of("show port summary 1 json")[0]["driver"], "net_null");
    assert_eq!(of("show port stats all json")[1]["opackets"], 0);
    assert!(of("show port xstats 0 json")[0]["xstats"]["rx_q1_packets"].is_u64());
    assert_eq!(of("show config rxtx json")["ports"][0]["nb_tx_queues"], 2);
    assert_eq!(of("show config fwd json")["streams"].as_array().map(Vec::len), Some(4));
    assert_eq!(of("show config txpkts json"), &json!({ "segments": [64] }));
    assert_eq!(of("show config rxpkts json"), &json!({ "segments": [64, 128] }));
    assert_eq!(of("show config txtimes json"), &json!({ "inter_burst": 0, "intra_burst": 0 }));
    assert_eq!(of("show config rxoffs json"), &json!({ "offsets": [] }));
    assert_eq!(of("show fwd stats all json")["running"], false);
    let pool = of("show pool json");
    assert_eq!((pool["size"].as_u64(), pool["in_use"].as_u64()), (Some(4096), Some(0)));
    assert_eq!(of("show port 0 macs json").as_array().map(Vec::len), Some(1));
    assert_eq!(of("show rxq info 0 1 json")["mempool"], "mb_pool_0");
    assert_eq!(of("show device info net_null1 json")[0]["port_id"], 1);
    assert_eq!(of("show port 0 rss-hash json"), &json!({ "enabled": false }));
    let rss = of("show port 0 rss-hash key json");
    assert_eq!(
        (&rss["types"], rss["key"].as_str().map(str::len)),
        (&json!(["ipv4-udp", "ipv6-udp"]), Some(80))
    );
    assert_eq!(of("show port 0 rss reta 4 (0xf) json"), &json!([0, 1, 0, 1]));
    assert_eq!(of("show capture json"), &json!({ "files": [], "socket": null }));
}

#[test]
fn counters_are_those_of_the_text() {
    let scratch = Scratch::new();
    let file = scratch.file("out.pcap");
    let device = format!("net_pcap0,tx_pcap={file}");
    let eal = ["-m", "64", "--in-memory", "--vdev", &device];
    let input = "set fwd txonly\nset burst 8\nstart\nstop\nshow port stats 0\nshow port stats 0 json\n\
                 show fwd stats all json\nquit\n";
    let said = answers(&eal, &["-i", "--total-num-mbufs=2048"], input);
    let json: Value = serde_json::from_str(&said[5]).unwrap();
    let (_, text) = said[4].split_once("TX-packets: ").expect("a counter");
    let sent: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!((json[0]["opackets"].as_u64(), json[0]["obytes"].as_u64()), (Some(sent), Some(64 * sent)));
    let forward: Value = serde_json::from_str(&said[6]).unwrap();
    assert_eq!(forward["ports"][0]["opackets"], sent);
}

#[test]
fn what_cannot_be_answered_is_an_error_in_json() {
    let lines = [
        "show port info 9 json",
        "show port 9 macs json",
        "show rxq info 0 7 json",
        "show rxq info 9 0 json",
        "show device info net_nobody json",
        "show port 0 rss reta 0 (0x1) json",
        "show port 0 rss reta 999 (0x1) json",
    ];
    for (line, value) in lines.iter().zip(ask(&lines)) {
        assert!(value["error"].as_str().is_some_and(|text| text.len() > 10), "{line}: {value}");
    }
    // What is no command is none with that word either.
    let bad = [
        "show json",
        "show port info json",
        "show nothing json",
        "json",
        "start json",
        "show pool json json",
    ];
    let input: String = bad.iter().map(|line| format!("{line}\n")).collect();
    for (line, answer) in bad.iter().zip(answers(&TWO, &APP, &(input + "quit\n"))) {
        assert!(["Bad arguments\n", "Command not found\n"].contains(&answer.as_str()), "{line}: {answer:?}");
    }
}
