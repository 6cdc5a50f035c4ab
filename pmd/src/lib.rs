//! The port contract, and the drivers that are one file or folder each.

mod control;
mod error;
mod port;

pub use control::{Link, PortControl, PortStats};
pub use error::Error;
pub use port::{
    Configured, Device, DeviceInfo, Driver, Port, PortConfig, ProbeContext, RxQueue, Running, StartError, TxQueue,
    configure,
};
