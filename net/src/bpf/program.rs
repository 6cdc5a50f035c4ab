//! Classic BPF programs, validated once and run often.

use super::Error;

/// One instruction, as in `struct sock_filter` of `linux/filter.h`.
///
/// ```
/// use linecard_net::bpf::{Instruction, Program};
/// let accept = Program::new(vec![Instruction { code: 0x06, jt: 0, jf: 0, k: 65_535 }])?;
/// assert!(accept.accepts(&[]));
/// # Ok::<(), linecard_net::bpf::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation code.
    pub code: u16,
    /// The number of instructions to skip if a test holds.
    pub jt: u8,
    /// The number of instructions to skip if it fails.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The maximum number of characters of an invalid line that are quoted.
const LONGEST_QUOTE: usize = 60;
/// The maximum length of a program, the kernel's `BPF_MAXINSNS`.
const MAX: usize = 4096;
/// The number of words of scratch memory, `BPF_MEMWORDS`.
const WORDS: usize = 16;

/// A validated program: it only jumps forward, terminates, and accesses only the packet and its scratch
/// words.
///
/// ```
/// use linecard_net::bpf::Program;
/// // tcpdump -ddd ip
/// let ip = Program::from_ddd("4\n40 0 0 12\n21 0 1 2048\n6 0 0 262144\n6 0 0 0\n")?;
/// let mut frame = [0; 60];
/// assert!(!ip.accepts(&frame));
/// frame[12] = 8;
/// assert!(ip.accepts(&frame));
/// # Ok::<(), linecard_net::bpf::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Validates a program.
    ///
    /// # Errors
    /// The first instruction that is unknown, jumps out of the program, or accesses memory outside of the
    /// scratch words.
    pub fn new(code: Vec<Instruction>) -> Result<Self, Error> {
        let len = code.len();
        if !(1..=MAX).contains(&len) {
            return Err(Error::new(format!("a filter of {len} instructions; 1 to {MAX} are possible")));
        }
        for (at, instruction) in code.iter().enumerate() {
            if !instruction.sound(len - at - 1) {
                let Instruction { code, jt, jf, k } = instruction;
                return Err(Error::new(format!(
                    "instruction {at} of the filter ({code} {jt} {jf} {k}) is not possible; \
                     make it with `tcpdump -y EN10MB -ddd EXPRESSION`"
                )));
            }
        }
        // Only a return may be last: any other instruction continues behind the program.
        if code.last().is_none_or(|last| last.code & 7 != 6) {
            return Err(Error::new("the filter does not end; its last instruction must be a return"));
        }
        Ok(Self(code))
    }

    /// Parses the output of `tcpdump -ddd`: a count, then four numbers per line.
    ///
    /// # Errors
    /// The text is malformed, or [`new`](Self::new) rejects the program.
    pub fn from_ddd(text: &str) -> Result<Self, Error> {
        let bad = |line: &str| {
            // A different file may have lines of any length and content.
            let start: String = line.chars().take(LONGEST_QUOTE).flat_map(char::escape_debug).collect();
            let rest = if line.chars().nth(LONGEST_QUOTE).is_some() { "…" } else { "" };
            Error::new(format!(
                "'{start}{rest}' is no line of a compiled filter; make it with `tcpdump -y EN10MB -ddd EXPRESSION`"
            ))
        };
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let count: Option<usize> = lines.next().and_then(|line| line.parse().ok());
        let mut code = Vec::new();
        for line in lines {
            let mut numbers = line.split_ascii_whitespace();
            let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
            let (Some(op), Some(jt), Some(jf), Some(k), None) = (next(), next(), next(), next(), next())
            else {
                return Err(bad(line));
            };
            let narrow = |n: u32| u8::try_from(n).map_err(|_| bad(line));
            let op = u16::try_from(op).map_err(|_| bad(line))?;
            code.push(Instruction { code: op, jt: narrow(jt)?, jf: narrow(jf)?, k });
        }
        if count != Some(code.len()) {
            return Err(bad(text.lines().next().unwrap_or_default()));
        }
        Self::new(code)
    }

    /// The instructions of the program.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// Whether the program accepts a complete frame.
    #[must_use]
    pub fn accepts(&self, frame: &[u8]) -> bool {
        self.run(frame, u32::try_from(frame.len()).unwrap_or(u32::MAX)) > 0
    }

    /// Returns the number of bytes of the frame to keep, 0 for none. `frame` may be the beginning of a frame
    /// of `len` bytes. A program that reads beyond `frame` rejects it, as one that reads beyond the frame's
    /// end does.
    #[must_use]
    pub fn run(&self, frame: &[u8], len: u32) -> u32 {
        let mut machine = Machine { a: 0, x: 0, words: [0; WORDS] };
        let mut at = 0_usize;
        while let Some(instruction) = self.0.get(at) {
            match machine.step(*instruction, frame, len) {
                Step::Skip(count) => at = at.saturating_add(count).saturating_add(1),
                Step::Return(value) => return value,
            }
        }
        0
    }
}

