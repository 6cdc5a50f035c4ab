//! The control queue: answers of another length, to another request, or none.

use linecard_lab::wait_until;
use linecard_pmd::PortConfig;
use linecard_pmd::offload::{Offloads, RxOffloads};
use linecard_pmd::rss::RssConfig;
use linecard_virtio::Features;

use crate::field::{Bystander, controlled, controlled_by};
use crate::support::Bench;
use crate::support::machine::{Controlled, Reply};

pub(crate) const ID: &str = "the control queue: peer returned buffer id";
pub(crate) const LEN: &str = "the control queue: peer claims to have written";
pub(crate) const JUMP: &str = "the control queue: peer moved the used index";
pub(crate) const SILENT: &str = "did not answer VIRTIO_NET_CTRL_";
pub(crate) const ANSWER: &str = "which is neither OK (0) nor ERR (1)";

/// Layout, lie, and the reason.
pub(crate) const CONTROL: &[(&str, &str, Reply, &str)] = &[
    ("split: an answer of 2", "packed_vq=0", Reply::Ack(2), ANSWER),
    ("split: an answer of 254", "packed_vq=0", Reply::Ack(0xfe), ANSWER),
    ("split: no answer in it", "packed_vq=0", Reply::Nothing, ANSWER),
    ("split: silence", "packed_vq=0", Reply::Silence, SILENT),
    ("split: another descriptor", "packed_vq=0", Reply::Id(1), ID),
    ("split: a descriptor beyond the ring", "packed_vq=0", Reply::Id(16), ID),
    ("split: the largest id", "packed_vq=0", Reply::Id(u32::MAX), ID),
    ("split: two bytes of one", "packed_vq=0", Reply::Len(2), LEN),
    ("split: four billion bytes", "packed_vq=0", Reply::Len(u32::MAX), LEN),
    ("split: two answers", "packed_vq=0", Reply::Twice, JUMP),
    ("split: a lap of answers", "packed_vq=0", Reply::Jump(16), JUMP),
    ("split: an index in the past", "packed_vq=0", Reply::Jump(u16::MAX), JUMP),
    ("split: half the index space", "packed_vq=0", Reply::Jump(0x8000), JUMP),
    ("split: the ring full of ones", "packed_vq=0", Reply::Scribble(0xff), JUMP),
    ("packed: an answer of 2", "packed_vq=1", Reply::Ack(2), ANSWER),
    ("packed: an answer of 254", "packed_vq=1", Reply::Ack(0xfe), ANSWER),
    ("packed: no answer in it", "packed_vq=1", Reply::Nothing, ANSWER),
    ("packed: silence", "packed_vq=1", Reply::Silence, SILENT),
    ("packed: another id", "packed_vq=1", Reply::Id(1), ID),
    ("packed: the largest id", "packed_vq=1", Reply::Id(0xffff), ID),
    ("packed: two bytes of one", "packed_vq=1", Reply::Len(2), LEN),
    ("packed: four billion bytes", "packed_vq=1", Reply::Len(u32::MAX), LEN),
    ("packed: used for the next lap", "packed_vq=1", Reply::Flags(0), SILENT),
    ("packed: still available", "packed_vq=1", Reply::Flags(0x80), SILENT),
    ("packed: half of the wrap bits", "packed_vq=1", Reply::Flags(0x8000), SILENT),
    ("packed: the ring full of ones", "packed_vq=1", Reply::Scribble(0xff), ID),
];

/// While a port starts, and while it runs.
pub(crate) fn control_lies(bystander: &mut Bystander) -> usize {
    for (name, layout, reply, reason) in CONTROL {
        let (bench, device, reply) = (Bench::new(1024), Controlled::new(1), *reply);
        device.replies(move |_| reply);
        let error = controlled(&bench, &device, layout).expect_err(name);
        assert!(error.contains(reason) && !error.contains('\n'), "control queue, {name}: {error}");
        bench.assert_whole();
        bystander.goes_on(name);

        let device = Controlled::new(1);
        let port = controlled(&bench, &device, layout).expect("a port");
        device.replies(move |_| reply);
        port.control.set_promiscuous(false);
        wait_until(name, || port.control.paths().contains(reason));
        assert!(!port.control.link().up, "control queue, {name}");
        device.replies(|_| Reply::Ack(0));
        wait_until("another connection, which is good", || port.control.link().up);
        assert!(!port.control.paths().contains(reason), "it is forgotten");
        drop(port.stop());
        bench.assert_whole();
        bystander.goes_on(name);
    }
    2 * CONTROL.len()
}

/// To what is asked about hashes and offloads: while a port starts with hashes, and while flows and offloads are changed.
pub(crate) fn hashing_lies(bystander: &mut Bystander) -> usize {
    let hashing = Features::NET_RSS | Features::NET_HASH_REPORT;
    let offloads = Features::NET_GUEST_CSUM | Features::NET_CTRL_GUEST_OFFLOADS;
    let (rss, hash, off): (&[u8], &[u8], &[u8]) = (&[4, 1], &[4, 2], &[5, 0]);
    let cases = [
        ("RSS: an answer of 2", rss, Reply::Ack(2), ANSWER),
        ("RSS: another descriptor", rss, Reply::Id(1), ID),
        ("RSS: four billion bytes", rss, Reply::Len(u32::MAX), LEN),
        ("RSS: silence", rss, Reply::Silence, SILENT),
        ("hash: no answer in it", hash, Reply::Nothing, ANSWER),
        ("hash: two answers", hash, Reply::Twice, JUMP),
        ("offloads: an answer of 254", off, Reply::Ack(0xfe), ANSWER),
        ("offloads: the ring full of ones", off, Reply::Scribble(0xff), JUMP),
    ];
    for (name, code, reply, reason) in cases {
        let (bench, device) = (Bench::new(1024), Controlled::new(2));
        device.now().offer.features |= hashing | offloads;
        device.now().config = [&[2, 0, 0, 0, 0, 9][..], &[0; 11], &[40, 128, 0, 0x3f, 0, 0, 0]].concat();
        // Hashes alone are asked for where flows are not spread.
        let refuse = move |command: &[u8]| Reply::Ack(u8::from(code == hash && command.starts_with(rss)));
        device.replies(refuse);
        let rx = RxOffloads::CHECKSUM | RxOffloads::RSS_HASH;
        let offloads = Offloads { rx, ..Offloads::default() };
        let config = PortConfig::default().rx_queues(2).tx_queues(2).offloads(offloads);
        let port = controlled_by(&bench, &device, "packed_vq=0,queues=2", config).expect("a port");
        device.replies(move |command| if command.starts_with(code) { reply } else { refuse(command) });
        if code == off {
            port.control.set_rx_offloads(RxOffloads::RSS_HASH).expect("it can be switched");
        } else {
            port.control.rss().expect("it has one").set(Some(RssConfig::new(2))).expect("it is good");
        }
        wait_until(name, || port.control.paths().contains(reason));
        assert!(!port.control.link().up, "{name}");
        assert!(!port.control.rss().expect("it has one").is_hashed_by_device(), "{name}");
        device.replies(refuse);
        wait_until("another connection, which is good", || port.control.link().up);
        drop(port.stop());
        bench.assert_whole();
        bystander.goes_on(name);
    }
    cases.len()
}
