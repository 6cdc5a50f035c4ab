//! The virtio-net driver of Linux, in a QEMU guest, at our backend: it pings testpmd, and sends TCP streams through it
//! with its checksums and its 64 KiB segments left to us; every byte is compared.
//!
//! ```text
//!   guest, namespace A: eth0 ─ split ── net_vhost0 ┐
//!   guest, namespace B: eth1 ─ packed ─ net_vhost1 ┘ linecard testpmd: icmpecho, then io between pairs
//! ```
//!
//! The same with two queue pairs a card, of which the guest uses two, one, and two again.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use linecard_lab::wait_until;
use support::Scratch;
use support::console::{Kind, Testpmd};
use support::guest::{BEGIN, Guest, Kernel, Monitor, Parts};

/// One network card of the guest, by QEMU's properties; cards 0 and 1, 2 and 3, … talk to each other.
const CARDS: [&str; 6] = [
    "packed=off,mrg_rxbuf=on",
    "packed=on,mrg_rxbuf=on",
    "packed=off,mrg_rxbuf=off",
    "packed=on,mrg_rxbuf=off",
    "packed=off,mrg_rxbuf=on",
    // It takes nothing unfinished and nothing large: testpmd has to cut and to sum.
    "packed=on,mrg_rxbuf=on,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
];
/// Bytes of each stream.
const STREAM_KIB: usize = 3000;
/// Bits of features.
const NET_MRG_RXBUF: usize = 15;
const NET_MQ: usize = 22;
const RING_PACKED: usize = 34;
const BOOT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(90);

/// The rest of the guest's system. Cards of odd number move to namespace B before they talk to their pair.
const SCRIPT: &str = r#"
n=0
while [ $n -lt $cards ]; do
  ip addr add 10.0.$n.1/24 dev eth$n; ip link set eth$n up
  echo "features $n $(cat /sys/class/net/eth$n/device/features)"
  for size in 10 1400; do
    echo "echo $n $size: $(ping -c 3 -i 0.2 -W 2 -s $size 10.0.$n.2 | grep transmitted)"
  done
  n=$((n+1))
done
echo "PINGED"
read go
unshare -n sleep 1000 & B=$!
sleep 1
inside() { nsenter -t $B -n "$@"; }
inside sh -c 'for all in all default; do echo 0 > /proc/sys/net/ipv6/conf/$all/accept_dad; done'
a=0
while [ $a -lt $cards ]; do
  b=$((a+1))
  ip link set eth$b netns $B
  ip addr add fd00:$a::1/64 dev eth$a
  inside ip addr add 10.0.$a.9/24 dev eth$b
  inside ip addr add fd00:$a::9/64 dev eth$b
  inside ip link set eth$b up
  sleep 0.5
  sender= receiver=inside stream "$a-$b-v4" 10.0.$a.9
  sender=inside receiver= stream "$b-$a-v4" 10.0.$a.1
  sender= receiver=inside stream "$a-$b-v6" fd00:$a::9
  sender=inside receiver= stream "$b-$a-v6" fd00:$a::1
  a=$((a+2))
done
echo "bad checksums $(bad_sums) $(inside bad_sums)"
echo "FINISHED"
poweroff -f
"#;

/// Two queue pairs a card, and two processors to use them.
const MULTIQUEUE_CARDS: [&str; 2] = ["packed=off,mq=on", "packed=on,mq=on"];
const PAIRS: usize = 2;
/// How many queue pairs the guest uses, one after the other.
const IN_USE: [usize; 3] = [2, 1, 2];
/// Bytes of each stream of theirs.
const MULTIQUEUE_KIB: usize = 1000;

/// The rest of the system of a guest with several queues: Linux sends from processor N on queue N.
const MULTIQUEUE_SCRIPT: &str = r#"
for n in 0 1; do
  ip addr add 10.0.$n.1/24 dev eth$n; ip link set eth$n up
  echo "features $n $(cat /sys/class/net/eth$n/device/features)"
