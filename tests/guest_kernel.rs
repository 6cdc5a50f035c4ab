//! The kernel of a guest as the backend: `net_virtio_user` over `/dev/vhost-net`, with a tap interface of the guest's own
//! stack at the other end. ARP, ICMP, UDP and TCP pass, one queue pair and two, with and without offloads; every byte of the
//! payloads is compared.
//!
//! ```text
//!   guest  linecard testpmd ── net_virtio_user0 ── /dev/vhost-net ── lc0 ── its stack
//!                           ── net_virtio_user1 ── /dev/vhost-net ── lc1 ── its stack, in another namespace
//! ```

mod support;

use std::path::Path;

use support::guest::{Guest, Parts};
use support::{Scratch, on_path, skip};

/// Bytes of each stream.
const STREAM_KIB: usize = 2000;

/// One testpmd at a time: `pmd ARGUMENTS` starts it, `type_in LINE` types, `printed TEXT` waits for what it prints from then
/// on. `tell LINE TEXT` is both.
const FUNCTIONS: &str = r#"
pmd() {
  rm -f /tmp/in /tmp/out; mkfifo /tmp/in; : > /tmp/out; chmod 666 /tmp/in /tmp/out
  ( $AS linecard testpmd "$@" < /tmp/in >> /tmp/out 2>&1; echo "EXIT $?" >> /tmp/out ) &
  exec 9> /tmp/in
}
printed() {
  tries=0
  until grep -q -e "$1" /tmp/out; do
    sleep 0.1; tries=$((tries+1))
    [ $tries -lt 300 ] || { echo "'$1' was not printed:"; cat /tmp/out; return 1; }
  done
}
tell() { : > /tmp/out; echo "$1" >&9; printed "$2"; }
until_good() { tries=0; until eval "$1" > /dev/null 2>&1; do sleep 0.1; tries=$((tries+1)); [ $tries -lt 300 ] || { eval "$1"; return 1; }; done; }
finish() { echo quit >&9; exec 9>&-; printed '^EXIT'; grep -q '^EXIT 0' /tmp/out || { cat /tmp/out; return 1; }; }
echoes() { ping -c 3 -i 0.2 -W 5 -s $1 10.0.0.2 | grep '3 packets transmitted, 3 packets received'; }
xstat() { : > /tmp/out; echo "show port xstats $1" >&9; printed "$2:"; sed -n "s/.*$2: //p" /tmp/out; }
datagram() { bash -c 'exec 3<>/dev/udp/10.0.0.2/7; head -c 1200 /dev/urandom > /tmp/sent; cat /tmp/sent >&3; timeout 10 head -c 1200 <&3 > /tmp/got; cmp /tmp/sent /tmp/got'; }
datagrams() { n=0; while [ $n -lt $1 ]; do datagram || return 1; n=$((n+1)); done; }
inside() { nsenter -t $OTHER -n "$@"; }
stream() {
  head -c ${KIB}k /dev/urandom > /tmp/sent
  $receiver nc -l -p 5000 -e dd of=/tmp/got bs=64k 2>/dev/null & listener=$!
  until $receiver netstat -tln | grep -q :5000; do sleep 0.1; done
  $sender timeout 60 nc $1 5000 -e dd if=/tmp/sent bs=64k 2>/dev/null
  wait $listener
  cmp /tmp/sent /tmp/got; same=$?; rm -f /tmp/got; return $same
}
bad_sums() { $1 grep Tcp: /proc/net/snmp | tail -1 | awk '{print $15}'; }
"#;

/// A guest with two processors that has this program, and a shell that can send datagrams.
fn guest(test: &str, scratch: &Scratch) -> Option<Guest> {
    let parts = Parts::find_vhost(test)?;
    let Some(bash) = on_path("bash") else {
        skip(test, "bash is not installed (apt-get install bash)");
        return None;
    };
    let parts = parts.with_program(Path::new(env!("CARGO_BIN_EXE_linecard")), scratch.path());
    let parts = parts.with_program(&bash, scratch.path());
    let devices = ["-smp".to_owned(), "2".to_owned()];
    let functions = FUNCTIONS.replace("${KIB}", &STREAM_KIB.to_string());
    Some(Guest::with_shell(&parts, scratch.path(), &functions, &devices))
}

