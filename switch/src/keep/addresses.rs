//! The learned addresses of a switch, kept once a second in a new file each time, so that the kept data is
//! always complete.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use linecard_pmd::handover::Keep;
use rustix::fs::MemfdFlags;

use super::{Record, Store};
use crate::Switch;
use crate::fdb::{Location, Station};

/// Bytes of an address: its station and its location.
const ADDRESS: usize = 16;

/// The place where addresses are kept, and a hash of its content.
#[derive(Debug, Default)]
pub(crate) struct KeptAddresses {
    place: Option<Arc<dyn Keep>>,
    content: u64,
}

impl Switch {
    /// Keeps the known addresses if they have changed.
    pub(crate) fn keep_addresses(&self) {
        let Some(store) = &self.config.store else { return };
        let mut kept = self.kept_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = self.table.list();
        known.sort_unstable_by_key(|(station, _)| station.to_wire());
        let mut hasher = DefaultHasher::new();
        known
            .iter()
            .for_each(|(station, place)| (station.to_wire(), place.port, place.fixed).hash(&mut hasher));
        let content = hasher.finish();
        if kept.place.is_some() && kept.content == content {
            return;
        }
        match write(store, &kept, &known) {
            Ok(place) => *kept = KeptAddresses { place: Some(place), content },
            Err(error) => tracing::debug!("addresses are not kept: {error}"),
        }
    }

    /// Stops keeping addresses, because another process has them now.
    pub(crate) fn forget_addresses(&self) {
        let kept = self.kept_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        kept.place.iter().for_each(|place| drop(place.forget()));
    }

    /// Restores the addresses that a killed switch had kept, for the ports that exist again.
    ///
    /// # Errors
    /// The file cannot be read; addresses read so far are known.
    pub(crate) fn recover_addresses(&self, kept: &OwnedFd) -> io::Result<usize> {
        let there: Vec<u16> = self.ports().values().map(|entry| entry.id).collect();
        let (now, mut bytes, mut at, mut known) = (self.table.now(), vec![0; ADDRESS * 4096], 0, 0);
        for _ in 0..=self.config.addresses / 4096 {
            let read = rustix::io::pread(kept, &mut bytes, at)?;
            at += read as u64;
            let (addresses, _) = bytes.get(..read).unwrap_or_default().as_chunks::<ADDRESS>();
            for address in addresses {
                let (words, _) = address.as_chunks::<8>();
                let [station, place] = [0, 1].map(|n| words.get(n).copied().map_or(0, u64::from_ne_bytes));
                let (Some(station), Some(place)) = (Station::from_wire(station), Location::from_wire(place))
                else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                // An address learned or configured meanwhile is newer.
                let fits = there.contains(&place.port) && self.table.find(station).is_none();
                known += usize::from(fits && self.table.restore(station, Location { seen: now, ..place }));
            }
            if read < bytes.len() {
                break;
            }
        }
        Ok(known)
    }
}

fn write(store: &Store, kept: &KeptAddresses, known: &[(Station, Location)]) -> io::Result<Arc<dyn Keep>> {
    let file = rustix::fs::memfd_create("linecard-addresses", MemfdFlags::CLOEXEC)?;
    let words = known.iter().flat_map(|(station, place)| [station.to_wire(), place.to_wire()]);
    let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::pwrite(&file, rest, (bytes.len() - rest.len()) as u64)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let place = match &kept.place {
        Some(place) => Arc::clone(place),
        None => store.place(&Record::Addresses)?,
    };
    place.keep(&[], &[file.as_fd()])?;
    place.settle()?;
    Ok(place)
}
