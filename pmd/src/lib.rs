//! The port contract, and the drivers that are one file or folder each.
//!
//! | module | what |
//! |---|---|
//! | [`port`] | [`Driver`] → [`Device`] → [`Configured`] → [`Port`]: probe, configure, start, stop |
//! | [`control`] | link, statistics, addresses of a started port |
//! | [`args`] | device arguments, taken by type |
//! | [`stats`] | counters that one thread writes and any reads |

pub mod args;
pub mod control;
pub mod error;
pub mod port;
pub mod stats;

pub use args::DevArgs;
pub use control::{Link, PortControl, PortStats};
pub use error::Error;
pub use port::{
    Configured, Device, DeviceInfo, Driver, Port, PortConfig, ProbeContext, Running, RxQueue, StartError,
    TxQueue, configure,
};
