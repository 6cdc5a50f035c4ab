//! A frontend that sends anything.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::message::{Message, event, memory, pair, request};
use crate::prng::Prng;

/// Bytes of the memory an attacker shares.
pub(crate) const MEMORY: u64 = 4 << 20;
pub(crate) const GUEST: u64 = 0x10_0000;
pub(crate) const USER: u64 = 0x7000_0000_0000;

/// What a decent frontend sends, so that mutations reach every state.
pub(crate) fn handshake(dice: &mut Prng, shared: &File) -> Vec<Message> {
    use request as r;
    let packed = dice.percent(50);
    let mut features = 1 << 32 | 1 << 30 | 1 << 15 | 1 << 28 | u64::from(packed) << 34;
    features |= dice.roll() & (1 << 35 | 1 << 29 | 1 << 0 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12);
    let shared = || shared.try_clone().expect("a descriptor");
    let mut all = vec![
        Message::new(r::SET_OWNER, &[]),
        Message::new(r::GET_FEATURES, &[]),
        Message::new(r::GET_PROTOCOL_FEATURES, &[]),
        Message::new(r::SET_PROTOCOL_FEATURES, &[dice.roll() & 0x1_8209]),
        Message::new(r::GET_QUEUE_NUM, &[]),
        Message::new(r::SET_FEATURES, &[features]),
        Message::new(r::SET_MEM_TABLE, &[1, GUEST, MEMORY, USER, 0]).with(shared()),
    ];
    for ring in 0..2_u32 {
        let size = 1_u32 << dice.below(10);
        let at = USER + u64::from(ring) * 0x10_0000;
        all.extend([
            Message::new(r::SET_VRING_NUM, &[pair(ring, size)]),
            Message::new(r::SET_VRING_BASE, &[pair(ring, if packed { 0x8000_8000 } else { 0 })]),
            Message::new(r::SET_VRING_ADDR, &[pair(ring, 0), at, at + 0x8000, at + 0x4000, 0]),
            Message::new(r::SET_VRING_CALL, &[ring.into()]).with(event()),
            Message::new(r::SET_VRING_KICK, &[ring.into()]).with(event()),
            Message::new(r::SET_VRING_ENABLE, &[pair(ring, 1)]),
        ]);
    }
    all.push(Message::new(r::SET_STATUS, &[15]));
    if dice.percent(30) {
        all.push(Message::new(r::ADD_MEM_REG, &[0, GUEST + MEMORY, MEMORY, USER + MEMORY, 0]).with(shared()));
    }
    if dice.percent(30) {
        all.push(Message::new(r::GET_VRING_BASE, &[pair(dice.below(3) as u32, 0)]));
    }
    all
}

/// Writes descriptors and indices that may be right, and bytes that are not.
pub(crate) fn poison(dice: &mut Prng, shared: &File, len: u64) {
    for _ in 0..dice.below(40) {
        let at = dice.below(len / 16) * 16;
        let at = if dice.percent(80) { (at & 0x10_ffff) % len } else { at };
        let address = if dice.percent(80) { GUEST + dice.below(MEMORY) } else { dice.edge() };
        let length = if dice.percent(80) { dice.below(3000) } else { dice.edge() } as u32;
        let rest = if dice.percent(50) { dice.below(256) << 16 | dice.below(8) } else { dice.roll() };
        let words = [address, pair(length, rest as u32)];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        // Where memory has shrunk there is nothing to write to, and it must not grow back.
        if shared.metadata().is_ok_and(|now| at + 16 <= now.len()) {
            let _ = shared.write_at(&bytes, at);
        }
    }
}

/// One connection of an attacker to a backend.
pub(crate) fn attack_backend(path: &Path, dice: &mut Prng) {
    let Ok(stream) = UnixStream::connect(path) else {
        std::thread::sleep(Duration::from_millis(1));
        return;
    };
    stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    let shared = memory(MEMORY);
    let mutations = dice.below(12);
    let mut plan = handshake(dice, &shared);
    for _ in 0..dice.below(20) {
        let again = handshake(dice, &shared);
        let pick = dice.below(again.len() as u64) as usize;
        plan.extend(again.into_iter().nth(pick));
    }
    for mut message in plan {
        if dice.percent(mutations) {
            message.mutate(dice);
        }
        if !message.send(&stream, dice) {
            return;
        }
        let mut answer = [0; 512];
        let wanted = message.flags & 8 != 0 || matches!(message.request, 1 | 11 | 15 | 17 | 24 | 36 | 40);
        if wanted && matches!((&stream).read(&mut answer), Ok(0)) {
            return;
        }
        poison(dice, &shared, MEMORY);
    }
    for _ in 0..dice.below(30) {
        poison(dice, &shared, MEMORY);
        std::thread::sleep(Duration::from_micros(dice.below(1000)));
    }
    if dice.percent(20) {
        let _ = shared.set_len(dice.below(MEMORY));
        std::thread::sleep(Duration::from_millis(2));
    }
}