done
use() { # queues; where each card is: $first, $second
  $first ethtool -L eth0 combined $1 2>/dev/null; $second ethtool -L eth1 combined $1 2>/dev/null
  now() { grep Combined: | tail -n 1 | tr -dc 0-9; }
  echo "using $($first ethtool -l eth0 | now) $($second ethtool -l eth1 | now)"
}
first= second=
for queues in $IN_USE; do
  use $queues
  read go
  for n in 0 1; do for cpu in 0 1; do
    echo "echo $n $cpu: $(taskset $((cpu+1)) ping -c 5 -i 0.1 -W 2 -s 1400 10.0.$n.2 | grep transmitted)"
  done; done
done
read go
unshare -n sleep 1000 & B=$!
sleep 1
inside() { nsenter -t $B -n "$@"; }
ip link set eth1 netns $B
inside ip addr add 10.0.0.9/24 dev eth1
inside ip link set eth1 up
sleep 0.5
second=inside
for queues in $IN_USE; do
  use $queues
  for cpu in 0 1; do
    sender="taskset $((cpu+1))" receiver=inside stream "0-1-$queues-$cpu" 10.0.0.9
    sender="inside taskset $((cpu+1))" receiver= stream "1-0-$queues-$cpu" 10.0.0.1
  done
done
echo "FINISHED"
poweroff -f
"#;

/// A guest whose backend is killed in the middle of traffic and comes again, twice; then the driver of card 1 is bound anew.
const RESTART_SCRIPT: &str = r#"
up() { ip addr add 10.0.$1.1/24 dev eth$1; ip link set eth$1 up; }
try() { echo "$1 $2: $(ping -c 3 -i 0.2 -W 2 -s 1400 10.0.$2.2 | grep transmitted)"; }
for n in 0 1; do up $n; try before $n; done
for round in first second; do
  for n in 0 1; do ping -i 0.01 -s 1400 10.0.$n.2 > /dev/null & done
  read go
  killall ping
  for n in 0 1; do
    # The card's link comes up a moment after its rings.
    until ping -c 1 -W 1 10.0.$n.2 > /dev/null; do sleep 0.1; done
    try $round $n
  done
done
device=$(basename $(readlink -f /sys/class/net/eth1/device))
cd /sys/bus/virtio/drivers/virtio_net
echo $device > unbind; echo $device > bind
up 1
for n in 0 1; do try reloaded $n; done
echo "FINISHED"
poweroff -f
"#;

/// A guest that moves to another host: streams from one of its cards to the other go on meanwhile, through the backends.
const MIGRATION_SCRIPT: &str = r#"
unshare -n sleep 10000 & B=$!
sleep 1
inside() { nsenter -t $B -n "$@"; }
ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up
ip link set eth1 netns $B
inside ip addr add 10.0.0.9/24 dev eth1; inside ip link set eth1 up
sleep 0.5
round() { # as stream above, with more time
  dd if=/dev/urandom of=/sent bs=1024 count=$KIB 2>/dev/null
  $receiver nc -l -p 5000 -e dd of=/got bs=64k 2>/dev/null & L=$!
  sleep 0.3
  $sender timeout 100 nc $2 5000 -e dd if=/sent bs=64k 2>/dev/null
  wait $L
  echo "stream $1 $(md5sum < /sent | cut -c1-32) $(md5sum < /got | cut -c1-32)"
  rm -f /got
}
(
  n=0
  while [ ! -e /enough ]; do
    n=$((n+1))
    sender= receiver=inside round $n 10.0.0.9
    n=$((n+1))
    sender=inside receiver= round $n 10.0.0.1
  done
) & S=$!
hold() { # number, address; what arrives lies where the card has put it until it is released
  dd if=/dev/urandom of=/held$1 bs=1000 count=40 2>/dev/null
  until_released='while [ ! -e /release ]; do sleep 0.2; done'
  $receiver nc -l -p 700$1 -e sh -c "$until_released; exec dd of=/kept$1 bs=64k 2>/dev/null" &
  shows() { $receiver grep -q "$1" /proc/net/tcp /proc/net/tcp6; }
  until shows ":1B5[9A] .* 0A "; do sleep 0.2; done
  $sender sh -c "(cat /held$1; $until_released) | nc $2 700$1" &
  until shows ":1B5[9A] .*:00009C40"; do sleep 0.2; done
}
# So that the migration does not come to its end before it is let.
while [ ! -e /enough ]; do dd if=/dev/zero of=/churn bs=1M count=8 conv=notrunc 2>/dev/null; sleep 0.1; done &
echo "READY"
read go
sender= receiver=inside hold 1 10.0.0.9
sender=inside receiver= hold 2 10.0.0.1
echo "HELD"
read go
touch /enough
wait $S
touch /release
for n in 1 2; do
  until cmp -s /held$n /kept$n || [ $((tries=tries+1)) -gt 100 ]; do sleep 0.1; done
  echo "kept $n $(md5sum < /held$n | cut -c1-32) $(md5sum < /kept$n | cut -c1-32)"
