//! Bad input: one sentence with a remedy, and the interface as it was.

use super::*;

/// The sentence that `options` on `near` are refused with.
fn refusal(lab: &Lab, options: &str) -> String {
    let context = context();
    let pool = pool(&context);
    let text = format!("net_af_xdp0,netns={},{options}", lab.path());
    start(&context, &text, &pool).err().unwrap_or_else(|| panic!("{options} is accepted")).to_string()
}

#[test]
fn interfaces_that_are_missing_or_of_the_wrong_kind() {
    let Some(lab) = lab("interfaces_that_are_missing_or_of_the_wrong_kind") else { return };
    veth(&lab);
    let missing = refusal(&lab, "iface=neat");
    assert!(
        missing.contains("there is no interface 'neat'") && missing.contains("did you mean 'near'?"),
        "{missing}"
    );
}

#[test]
fn queues_that_there_are_not() {
    let Some(lab) = lab("queues_that_there_are_not") else { return };
    veth(&lab);
    assert_eq!(
        refusal(&lab, "iface=near,start_queue=1,queue_count=2"),
        "net_af_xdp0: queues 1 to 2 asked, near has 2 (from 0); ask for fewer with queue_count and start_queue"
    );
    // Allocated and not in use.
    lab.ip("link add one numrxqueues 4 numtxqueues 4 type veth peer name other");
    let output = lab.output("ethtool", &["-L", "one", "rx", "1", "tx", "1"]);
    if output.is_ok_and(|output| output.status.success()) {
        let problem = refusal(&lab, "iface=one,start_queue=3,mode=skb");
        assert!(
            problem.starts_with("net_af_xdp0: one has no queue 3 in use; choose queues that it has"),
            "{problem}"
        );
    }
    expect_no_xdp(&lab, "near");
    expect_no_xdp(&lab, "one");
}

/// Of two queues the port was given one: the refusal names the argument that gives it more.
#[test]
fn more_queues_than_the_port_was_given() {
    let Some(lab) = lab("more_queues_than_the_port_was_given") else { return };
    veth(&lab);
    let device =
        probe(&context(), &format!("net_af_xdp0,iface=near,netns={}", lab.path())).expect("a device");
    let refused = configure(device, PortConfig::default().rx_queues(2)).err().expect("it has one");
    assert_eq!(
        refused.to_string(),
        "net_af_xdp0: 2 receive queues requested, the device has 1; add queue_count=2 to its arguments"
    );
    // The interface has no third.
    let refused =
        configure(refused.device, PortConfig::default().rx_queues(3)).err().expect("it has two").to_string();
    assert_eq!(
        refused,
        "net_af_xdp0: 3 receive queues requested, the device has 1; add queue_count=2 to its arguments, and ask for 1 to 2"
    );
    expect_no_xdp(&lab, "near");
}

#[test]
fn another_program_is_there() {
    let Some(lab) = lab("another_program_is_there") else { return };
    veth(&lab);
    let context = context();
    let first =
        probe(&context, &format!("net_af_xdp7,iface=near,netns={}", lab.path())).expect("an interface");
    for mode in ["auto", "drv", "skb"] {
        assert_eq!(
            refusal(&lab, &format!("iface=near,mode={mode}")),
            "net_af_xdp0: another XDP program is on near; end the program that put it there or take it off with 'ip \
             link set dev near xdp off', or have its map pinned and give map=/sys/fs/bpf/NAME"
        );
    }
    assert!(xdp_on(&lab, "near"), "the other program stays");
    drop(first);
    expect_no_xdp(&lab, "near");
}

#[test]
fn drivers_without_xdp() {
    let Some(lab) = lab("drivers_without_xdp") else { return };
    lab.ip("link add bridge type bridge");
    let problem = refusal(&lab, "iface=bridge,mode=drv");
    assert!(
        problem.starts_with("net_af_xdp0: putting the XDP program onto bridge (native mode): ")
            && problem.contains("try mode=skb"),
        "{problem}"
    );
    expect_no_xdp(&lab, "bridge");
    // The stack takes any.
    let context = context();
    let pool = pool(&context);
    let port =
        start(&context, &format!("net_af_xdp0,iface=bridge,netns={}", lab.path()), &pool).expect("a port");
    assert!(port.control.paths().contains("copy generic"), "{}", port.control.paths());
    port.stop();
}

#[test]
fn an_mtu_that_the_interface_does_not_take() {
    let Some(lab) = lab("an_mtu_that_the_interface_does_not_take") else { return };
    lab.veth("a", "b");
    let context = context();
    let pool = pool(&context);
    let device = probe(&context, &format!("net_af_xdp0,iface=b,netns={}", lab.path())).expect("an interface");
    let most = *device.info().mtu.end();
    let refused = configure(device, PortConfig::default().mtu(most + 1)).err().expect("too much");
    assert_eq!(
        refused.error.to_string(),
        format!("net_af_xdp0: an MTU of {} asked, 68 to {most} is possible", most + 1)
    );
    drop(refused);
    let small = PoolConfig::default().packets(64).data_room(1024);
    let small = Pool::new(&context.domain, small).expect("a pool");
    let device = probe(&context, &format!("net_af_xdp0,iface=b,netns={}", lab.path())).expect("an interface");
    let refused =
        configure(device, PortConfig::default()).expect("possible").start(&small).expect_err("small");
    assert!(refused.error.to_string().contains("a buffer of 1152 bytes is too small"), "{}", refused.error);
    // The device came back whole.
    let port =
        configure(refused.device, PortConfig::default()).expect("possible").start(&pool).expect("started");
    port.stop();
}

