//! From conditions to instructions: every condition jumps to where it holds or to where it does not.

use super::Error;
use super::program::{Instruction, Program};
use super::tree::{Compare, Load, Node, Test};

/// A place in the program that is not known yet.
type Label = usize;

enum Op {
    Plain(Instruction),
    /// A comparison, and where to go on.
    Jump {
        code: u16,
        k: u32,
        holds: Label,
        fails: Label,
    },
    Mark(Label),
}

/// Keeps the whole frame; tcpdump's default snapshot length.
const WHOLE: u32 = 262_144;

const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// The program of a condition; of none, one that accepts everything.
pub(super) fn program(tree: Option<&Node>) -> Result<Program, Error> {
    let Some(tree) = tree else { return Program::new(vec![plain(0x06, WHOLE)]) };
    let mut code = Code { ops: Vec::new(), labels: 2 };
    let (accept, reject) = (0, 1);
    code.node(tree, accept, reject);
    code.ops.push(Op::Mark(accept));
    code.ops.push(Op::Plain(plain(0x06, WHOLE)));
    code.ops.push(Op::Mark(reject));
    code.ops.push(Op::Plain(plain(0x06, 0)));
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
            4 => 0x00,
            2 => 0x08,
            _ => 0x10,
        };
        match test.load {
            Load::At { size: bytes, offset } => self.ops.push(Op::Plain(plain(0x20 | size(bytes), offset))),
            Load::Behind { size: bytes, header, offset } => {
                self.ops.push(Op::Plain(plain(0xb1, header)));
                self.ops.push(Op::Plain(plain(0x40 | size(bytes), offset)));
            }
            Load::Len => self.ops.push(Op::Plain(plain(0x80, 0))),
        }
        if let Some(mask) = test.mask {
            self.ops.push(Op::Plain(plain(0x54, mask)));
        }
        let code = match test.compare {
            Compare::Equal => 0x15,
            Compare::Above => 0x25,
            Compare::AtLeast => 0x35,
        };
        self.ops.push(Op::Jump { code, k: test.value, holds, fails });
    }

    /// Puts numbers in place of labels. A comparison reaches 255 instructions far; farther goes by an
    /// unconditional jump right behind it.
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

    /// Where each operation and each label is, with these long jumps.
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
                            behind.push(plain(0x05, (marks[label] - place - 1) as u32));
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
