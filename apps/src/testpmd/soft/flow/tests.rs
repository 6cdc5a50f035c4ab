//! Rules: what they match, and which are refused.

use linecard::net::parse as layers;
use proptest::prelude::*;

use super::*;
use crate::testpmd::soft::tests::udp;

fn rule(line: &str) -> Result<Flow, String> {
    parse(&line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>())
}

#[test]
fn patterns_match_what_they_say() {
    let frame = udp(700);
    let vlan = {
        let mut frame = frame.clone();
        frame.splice(12..12, [0x81, 0, 0x20, 5]);
        frame
    };
    for (pattern, plain, tagged) in [
        ("eth", true, true),
        ("eth dst is 02:00:00:00:00:02", true, true),
        ("eth src is 02:00:00:00:00:02", false, false),
        ("eth src spec 02:00:00:00:00:ff src mask ff:ff:ff:ff:ff:00", true, true),
        ("eth type is 0x0800", true, false),
        ("eth / vlan", false, true),
        ("eth / vlan vid is 5", false, true),
        ("eth / vlan vid is 6", false, false),
        ("eth / vlan tci is 5", false, false),
        ("eth / ipv4", true, true),
        ("eth / vlan / ipv4 / udp", false, true),
        ("eth / ipv4 src is 198.18.0.1 dst is 198.18.0.2 / udp", true, true),
        ("eth / ipv4 src spec 198.18.9.9 src prefix 16", true, true),
        ("eth / ipv4 src spec 198.18.9.9 src prefix 24", false, false),
        ("eth / ipv4 proto is 17 ttl is 64", true, true),
        ("eth / ipv4 proto is 6", false, false),
        ("eth / ipv6", false, false),
        ("eth / ipv4 / tcp", false, false),
        ("eth / ipv4 / udp src is 700 dst is 9", true, true),
        ("udp src is 701", false, false),
    ] {
        let flow = rule(&format!("ingress pattern {pattern} / end actions drop / end")).unwrap();
        assert_eq!(flow.matches(&frame, &layers(&frame)), plain, "{pattern}");
        assert_eq!(flow.matches(&vlan, &layers(&vlan)), tagged, "{pattern}, tagged");
    }
}

#[test]
fn what_is_no_rule_is_named() {
    let with =
        |pattern: &str, actions: &str| format!("ingress pattern {pattern} / end actions {actions} / end");
    for (line, part) in [
        (String::new(), "ingress"),
        ("ingress".into(), "ends early"),
        ("ingress pattern".into(), "an item"),
        ("ingress pattern end actions drop / end".into(), "begin with eth"),
        ("pattern eth / end actions drop / end".into(), "write ingress"),
        ("egress pattern eth / end actions drop / end".into(), "received frames only"),
        ("transfer pattern eth / end actions drop / end".into(), "received frames only"),
        ("group x ingress pattern eth / end actions drop / end".into(), "group x"),
        ("priority -1 ingress pattern eth / end actions drop / end".into(), "priority -1"),
        ("inbound pattern eth / end actions drop / end".into(), "attribute inbound"),
        ("ingress pattern eth / end".into(), "actions is missing"),
        ("ingress pattern eth / end action drop / end".into(), "word action"),
        ("ingress pattern eth end actions drop / end".into(), "no field end"),
        (with("vxlan", "drop"), "item vxlan"),
        (with("ipv4 / eth", "drop"), "outside in"),
        (with("eth / eth", "drop"), "outside in"),
        (with("eth / ipv4 / ipv6", "drop"), "outside in"),
        (with("eth colour is 1", "drop"), "no field colour here, only dst, src, type"),
        (with("eth type is 65536", "drop"), "65536"),
        (with("eth dst is 02:00", "drop"), "an Ethernet address"),
        (with("eth / vlan vid is 4096", "drop"), "4096"),
        (with("eth / ipv4 src is 1.2.3", "drop"), "an IPv4 address"),
        (with("eth / ipv4 src prefix 33", "drop"), "0 to 32"),
        (with("eth / ipv4 ttl is 256", "drop"), "256"),
        (with("eth / ipv6 src is 1.2.3.4", "drop"), "an IPv6 address"),
        (with("eth / ipv4 / udp src last 7", "drop"), "last is not one of is, spec, mask, prefix"),
        (with("eth / ipv4 / udp src is", "drop"), "/ is not a number"),
        (with("eth", "fly"), "action fly"),
        (with("eth", "queue"), "field /"),
        (with("eth", "queue index 65536"), "65536"),
        (with("eth", "queue index 1 / drop"), "second place"),
        (with("eth", "rss queues end"), "no queue"),
        (with("eth", "rss types ip end"), "field types"),
        (with("eth", "mark id x"), "mark x"),
        (with("eth", "of_push_vlan"), "field /"),
        (with("eth", "of_push_vlan ethertype 0x0800"), "0x0800 is no VLAN tag's"),
        (with("eth", "of_set_vlan_vid vlan_vid 4096"), "4096 is not one of 0 to 4095"),
        (with("eth", "of_set_vlan_vid vid 5"), "only vlan_vid"),
        (with("eth", "of_set_vlan_pcp vlan_pcp 8"), "8 is not one of 0 to 7"),
        (with("eth", "of_dec_nw_ttl"), "of_set_vlan_vid"),
        ("ingress pattern eth / end actions end".into(), "no action"),
        ("ingress pattern eth / end actions drop end".into(), "word end"),
        (with("eth", "drop") + " more", "word behind the actions more"),
        (with("eth", &["count"; 40].join(" / ")), "/"),
        (with("eth", &format!("rss queues {}end", "0 ".repeat(2000))), "1024 queues"),
    ] {
        let problem = rule(&line).err().unwrap_or_else(|| panic!("{line} was accepted"));
        assert!(problem.contains(part) && problem.lines().count() == 1, "{line}: {problem}");
    }
    let flow = rule("ingress pattern eth / end actions rss queues 0 3 end / end").unwrap();
    assert!(flow.refusal(4).is_none() && flow.refusal(3).unwrap().contains("queue 3"));
}

proptest! {
    #[test]
    fn no_words_and_no_frame_panic(
        words in proptest::collection::vec(
            "(ingress|pattern|eth|vlan|ipv4|ipv6|udp|/|end|actions|drop|of_push_vlan|ethertype|src|is|mask|prefix|1|1\\.2\\.3\\.4|[ -~]{0,6})", 0..20),
        frame in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = parse(&words.iter().map(String::as_str).collect::<Vec<_>>());
        for pattern in ["eth dst is 02:00:00:00:00:02", "vlan vid is 5", "ipv6 dst is ::1", "udp dst is 9"] {
            let flow = rule(&format!("ingress pattern {pattern} / end actions drop / end")).unwrap();
            let _ = flow.matches(&frame, &layers(&frame));
        }
    }
}
