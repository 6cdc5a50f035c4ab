//! The driver's own XDP program, as instructions (`linux/bpf.h`, kernel
//! `Documentation/bpf/standardization/instruction-set.rst`).
//!
//! ```c
//! return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
//! ```
//! Frames of a queue with a socket go to the socket, all others to the kernel's stack. Since Linux 5.3, the
//! lowest bits of the last argument are the return value for an empty slot.

use std::os::fd::RawFd;

/// The licence that the kernel is given, this project's; no helper that the program calls requires the GPL.
pub(super) const LICENCE: &std::ffi::CStr = c"MIT OR Apache-2.0";

/// Offset of `rx_queue_index` in `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;
const HELPER_REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;
/// `BPF_PSEUDO_MAP_FD`: the value of a wide load is the descriptor of a map.
const MAP_FD: u8 = 1;

/// `BPF_LDX | BPF_MEM | BPF_W`.
const LOAD_WORD: u8 = 0x61;
/// `BPF_LD | BPF_IMM | BPF_DW`, two instructions long.
const LOAD_WIDE: u8 = 0x18;
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
const MOVE: u8 = 0xb7;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_JMP | BPF_EXIT`.
const EXIT: u8 = 0x95;

/// One instruction: opcode, destination and source register, offset, immediate.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let (offset, value) = (offset.to_ne_bytes(), value.to_ne_bytes());
    // The registers are bit fields, so their order depends on the byte order.
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    u64::from_ne_bytes([code, registers, offset[0], offset[1], value[0], value[1], value[2], value[3]])
}

/// Returns the program over the map `sockets`.
pub(super) const fn redirect(sockets: RawFd) -> [u64; 6] {
    [
        instruction(LOAD_WORD, 2, 1, RX_QUEUE_INDEX, 0),
        instruction(LOAD_WIDE, 1, MAP_FD, 0, sockets),
        instruction(0, 0, 0, 0, 0),
        instruction(MOVE, 3, 0, 0, XDP_PASS),
        instruction(CALL, 0, 0, 0, HELPER_REDIRECT_MAP),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_what_an_assembler_makes() {
        let bytes: Vec<[u8; 8]> = redirect(0x0102_0304).iter().map(|word| word.to_le_bytes()).collect();
        assert_eq!(
            bytes,
            [
                [0x61, 0x12, 16, 0, 0, 0, 0, 0], // r2 = *(u32 *)(r1 + 16)
                [0x18, 0x11, 0, 0, 4, 3, 2, 1],  // r1 = map 0x01020304 ll
                [0, 0, 0, 0, 0, 0, 0, 0],        //
                [0xb7, 0x03, 0, 0, 2, 0, 0, 0],  // r3 = 2
                [0x85, 0x00, 0, 0, 51, 0, 0, 0], // call 51
                [0x95, 0x00, 0, 0, 0, 0, 0, 0],  // exit
            ]
        );
    }
}
