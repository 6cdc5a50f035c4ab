//! The known addresses as users see them: listed, removed, configured.

use std::collections::BTreeMap;

use linecard_net::MacAddr;

use crate::Switch;
use crate::api::{Code, FdbAddress, FdbEntry, FdbFilter, FdbStatic, Problem};
use crate::fdb::{HOLD_SECONDS, Held, Learned, MOST_MOVES, Station};
use crate::rules::{Rules, number};
use crate::switch::no_port;

impl Switch {
    /// Returns the known addresses that match `filter`.
    ///
    /// # Errors
    /// The filter names a port that does not exist.
    pub fn fdb(&self, filter: &FdbFilter) -> Result<Vec<FdbEntry>, Problem> {
        let (wanted, names) = self.filter(filter)?;
        let now = self.table.now();
        let found = self.table.list().into_iter().filter(|(station, place)| wanted(*station, place.port));
        let mut entries: Vec<_> = found
            .filter_map(|(station, place)| {
                Some(FdbEntry {
                    mac: station.mac(),
                    vlan: station.vlan(),
                    port: names.get(&place.port)?.clone(),
                    fixed: place.fixed,
                    age_seconds: now.saturating_sub(place.seen).into(),
                })
            })
            .collect();
        entries.sort_by_key(|entry| (entry.vlan, entry.mac));
        Ok(entries)
    }

    /// Returns the static addresses: those added by [`fix`](Self::fix), not by the parameters of a port.
    #[must_use]
    pub fn statics(&self) -> Vec<FdbStatic> {
        let entries = self.fdb(&FdbFilter::default()).unwrap_or_default();
        let ports = self.ports();
        let by_hand = |entry: &FdbEntry| {
            let own = ports.get(&entry.port).is_some_and(|port| {
                let rules = Rules::of(&port.spec, self.config.defaults);
                port.spec.mac == Some(entry.mac) && rules.is_ok_and(|rules| rules.home_vlan() == entry.vlan)
            });
            entry.fixed && !own
        };
        let by_hand = entries.into_iter().filter(by_hand);
        by_hand.map(|FdbEntry { mac, vlan, port, .. }| FdbStatic { mac, vlan, port }).collect()
    }

    /// Removes learned addresses; returns their number.
    ///
    /// # Errors
    /// The filter names a port that does not exist.
    pub fn flush(&self, filter: &FdbFilter) -> Result<u64, Problem> {
        let (wanted, _) = self.filter(filter)?;
        Ok(self.table.forget(|station, place| !place.fixed && wanted(station, place.port)) as u64)
    }

    /// The predicate of `filter`, and the keys of all ports by number.
    #[expect(clippy::type_complexity, reason = "one closure and one map")]
    fn filter(
        &self,
        filter: &FdbFilter,
    ) -> Result<(impl Fn(Station, u16) -> bool + use<>, BTreeMap<u16, String>), Problem> {
        let ports = self.ports();
        let port = match &filter.port {
            Some(key) => Some(ports.get(key).ok_or_else(|| no_port(key))?.id),
            None => None,
        };
        let names = ports.values().map(|entry| (entry.id, entry.spec.key.clone())).collect();
        let (vlan, mac) = (filter.vlan, filter.mac);
        let wanted = move |station: Station, behind| {
            port.is_none_or(|port| port == behind)
                && vlan.is_none_or(|vlan| vlan == station.vlan())
                && mac.is_none_or(|mac: MacAddr| mac == station.mac())
        };
        Ok((wanted, names))
    }

    /// Adds a static address behind a port, replacing what was learned about it. It does not age, no other
    /// port may use it, and it is removed with its port.
    ///
    /// # Errors
    /// There is no such port or VLAN, or the address is not a unicast address or belongs to another port.
    pub fn fix(&self, asked: &FdbStatic) -> Result<FdbEntry, Problem> {
        let (mac, vlan) = (asked.mac, asked.vlan);
        if !mac.is_unicast() {
            let message = format!("{} is the address of no station", mac.to_string().to_lowercase());
            return Err(Problem::new(
                Code::InvalidParams,
                message,
                "give an address whose first octet is even",
            ));
        }
        let ports = self.ports();
        let entry = ports.get(&asked.port).ok_or_else(|| no_port(&asked.port))?;
        let rules = Rules::of(&entry.spec, self.config.defaults)?;
        if vlan > 4094 || rules.membership.leave(vlan, false).is_none() {
            return Err(Problem::new(
                Code::InvalidParams,
                format!("port '{}' is not in VLAN {vlan}", asked.port),
                "name a VLAN of the port; 0 where it has none",
            ));
        }
        match self.table.set(Station::of(number(mac), vlan), entry.id) {
            Learned::Taken => Err(Problem::new(
                Code::Exists,
                format!("{} belongs to another port", mac.to_string().to_lowercase()),
                "delete it there first",
            )),
            Learned::NoRoom => Err(Problem::new(
                Code::Exhausted,
                "the switch has as many configured addresses as it can",
                "delete some, or start it with more --addresses",
            )),
            _ => Ok(FdbEntry { mac, vlan, port: asked.port.clone(), fixed: true, age_seconds: 0 }),
        }
    }

    /// Removes one address, learned or static; returns whether it was known.
    ///
    /// # Errors
    /// The address is the configured address of a port.
    pub fn unfix(&self, asked: &FdbAddress) -> Result<bool, Problem> {
        let ports = self.ports();
        let own = ports.values().find(|entry| {
            entry.spec.mac == Some(asked.mac)
                && Rules::of(&entry.spec, self.config.defaults)
                    .is_ok_and(|rules| rules.home_vlan() == asked.vlan)
        });
        if let Some(own) = own {
            return Err(Problem::new(
                Code::InvalidParams,
                format!(
                    "{} is the address that port '{}' was given",
                    asked.mac.to_string().to_lowercase(),
                    own.spec.key
                ),
                "remove the port, and add it with another address",
            ));
        }
        Ok(self.table.unset(Station::of(number(asked.mac), asked.vlan & 0xfff)))
    }

    /// Releases stations that were held long enough, and logs those newly held: a few by name, and how many
    /// more.
    pub(crate) fn look_at_held(&self) {
        let (first, count) = self.table.look_at_held();
        let told = first.len() as u64;
        let ports = self.ports();
        let key =
            |id| ports.values().find(|entry| entry.id == id).map_or("one that went", |entry| &entry.spec.key);
        let line = |held: &Held| {
            let Held { station, home, other } = *held;
            let (mac, vlan) = (station.mac().to_string().to_lowercase(), station.vlan());
            let (home, other) = (key(home), key(other));
            format!(
                "{mac} of VLAN {vlan} moved more than {MOST_MOVES} times in a second, last between ports {home} and {other}, and stays behind {home} for {HOLD_SECONDS} s: \
                 look for a loop between ports, or for two stations with that address"
            )
        };
        let lines: Vec<_> = first.iter().map(line).collect();
        // Logging may block, so it must not hold the lock on the ports.
        drop(ports);
        for line in lines {
            tracing::warn!("{line}");
        }
        if count > told {
            tracing::warn!("{} other stations moved as often and stay where they were", count - told);
        }
    }
}