done
echo "pings $(ping -c 3 -i 0.2 -W 5 10.0.0.9 | grep transmitted)"
echo "FINISHED"
poweroff -f
"#;
/// Of each of its streams.
const MIGRATION_KIB: usize = 2000;
/// How long a machine may take that emulates two guests.
const MIGRATION: Duration = Duration::from_secs(60);

/// A card at each socket. Message-signalled interrupts are off (`vectors=0`): QEMU 7.2 without KVM crashes with them.
fn cards(sockets: &[PathBuf], cards: &[&str], pairs: usize) -> Vec<String> {
    let mut arguments = vec!["-smp".into(), pairs.to_string()];
    for (n, (socket, properties)) in sockets.iter().zip(cards).enumerate() {
        arguments.extend(["-chardev".into(), format!("socket,id=c{n},path={}", socket.display())]);
        arguments.extend(["-netdev".into(), format!("vhost-user,id=n{n},chardev=c{n},queues={pairs}")]);
        let fixed = format!("netdev=n{n},mac=52:54:00:00:00:0{n},vectors=0,romfile=");
        arguments.extend(["-device".into(), format!("virtio-net-pci,{fixed},{properties}")]);
    }
    arguments
}

fn testpmd(sockets: &[PathBuf], pairs: usize) -> Testpmd {
    let vdevs: Vec<_> = sockets
        .iter()
        .enumerate()
        .map(|(n, socket)| format!("net_vhost{n},iface={},tso=1,queues={pairs}", socket.display()))
        .collect();
    let mut eal = vec!["-l", "0,1", "--no-huge", "-m", "256"];
    eal.extend(vdevs.iter().flat_map(|vdev| ["--vdev", vdev]));
    let queues = [format!("--rxq={pairs}"), format!("--txq={pairs}")];
    let mut app =
        vec!["-i", "--forward-mode=icmpecho", "--enable-rx-cksum", "--enable-lro", "--tx-offloads=0x2e"];
    app.extend(queues.iter().map(String::as_str));
    let mut testpmd = Testpmd::start(Kind::Linecard, &eal, &app);
    testpmd.type_line("start");
    testpmd.expect("icmpecho packet forwarding", STEP);
    testpmd
}

/// Counters of a port, by name, in the order in which they are printed.
fn counters<const N: usize>(testpmd: &mut Testpmd, port: usize, names: [&str; N]) -> [u64; N] {
    testpmd.type_line(&format!("show port xstats {port}"));
    names.map(|name| {
        let line = testpmd.expect(&format!("{name}:"), STEP);
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    })
}

fn is_up(testpmd: &mut Testpmd, port: usize) -> bool {
    testpmd.type_line(&format!("show port info {port}"));
    testpmd.expect("Link status", STEP).contains("up")
}

/// Forwards in this mode from now on; counters begin at 0.
fn forward(testpmd: &mut Testpmd, mode: &str) {
    for line in ["stop", "clear port stats all", &format!("set fwd {mode}"), "start"] {
        testpmd.type_line(line);
    }
    testpmd.expect(&format!("{mode} packet forwarding"), STEP);
}

/// Ends it; none of its ports refused anything, and every packet must be home.
fn assert_whole(mut testpmd: Testpmd, ports: usize) {
    for port in 0..ports {
        let [refused] = counters(&mut testpmd, port, ["refused_requests"]);
        assert_eq!(refused, 0, "port {port}: {}", testpmd.transcript());
    }
    for line in ["stop", "port stop all", "show pool"] {
        testpmd.type_line(line);
    }
    let pool = testpmd.expect("mempool <", STEP);
    assert!(pool.contains("in_use=0"), "packets are missing: {pool}");
    assert!(testpmd.quit().success());
}

