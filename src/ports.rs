//! Ports described by types instead of device arguments, one type for each driver: which arguments there are, and of what
//! kind, is checked by the compiler. What a user types goes to [`open`](crate::open), or is parsed into the type of its driver.
//!
//! Both are the same to the driver, which alone knows what values are possible: `check`, parsing and opening refuse a
//! `queue_size` of 300, say, with the same sentence. Only opening finds what is not there.
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
