//! The backend over registers that a test holds: what it does to them, in which order, and what it does with answers that are
//! wrong.

mod fake;

use std::os::fd::AsFd;
use std::time::Instant;

use linecard_eal::eventfd::{EventFd, signal};
use linecard_eal::memory::{Memory, MemoryConfig, PagePolicy};
use linecard_pmd::DevArgs;
use linecard_virtio::{Features, Layout, RingAddrs};

use super::bus::Interrupts;
use super::device::Pci;
use super::parse;
use crate::backend::{Backend, MemoryUpdate, RingId, RingSetup};
use crate::error::Error;
use crate::events::take;
use crate::log::PortLog;
use crate::negotiate::{agree, driver_ok, mac, max_mtu, offered};
use fake::Fake;

fn greet(fake: &Fake) -> Result<Pci<Fake>, Error> {
    Pci::greet("0000:00:05.0".parse().expect("an address"), fake.clone())
}

fn refusal(fake: &Fake) -> String {
    greet(fake).expect_err("it cannot be used").of_port("p").to_string()
}

fn start(device: &mut Pci<Fake>, id: RingId, size: u16) -> Result<RingAddrs, Error> {
    let kick = EventFd::new().expect("an eventfd");
    let addrs = RingAddrs::at(0x7fff_1234_5000, Layout::Split, size);
    device.start_ring(&RingSetup { id, layout: Layout::Split, size, addrs, kick: &kick })?;
    Ok(addrs)
}

#[test]
fn packed_rings_have_no_event_index_unless_asked_for() {
    for (more, event_idx) in
        [("", true), (",packed_vq=1", false), (",packed_vq=1,event_idx=1", true), (",event_idx=0", false)]
    {
        let args = DevArgs::parse(&format!("net_virtio_pci0,addr=00:05.0{more}")).expect("well formed");
        assert_eq!(parse(&args).expect("an address").0.event_idx, event_idx, "{more}");
    }
}