/// The next stream's line says that it arrived as it was sent.
fn assert_stream(guest: &mut Guest, name: &str) {
    let line = guest.expect(&format!("stream {name} "), STEP);
    let words: Vec<_> = line.split(' ').collect();
    assert!(words.len() == 4 && words[2] == words[3], "the stream changed: {line}");
}

/// Whether the guest's driver of card `n` took feature `bit`, by the line that it prints of them.
fn has_feature(line: &str, bit: usize) -> bool {
    line.as_bytes()["features 0 ".len() + bit] == b'1'
}

#[test]
fn linux_guest_pings_and_sends_large_packets() {
    let test = "linux_guest_pings_and_sends_large_packets";
    let Some(parts) = Parts::find(test, Kernel::Net) else { return };
    let scratch = Scratch::new(test);
    let sockets: Vec<_> = (0..CARDS.len()).map(|n| scratch.join(&format!("s{n}"))).collect();
    let mut testpmd = testpmd(&sockets, 1);
    let script = [BEGIN, SCRIPT].concat().replace("$KIB", &STREAM_KIB.to_string());
    let mut guest = Guest::boot(&parts, scratch.path(), &script, &cards(&sockets, &CARDS, 1));

    for (n, properties) in CARDS.iter().enumerate() {
        let features = guest.expect(&format!("features {n} "), BOOT);
        assert_eq!(has_feature(&features, RING_PACKED), properties.contains("packed=on"), "{features}");
        assert_eq!(has_feature(&features, NET_MRG_RXBUF), properties.contains("mrg_rxbuf=on"), "{features}");
        for _ in 0..2 {
            let line = guest.expect(&format!("echo {n} "), STEP);
            assert!(line.contains("3 packets transmitted, 3 packets received"), "{line}");
        }
    }
    guest.expect("PINGED", STEP);

    forward(&mut testpmd, "io");
    guest.type_line("go");
    for pair in (0..CARDS.len()).step_by(2) {
        let (a, b) = (pair, pair + 1);
        for name in
            [format!("{a}-{b}-v4"), format!("{b}-{a}-v4"), format!("{a}-{b}-v6"), format!("{b}-{a}-v6")]
        {
            assert_stream(&mut guest, &name);
        }
    }
    let bad = guest.expect("bad checksums ", STEP);
    assert_eq!(bad, "bad checksums 0 0", "{}", guest.transcript());
    guest.expect("FINISHED", STEP);
    assert_eq!(guest.complaints(), "");
    drop(guest);

    for port in 0..CARDS.len() {
        let [packets, bytes] = counters(&mut testpmd, port, ["rx_good_packets", "rx_good_bytes"]);
        assert!(bytes > 2 * STREAM_KIB as u64 * 1024, "{port}: {bytes}");
        // Two streams out, as many acknowledgements of the two that came in.
        assert!(
            bytes / packets > 1514,
            "port {port} received nothing large: {packets} packets, {bytes} bytes"
        );
    }
    assert_whole(testpmd, sockets.len());
}

