//! Capture files, pcap and pcapng: written record by record, and read even if they are damaged.

pub mod encode;
pub mod file;
pub mod read;
