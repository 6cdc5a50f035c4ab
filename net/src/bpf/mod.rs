//! Packet filters: classic BPF programs, and a compiler for the common part of tcpdump's expressions.
//!
//! ```
//! use linecard_net::bpf::{Program, compile};
//! let http: Program = compile("tcp port 80 and not src net 10.0.0.0/8")?;
//! assert!(!http.accepts(&[0; 60]));
//! # Ok::<(), linecard_net::bpf::Error>(())
//! ```
//!
//! **Supported** (as in `pcap-filter(7)`, on Ethernet): `ether|ip|ip6|arp|rarp|tcp|udp|sctp|icmp|icmp6|igmp`
//! alone; `[proto] [src|dst|src or dst|src and dst] host|net|port|portrange`; `ether|ip|ip6 proto`; `broadcast`,
//! `multicast`; `vlan [id]`; `len`, `less`, `greater`; `proto[offset:size] & mask = value`; `and or not ( )`, with
//! the last qualifiers carried on (`port 80 or 443`). **Not supported**: names of hosts and networks, arithmetic
//! beyond a mask, `gateway`, `mpls`, `pppoe`, LLC. Programs made by `tcpdump -ddd` run too ([`Program::from_ddd`]).
//!
//! Sources: McCanne and Jacobson, *The BSD Packet Filter* (1993); the kernel's `Documentation/networking/filter.rst`.

mod generate;
mod lexer;
mod parser;
mod program;
#[cfg(test)]
mod tests;
mod tree;

pub use program::{Instruction, Program};

/// Why an expression or a program was rejected; one sentence.
///
/// ```
/// use linecard_net::bpf::compile;
/// let error = compile("tcp prot 80").expect_err("misspelt").to_string();
/// assert_eq!(error, "the filter is not understood at 'prot': expected 'and', 'or' or the end");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Compiles an expression; an empty one accepts everything.
///
/// # Errors
/// What was not understood, and where.
pub fn compile(expression: &str) -> Result<Program, Error> {
    let tree = parser::parse(&lexer::words(expression)?)?;
    generate::program(tree.as_ref())
}
