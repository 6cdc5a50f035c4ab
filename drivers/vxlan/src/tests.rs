//! Two of these devices, and one and the kernel's, in namespaces joined by a cable.

use linecard_eal::{Memory, MemoryConfig, PagePolicy};
use linecard_lab::contract::{Ends, FarEnd, Limits, Link};
use linecard_lab::{Cable, Lab, Wire, wait_until};
use linecard_mempool::{Burst, PoolConfig};
use linecard_pmd::configure;

use super::*;

const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn frame(from: [u8; 6], to: [u8; 6], number: u32, len: usize) -> Vec<u8> {
    let head = [&to[..], &from, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    (0..len).map(|i| head.get(i).copied().unwrap_or((number as usize * 31 + i * 7) as u8)).collect()
}

/// A cable with addresses: 192.0.2.1 and fd00::1 near, 192.0.2.2 and fd00::2 far.
fn cable(test: &str) -> Option<Cable> {
    let cable = Cable::new(test)?;
    for (lab, name, host) in [(&cable.near, "near", 1), (&cable.far, "far", 2)] {
        lab.ip(&format!("addr add 192.0.2.{host}/24 dev {name}"));
        lab.ip(&format!("addr add fd00::{host}/64 dev {name} nodad"));
    }
    Some(cable)
}

/// A device in `lab`, and what it needs.
struct Ours {
    pool: Pool,
    port: Port,
}

impl Ours {
    fn context() -> ProbeContext {
        let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
        let memory = Memory::new(config).expect("memory");
        let domain = memory.domain("packets").expect("a domain");
        ProbeContext::new(memory, domain, std::time::Duration::ZERO)
    }

    fn start(lab: &Lab, arguments: &str) -> Self {
        let context = Self::context();
        let device = probe(lab, arguments).expect("it is opened");
        let pool = Pool::new(&context.domain, PoolConfig::default().packets(2048));
        let pool = pool.expect("a pool");
        let port =
            configure(device, PortConfig::default()).expect("it fits").start(&pool).expect("it starts");
        Self { pool, port }
    }

    fn send(&mut self, frame: &[u8]) {
        let mut burst = Burst::new();
        burst.push(self.pool.packet_of(frame, 700).expect("packets")).expect("room");
        wait_until("room", || self.port.tx[0].tx_burst(&mut burst) == 1);
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        self.port.rx[0].rx_burst(&mut burst);
        burst.iter().map(|packet| packet.to_bytes().to_vec()).collect()
    }

    fn lost(&self, name: &str) -> u64 {
        let all = self.port.control.xstats();
        all.iter().filter(|(known, _)| known.contains(name)).map(|(_, count)| *count).sum()
    }
}

fn probe(lab: &Lab, arguments: &str) -> Result<Box<dyn Device>, Error> {
    let args = DevArgs::parse(&format!("net_vxlan0,{arguments},netns={}", lab.path())).expect("well formed");
    VxlanDriver.probe(&Ours::context(), &args)
}

fn exchange(one: &mut Ours, other: &mut Wire, largest: usize) {
    for (number, len) in [64, 65, 300, 1000, largest].into_iter().cycle().take(100).enumerate() {
        let (there, back) = (frame(NEAR, FAR, number as u32, len), frame(FAR, NEAR, number as u32, len));
        one.send(&there);
        wait_until("the frame there", || std::iter::from_fn(|| other.receive()).any(|got| got == there));
        wait_until("room in the interface", || other.send(&back));
        wait_until("the frame back", || one.receive().contains(&back));
    }
}

#[test]
fn frames_are_exchanged_with_the_kernels_device() {
    let Some(cable) = cable("frames_are_exchanged_with_the_kernels_device") else { return };
    for (number, remote, local, mtu) in
        [(100, "192.0.2.2", "192.0.2.1", 1450_u16), (16_777_215, "fd00::2", "fd00::1", 1430)]
    {
        let kernel = format!("link add vx type vxlan id {number} dstport 4789 remote {local} dev far");
        if !cable.far.output("ip", &kernel.split(' ').collect::<Vec<_>>()).expect("ip runs").status.success()
        {
            linecard_lab::skip(
                "frames_are_exchanged_with_the_kernels_device",
                "the kernel has no vxlan device",
            );
            return;
        }
        cable.far.ip("link set vx addrgenmode none");
        cable.far.ip("link set vx up");
        let mut ours = Ours::start(&cable.near, &format!("vni={number},remote={remote},local={local},ttl=7"));
        assert_eq!(ours.port.control.paths(), format!("rx udp, tx udp, path mtu {mtu}"));
        let mut wire = cable.far.wire("vx");
        exchange(&mut ours, &mut wire, usize::from(mtu) + 14);
        // The kernel would cut or drop it on the way; here it is told.
        ours.send(&frame(NEAR, FAR, 0, usize::from(mtu) + 15));
        wait_until("the loss", || ours.lost("too_long") == 1);
        // The kernel has learned whom we sent for.
        let known = cable.far.output("bridge", &["fdb", "show", "dev", "vx"]).expect("bridge runs");
        let known = String::from_utf8_lossy(&known.stdout).into_owned();
        assert!(known.contains("02:00:00:00:00:01") && known.contains(local), "{known}");
        cable.far.ip("link del vx");
    }
}

#[test]
fn what_is_for_all_goes_to_every_remote_and_the_rest_where_it_belongs() {
    let Some(cable) = cable("what_is_for_all_goes_to_every_remote_and_the_rest_where_it_belongs") else {
        return;
    };
    cable.far.ip("addr add 192.0.2.3/24 dev far");
    let mut ours = Ours::start(&cable.near, "vni=5,remote=[192.0.2.2,192.0.2.3],local=192.0.2.1");
    let mut second = Ours::start(&cable.far, "vni=5,remote=192.0.2.1,local=192.0.2.2");
    let mut third = Ours::start(&cable.far, "vni=5,remote=192.0.2.1,local=192.0.2.3");
    let mut other_network = Ours::start(&cable.far, "vni=6,remote=192.0.2.1,local=192.0.2.2");
    let all = frame(NEAR, [0xff; 6], 1, 64);
    ours.send(&all);
    for peer in [&mut second, &mut third] {
        wait_until("the frame to all", || peer.receive().contains(&all));
    }
    // It sends, and is known from there on.
    let hello = frame(FAR, NEAR, 2, 64);
    second.send(&hello);
    wait_until("the answer", || ours.receive().contains(&hello));
    let own = frame(NEAR, FAR, 3, 64);
    ours.send(&own);
    wait_until("the frame", || second.receive().contains(&own));
    let all = frame(NEAR, [0xff; 6], 4, 64);
    ours.send(&all);
    let mut got = Vec::new();
    wait_until("the frame to all", || {
        got.extend(third.receive());
        got.contains(&all)
    });
    assert_eq!(got, [all], "what was for the other alone did not come here");
    assert!(other_network.receive().is_empty());
}

#[test]
fn strangers_and_garbage_are_not_taken() {
    let Some(cable) = cable("strangers_and_garbage_are_not_taken") else { return };
    cable.far.ip("addr add 192.0.2.9/24 dev far");
    let mut ours = Ours::start(&cable.near, "vni=5,remote=192.0.2.2,local=192.0.2.1");
    let socket =
        |from: &str| cable.far.run(|| std::net::UdpSocket::bind(format!("{from}:0")).expect("a socket"));
    let (friend, stranger) = (socket("192.0.2.2"), socket("192.0.2.9"));
    let tell = |socket: &std::net::UdpSocket, datagram: &[u8]| {
        socket.send_to(datagram, "192.0.2.1:4789").expect("it is sent");
    };
    let good = frame(FAR, NEAR, 1, 64);
    let whole = |vni: u32, frame: &[u8]| [&header::write(vni)[..], frame].concat();
    tell(&stranger, &whole(5, &good));
    for len in 0..22 {
        tell(&friend, &whole(5, &good)[..len]);
    }
    tell(&friend, &whole(6, &good));
    tell(&friend, &[&[0; 8], &good[..]].concat());
    tell(&friend, &[0xff; 65_507]);
    // In order on one path: when this one came, all others did.
    let last = frame(FAR, NEAR, 2, 64);
    tell(&friend, &whole(5, &last));
    let mut got = Vec::new();
    wait_until("the good one", || {
        got.extend(ours.receive());
        got.contains(&last)
    });
    // All ones: the flag is set, and the network is another.
    assert_eq!(got, [last]);
    assert_eq!(ours.lost("unknown_remote"), 1);
    // A stranger may speak where the port says so.
    let mut open = Ours::start(&cable.near, "vni=7,peers=any,local=192.0.2.1");
    tell(&stranger, &whole(7, &good));
    wait_until("the stranger's", || open.receive().contains(&good));
}

#[test]
fn no_network_waits_for_another() {
    let Some(cable) = cable("no_network_waits_for_another") else { return };
    let mut idle = Ours::start(&cable.near, "vni=5,remote=192.0.2.2,local=192.0.2.1");
    let mut busy = Ours::start(&cable.near, "vni=6,remote=192.0.2.2,local=192.0.2.1");
    let socket = cable.far.run(|| std::net::UdpSocket::bind("192.0.2.2:0").expect("a socket"));
    let tell = |vni: u32, frame: &[u8]| {
        let datagram = [&header::write(vni)[..], frame].concat();
        socket.send_to(&datagram, "192.0.2.1:4789").expect("it is sent");
    };
    // More than the first may have waiting.
    wait_until("the first's queue is full", || {
        for number in 0..64 {
            tell(5, &frame(FAR, NEAR, number, 64));
        }
        // The second has its frames all the same.
        let own = frame(FAR, NEAR, 7, 100);
        tell(6, &own);
        wait_until("the other network's", || busy.receive().contains(&own));
        idle.port.rx[0].rx_burst(&mut full_burst(&busy.pool));
        idle.lost("queue_full") > 0
    });
    assert!(!idle.receive().is_empty());
}

/// A burst without room: what is received with it is nothing, and losses are counted.
fn full_burst(pool: &Pool) -> Burst {
    let mut burst = Burst::new();
    let room = burst.room();
    pool.get_bulk(&mut burst, room).unwrap();
    burst
}

#[test]
fn arguments_that_make_no_sense_are_told() {
    let Some(lab) = Lab::new("arguments_that_make_no_sense_are_told") else { return };
    for (arguments, want) in [
        ("remote=192.0.2.2", "'vni' is missing"),
        ("vni=0,remote=192.0.2.2", "vni"),
        ("vni=16777216,remote=192.0.2.2", "vni"),
        ("vni=1", "there is nobody to exchange frames with; add remote=IP"),
        ("vni=1,remote=nobody", "remote=nobody is not the address of a host"),
        ("vni=1,remote=239.0.0.1", "remote=239.0.0.1 is not the address of a host"),
        ("vni=1,remote=[192.0.2.2,fd00::2]", "fd00::2 is not of the same kind"),
        ("vni=1,remote=192.0.2.2,local=fd00::1", "192.0.2.2 is not of the same kind"),
        ("vni=1,remote=192.0.2.2,peers=some", "peers=some cannot be used; write peers="),
        ("vni=1,remote=192.0.2.2,local=198.51.100.1", "give an address of this host with local="),
        ("vni=1,remote=192.0.2.2,colour=red", "unknown argument 'colour'"),
    ] {
        let problem = probe(&lab, arguments).err().expect(arguments).to_string();
        assert!(problem.contains(want) && !problem.contains('\n'), "{arguments}: {problem}");
    }
    let one = probe(&lab, "vni=1,remote=127.0.0.1").expect("it is opened");
    let two = probe(&lab, "vni=1,remote=127.0.0.1").expect("it is opened");
    let context = Ours::context();
    let pool = Pool::new(&context.domain, PoolConfig::default().packets(64)).expect("a pool");
    let start = |device| configure(device, PortConfig::default()).expect("it fits").start(&pool);
    let first = start(one).expect("it starts");
    let refused = start(two).expect_err("the network is taken");
    assert!(refused.error.to_string().contains("in network 1 by another port already"), "{}", refused.error);
    drop(first.stop());
    drop(
        configure(refused.device, PortConfig::default()).expect("it fits").start(&pool).expect("it is free"),
    );
}

/// Two of these devices at the ends of a cable.
struct Joined;

impl Link for Joined {
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends {
        let cable = cable("vxlan contract").expect("namespaces can be made: `ready` said so");
        let open = |context, lab: &Lab, own: u8, other: u8| {
            let text =
                format!("net_vxlan0,vni=9,remote=192.0.2.{other},local=192.0.2.{own},netns={}", lab.path());
            VxlanDriver.probe(context, &DevArgs::parse(&text).expect("well formed")).expect("it is opened")
        };
        let near = open(near, &cable.near, 1, 2);
        Ends { near, far: FarEnd::port(open(far, &cable.far, 2, 1)) }
    }

    fn ready(&self) -> bool {
        Lab::new("the contract of net_vxlan").is_some()
    }

    fn limits(&self) -> Limits {
        // What UDP has no room for is lost.
        Limits { len: 14..=1464, queues: 1, window: 64, ..Limits::default() }
    }
}

// Without `pool_exhaustion`, which takes what does not come at once for lost: here a thread receives, whenever it runs. What
// the clause is about is `an_empty_pool_loses_frames_and_nothing_else`.
mod contract {
    linecard_lab::contract_tests! { @each super::Joined;
        restarts reconfigures burst_sizes appended_bursts packet_sizes chains counters full_rings other_thread lost_queue
        configure_errors link_down removed kernel_counters wakes
    }
}

#[test]
fn an_empty_pool_loses_frames_and_nothing_else() {
    let Some(cable) = cable("an_empty_pool_loses_frames_and_nothing_else") else { return };
    let mut ours = Ours::start(&cable.near, "vni=5,remote=192.0.2.2,local=192.0.2.1");
    let mut far = Ours::start(&cable.far, "vni=5,remote=192.0.2.1,local=192.0.2.2");
    let held: Vec<_> = std::iter::from_fn(|| ours.pool.get()).collect();
    assert!(!held.is_empty());
    wait_until("a loss", || {
        far.send(&frame(FAR, NEAR, 1, 64));
        ours.receive();
        ours.lost("no_buffer") > 0
    });
    drop(held);
    let last = frame(FAR, NEAR, 2, 100);
    far.send(&last);
    wait_until("a frame", || ours.receive().contains(&last));
}
