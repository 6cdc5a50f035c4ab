//! The kernel's half of a port with a shared address (`"ports"`): a tap in the container with the name and
//! addresses of the port, which is also a port of the switch. The switch sends frames for the named TCP and
//! UDP ports to the fast port, and all others to the tap, which the container's sockets use.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use linecard_switch::api::{PortKind, PortSpec, Share};
use serde_json::Value;

use crate::address::Cidr;
use crate::error::{Code, Error};

/// Valid ranges of TCP and UDP ports, such as `tcp:4444-20000,udp:53`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(String);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = Share { with: String::new(), ports: text.into() };
        share.check().map_err(|problem| format!("{}; {}", problem.message, problem.details))?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of the kernel's half of the port `port`. It differs from every attachment's key, because interface
/// names have no ':'.
pub(crate) fn key(port: &str) -> String {
    format!("{port}:kernel")
}

/// The parameters of the kernel's half of `fast`: the interface `name` in `netns`.
pub(crate) fn port(fast: &PortSpec, name: &str, netns: &Path) -> PortSpec {
    PortSpec {
        key: key(&fast.key),
        kind: PortKind::Tap { name: name.into(), netns: Some(netns.into()) },
        queues: 1,
        shares: None,
        ..fast.clone()
    }
}

/// A route to a network; without a gateway, the network is on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Cidr,
    pub(crate) gateway: Option<IpAddr>,
}

/// The routes of an IPAM plugin's result. A route without a gateway gets that of the addresses of its family,
/// as in the reference plugins.
pub(crate) fn routes(given: &Value) -> Result<Vec<Route>, Error> {
    let list = |key: &str| given[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let address = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let gateways: Vec<IpAddr> = list("ips").iter().filter_map(|entry| address(&entry["gateway"])).collect();
    let route = |entry: &Value| {
        let to: Cidr = entry["dst"].as_str()?.parse().ok()?;
        let gateway = match &entry["gw"] {
            Value::Null => gateways.iter().find(|gateway| gateway.is_ipv4() == to.address.is_ipv4()).copied(),
            value => Some(address(value)?),
        };
        Some(Route { to, gateway })
    };
    let each = list("routes").iter().map(|entry| {
        route(entry).ok_or_else(|| {
            let problem = format!("a route in a result is {entry}");
            Error::new(Code::Decode, problem, "the plugin that gave it is broken; report it to its authors")
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_have_their_own_gateway_or_that_of_the_addresses() {
        let given = json!({
            "ips": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}, {"address": "fd00::5/64"}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16", "gw": "10.0.0.7"}, {"dst": "fd01::/64"}],
        });
        let routes = routes(&given).expect("well formed");
        let gateways: Vec<_> = routes.iter().map(|route| route.gateway.map(|ip| ip.to_string())).collect();
        assert_eq!(gateways, [Some("10.0.0.1".into()), Some("10.0.0.7".into()), None]);
        assert_eq!(routes[2].to.to_string(), "fd01::/64");
        assert_eq!(super::routes(&Value::Null), Ok(Vec::new()));
        for route in
            [json!({}), json!({"dst": 1}), json!({"dst": "10.0.0.0/33"}), json!({"dst": "::/0", "gw": "x"})]
        {
            let error = super::routes(&json!({"routes": [route]})).expect_err("broken");
            assert!(error.msg.starts_with("a route in a result is {"), "{error}");
        }
    }
}
