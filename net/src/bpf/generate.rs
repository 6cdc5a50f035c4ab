//! Code generation: every condition jumps to one label if it holds and to another if it fails.

use super::Error;
use super::program::{Instruction, Program};
use super::tree::{Compare, Load, Node, Test};

/// A position in the program that is not known yet.
type Label = usize;

enum Op {
    Plain(Instruction),
    /// A comparison, and the labels for both outcomes.
    Jump {
        code: u16,
        k: u32,
        holds: Label,
        fails: Label,
    },
    Mark(Label),
}

/// Codes of the generated instructions (`linux/bpf_common.h`); a size is or-ed to a load.
mod op {
    /// A = the number at offset k of the frame.
    pub(super) const LOAD: u16 = 0x20;
    /// A = the number at offset X + k of the frame.
    pub(super) const LOAD_BEHIND_X: u16 = 0x40;
    /// A = the frame's length.
    pub(super) const LOAD_LEN: u16 = 0x80;
    /// X = the length of the IPv4 header at offset k.
    pub(super) const X_HEADER_LEN: u16 = 0xb1;
    pub(super) const WORD: u16 = 0x00;
    pub(super) const HALF: u16 = 0x08;
    pub(super) const BYTE: u16 = 0x10;
    /// A = A & k.
    pub(super) const AND: u16 = 0x54;
    /// Jumps forward by k instructions.
    pub(super) const JUMP: u16 = 0x05;
    /// Conditional jumps: A = k, A > k, A >= k.
    pub(super) const IF_EQUAL: u16 = 0x15;
    pub(super) const IF_ABOVE: u16 = 0x25;
    pub(super) const IF_AT_LEAST: u16 = 0x35;
    /// Accepts k bytes of the frame.
    pub(super) const RETURN: u16 = 0x06;
}

/// Accepts the whole frame; tcpdump's default snapshot length.
const WHOLE: u32 = 262_144;

const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// The program for a condition; without one, a program that accepts everything.
pub(super) fn program(tree: Option<&Node>) -> Result<Program, Error> {
    let Some(tree) = tree else { return Program::new(vec![plain(op::RETURN, WHOLE)]) };
    let mut code = Code { ops: Vec::new(), labels: 2 };
    let (accept, reject) = (0, 1);
    code.node(tree, accept, reject);
    code.ops.push(Op::Mark(accept));
    code.ops.push(Op::Plain(plain(op::RETURN, WHOLE)));
    code.ops.push(Op::Mark(reject));
    code.ops.push(Op::Plain(plain(op::RETURN, 0)));
    Program::new(code.place())
}

struct Code {
    ops: Vec<Op>,
    labels: usize,
}

impl Code {
    fn node(&mut self, node: &Node, holds: Label, fails: Label) {
        match node {
            Node::Not(inner) => self.node(inner, fails, holds),
            Node::Test(test) => self.test(test, holds, fails),
            Node::And(first, second) => {
                let next = self.label();
                self.node(first, next, fails);
                self.ops.push(Op::Mark(next));
                self.node(second, holds, fails);
            }
            Node::Or(first, second) => {
                let next = self.label();
                self.node(first, holds, next);
                self.ops.push(Op::Mark(next));
                self.node(second, holds, fails);
            }
        }
    }

    fn label(&mut self) -> Label {
        self.labels += 1;
        self.labels - 1
    }

    fn test(&mut self, test: &Test, holds: Label, fails: Label) {
        let size = |size: u8| match size {
            4 => op::WORD,
            2 => op::HALF,
            _ => op::BYTE,
        };
        match test.load {
            Load::At { size: bytes, offset } => {
                self.ops.push(Op::Plain(plain(op::LOAD | size(bytes), offset)))
            }
            Load::Behind { size: bytes, header, offset } => {
                self.ops.push(Op::Plain(plain(op::X_HEADER_LEN, header)));
                self.ops.push(Op::Plain(plain(op::LOAD_BEHIND_X | size(bytes), offset)));
            }
            Load::Len => self.ops.push(Op::Plain(plain(op::LOAD_LEN, 0))),
        }
        if let Some(mask) = test.mask {
            self.ops.push(Op::Plain(plain(op::AND, mask)));
        }
        let code = match test.compare {
            Compare::Equal => op::IF_EQUAL,
            Compare::Above => op::IF_ABOVE,
            Compare::AtLeast => op::IF_AT_LEAST,
        };
        self.ops.push(Op::Jump { code, k: test.value, holds, fails });
    }

    /// Replaces labels with numbers. A comparison can skip 255 instructions; for longer distances it goes
    /// through an unconditional jump directly behind it.
    fn place(&self) -> Vec<Instruction> {
        let mut far = vec![[false; 2]; self.ops.len()];
        loop {
            let (places, marks) = self.places(&far);
            let mut changed = false;
            for (i, op) in self.ops.iter().enumerate() {
                let Op::Jump { holds, fails, .. } = op else { continue };
                for (side, label) in [holds, fails].into_iter().enumerate() {
                    if !far[i][side] && marks[*label] - places[i] - 1 > usize::from(u8::MAX) {
                        far[i][side] = true;
                        changed = true;
                    }
                }
            }
            if !changed {
                return self.write(&far, &places, &marks);
            }
        }
    }

    /// The positions of all operations and labels, with these long jumps.
    fn places(&self, far: &[[bool; 2]]) -> (Vec<usize>, Vec<usize>) {
        let (mut places, mut marks, mut at) = (Vec::new(), vec![0; self.labels], 0);
        for (op, far) in self.ops.iter().zip(far) {
            places.push(at);
            match op {
                Op::Mark(label) => marks[*label] = at,
                Op::Plain(_) => at += 1,
                Op::Jump { .. } => at += 1 + far.iter().filter(|far| **far).count(),
            }
        }
        (places, marks)
    }

    fn write(&self, far: &[[bool; 2]], places: &[usize], marks: &[usize]) -> Vec<Instruction> {
        let mut code = Vec::new();
        for ((op, far), at) in self.ops.iter().zip(far).zip(places) {
            match op {
                Op::Mark(_) => {}
                Op::Plain(instruction) => code.push(*instruction),
                Op::Jump { code: compare, k, holds, fails } => {
                    let mut behind = Vec::new();
                    let mut side = |far: bool, label: Label| {
                        if far {
                            // Distances fit: programs have at most 4096 instructions.
                            let place = at + 1 + behind.len();
                            behind.push(plain(op::JUMP, (marks[label] - place - 1) as u32));
                            (behind.len() - 1) as u8
                        } else {
                            (marks[label] - at - 1) as u8
                        }
                    };
                    let (jt, jf) = (side(far[0], *holds), side(far[1], *fails));
                    code.push(Instruction { code: *compare, jt, jf, k: *k });
                    code.extend(behind);
                }
            }
        }
        code
    }
}
