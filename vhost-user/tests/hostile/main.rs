//! Frontends that mean harm: attacks on what all ports of a process share, its mappings, its control thread, its
//! descriptors. Each is tried beside a port that must not notice.

mod bystander;
mod closing;
#[path = "../common/mod.rs"]
mod common;
mod first_touch;
mod locks;
mod pages;
mod racing;
mod signals;
mod spending;
mod traffic;
mod translations;
mod unread;
mod upgrade;
mod waiting;
