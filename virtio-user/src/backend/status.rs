//! Bits of the device status (virtio 1.3, Device Status Field).
//!
//! ```
//! use linecard_virtio_user::backend::status;
//! assert_eq!(status::DRIVING, 0b1011);
//! assert_eq!(status::DRIVING & status::DRIVER_OK, 0);
//! ```

/// The driver has noticed the device.
pub const ACKNOWLEDGE: u8 = 1;
/// The driver knows how to drive it.
pub const DRIVER: u8 = 2;
/// The driver is set up; the rings may be used.
pub const DRIVER_OK: u8 = 4;
/// The driver and the device have agreed on features.
pub const FEATURES_OK: u8 = 8;
/// The device cannot continue without a reset.
pub const NEEDS_RESET: u8 = 64;
/// The driver has given up.
pub const FAILED: u8 = 128;

/// All bits that a driver sets before it starts the rings.
pub const DRIVING: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK;
