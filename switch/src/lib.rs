//! A learning Ethernet switch over any ports of Linecard, and the API of its control socket.
#![forbid(unsafe_code)]

pub mod api;
pub mod fdb;
pub mod frame;
mod guard;
#[doc(hidden)]
pub mod model;
pub mod rate;
pub mod rules;
