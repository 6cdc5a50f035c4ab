//! Ports described by types instead of device arguments, one type per driver. The compiler checks the names
//! and types of the arguments. Text from a user is passed to [`open`](crate::open) or parsed into the type of
//! its driver.
//!
//! In both cases the driver alone checks the values: `check`, parsing and opening refuse a `queue_size` of
//! 300, for example, with the same message. Only opening detects that a device is missing.
//!
//! ```
//! use linecard::ports::{VhostUser, VirtioUser};
//! use linecard::prelude::*;
//!
//! let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"])?.0)?;
//! let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
//! let path = std::env::temp_dir().join(format!("linecard-ports-{}.sock", std::process::id()));
//! let backend = VhostUser::listen(&path).queues(2).open(&eal, &pool)?;
//! let frontend = VirtioUser::connect(&path).queues(2).queue_size(512).packed(true).open(&eal, &pool)?;
//! assert_eq!((backend.rx.len(), frontend.tx.len()), (2, 2));
//!
//! let same: VirtioUser = "net_virtio_user0,path=/run/v.sock,queues=2".parse()?;
//! assert_eq!(same.packed(true).to_string(), "net_virtio_user0,path=/run/v.sock,queues=2,packed_vq=1");
//! let wrong = "net_virtio_user0,path=/run/v.sock,queue_size=300".parse::<VirtioUser>().unwrap_err();
//! assert!(wrong.to_string().contains("a queue_size of 300 is not a power of two"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[macro_use]
mod plan;

mod kernel;
#[cfg(test)]
mod tests;
mod vhost;
mod virtual_devices;

pub use self::kernel::*;
pub use self::vhost::*;
pub use self::virtual_devices::*;
