//! A frontend whose second thread changes rings and headers all the time, between any two reads of ours.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use linecard_lab::{Prng, processor_time};
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::Control;
use linecard_virtio::Features;

use crate::common::{Bench, Frontend, GUEST, Guest, HEADER, MEMORY, RING_AREA, frame, receive};
use crate::traffic::Traffic;

/// Frontends that attack each kind of ring.
const ROUNDS: u64 = 60;
/// What each of them writes at least, and how often it is polled meanwhile.
const WRITES: u64 = 50_000;
const BURSTS: u64 = 500;
/// No burst takes more of the processor's time than this.
const BURST: Duration = Duration::from_millis(100);

/// What a peer writes into its rings.
struct Words(Prng);

impl Words {
    /// An address, or what comes after it: length, flags and next or id; half of them could be right.
    fn next(&mut self) -> u64 {
        const LENGTHS: [u64; 8] = [0, 1, 11, 12, 26, 1000, 0x1_0000, 0xffff_ffff];
        let roll = self.0.roll();
        match roll % 4 {
            0 => GUEST + (roll >> 8) % MEMORY as u64,
            1 => roll,
            _ => {
                let (len, flags, id) =
                    (LENGTHS[(roll >> 8) as usize % 8], (roll >> 16) & 0x8087, (roll >> 32) & 0xff);
                // Split rings have the flags first, packed ones the id.
                let [low, high] = if roll & 4 == 0 { [flags, id] } else { [id, flags] };
                len | low << 32 | high << 48
            }
        }
    }
}

/// Writes words all over both rings, and now and then what lets a backend go on: plausible indices. Says how many.
fn scribble(bytes: usize, stop: &AtomicBool, writes: &AtomicU64, at: *mut u8, seed: u64) {
    let mut words = Words(Prng::new(seed));
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..64 {
            let roll = words.0.roll() as usize;
            // Mostly the first descriptors, in either ring.
            let near = if roll & 0x300 == 0 { RING_AREA / 4 } else { 512 };
            let offset = Frontend::ring_offset(roll & 1) + (roll >> 10) % (near / 8) * 8;
            assert!(offset + 8 <= bytes);
            // SAFETY: inside the frontend's memory, which outlives this thread, and aligned.
            let word = unsafe { AtomicU64::from_ptr(at.wrapping_add(offset).cast()) };
            word.store(words.next(), Ordering::Relaxed);
        }
        writes.fetch_add(64, Ordering::Relaxed);
    }
}

/// Addresses are private, so that one can be given to a thread.
struct Place(*mut u8);
// SAFETY: an address; only atomics are made of it.
unsafe impl Send for Place {}

#[test]
fn descriptors_that_change_between_two_reads_harm_only_their_owner() {
    let mut traffic = Traffic::new(&Control::new());
    let (mut moved, mut faults, mut all_writes) = (0, 0, 0);
    for (n, features) in [
        Features::NET_MRG_RXBUF,
        Features::NET_MRG_RXBUF | Features::IN_ORDER | Features::INDIRECT_DESC,
        Features::RING_PACKED | Features::INDIRECT_DESC,
        Features::RING_PACKED | Features::IN_ORDER | Features::NET_CSUM,
    ]
    .into_iter()
    .enumerate()
    {
        let mut bench = Bench::new("racing");
        for round in 1..=ROUNDS {
            let mut guest = Guest::start(&bench.path, features);
            bench.wait_link(true);
            (0..64).for_each(|n| guest.send(&frame(n, 300)));
            guest.tx.publish();
            guest.post_receive(0, 128, 2048);
            let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
            let place = Place(guest.frontend.map.as_mut_ptr());
            std::thread::scope(|scope| {
                let (stop, writes) = (&stop, &writes);
                scope.spawn(move || {
                    let place = place;
                    scribble(RING_AREA, stop, writes, place.0, (n as u64 + 1) << 32 | round);
                });
                while writes.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
                // Whatever is believed, one byte of it can be wrong at any time.
                let mut bursts = 0;
                while bursts < BURSTS || writes.load(Ordering::Relaxed) < WRITES {
                    bursts += 1;
                    let mut packets = Burst::new();
                    let began = processor_time();
                    moved += match bursts % 2 {
                        0 => bench.rx.rx_burst(&mut packets),
                        // From ring to ring.
                        _ => bench.rx.rx_direct(&mut packets, &mut |frames| {
                            frames.iter().for_each(|frame| {
                                assert!(
                                    frame.len() <= linecard_net::ether::LONGEST_FRAME
                                        && frame.head().len() >= 14
                                );
                            });
                            let taken = bench.tx.tx_direct(frames).expect("nobody captures");
                            linecard_pmd::direct::all(taken)
                        }),
                    };
                    moved += bench.tx.tx_burst(&mut packets);
                    let took = processor_time() - began;
                    assert!(took < BURST, "a burst took {took:?}");
                    packets.iter().for_each(|packet| {
                        assert!(packet.len() <= linecard_net::ether::LONGEST_FRAME + HEADER)
                    });
                    if bursts % 16 == 0 {
                        traffic.pass();
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
            all_writes += writes.into_inner();
            drop(guest);
            bench.wait_gone();
            bench.assert_whole();
        }
        faults +=
            bench.backend.peer().counters().iter().find(|(name, _)| *name == "ring_faults").expect("it").1;
        // Nothing of it is left: the next frontend is served.
        let mut guest = Guest::start(&bench.path, features);
        guest.send(&frame(1, 60));
        guest.tx.publish();
        assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(1, 60));
    }
    assert!(faults > 0, "{moved} packets, no faults: not much of an attack");
    println!("{all_writes} writes, {moved} packets moved, {faults} faults");
}