#[test]
fn arguments_name_a_device_in_two_ways() {
    let parse =
        |text: &str| parse(&DevArgs::parse(text).expect("a device")).map_err(|error| error.to_string());
    let (options, address) = parse("00:05.0,packed_vq=1").expect("all known");
    assert_eq!((options.name.as_str(), address.to_string().as_str()), ("0000:00:05.0", "0000:00:05.0"));
    assert_eq!((options.driver, options.queues, options.packed_vq), ("net_virtio_pci", 128, true));
    let (options, address) = parse("net_virtio_pci3,addr=0000:01:00.1,queues=2").expect("all known");
    assert_eq!((options.name.as_str(), options.queues), ("net_virtio_pci3", 2));
    assert_eq!(address.to_string(), "0000:01:00.1");
    for (text, part) in [
        ("net_virtio_pci0", "'addr' is missing"),
        ("net_virtio_pci0,addr=eth0", "'addr=eth0' is not possible; write it as in 0000:00:05.0"),
        ("00:05.0,addr=00:05.0", "unknown argument 'addr'"),
        ("00:05.0,path=/x", "unknown argument 'path'"),
        ("00:05.0,queue_size=300", "not a power of two"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_device_is_reset_before_it_may_reach_memory_and_after() {
    let fake =
        Fake::new(2, Features::NET_MAC | Features::NET_MTU | Features::NET_MRG_RXBUF | Features::NET_STATUS);
    let mut device = greet(&fake).expect("a good device");
    assert_eq!(fake.machine().done, ["status 0", "master true"]);
    let offer = device.offer();
    assert_eq!((offer.pairs, offer.regions), (1, 100));
    assert!(
        !offer.features.intersects(Features::ACCESS_PLATFORM | Features::NET_STATUS),
        "{}",
        offer.features
    );
    assert_eq!(mac(&mut device).expect("it answers"), Some([2, 0, 0, 0, 0, 5]));
    assert_eq!(max_mtu(&mut device, Features::NET_MTU).expect("it answers"), Some(1500));

    let (options, _) = parse(&DevArgs::parse("00:05.0").expect("a device")).expect("all known");
    let features = agree(&mut device, &options, 1, false, &PortLog::unlimited()).expect("it agrees");
    assert!(features.contains(Features::VERSION_1 | Features::NET_MRG_RXBUF), "{features}");
    let accepted = Features::from_bits_retain(fake.machine().accepted);
    assert_eq!(accepted, features | Features::ACCESS_PLATFORM | Features::NET_STATUS);
    driver_ok(&mut device).expect("it is ready");
    drop(device);
    let want = [
        "status 0",
        "master true",
        "status 1",
        "status 3",
        "status 11",
        "status 15",
        "status 0",
        "master false",
    ];
    assert_eq!(fake.machine().done, want);
}

#[test]
fn a_device_that_does_not_agree_is_not_driven() {
    let fake = Fake::new(2, Features::empty());
    fake.machine().refuses = true;
    let (options, _) = parse(&DevArgs::parse("00:05.0").expect("a device")).expect("all known");
    let mut device = greet(&fake).expect("it answers");
    assert!(matches!(
        agree(&mut device, &options, 1, false, &PortLog::unlimited()),
        Err(Error::Status { status: 3, .. })
    ));
    assert!(!fake.machine().done.contains(&"status 15".to_owned()));

    let fake = Fake::new(2, Features::empty());
    fake.machine().offered -= Features::ACCESS_PLATFORM;
    let said = refusal(&fake);
    assert!(said.contains("without the IOMMU") && said.contains("iommu_platform=on"), "{said}");
    assert_eq!(fake.machine().done.last().map(String::as_str), Some("master false"));
}

#[test]
fn a_reset_that_never_ends_does() {
    let fake = Fake::new(2, Features::empty());
    fake.machine().stuck = true;
    let began = Instant::now();
    let said = refusal(&fake);
    assert!(said.contains("resetting it: the device was told to reset"), "{said}");
    assert!(began.elapsed().as_secs() < 30);
    assert!(!fake.machine().done.contains(&"master true".to_owned()), "it never reaches memory");
    let fake = Fake::new(2, Features::empty());
    fake.machine().gone = true;
    assert!(refusal(&fake).contains("resetting it"));
}

#[test]
fn a_configuration_is_read_as_it_was_at_one_moment() {
    let fake = Fake::new(2, Features::NET_MTU);
    let mut device = greet(&fake).expect("a good device");
    fake.machine().changes = 3;
    assert_eq!(max_mtu(&mut device, Features::NET_MTU).expect("it answers"), Some(0x05d3));
    assert_eq!(fake.machine().changes, 0, "it was read until it stood still");
    fake.machine().changes = u32::MAX;
    let error = device.config(0, &mut [0; 6]).expect_err("it never stands still").to_string();
    assert!(error.contains("does not stop changing"), "{error}");
    fake.machine().changes = 0;
    // The structure has 4096 bytes.
    assert!(!device.config(4095, &mut [0; 2]).expect("it answers"));
    assert!(!device.config(u32::MAX, &mut [0; 6]).expect("it answers"));
}

#[test]
fn rings_are_told_to_the_device_and_woken_by_its_registers() {
    let fake = Fake::new(3, Features::empty());
    fake.machine().queues[1].notify_off = 7;
    let mut device = greet(&fake).expect("a good device");
    let addrs = start(&mut device, RingId::receive(0), 128).expect("a ring");
    start(&mut device, RingId::transmit(0), 256).expect("a ring");
    assert_eq!(fake.machine().queues[0].enabled, 0);
    device.enable_ring(RingId::receive(0), true).expect("it takes it");
    {
        let machine = fake.machine();
        let (queue, all) =
            (&machine.queues[0], [addrs.desc, addrs.driver, addrs.device].map(u64::to_le_bytes));
        assert_eq!((queue.size, queue.enabled, queue.vector), (128, 1, 0xffff));
        assert_eq!(queue.addrs, all.as_flattened());
        assert_eq!(machine.queues[1].enabled, 0);
    }
    device.notifier(RingId::transmit(0)).expect("it was started").notify();
    device.notifier(RingId::receive(0)).expect("it was started").notify();
    assert!(device.notifier(RingId::CONTROL).is_none());
    assert_eq!(fake.machine().notified, [(0x3000 + 28, 1), (0x3000, 0)]);

    assert!(matches!(
        start(&mut device, RingId::transmit(0), 512),
        Err(Error::RingTooLarge { asked: 512, max: 256 })
    ));
    let none = start(&mut device, RingId::receive(1), 256).expect_err("it has one pair").to_string();
    assert!(none.contains("it does not have receive queue 1"), "{none}");
    fake.machine().queues[2].size = 0;
    let none = start(&mut device, RingId::CONTROL, 16).expect_err("it has no such queue").to_string();
    assert!(none.contains("it does not have the control queue"), "{none}");
    fake.machine().queues[0].notify_off = 1024;
    let outside =
        start(&mut device, RingId::receive(0), 128).expect_err("its register is nowhere").to_string();
    assert!(outside.contains("(0x400) is not among its notifications"), "{outside}");

    device.set_status(15).expect("it takes it");
    assert_eq!(device.stop_ring(RingId::receive(0)).expect("it stops"), 0);
    assert_eq!(device.stop_ring(RingId::transmit(0)).expect("it stops"), 0);
    let resets = fake.machine().done.iter().filter(|done| *done == "status 0").count();
    assert_eq!(resets, 2, "at first, and once for all rings");
    assert_eq!(fake.machine().queues[0].enabled, 0);
    assert!(device.notifier(RingId::receive(0)).is_none(), "a reset device is not notified");
}

#[test]
fn several_pairs_move_the_control_queue_behind_them() {
    let fake = Fake::new(9, Features::NET_MQ | Features::NET_CTRL_VQ);
    fake.machine().config[8] = 4;
    let mut device = greet(&fake).expect("a good device");
    assert_eq!(device.offer().pairs, 4);
    for (features, index) in [(Features::NET_MQ, 8), (Features::empty(), 2)] {
        device.set_features(features | Features::NET_CTRL_VQ).expect("it takes them");
        start(&mut device, RingId::CONTROL, 16).expect("a ring");
        assert_eq!(fake.machine().queues[index].size, 16, "{features}");
    }
    for nonsense in [[0, 0], [1, 0x80], [0xff, 0xff]] {
        fake.machine().config[8..10].copy_from_slice(&nonsense);
        let device = greet(&fake).expect("a good device");
        assert_eq!(device.offer().pairs, 1);
        assert!(!device.offer().features.contains(Features::NET_MQ));
    }
}

#[test]
fn memory_is_mapped_where_the_device_can_have_it() {
    let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
    let memory = Memory::new(config).expect("memory");
    let domain = memory.domain("packets").expect("a domain");
    let zone = domain.zone("some", 4096, 64).expect("a zone");
    let all = domain.segments();
    let (addr, len) = (all[0].addr() as u64, all[0].len() as u64);
    let (new, gone) =
        (MemoryUpdate { all: &all, gone: &[], new: &all }, MemoryUpdate { all: &[], gone: &all, new: &[] });
    let fake = Fake::new(2, Features::empty());
    let mut device = greet(&fake).expect("a good device");
    device.set_memory(&new).expect("it can be mapped");
    assert_eq!(fake.machine().mapped, [(addr, len)]);
    device.set_memory(&gone).expect("it was mapped");
    assert_eq!(fake.machine().mapped, []);

    for ranges in [
        vec![(0, addr)],
        vec![(addr + 1, u64::MAX)],
        vec![(0, addr + len - 2)],
        vec![(0, addr + 4095), (addr + 4096, u64::MAX)],
    ] {
        let fake = fake.clone().with_ranges(ranges.clone());
        let mut device = greet(&fake).expect("a good device");
        assert!(matches!(device.set_memory(&new), Err(Error::Iova { .. })), "{ranges:x?}");
        assert_eq!(fake.machine().mapped, []);
    }
    let exact = fake.with_ranges(vec![(0, 1), (addr, addr + len - 1)]);
    greet(&exact).expect("a good device").set_memory(&new).expect("it can be mapped");
    drop(zone);
}

/// Calls of three rings, as the session names them.
fn calls(device: &mut Pci<Fake>) -> [EventFd; 3] {
    [RingId::receive(0), RingId::transmit(0), RingId::CONTROL].map(|ring| {
        let call = EventFd::new().expect("an eventfd");
        device.set_call(ring, &call).expect("it takes it");
        call
    })
}

#[test]
fn each_ring_has_a_message_where_there_are_enough() {
    let mut fake = Fake::new(3, Features::NET_CTRL_VQ | Features::NET_STATUS);
    fake.interrupts = Interrupts::Messages(4);
    let mut device = greet(&fake).expect("a good device");
    let calls = calls(&mut device);
    start(&mut device, RingId::transmit(0), 64).expect("a ring");
    assert_eq!(fake.machine().events.len(), 4);
    assert_eq!(fake.machine().queues[1].vector, 2);
    assert!(device.details().contains("an interrupt for each queue"), "{}", device.details());
    signal(fake.machine().events[2].as_fd()).expect("room");
    assert!(take(&calls[1]) && !take(&calls[0]) && !take(&calls[2]), "the one of its ring");
    assert!(device.link_up());
    fake.machine().config[6] = 0;
    device.look().expect("nothing came");
    assert!(device.link_up(), "it was not told");
    signal(fake.machine().events[0].as_fd()).expect("room");
    device.look().expect("it answers");
    assert!(!device.link_up());
    fake.machine().no_vectors = true;
    let none = start(&mut device, RingId::receive(0), 64).expect_err("it has none").to_string();
    assert!(none.contains("vector 0xffff instead of 0x1"), "{none}");
}

/// A device that moved to another machine asks for an announcement by its status; it is asked once each time it says so.
#[test]
fn an_announcement_that_is_asked_for_is_told_once() {
    let mut fake = Fake::new(3, Features::NET_CTRL_VQ | Features::NET_STATUS | Features::NET_GUEST_ANNOUNCE);
    fake.interrupts = Interrupts::Messages(4);
    let mut device = greet(&fake).expect("a good device");
    assert!(device.tells_announcements() && !device.take_announcement());
    assert!(offered(&device, false).contains(Features::NET_GUEST_ANNOUNCE));
    start(&mut device, RingId::receive(0), 64).expect("a ring");
    for status in [3, 2] {
        fake.machine().config[6] = status;
        device.look().expect("nothing came");
        assert!(!device.take_announcement(), "it was not told");
        signal(fake.machine().events[0].as_fd()).expect("room");
        device.look().expect("it answers");
        assert!(device.take_announcement() && !device.take_announcement());
        assert_eq!(device.link_up(), status == 3, "the link is a bit beside it");
    }
    let silent =
        greet(&Fake::new(3, Features::NET_CTRL_VQ | Features::NET_GUEST_ANNOUNCE)).expect("a good device");
    assert!(!silent.tells_announcements());
    assert!(!offered(&silent, false).contains(Features::NET_GUEST_ANNOUNCE), "it could not say so");
}

#[test]
fn one_interrupt_for_everything_is_passed_on() {
    for (interrupts, events) in [(Interrupts::Messages(2), 1), (Interrupts::Line, 1)] {
        let mut fake = Fake::new(3, Features::NET_CTRL_VQ | Features::NET_STATUS);
        fake.interrupts = interrupts;
        let mut device = greet(&fake).expect("a good device");
        let calls = calls(&mut device);
        start(&mut device, RingId::receive(0), 64).expect("a ring");
        assert_eq!(fake.machine().events.len(), events);
        fake.machine().isr = 3;
        fake.machine().config[6] = 0;
        signal(fake.machine().events[0].as_fd()).expect("room");
        device.look().expect("it answers");
        assert!(calls.iter().all(take), "{interrupts:?}");
        assert!(!device.link_up(), "{interrupts:?}");
        let unmasked = fake.machine().done.contains(&"unmask".to_owned());
        assert_eq!(unmasked, interrupts == Interrupts::Line);
        assert!(device.has_interrupts());
    }
    for (interrupts, has) in
        [(Interrupts::Absent, false), (Interrupts::Messages(0), false), (Interrupts::Messages(1), true)]
    {
        let mut fake = Fake::new(3, Features::NET_STATUS);
        fake.interrupts = interrupts;
        assert_eq!(greet(&fake).expect("a good device").has_interrupts(), has, "{interrupts:?}");
    }
}

#[test]
fn a_device_that_breaks_or_goes_is_lost() {
    let mut fake = Fake::new(3, Features::NET_STATUS);
    fake.interrupts = Interrupts::Messages(4);
    let mut device = greet(&fake).expect("a good device");
    start(&mut device, RingId::receive(0), 64).expect("a ring");
    let told = || signal(fake.machine().events[0].as_fd()).expect("room");
    fake.machine().status = 15 | 64;
    told();
    assert!(matches!(device.look(), Err(Error::NeedsReset { status: 79 })));
    fake.machine().gone = true;
    told();
    let gone = device.look().expect_err("it is gone").to_string();
    assert!(gone.contains("it is gone"), "{gone}");
    assert!(!offered(&device, false).contains(Features::NET_STATUS));
}

/// The kernel asks for the device back: the port that has it is told so, and one that comes later by itself is not.
#[test]
fn a_device_that_is_asked_back_is_lost() {
    let fake = Fake::new(2, Features::empty());
    let mut device = greet(&fake).expect("a good device");
    device.look().expect("nobody asks");
    signal(fake.machine().removal.as_ref().expect("it was told of an eventfd").as_fd()).expect("room");
    let error = device.look().expect_err("it is asked back");
    assert!(error.to_string().contains("it is being removed from the machine"), "{error}");
    drop(device);
    assert_eq!(
        fake.machine().done.last().map(String::as_str),
        Some("master false"),
        "it reaches memory no more"
    );
    greet(&fake).expect("a good device").look().expect("nobody asks");
}
