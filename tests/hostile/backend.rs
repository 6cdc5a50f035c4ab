//! A backend that answers anything.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::message::{Heard, Message, hear, request};
use crate::prng::Prng;

/// What a frontend told of its memory. The region that holds its rings has nothing else in it, so all of that is ours to
/// spoil; packets lie elsewhere and may be other ports'.
#[derive(Default)]
pub(crate) struct Told {
    /// First address in the frontend's process, length, offset in the file.
    regions: Vec<(u64, u64, u64, File)>,
    /// Where the parts of rings are, in the frontend's process.
    parts: Vec<u64>,
}

impl Told {
    pub(crate) fn hear(&mut self, message: &mut Message) {
        let words: Vec<u64> = message
            .payload
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().expect("eight")))
            .collect();
        match message.request {
            request::SET_MEM_TABLE | request::ADD_MEM_REG => {
                let described = words.get(1..).unwrap_or_default().chunks_exact(4);
                for (region, fd) in described.zip(message.fds.drain(..)) {
                    self.regions.push((region[2], region[1], region[3], File::from(fd)));
                }
            }
            request::SET_VRING_ADDR => self.parts.extend(words.get(1..4).unwrap_or_default()),
            _ => {}
        }
    }

    /// Writes garbage into the rings and all around them.
    pub(crate) fn scribble(&self, dice: &mut Prng) {
        /// Shorter than any part of a ring of 256.
        const WITHIN: u64 = 500;
        if self.parts.is_empty() {
            return;
        }
        for _ in 0..dice.below(60) {
            let part = self.parts[dice.below(self.parts.len() as u64) as usize];
            let region = self.regions.iter().find(|(start, len, ..)| (*start..start + len).contains(&part));
            let Some((start, len, offset, file)) = region else { continue };
            let near = (part + dice.below(WITHIN)).min(start + len - 8);
            let address = if dice.percent(70) { near } else { start + dice.below(len - 8) };
            let bytes = if dice.percent(50) { dice.edge() } else { dice.roll() }.to_le_bytes();
            let _ = file.write_at(&bytes[..dice.below(8) as usize + 1], address - start + offset);
        }
    }
}

/// Answers a frontend as a decent backend would, most of the time, and writes garbage into its rings.
pub(crate) fn hostile_backend(stream: &UnixStream, dice: &mut Prng) {
    use request as r;
    let mutations = dice.below(8);
    let mut told = Told::default();
    stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    loop {
        let mut message = match hear(stream) {
            Heard::Message(message) => message,
            Heard::Silence if dice.percent(1) => return,
            Heard::Silence => {
                told.scribble(dice);
                continue;
            }
            Heard::End => return,
        };
        told.hear(&mut message);
        let value = match message.request {
            r::GET_FEATURES => 1 << 32 | 1 << 30 | dice.roll() & 0xd_3000_ffff,
            r::GET_PROTOCOL_FEATURES => dice.roll() & 0x1_8209,
            r::GET_QUEUE_NUM | r::GET_MAX_MEM_SLOTS => dice.below(10),
            r::GET_STATUS => dice.below(256),
            _ => 0,
        };
        let mut answer = Message::new(message.request, &[value]);
        answer.flags = 5;
        if matches!(message.request, r::GET_CONFIG | r::GET_VRING_BASE) {
            answer.payload = message.payload;
        }
        let asked = message.flags & 8 != 0 || matches!(message.request, 1 | 11 | 15 | 17 | 24 | 36 | 40);
        if dice.percent(mutations) {
            answer.mutate(dice);
        }
        for _ in 0..if dice.percent(mutations) { dice.below(3) } else { asked.into() } {
            if !answer.send(stream, dice) {
                return;
            }
        }
        told.scribble(dice);
        if dice.percent(1) {
            return;
        }
    }
}