#[test]
fn linux_guest_uses_two_queues_then_one_then_two_again() {
    let test = "linux_guest_uses_two_queues_then_one_then_two_again";
    let Some(parts) = Parts::find(test, Kernel::Net) else { return };
    let scratch = Scratch::new(test);
    let Some(parts) = parts.with_ethtool(test, scratch.path()) else { return };
    let sockets: Vec<_> = (0..MULTIQUEUE_CARDS.len()).map(|n| scratch.join(&format!("s{n}"))).collect();
    let mut testpmd = testpmd(&sockets, PAIRS);
    let in_use = IN_USE.map(|queues| queues.to_string()).join(" ");
    let script = [BEGIN, MULTIQUEUE_SCRIPT].concat();
    let script = script.replace("$KIB", &MULTIQUEUE_KIB.to_string()).replace("$IN_USE", &in_use);
    let devices = cards(&sockets, &MULTIQUEUE_CARDS, PAIRS);
    let mut guest = Guest::boot(&parts, scratch.path(), &script, &devices);
    for (n, properties) in MULTIQUEUE_CARDS.iter().enumerate() {
        let features = guest.expect(&format!("features {n} "), BOOT);
        assert_eq!(has_feature(&features, RING_PACKED), properties.contains("packed=on"), "{features}");
        assert!(has_feature(&features, NET_MQ), "{features}");
    }

    // What each queue of the guest sends comes from that queue here, and the answer goes back the same way.
    for queues in IN_USE {
        guest.expect(&format!("using {queues} {queues}"), STEP);
        forward(&mut testpmd, "icmpecho");
        guest.type_line("go");
        for (n, cpu) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let line = guest.expect(&format!("echo {n} {cpu}: "), STEP);
            assert!(line.contains("5 packets transmitted, 5 packets received"), "{line}");
        }
        for port in 0..MULTIQUEUE_CARDS.len() {
            let names = ["rx_q0_packets", "rx_q1_packets", "tx_q0_packets", "tx_q1_packets"];
            let [rx0, rx1, tx0, tx1] = counters(&mut testpmd, port, names);
            let what = format!("port {port}, {queues} queues in use: rx {rx0} {rx1}, tx {tx0} {tx1}");
            if queues == 1 {
                assert!(rx0 >= 10 && tx0 >= 10 && rx1 == 0 && tx1 == 0, "{what}");
            } else {
                assert!(rx0 >= 5 && tx0 >= 5 && rx1 >= 5 && tx1 >= 5, "{what}");
            }
        }
    }

    forward(&mut testpmd, "io");
    guest.type_line("go");
    for queues in IN_USE {
        guest.expect(&format!("using {queues} {queues}"), STEP);
        for cpu in 0..PAIRS {
            assert_stream(&mut guest, &format!("0-1-{queues}-{cpu}"));
            assert_stream(&mut guest, &format!("1-0-{queues}-{cpu}"));
        }
    }
    guest.expect("FINISHED", STEP);
    assert_eq!(guest.complaints(), "");
    drop(guest);
    assert_whole(testpmd, sockets.len());
}

#[test]
fn a_backend_that_is_killed_and_restarted_resumes_split_and_packed_rings() {
    let test = "a_backend_that_is_killed_and_restarted_resumes_split_and_packed_rings";
    let Some(parts) = Parts::find(test, Kernel::Net) else { return };
    let scratch = Scratch::new(test);
    let sockets: Vec<_> = (0..MULTIQUEUE_CARDS.len()).map(|n| scratch.join(&format!("s{n}"))).collect();
    let mut backend = testpmd(&sockets, PAIRS);
    let mut devices = cards(&sockets, &MULTIQUEUE_CARDS, PAIRS);
    for socket in devices.iter_mut().filter(|argument| argument.starts_with("socket,")) {
        socket.push_str(",reconnect=1");
    }
    let mut guest = Guest::boot(&parts, scratch.path(), &[BEGIN, RESTART_SCRIPT].concat(), &devices);
    let echoes = |guest: &mut Guest, what: &str| {
        for n in 0..MULTIQUEUE_CARDS.len() {
            let line = guest.expect(&format!("{what} {n}: "), BOOT);
            let whole = "3 packets transmitted, 3 packets received";
            assert!(line.contains(whole), "{line}\n{}\n{}", guest.transcript(), guest.complaints());
        }
    };
    echoes(&mut guest, "before");
    for round in ["first", "second"] {
        // Pings go on meanwhile: what is in the rings by then is more than was there when they were last told of.
        for port in 0..MULTIQUEUE_CARDS.len() {
            wait_until("traffic", || counters(&mut backend, port, ["rx_good_packets"])[0] > 50);
        }
        backend.kill();
        backend = testpmd(&sockets, PAIRS);
        for port in 0..MULTIQUEUE_CARDS.len() {
            wait_until("the guest's card is up", || is_up(&mut backend, port));
        }
        guest.type_line("go");
        echoes(&mut guest, round);
    }
    echoes(&mut guest, "reloaded");
    assert!(!backend.transcript().contains("does not tell how far"), "{}", backend.transcript());
    guest.expect("FINISHED", STEP);
    drop(guest);
    assert_whole(backend, sockets.len());
}

