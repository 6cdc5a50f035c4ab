//! Capture files, pcap and pcapng: written record by record, and read with whatever damage they have.

pub mod encode;
pub mod file;
pub mod read;
