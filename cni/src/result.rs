//! Results of ADD in the layout of each version.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::address::{Cidr, Mac};
use crate::error::{Code, Error};
use crate::version::Version;

/// An interface in a result.
#[derive(Clone, Debug)]
pub(crate) struct Interface<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    pub(crate) mtu: u16,
    pub(crate) sandbox: &'a str,
    pub(crate) socket: Option<&'a Path>,
}

/// A result under construction: the content of the previous plugin and the IPAM plugin, then ours. Unknown
/// fields are kept.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    version: Version,
    object: Map<String, Value>,
}

impl Builder {
    /// Starts with the result of the previous plugin, if there is one.
    pub(crate) fn new(version: Version, prev: Option<&Value>) -> Self {
        let mut object = prev.and_then(Value::as_object).cloned().unwrap_or_default();
        object.insert("cniVersion".into(), version.as_str().into());
        Self { version, object }
    }

    fn list(&mut self, key: &str) -> &mut Vec<Value> {
        let value = self.object.entry(key).or_insert(Value::Null);
        if !value.is_array() {
            *value = json!([]);
        }
        match value {
            Value::Array(list) => list,
            _ => unreachable!("it was made a list a line above"),
        }
    }

    /// Adds our interface and returns its index. If an earlier plugin made a kernel interface of that name in
    /// this container, the port belongs to that interface: its entry gets the socket's path and keeps
    /// everything else.
    pub(crate) fn interface(&mut self, interface: &Interface<'_>) -> usize {
        let tells_socket = self.version.has_socket_path();
        let list = self.list("interfaces");
        let known = position(list, interface.name, interface.sandbox);
        let at = known.unwrap_or(list.len());
        if known.is_none() {
            list.push(json!({
                "name": interface.name,
                "mac": interface.mac.to_string(),
                "sandbox": interface.sandbox,
            }));
        }
        if let (true, Some(entry)) = (tells_socket, list.get_mut(at).and_then(Value::as_object_mut)) {
            entry.entry("mtu").or_insert(interface.mtu.into());
            if let Some(socket) = interface.socket {
                entry.insert("socketPath".into(), socket.to_string_lossy().into());
            }
        }
        at
    }

    /// Adds an address to the interface with that index.
    pub(crate) fn address(&mut self, cidr: Cidr, gateway: Option<&Value>, interface: usize) {
        let mut entry = json!({"address": cidr.to_string(), "interface": interface});
        if let Some(gateway) = gateway {
            entry["gateway"] = gateway.clone();
        }
        if self.version.ips_say_version() {
            entry["version"] = if cidr.address.is_ipv4() { "4" } else { "6" }.into();
        }
        self.list("ips").push(entry);
    }

    /// Adds the result of an IPAM plugin to the interface with that index.
    pub(crate) fn ipam(&mut self, given: &Value, interface: usize) -> Result<Vec<Cidr>, Error> {
        let addresses = addresses(given)?;
        for (cidr, gateway) in &addresses {
            self.address(*cidr, gateway.as_ref(), interface);
        }
        if let Some(routes) = given["routes"].as_array() {
            self.list("routes").extend(routes.iter().cloned());
        }
        if let Some(dns) = given["dns"].as_object().filter(|dns| !dns.is_empty()) {
            self.object.insert("dns".into(), Value::Object(dns.clone()));
        }
        Ok(addresses.into_iter().map(|(cidr, _)| cidr).collect())
    }

    /// Sets `dns` if it is not set already.
    pub(crate) fn dns(&mut self, dns: Option<&Value>) {
        if let Some(dns) = dns {
            let known = self.object.get("dns").and_then(Value::as_object).is_some_and(|dns| !dns.is_empty());
            if !known {
                self.object.insert("dns".into(), dns.clone());
            }
        }
    }

    pub(crate) fn finish(mut self) -> Value {
        self.object.entry("dns").or_insert_with(|| json!({}));
        Value::Object(self.object)
    }
}

/// The index of the interface with that name in that container.
fn position(list: &[Value], name: &str, sandbox: &str) -> Option<usize> {
    list.iter().position(|entry| {
        entry["name"] == name && entry["sandbox"].as_str().is_some_and(|found| found == sandbox)
    })
}