#[test]
fn an_interface_that_goes_away_under_traffic() {
    let Some(lab) = lab("an_interface_that_goes_away_under_traffic") else { return };
    veth(&lab);
    let context = context();
    let pool = pool(&context);
    let text = format!("net_af_xdp0,iface=near,netns={}", lab.path());
    let mut port = start(&context, &text, &pool).expect("a port");
    send(&mut port, (0..32).map(|i| frame(&pool, i, 60)));
    lab.ip("link del near");
    assert!(!port.control.link().up);
    for _ in 0..100 {
        let mut burst = Burst::new();
        assert_eq!(port.rx[0].rx_burst(&mut burst), 0);
        burst.push(frame(&pool, 0, 60)).expect("room");
        port.tx[0].tx_burst(&mut burst);
    }
    let device = port.stop();
    assert_eq!(pool.stats().in_use, 0);
    let refused = configure(device, PortConfig::default()).expect("possible").start(&pool).expect_err("gone");
    assert!(refused.error.to_string().contains("the interface is gone"), "{}", refused.error);
}

#[test]
fn an_interface_that_is_made_again_is_found() {
    let Some(lab) = lab("an_interface_that_is_made_again_is_found") else { return };
    veth(&lab);
    let (ours, theirs) = (context(), context());
    let (pool, other) = (pool(&ours), super::pool(&theirs));
    let at = |driver: &str, name: &str| format!("{driver},iface={name},netns={}", lab.path());
    let near = start(&ours, &at("net_af_xdp0", "near"), &pool).expect("a port");
    let far = start(&theirs, &at("net_af_xdp1", "far"), &other).expect("a port");
    lab.ip("link del near");
    assert!(!near.control.link().up);
    veth(&lab);
    let again = |port: Port, pool: &Pool| {
        configure(port.stop(), PortConfig::default()).and_then(|port| port.start(pool)).expect("found")
    };
    let (mut near, mut far) = (again(near, &pool), again(far, &other));
    wait_until("the link comes up", || near.control.link().up && far.control.link().up);
    send(&mut near, (0..16).map(|i| frame(&pool, i, 60)));
    assert_eq!(receive(&mut far, 16).len(), 16);
    drop((near.stop(), far.stop()));
    expect_no_xdp(&lab, "near");
}

#[test]
fn the_loopback_interface_carries_frames() {
    let Some(lab) = lab("af_xdp the_loopback_interface_carries_frames") else { return };
    let context = context();
    let pool = pool(&context);
    let mut port =
        start(&context, &format!("net_af_xdp0,iface=lo,netns={}", lab.path()), &pool).expect("a port");
    send(&mut port, (0..16).map(|i| frame(&pool, i, 60)));
    assert_eq!(receive(&mut port, 16).len(), 16, "what is sent comes back");
    drop(port.stop());
    expect_no_xdp(&lab, "lo");
}

#[test]
fn queues_in_use_are_counted() {
    let Some(lab) = lab("queues_in_use_are_counted") else { return };
    veth(&lab);
    let queues = |name: &str| lab.run(|| crate::channels::receive(name));
    assert_eq!(queues("near"), Some(2));
    assert_eq!((queues("lo"), queues("none")), (None, None), "no driver that says so");
}

#[test]
fn a_link_that_goes_down_and_comes_back() {
    let Some(lab) = lab("a_link_that_goes_down_and_comes_back") else { return };
    veth(&lab);
    let (ours, theirs) = (context(), context());
    let (pool, other) = (pool(&ours), super::pool(&theirs));
    let mut near =
        start(&ours, &format!("net_af_xdp0,iface=near,netns={}", lab.path()), &pool).expect("a port");
    let mut far =
        start(&theirs, &format!("net_af_xdp1,iface=far,netns={}", lab.path()), &other).expect("a port");
    for round in 0..3 {
        send(&mut near, (0..16).map(|i| frame(&pool, i, 60)));
        assert_eq!(receive(&mut far, 16).len(), 16, "round {round}");
        lab.ip("link set near down");
        assert!(!near.control.link().up && !far.control.link().up);
        let mut burst = Burst::new();
        (0..16).for_each(|i| burst.push(frame(&pool, i, 60)).expect("room"));
        near.tx[0].tx_burst(&mut burst);
        burst.clear();
        lab.ip("link set near up");
        // What was left in the ring is sent when somebody polls.
        drop(receive(&mut near, 0));
        wait_until("the link comes back", || near.control.link().up && far.control.link().up);
        near.tx[0].reclaim();
        let mut late = Burst::new();
        std::thread::sleep(Duration::from_millis(50));
        while far.rx[0].rx_burst(&mut late) > 0 {
            late.clear();
        }
    }
    near.stop();
    far.stop();
    assert_eq!((pool.stats().in_use, other.stats().in_use), (0, 0));
}
