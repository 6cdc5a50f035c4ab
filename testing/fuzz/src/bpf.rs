//! Any filter text and any program: refused, or a program that ends; never a panic. A compiled program is
//! accepted again, and so is a program from its text form.

use std::fmt::Write;

use linecard_net::bpf::{Instruction, Program, compile};

fn again(program: &Program) {
    let code = program.instructions().to_vec();
    assert_eq!(Program::new(code).as_ref(), Ok(program));
    let mut text = format!("{}\n", program.instructions().len());
    for Instruction { code, jt, jf, k } in program.instructions() {
        let _ = writeln!(text, "{code} {jt} {jf} {k}");
    }
    assert_eq!(Program::from_ddd(&text).as_ref(), Ok(program));
}

/// The input of one run.
pub type Input<'a> = (&'a str, Vec<(u8, u8, u8, u32)>, &'a [u8], u32);

/// Executes one run.
pub fn run(input: Input<'_>) {
    let (text, code, frame, len) = input;
    if text.len() <= 4096
        && let Ok(program) = compile(text)
    {
        again(&program);
        let _ = program.run(frame, len);
    }
    let _ = Program::from_ddd(text);
    let code: Vec<_> =
        code.into_iter().map(|(code, jt, jf, k)| Instruction { code: code.into(), jt, jf, k }).collect();
    if let Ok(program) = Program::new(code) {
        again(&program);
        let _ = program.run(frame, len);
        let _ = program.accepts(frame);
    }
}