/// The interface with that name in that container, and its index.
pub(crate) fn find<'a>(result: &'a Value, name: &str, sandbox: &str) -> Option<(usize, &'a Value)> {
    let list = result["interfaces"].as_array()?;
    let at = position(list, name, sandbox)?;
    Some((at, &list[at]))
}

/// The addresses of a result and their gateways.
pub(crate) fn addresses(result: &Value) -> Result<Vec<(Cidr, Option<Value>)>, Error> {
    let list = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = |entry: &Value| {
        let cidr = entry["address"].as_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let problem = format!("an address in a result is {}", entry["address"]);
            Error::new(Code::Decode, problem, "the plugin that gave it is broken; report it to its authors")
        })?;
        Ok((cidr, entry.get("gateway").filter(|gateway| gateway.is_string()).cloned()))
    };
    list.iter().map(entry).collect()
}

/// The addresses of a result that belong to the interface with that index.
pub(crate) fn addresses_of(result: &Value, interface: usize) -> Result<Vec<Cidr>, Error> {
    let list = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let index = |entry: &Value| entry["interface"].as_u64();
    let ours: Vec<Value> =
        list.iter().filter(|entry| index(entry) == Some(interface as u64)).cloned().collect();
    Ok(addresses(&json!({"ips": ours}))?.into_iter().map(|(cidr, _)| cidr).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(socket: Option<&'static Path>) -> Interface<'static> {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        Interface { name: "net1", mac, mtu: 1500, sandbox: "/run/netns/a", socket }
    }

    #[test]
    fn each_version_has_its_layout() {
        let given = json!({"ips": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1", "version": "4"},
            {"address": "fd00::5/64"}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {}});
        for version in Version::ALL {
            let mut builder = Builder::new(version, None);
            let at = builder.interface(&interface(Some(Path::new("/run/s"))));
            builder.ipam(&given, at).expect("well formed");
            builder.dns(Some(&json!({"nameservers": ["10.0.0.1"]})));
            let result = builder.finish();
            assert_eq!(result["cniVersion"], version.as_str());
            assert_eq!(result["interfaces"][0]["sandbox"], "/run/netns/a");
            let new = version == Version::V1_1_0;
            assert_eq!(result["interfaces"][0].get("socketPath").is_some(), new, "{version:?}");
            assert_eq!(result["interfaces"][0].get("mtu").is_some(), new, "{version:?}");
            let versions: Vec<_> =
                result["ips"].as_array().expect("two").iter().map(|ip| ip["version"].clone()).collect();
            match version < Version::V1_0_0 {
                true => assert_eq!(versions, ["4", "6"]),
                false => assert_eq!(versions, [Value::Null, Value::Null]),
            }
            assert_eq!(result["ips"][0]["interface"], 0);
            assert_eq!(result["dns"]["nameservers"][0], "10.0.0.1");
        }
    }

    #[test]
    fn a_chained_result_keeps_what_was_there() {
        let prev = json!({"cniVersion": "1.0.0", "unknown": 1, "ips": [{"address": "10.0.0.5/24", "interface": 1}],
            "interfaces": [{"name": "br0"}, {"name": "eth0", "mac": "02:00:00:00:00:07", "sandbox": "/run/netns/a"}]});
        let mut builder = Builder::new(Version::V1_1_0, Some(&prev));
        assert_eq!(builder.interface(&interface(None)), 2);
        let result = builder.finish();
        assert_eq!(result["unknown"], 1);
        assert_eq!(result["cniVersion"], "1.1.0");
        assert_eq!(result["ips"], prev["ips"]);
        let mut builder = Builder::new(Version::V1_1_0, Some(&prev));
        let same = Interface { name: "eth0", ..interface(Some(Path::new("/run/s"))) };
        assert_eq!(builder.interface(&same), 1);
        let result = builder.finish();
        assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:07");
        assert_eq!(result["interfaces"][1]["socketPath"], "/run/s");
        assert_eq!(addresses_of(&result, 1).expect("one").len(), 1);
    }
}
