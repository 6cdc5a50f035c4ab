use serde_json::json;

use super::*;

fn of(value: serde_json::Value) -> Result<Rules, Problem> {
    let mut whole = json!({"key": "a", "type": "tap", "name": "lc0"});
    if let (Some(whole), Some(more)) = (whole.as_object_mut(), value.as_object()) {
        whole.extend(more.clone());
    }
    Rules::of(&PortSpec::read(whole).expect("the fields exist"), Defaults::default())
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    for (value, want) in [
        (json!({"key": ""}), "'' cannot be a port's key"),
        (json!({"key": "a b"}), "'a b' cannot be a port's key"),
        (json!({"key": "\u{7}"}), "'\\u{7}' cannot be a port's key"),
        (json!({"key": "x".repeat(256)}), "…' cannot be a port's key"),
        (json!({"name": "a/b"}), "'a/b' cannot be the name of an interface"),
        (json!({"name": "sixteen-letters-"}), "cannot be the name of an interface"),
        (json!({"mac": "01:00:00:00:00:00"}), "01:00:00:00:00:00 is the address of no station"),
        (json!({"mac": "00:00:00:00:00:00"}), "is the address of no station"),
        (json!({"ips": ["0.0.0.0"]}), "0.0.0.0 is the address of no station"),
        (json!({"ips": ["ff02::1"]}), "ff02::1 is the address of no station"),
        (json!({"vlan": {"access": 0}}), "there is no VLAN 0"),
        (json!({"vlan": {"access": 4095}}), "there is no VLAN 4095"),
        (json!({"vlan": {"trunk": {"vlans": []}}}), "a trunk without VLANs carries nothing"),
        (json!({"vlan": {"trunk": {"vlans": [1], "native": 5000}}}), "there is no VLAN 5000"),
        (json!({"mtu": 67}), "an MTU of 67 is too small"),
        (json!({"queues": 0}), "a port cannot have 0 queue pairs"),
        (json!({"queues": 129}), "a port cannot have 129 queue pairs"),
        (json!({"rate": {"bits_per_second": 7}}), "7 bit/s let nothing pass"),
        (json!({"rate": {"bits_per_second": 8000, "burst_bytes": 1000}}), "lets no frame of 1518 bytes pass"),
        (json!({"meta": {"a": "x".repeat(5000)}}), "'meta' is too large"),
    ] {
        let problem = of(value.clone()).expect_err("it makes no sense");
        assert_eq!(problem.code, Code::InvalidParams);
        assert!(problem.message.contains(want) && !problem.details.is_empty(), "{value}: {problem}");
    }
    for kind in [
        PortKind::VhostUser { path: "a,b".into(), client: false, mode: None, group: None },
        PortKind::VhostUser { path: "relative".into(), client: false, mode: None, group: None },
        PortKind::VhostUser { path: "/a".into(), client: true, mode: Some("0600".into()), group: None },
        PortKind::VhostUser { path: "/a".into(), client: false, mode: Some("0600,x=1".into()), group: None },
        PortKind::VhostUserFd { origin: Some(crate::api::SocketOrigin::new("/n", "x".repeat(108))) },
    ] {
        assert!(Rules::of(&PortSpec::new("a", kind.clone()), Defaults::default()).is_err(), "{kind:?}");
    }
}

#[test]
fn vlans_say_who_may_come_and_go_and_how() {
    let membership = |value| of(json!({"vlan": value})).expect("it makes sense").membership;
    let open = of(json!({})).expect("it makes sense").membership;
    let access = membership(json!({"access": 10}));
    let trunk = membership(json!({"trunk": {"vlans": [10, 4094], "native": 1}}));
    let strict = membership(json!({"trunk": {"vlans": [63, 64]}}));
    for (who, tag, want) in [
        (&open, None, Some(0)),
        (&open, Some(10), Some(0)),
        (&access, None, Some(10)),
        (&access, Some(10), None),
        (&access, Some(0), None),
        (&trunk, None, Some(1)),
        (&trunk, Some(10), Some(10)),
        (&trunk, Some(4094), Some(4094)),
        (&trunk, Some(11), None),
        (&trunk, Some(0), None),
        (&strict, None, None),
        (&strict, Some(63), Some(63)),
        (&strict, Some(64), Some(64)),
        (&strict, Some(62), None),
    ] {
        assert_eq!(who.enter(tag), want, "{tag:?}");
    }
    for (who, vlan, tagged, want) in [
        (&open, 0, true, Some(Retag::Keep)),
        (&open, 10, false, None),
        (&access, 10, false, Some(Retag::Keep)),
        (&access, 10, true, Some(Retag::Pop)),
        (&access, 0, false, None),
        (&trunk, 1, false, Some(Retag::Keep)),
        (&trunk, 1, true, Some(Retag::Pop)),
        (&trunk, 10, false, Some(Retag::Push(10))),
        (&trunk, 10, true, Some(Retag::Keep)),
        (&strict, 1, false, None),
        (&strict, 0, true, None),
    ] {
        assert_eq!(who.leave(vlan, tagged), want, "{vlan} {tagged}");
    }
}
