//! Forwards bursts between many ports in memory, for callgrind: `scale PORTS ADDRESSES FLOWS ROUNDS` (`docs/scale.md`).
#![forbid(unsafe_code)]

use linecard_switch::scale::{Bed, Shape};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Result<Vec<u32>, _> = std::env::args().skip(1).map(|word| word.parse()).collect();
    let [ports, addresses, flows, rounds] = numbers?[..] else {
        return Err("say PORTS ADDRESSES FLOWS ROUNDS, four numbers".into());
    };
    let shape = Shape { ports: u16::try_from(ports)?, addresses, flows: flows as usize };
    let mut bed = Bed::new(shape)?;
    let frames: usize = (0..rounds).map(|_| bed.round()).sum();
    println!("{frames} frames, {} lost", bed.lost());
    Ok(())
}