/// The next whole line that begins with `start` and says what was sent and what arrived.
fn expect_same(guest: &mut Guest, start: &str) {
    let line = guest.expect(start, MIGRATION);
    let words: Vec<_> = line.split(' ').collect();
    assert!(words.len() == 4 && words[2] == words[3], "the stream changed: {line}");
}

/// Gives commands to QEMU's monitor until the state of the migration is as `is_it` wants it.
fn wait_for_migration(monitor: &mut Monitor, commands: &[&str], is_it: impl Fn(&str) -> bool) {
    for command in commands {
        let answer = monitor.command(command);
        assert!(!answer.contains("Error"), "{answer}");
    }
    let began = std::time::Instant::now();
    loop {
        let state = monitor.command("info migrate");
        if is_it(&state) {
            return;
        }
        assert!(!state.contains("failed") && began.elapsed() < MIGRATION, "{state}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_guest_migrates_from_one_backend_to_another_in_the_middle_of_its_streams() {
    let test = "a_guest_migrates_from_one_backend_to_another_in_the_middle_of_its_streams";
    let Some(parts) = Parts::find(test, Kernel::Net) else { return };
    let cards_of = ["packed=off,mrg_rxbuf=on", "packed=on,mrg_rxbuf=on"];
    let script = [BEGIN, MIGRATION_SCRIPT].concat().replace("$KIB", &MIGRATION_KIB.to_string());
    let hosts = ["migrates-from", "migrates-to"].map(Scratch::new);
    let sockets = hosts.each_ref().map(|host| [0, 1].map(|n| host.join(&format!("s{n}"))));
    let mut backends = sockets.each_ref().map(|sockets| testpmd(sockets, 1));
    backends.iter_mut().for_each(|backend| forward(backend, "io"));
    let monitors = hosts.each_ref().map(|host| host.join("monitor"));
    let channel = hosts[0].join("migration");
    let devices = |host: usize| {
        let mut devices = cards(&sockets[host], &cards_of, 1);
        devices.push("-monitor".into());
        devices.push(format!("unix:{},server=on,wait=off", monitors[host].display()));
        devices
    };
    let mut source = Guest::boot(&parts, hosts[0].path(), &script, &devices(0));
    source.expect("READY", BOOT);
    let mut incoming = devices(1);
    incoming.extend(["-incoming".into(), format!("unix:{}", channel.display())]);
    let mut destination = Guest::boot(&parts, hosts[1].path(), &script, &incoming);
    let mut monitor = Monitor::connect(&monitors[0]);
    wait_until("the destination", || {
        assert_eq!(destination.complaints(), "");
        channel.exists()
    });
    expect_same(&mut source, "stream ");

    // All memory has gone over when more arrives that stays where the cards have put it.
    let commands = [
        "migrate_set_parameter max-bandwidth 40M",
        "migrate_set_parameter downtime-limit 1",
        &format!("migrate -d unix:{}", channel.display()),
    ];
    wait_for_migration(&mut monitor, &commands, |state| {
        let rounds = state.lines().find_map(|line| line.trim().strip_prefix("dirty sync count: "));
        rounds.is_some_and(|rounds| rounds.parse().is_ok_and(|rounds: u32| rounds >= 2))
    });
    let slowly = ["migrate_set_parameter max-bandwidth 100K"];
    wait_for_migration(&mut monitor, &slowly, |state| state.contains("status: active"));
    source.type_line("hold");
    source.expect("HELD", MIGRATION);
    let quickly = ["migrate_set_parameter max-bandwidth 10G", "migrate_set_parameter downtime-limit 3000"];
    wait_for_migration(&mut monitor, &quickly, |state| state.contains("status: completed"));
    drop(source);
    // Streams that began over there, and some that did not.
    (0..4).for_each(|_| expect_same(&mut destination, "stream "));
    destination.type_line("go");
    expect_same(&mut destination, "kept 1 ");
    expect_same(&mut destination, "kept 2 ");
    let pings = destination.expect("pings ", MIGRATION);
    assert!(pings.contains("3 packets transmitted, 3 packets received"), "{pings}");
    destination.expect("FINISHED", STEP);
    assert_eq!(destination.complaints(), "");
    drop(destination);
    backends.into_iter().for_each(|backend| assert_whole(backend, 2));
}
