//! The data about a port for Kubernetes and pods, in the form of `dra-driver-ovsdpdk`.

use serde_json::{Map, Value, json};

use super::{Claim, Parameters, Paths, SOCKET};
use crate::address::Cidr;

/// The name of the pool; also reported as the name of the bridge.
const POOL: &str = "linecard";
const API_VERSION: &str = "ovsdpdk.k8snetworkplumbingwg.io/v1alpha1";

impl Parameters {
    /// The attributes in a pod's metadata: as in `ResourceSlice`, each is an object with one field, its type.
    fn attributes(&self, socket: &str) -> Value {
        let policing = self.policing.filter(|policing| policing.max_rate > 0);
        let burst = policing.and_then(|policing| policing.burst).filter(|burst| *burst > 0);
        let mut attributes = json!({ "vhost-user-path": { "string": socket } });
        for (name, value) in [
            ("mtu", self.mtu.map(u64::from)),
            ("ingress-policing-rate", policing.map(|policing| policing.max_rate.into())),
            ("ingress-policing-burst", burst.map(u64::from)),
            // Not in `dra-driver-ovsdpdk`.
            ("vlan", self.vlan.filter(|vlan| *vlan != 0).map(u64::from)),
        ] {
            if let Some(value) = value {
                attributes[name] = json!({ "int": value });
            }
        }
        attributes
    }

    /// The parameters, in the form of the claim.
    fn asked(&self) -> Value {
        let mut asked = Map::new();
        asked.insert("kind".into(), "OvsPortConfig".into());
        asked.insert("apiVersion".into(), API_VERSION.into());
        let ips: Vec<String> = self.ips.iter().map(Cidr::to_string).collect();
        for (name, value) in [
            ("vlan", self.vlan.map(Value::from)),
            ("policing", self.policing.map(|policing| json!(policing))),
            ("mtu", self.mtu.map(Value::from)),
            ("mac", self.mac.map(|mac| mac.to_string().into())),
            ("ips", (!ips.is_empty()).then(|| json!(ips))),
            ("queues", self.queues.map(Value::from)),
        ] {
            asked.extend(value.map(|value| (name.to_owned(), value)));
        }
        Value::Object(asked)
    }
}

impl Paths {
    /// The device metadata of the request (KEP-5304, `metadata.resource.k8s.io/v1alpha1`).
    pub(super) fn metadata(&self, claim: &Claim, parameters: &Parameters) -> Value {
        let socket = self.container_folder(claim).join(SOCKET);
        let mut device = json!({
            "driver": self.driver,
            "pool": POOL,
            "name": claim.to_string(),
            "attributes": parameters.attributes(&socket.to_string_lossy()),
        });
        if parameters.mac.is_some() || !parameters.ips.is_empty() {
            device["networkData"] = json!({
                "ips": parameters.ips.iter().map(Cidr::to_string).collect::<Vec<_>>(),
                "hardwareAddress": parameters.mac.map(|mac| mac.to_string()),
            });
        }
        json!({
            "apiVersion": "metadata.resource.k8s.io/v1alpha1",
            "kind": "DeviceMetadata",
            "metadata": {"name": claim.claim, "generation": 1},
            "requests": [{"name": claim.request, "devices": [device]}],
        })
    }

    /// The answer to the driver; `data` is for `ResourceClaim.status.devices[].data`.
    pub(super) fn told(&self, claim: &Claim, parameters: &Parameters) -> Value {
        let (host, container) = (self.socket(claim), self.container_folder(claim));
        let inside = container.join(SOCKET);
        json!({
            "cdiDeviceIDs": [claim.device()],
            "port": claim.to_string(),
            "hostPath": host,
            "containerPath": inside,
            "data": {
                "mount": {"HostDir": host.parent(), "ContainerDir": container},
                "socket": {"HostPath": host, "ContainerPath": inside},
                "bridgeName": POOL,
                "cdiDeviceID": [claim.device()],
                "config": parameters.asked(),
            },
        })
    }
}