/// Starts testpmd with two ports over vhost-net that have so many queue pairs.
fn start(guest: &mut Guest, queues: u16, offloads: bool) {
    let vdev =
        |port| format!("--vdev net_virtio_user{port},path=/dev/vhost-net,iface=lc{port},queues={queues}");
    let flags = if offloads { "--enable-rx-cksum --enable-lro --tx-offloads=0x2e" } else { "" };
    guest.must(&format!(
        "pmd -l 0,1 --no-huge -m 64 {} {} -- -i --forward-mode=icmpecho --rxq={queues} --txq={queues} --total-num-mbufs=8192 {flags}",
        vdev(0),
        vdev(1)
    ));
    guest.must("printed testpmd");
    guest.must("tell start 'icmpecho packet forwarding'");
    guest.must("ip addr add 10.0.0.1/24 dev lc0");
}

/// Forwards between these ports in this mode from now on; one alone gets back what it sends.
fn forward(guest: &mut Guest, ports: &str, mode: &str) {
    guest.must(&format!("tell stop 'Accumulated'; echo 'set portlist {ports}' >&9"));
    guest.must(&format!(
        "echo 'set fwd {mode}' >&9; echo 'clear port xstats all' >&9; tell start '{mode} packet forwarding'"
    ));
}

#[track_caller]
fn number(guest: &mut Guest, port: u16, name: &str) -> u64 {
    let text = guest.must(&format!("xstat {port} {name}"));
    text.trim().parse().unwrap_or_else(|_| panic!("{name}: '{text}'\n{}", guest.transcript()))
}

#[test]
fn a_kernels_stack_exchanges_packets_with_testpmd() {
    let test = "a_kernels_stack_exchanges_packets_with_testpmd";
    let scratch = Scratch::new(test);
    let Some(mut guest) = guest(test, &scratch) else { return };
    for (queues, offloads) in [(1, false), (1, true), (2, false), (2, true)] {
        let what = format!("queues={queues}, offloads {offloads}");
        start(&mut guest, queues, offloads);
        let features = guest.must("tell 'show port info 0' 'Link status: up'; cat /tmp/out");
        assert_eq!(features.contains("NET_GUEST_CSUM"), offloads, "{what}: {features}");
        assert_eq!(features.contains("NET_MQ"), queues > 1, "{what}: {features}");
        assert!(features.contains("vhost-net, interface lc0"), "{what}: {features}");

        guest.must("echoes 10");
        guest.must("echoes 1400");

        // What comes from a port goes back to it; each datagram has a port, and so a queue, of its own.
        forward(&mut guest, "0", "5tswap");
        guest.must("datagrams 24");
        let all: Vec<u64> =
            (0..queues).map(|queue| number(&mut guest, 0, &format!("rx_q{queue}_packets"))).collect();
        assert!(all.iter().sum::<u64>() >= 24 && all.iter().all(|packets| *packets > 0), "{what}: {all:?}");

        forward(&mut guest, "0,1", "io");
        guest.must("unshare -n sleep 100000 & OTHER=$!; until_good 'inside true'");
        guest.must("ip link set lc1 netns $OTHER && inside ip addr add 10.0.0.9/24 dev lc1 && inside ip link set lc1 up");
        guest.must("sender= receiver=inside stream 10.0.0.9");
        guest.must("sender=inside receiver= stream 10.0.0.1");
        assert_eq!(guest.must("bad_sums; bad_sums inside"), "0\n0", "{what}");
        let (packets, bytes) =
            (number(&mut guest, 0, "rx_good_packets"), number(&mut guest, 0, "rx_good_bytes"));
        assert!(bytes > STREAM_KIB as u64 * 1024, "{what}: {bytes}");
        assert_eq!(bytes / packets > 1514, offloads, "{what}: {packets} packets, {bytes} bytes");

        guest.must("tell stop Accumulated; tell 'port stop all' 'Stopping ports'");
        let pool = guest.must("tell 'show pool' 'mempool <'; cat /tmp/out");
        assert!(pool.contains("in_use=0"), "{what}: packets are missing: {pool}");
        guest.must("finish");
        guest.must("kill $OTHER; until_good '! ip link show lc0'");
    }
    assert_eq!(guest.complaints(), "");
}
