//! Tests of the ring.

#[cfg(loom)]
mod concurrent;
#[cfg(not(loom))]
mod sequential;
#[cfg(not(loom))]
mod shared;
#[cfg(not(loom))]
mod stress;
