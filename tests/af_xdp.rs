//! `net_af_xdp` between the kernel, DPDK and virtio-user ports, over veth pairs between namespaces.

mod support;

use std::time::Duration;

use linecard_lab::{Cable, Lab, wait_until};
use support::console::{Kind, Testpmd, present};
use support::ours::{Ours, assert_perfect, backend_vdev, frontend_vdev, wait_for_socket};
use support::peer::start;
use support::{Scratch, on_path, skip};

/// Lengths that a veth of 1500 bytes carries; Ethernet's least and most.
const LENGTHS: &[usize] = &[64, 65, 127, 128, 129, 200, 256, 257, 512, 777, 1024, 1514];

/// Our testpmd with these devices, in a mode, forwarding when this returns.
fn ours(mode: &str, vdevs: &[String]) -> Testpmd {
    let prefix = format!("lcx{}", std::process::id());
    let mut eal = vec!["-l", "0,1", "--no-pci", "-m", "64", "--file-prefix", &prefix];
    eal.extend(vdevs.iter().flat_map(|vdev| ["--vdev", vdev.as_str()]));
    let mut testpmd = Testpmd::start(Kind::Linecard, &eal, &["-i", "--nb-cores=1", "--total-num-mbufs=8192"]);
    testpmd.type_line(&format!("set fwd {mode}"));
    testpmd.type_line("start");
    testpmd.expect(&format!("{mode} packet forwarding packets/burst"), Duration::from_secs(60));
    testpmd
}

#[test]
fn the_kernel_pings_us() {
    let test = "the_kernel_pings_us";
    if on_path("ping").is_none() {
        return skip(test, "no program 'ping' (apt-get install iputils-ping)");
    }
    let Some(cable) = Cable::with_xdp(test) else { return };
    cable.far.ip("addr add 10.9.0.1/24 dev far");
    for options in ["mode=drv", "mode=skb"] {
        let echo = ours("icmpecho", &[cable.at_near("net_af_xdp0", &format!(",{options}"))]);
        println!("{options}");
        cable.far.ping("10.9.0.2", 30, 1400).expect("ping runs");
        assert!(echo.quit().success());
        cable.far.ip("neigh flush dev far");
    }
}

/// A testpmd with `vdev` at the far end returns everything; every byte is compared.
fn byte_for_byte(kind: Kind, vdev: &str, test: &str) {
    if !present(kind, test) {
        return;
    }
    let Some(cable) = Cable::with_xdp(test) else { return };
    let peer = cable.far.run(|| start(kind, &[vdev], test));
    for options in ["", "busy_budget=0", "mode=skb"] {
        let mut ours = Ours::start(&cable.at_near("net_af_xdp0", &format!(",{options}")));
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(20_000, LENGTHS), options);
        ours.stop();
    }
    assert!(peer.quit().success());
}

#[test]
fn dpdk_af_packet_at_the_other_end() {
    byte_for_byte(Kind::Dpdk, "net_af_packet0,iface=far", "dpdk_af_packet_at_the_other_end");
}

#[test]
fn dpdk_af_xdp_at_the_other_end() {
    byte_for_byte(Kind::Dpdk, "net_af_xdp0,iface=far", "dpdk_af_xdp_at_the_other_end");
}

#[test]
fn ours_at_the_other_end() {
    byte_for_byte(Kind::Linecard, "net_af_xdp0,iface=far", "ours_at_the_other_end");
}

/// The value of an extended counter on testpmd's console.
fn counter(testpmd: &mut Testpmd, port: u16, name: &str) -> u64 {
    testpmd.type_line(&format!("show port xstats {port}"));
    let line = testpmd.expect(&format!("{name}:"), Duration::from_secs(60));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// From a veth to a virtio-user or vhost port and back: the buffers the kernel wrote are those the other end reads, and
/// the other way round too.
fn to_vhost_user_without_a_copy(test: &str, near_virtio: bool) {
    let Some(cable) = Cable::with_xdp(test) else { return };
    let scratch = Scratch::new(test);
    let socket = scratch.join("s");
    let returner = start(Kind::Linecard, &[&cable.at_far("net_af_xdp0", "")], test);
    let (backend, frontend) = (backend_vdev(&socket), frontend_vdev(&socket, ""));
    let mut middle;
    let mut prover;
    let xdp = cable.at_near("net_af_xdp0", "");
    if near_virtio {
        prover = Ours::start(&backend);
        middle = ours("io", &[xdp, frontend]);
    } else {
        middle = ours("io", &[xdp, backend]);
        wait_for_socket(&socket);
        prover = Ours::start(&frontend);
    }
    prover.wait_for_link(true);
    prover.settle();
    assert_perfect(&prover.prove(20_000, LENGTHS), test);
    let sent = counter(&mut middle, 0, "tx_good_packets");
    assert!(sent >= 20_000, "{sent}");
    assert_eq!(counter(&mut middle, 0, "tx_q0_copied"), 0);
    prover.stop();
    for line in ["stop", "port stop all", "show pool"] {
        middle.type_line(line);
    }
    let line = middle.expect("mempool <", Duration::from_secs(60));
    assert!(line.contains("in_use=0"), "packets are missing: {line}");
    assert!(middle.quit().success() && returner.quit().success());
}

#[test]
fn to_a_virtio_user_port_and_back() {
    to_vhost_user_without_a_copy("to_a_virtio_user_port_and_back", true);
}

#[test]
fn to_a_vhost_port_and_back() {
    to_vhost_user_without_a_copy("to_a_vhost_port_and_back", false);
}

/// The number of the program on an interface.
fn program(lab: &Lab, name: &str) -> Option<String> {
    let text = lab.ip(&format!("-d link show {name}"));
    let rest = text.split("prog/xdp id ").nth(1)?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[test]
fn nothing_is_left_after_sigkill() {
    let test = "nothing_is_left_after_sigkill";
    if on_path("bpftool").is_none() && !std::path::Path::new("/usr/sbin/bpftool").exists() {
        return skip(test, "no program 'bpftool' (apt-get install bpftool)");
    }
    let Some(cable) = Cable::with_xdp(test) else { return };
    let knows = |kind: &str, id: &str| {
        let mut command = std::process::Command::new("/usr/sbin/bpftool");
        command.args([kind, "show", "id", id]).output().expect("bpftool").status.success()
    };
    for round in 0..3 {
        let mut testpmd = ours("io", &[cable.at_near("net_af_xdp0", "")]);
        let id = program(&cable.near, "near").expect("a program is on the interface");
        assert!(knows("prog", &id), "bpftool sees program {id}");
        testpmd.kill();
        assert_eq!(program(&cable.near, "near"), None, "round {round}");
        // The kernel frees programs a moment after the last reference.
        wait_until(&format!("program {id} is gone"), || !knows("prog", &id));
        assert!(cable.near.ip("-d link show near").contains("promiscuity 0"));
    }
}

#[test]
fn a_refusal_is_one_sentence_on_the_command_line() {
    let test = "a_refusal_is_one_sentence_on_the_command_line";
    let Some(cable) = Cable::with_xdp(test) else { return };
    let vdev = cable.at_near("net_af_xdp0", "").replace("near", "mear");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_linecard"));
    let output =
        command.args(["testpmd", "--no-pci", "-m", "64", "--vdev", &vdev, "--"]).output().expect("runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("there is no interface 'mear'") && text.contains("did you mean 'near'?"), "{text}");
}