impl Instruction {
    /// Whether the instruction is valid with `left` instructions behind it.
    fn sound(&self, left: usize) -> bool {
        let word = (self.k as usize) < WORDS;
        // The kernel's extensions are at negative offsets.
        let in_frame = self.k < 0xffff_f000;
        match self.code {
            // Loads of A: absolute, relative to X, the length, a constant, a word.
            0x20 | 0x28 | 0x30 => in_frame,
            0x40 | 0x48 | 0x50 => true,
            0x80 | 0x00 => true,
            0x60 => word,
            // Loads of X, and stores.
            0x01 | 0x81 | 0xb1 => true,
            0x61 | 0x02 | 0x03 => word,
            // Arithmetic with a constant, and with X.
            0x04 | 0x14 | 0x24 | 0x44 | 0x54 | 0xa4 | 0x84 => true,
            0x64 | 0x74 => self.k < 32,
            0x34 | 0x94 => self.k != 0,
            0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0x9c | 0xac => true,
            // Jumps: unconditional, and on a comparison.
            0x05 => (self.k as usize) < left,
            0x15 | 0x25 | 0x35 | 0x45 | 0x1d | 0x2d | 0x3d | 0x4d => {
                usize::from(self.jt) < left && usize::from(self.jf) < left
            }
            // Returns, and moves between A and X.
            0x06 | 0x16 | 0x07 | 0x87 => true,
            _ => false,
        }
    }
}

struct Machine {
    a: u32,
    x: u32,
    words: [u32; WORDS],
}

enum Step {
    /// Continue after skipping this many instructions.
    Skip(usize),
    Return(u32),
}

/// The `N` bytes of a frame at an offset.
fn bytes<const N: usize>(frame: &[u8], at: u32) -> Option<[u8; N]> {
    frame.get(at as usize..)?.first_chunk().copied()
}

impl Machine {
    /// Executes one instruction; a read beyond the frame returns 0.
    fn step(&mut self, i: Instruction, frame: &[u8], len: u32) -> Step {
        let operand = if i.code & 0x08 == 0 { i.k } else { self.x };
        match i.code & 7 {
            0 | 1 => return self.load(i, frame, len).map_or(Step::Return(0), |()| Step::Skip(0)),
            2 => self.words[i.k as usize % WORDS] = self.a,
            3 => self.words[i.k as usize % WORDS] = self.x,
            4 => match calculate(i.code, self.a, operand) {
                Some(value) => self.a = value,
                None => return Step::Return(0),
            },
            5 if i.code == 0x05 => return Step::Skip(i.k as usize),
            5 => {
                let holds = match i.code & 0x70 {
                    0x10 => self.a == operand,
                    0x20 => self.a > operand,
                    0x30 => self.a >= operand,
                    _ => self.a & operand != 0,
                };
                return Step::Skip(usize::from(if holds { i.jt } else { i.jf }));
            }
            6 => return Step::Return(if i.code == 0x16 { self.a } else { i.k }),
            _ if i.code == 0x07 => self.x = self.a,
            _ => self.a = self.x,
        }
        Step::Skip(0)
    }

    fn load(&mut self, i: Instruction, frame: &[u8], len: u32) -> Option<()> {
        // Relative to X, if the mode says so.
        let at = if i.code & 0xe0 == 0x40 { self.x.checked_add(i.k)? } else { i.k };
        let value = match i.code & 0xe0 {
            0x00 => i.k,
            0x20 | 0x40 => match i.code & 0x18 {
                0x00 => u32::from_be_bytes(bytes(frame, at)?),
                0x08 => u16::from_be_bytes(bytes(frame, at)?).into(),
                _ => u8::from_be_bytes(bytes(frame, at)?).into(),
            },
            0x60 => self.words[i.k as usize % WORDS],
            0x80 => len,
            // Four times the low half of a byte: the length of an IPv4 header.
            _ => u32::from(u8::from_be_bytes(bytes(frame, at)?) & 0xf) * 4,
        };
        if i.code & 7 == 0 {
            self.a = value;
        } else {
            self.x = value;
        }
        Some(())
    }
}

fn calculate(code: u16, a: u32, b: u32) -> Option<u32> {
    Some(match code & 0xf0 {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b)?,
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.checked_shl(b).unwrap_or(0),
        0x70 => a.checked_shr(b).unwrap_or(0),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(b)?,
        _ => a ^ b,
    })
}
