//! Ports through the Container Device Interface (CDI), for Kubernetes' dynamic resource allocation and for
//! container engines that take devices by name.
//!
//! A request of a resource claim asks for one port. The port becomes a folder on the host that is mounted
//! into the container. The container creates the socket `vhost.sock` in it, and the switch connects. Paths,
//! the attribute `vhost-user-path` and the fields of the configuration are those of `dra-driver-ovsdpdk`, so
//! that programs written for it work unchanged. Additions are `mtu`, `mac`, `ips` and `queues` of the
//! configuration, the other published attributes (`mtu`, `ingress-policing-rate`, `ingress-policing-burst`),
//! and the data in the claim's status.
//!
//! | file | contents |
//! |---|---|
//! | `<cdi>/linecard-port_[<pod>_]<claim>_<request>.json` | the CDI device `linecard/port=[<pod>_]<claim>_<request>` |
//! | `<sockets>/[<pod>_]<claim>_<request>/socket/` | the folder of the socket |
//! | `<sockets>/[<pod>_]<claim>_<request>/metadata/<driver>-metadata.json` | device metadata (KEP-5304) |

mod told;

use std::fs;
use std::path::{Path, PathBuf};

use linecard_switch::api::{PortKind, PortSpec, Rate, Vlan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::address::{Cidr, Mac};
use crate::attach::meta;
use crate::config::object_of;
use crate::detach::detach as detach_port;
use crate::environment::excerpt;
use crate::error::Error;
use crate::handover::{MAX_PATH, make_folder, remove_folder};
use crate::state::{State, remove, write};
use crate::switch::Switch;

/// The default name of the driver.
pub const DRIVER: &str = "ovsdpdk.k8snetworkplumbingwg.io";
/// The default path of the folders in a container.
pub const CONTAINER_ROOT: &str = "/var/run/ovsdpdk";
/// The folder of metadata in a container (KEP-5304).
const METADATA_ROOT: &str = "/var/run/kubernetes.io/dra-device-attributes/resourceclaims";
const SOCKET: &str = "vhost.sock";
const KIND: &str = "linecard/port";
const VERSION: &str = "0.5.0";

/// One request of a resource claim.
///
/// ```
/// use linecard_cni::claim::Claim;
/// assert_eq!(Claim::new("storage", "port0", None)?.to_string(), "storage_port0");
/// assert!(Claim::new("../x", "port0", None).is_err());
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    claim: String,
    request: String,
    pod: Option<String>,
}

impl Claim {
    /// The request `request` of the claim `claim`, for the pod with UID `pod`.
    ///
    /// # Errors
    /// Code 7: Kubernetes does not allow one of the names.
    pub fn new(claim: &str, request: &str, pod: Option<&str>) -> Result<Self, Error> {
        for (what, name) in [("claim", Some(claim)), ("request", Some(request)), ("pod", pod)] {
            let legal = |name: &str| {
                let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                (1..=63).contains(&name.len())
                    && name.chars().all(inside)
                    && !name.starts_with('-')
                    && !name.ends_with('-')
            };
            if let Some(name) = name.filter(|name| !legal(name)) {
                return Err(Error::config(
                    format!("the {what}'s name is \"{}\"", excerpt(name)),
                    "use up to 63 small letters, digits and '-', as Kubernetes does",
                ));
            }
        }
        Ok(Self { claim: claim.into(), request: request.into(), pod: pod.map(str::to_owned) })
    }

    /// Returns the name of its CDI device. With the pod in it, claims of the same name in several namespaces of
    /// Kubernetes have devices of their own on a node.
    #[must_use]
    pub fn device(&self) -> String {
        format!("{KIND}={self}")
    }
}

/// The name of its folder, of its port and of its device. `_` separates the parts, because names in Kubernetes have none.
impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(pod) = &self.pod {
            write!(f, "{pod}_")?;
        }
        write!(f, "{}_{}", self.claim, self.request)
    }
}

/// The parameters of a port: the opaque parameters of a claim.
///
/// ```
/// use linecard_cni::claim::Parameters;
/// let text = br#"{"apiVersion": "ovsdpdk.k8snetworkplumbingwg.io/v1alpha1", "kind": "OvsPortConfig", "vlan": 7}"#;
/// assert_eq!(Parameters::read(text)?.vlan, Some(7));
/// let problem = Parameters::read(br#"{"vlan": 4096}"#).expect_err("too large");
/// assert!(problem.to_string().contains("'vlan' is 4096: give a number from 1 to 4094"));
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    /// The VLAN of the port's untagged frames; 0 means none.
    pub vlan: Option<u16>,
    /// The maximum rate at which the container may send.
    pub policing: Option<Policing>,
    /// The largest IP packet, in bytes; 1500 by default.
    pub mtu: Option<u16>,
    /// The only MAC address from which it may send.
    pub mac: Option<Mac>,
    /// The only IP addresses from which it may send.
    pub ips: Vec<Cidr>,
    /// The number of queue pairs; 1 by default.
    pub queues: Option<u16>,
}

/// A rate limit for frames that a container sends.
///
/// ```
/// let policing: linecard_cni::claim::Policing = serde_json::from_str(r#"{"max_rate": 1000}"#)?;
/// assert_eq!((policing.max_rate, policing.burst), (1000, None));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policing {
    /// The rate in kilobits per second; 0 means no limit.
    pub max_rate: u32,
    /// The burst in kilobits; the switch's default if absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

impl Parameters {
    /// Parses parameters.
    ///
    /// # Errors
    /// Code 6 if it is not a JSON object, 7 for an invalid field or value, which is named.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let value =
            Value::Object(object_of("the text of the port's parameters", "write one JSON object", bytes)?);
        let read: Self = serde_json::from_value(value).map_err(|error| {
            let fields = "give vlan, policing {max_rate, burst}, mtu, mac, ips and queues";
            Error::config(format!("the port's parameters: {error}"), fields)
        })?;
        read.check()
    }

    /// Checks that a switch could create such a port.
    ///
    /// # Errors
    /// Code 7, with the value.
    pub fn check(self) -> Result<Self, Error> {
        let within = |name: &str, value: Option<u16>, least: u16, most: u16| match value {
            Some(value) if !(least..=most).contains(&value) => Err(Error::config(
                format!("'{name}' is {value}"),
                format!("give a number from {least} to {most}"),
            )),
            _ => Ok(()),
        };
        within("vlan", self.vlan.filter(|vlan| *vlan != 0), 1, 4094)?;
        within("mtu", self.mtu, 68, u16::MAX)?;
        within("queues", self.queues, 1, 128)?;
        Ok(self)
    }

    fn rate(&self) -> Option<Rate> {
        let Policing { max_rate, burst } = self.policing.filter(|policing| policing.max_rate > 0)?;
        let burst_bytes = burst.filter(|burst| *burst > 0).map(|burst| u64::from(burst) * 1000 / 8);
        Some(Rate { bits_per_second: u64::from(max_rate) * 1000, burst_bytes })
    }
}

/// The paths and names that ports of claims use.
///
/// ```
/// let places = linecard_cni::claim::Paths::new("/etc/cdi");
/// assert_eq!(places.container_root.to_str(), Some("/var/run/ovsdpdk"));
/// ```
#[derive(Clone, Debug)]
pub struct Paths {
    /// The folder in which container engines look up CDI devices.
    pub cdi: PathBuf,
    /// The folder of the folders that are mounted.
    pub sockets: PathBuf,
    /// The folder below which they are mounted in the container.
    pub container_root: PathBuf,
    /// The path of the switch's control socket.
    pub switch: PathBuf,
    /// The folder for ports to be removed when the switch runs again.
    pub state: PathBuf,
    /// The name of the driver for which metadata is written.
    pub driver: String,
}

impl Paths {
    /// The default paths, with CDI devices in `cdi`.
    #[must_use]
    pub fn new(cdi: impl Into<PathBuf>) -> Self {
        Self {
            cdi: cdi.into(),
            sockets: "/run/linecard/claims".into(),
            container_root: CONTAINER_ROOT.into(),
            switch: crate::SWITCH.into(),
            state: crate::STATE_DIR.into(),
            driver: DRIVER.into(),
        }
    }

    /// Checks names that become parts of paths, and the path in the container.
    fn check(&self) -> Result<(), Error> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let begins = self.driver.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || self.driver.len() > 63 || !self.driver.chars().all(legal) {
            return Err(Error::config(
                format!("the driver's name is \"{}\"", excerpt(&self.driver)),
                "use up to 63 letters, digits, '-' and '.', as Kubernetes does",
            ));
        }
        if !self.container_root.is_absolute() {
            return Err(Error::config(
                format!("the folder in the container is '{}'", self.container_root.display()),
                "give a path that begins with '/'",
            ));
        }
        Ok(())
    }

    fn folder(&self, claim: &Claim) -> PathBuf {
        self.sockets.join(claim.to_string())
    }

    fn socket(&self, claim: &Claim) -> PathBuf {
        self.folder(claim).join("socket").join(SOCKET)
    }

    fn container_folder(&self, claim: &Claim) -> PathBuf {
        self.container_root.join(&claim.claim).join(&claim.request)
    }

    fn device_file(&self, claim: &Claim) -> PathBuf {
        self.cdi.join(format!("linecard-port_{claim}.json"))
    }

    /// The file of a claim's device if version 0.2.0 wrote it, without the pod in its name.
    fn old_device_file(&self, claim: &Claim) -> Option<PathBuf> {
        claim.pod.as_ref()?;
        let file = self.cdi.join(format!("linecard-port_{}_{}.json", claim.claim, claim.request));
        let device: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        let mounted = &device["devices"][0]["containerEdits"]["mounts"][0]["hostPath"];
        (*mounted == json!(self.folder(claim).join("socket"))).then_some(file)
    }

    /// Creates the port and its CDI device; returns the data that a driver passes to Kubernetes. A port that
    /// exists already with the same parameters is kept.
    ///
    /// # Errors
    /// A new port that fails is removed again. Errors come from the switch, from files, or from names too
    /// long for a socket's path.
    pub fn attach(&self, claim: &Claim, parameters: &Parameters) -> Result<Value, Error> {
        let (socket, inside) = (self.socket(claim), self.container_folder(claim).join(SOCKET));
        if let Some(long) = [&socket, &inside].into_iter().find(|path| path.as_os_str().len() > MAX_PATH) {
            return Err(Error::config(
                format!("the socket's path {} is too long", long.display()),
                format!("a socket's path has at most {MAX_PATH} bytes; use shorter names, or no pod"),
            ));
        }
        self.check()?;
        let state = State::open(&self.state)?;
        let _lock = state.lock(claim)?;
        state.forget_detached(claim);
        let mut switch = Switch::connect(&self.switch)?;
        let device = self.device_file(claim).exists() || self.old_device_file(claim).is_some();
        let there = device && socket.parent().is_some_and(Path::is_dir);
        if !there {
            switch.remove(&claim.to_string())?;
        }
        let mut made = || -> Result<(), Error> {
            if !there {
                self.make_folders(claim, parameters)?;
            }
            switch.add(&self.port(claim, parameters), None)?;
            fs::create_dir_all(&self.cdi).map_err(|error| {
                let remedy = "name a folder, and run it as a user who may make it";
                Error::io(format!("making the folder {}", self.cdi.display()), &error, remedy)
            })?;
            write_for_all(&self.device_file(claim), &self.device(claim, parameters))
        };
        match made() {
            Ok(()) => Ok(self.told(claim, parameters)),
            Err(error) => {
                // An existing port keeps working after a refusal.
                if !there {
                    let _ = self.undo(&state, claim);
                }
                Err(error)
            }
        }
    }

    /// Removes a port; neither its files nor the switch need exist.
    ///
    /// # Errors
    /// A file cannot be removed or written.
    pub fn detach(&self, claim: &Claim) -> Result<(), Error> {
        let state = State::open(&self.state)?;
        let _lock = state.lock(claim)?;
        self.undo(&state, claim)?;
        state.sweep();
        Ok(())
    }

    fn undo(&self, state: &State, claim: &Claim) -> Result<(), Error> {
        // Removed first, so that no engine starts to use the port.
        remove(&self.device_file(claim))?;
        self.old_device_file(claim).map_or(Ok(()), |file| remove(&file))?;
        detach_port(state, &claim.to_string(), &self.switch)?;
        remove_folder(&self.folder(claim))
    }

    fn make_folders(&self, claim: &Claim, parameters: &Parameters) -> Result<(), Error> {
        let folder = self.folder(claim);
        remove_folder(&folder)?;
        make_folder(&self.sockets, &folder, &self.switch, false)?;
        make_folder(&folder, &folder.join("socket"), &self.switch, true)?;
        let metadata = folder.join("metadata");
        make_folder(&folder, &metadata, &self.switch, false)?;
        let file = metadata.join(format!("{}-metadata.json", self.driver));
        write_for_all(&file, &self.metadata(claim, parameters))
    }

    fn port(&self, claim: &Claim, parameters: &Parameters) -> PortSpec {
        let kind = PortKind::VhostUser { path: self.socket(claim), client: true, mode: None, group: None };
        let mut spec = PortSpec::new(claim.to_string(), kind);
        spec.mac = parameters.mac.and_then(|mac| mac.to_string().parse().ok());
        spec.ips = parameters.ips.iter().map(|cidr| cidr.address).collect();
        spec.vlan = parameters.vlan.filter(|vlan| *vlan != 0).map(Vlan::Access);
        spec.mtu = parameters.mtu.unwrap_or(1500);
        spec.queues = parameters.queues.unwrap_or(1);
        spec.rate = parameters.rate();
        let about = [(meta::OWNER, "linecard-cdi"), ("claim", &claim.claim), ("request", &claim.request)];
        spec.meta = about.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        spec
    }

    /// The CDI specification of the device.
    fn device(&self, claim: &Claim, parameters: &Parameters) -> Value {
        let (folder, inside) = (self.folder(claim), self.container_folder(claim));
        let metadata = Path::new(METADATA_ROOT).join(&claim.claim).join(&claim.request);
        let mut variable = format!("{},server=1", inside.join(SOCKET).display());
        if let Some(mac) = parameters.mac {
            variable.push_str(&format!(",mac={mac}"));
        }
        for ip in &parameters.ips {
            variable.push_str(&format!(",ip={ip}"));
        }
        let name: String = claim
            .request
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        json!({
            "cdiVersion": VERSION,
            "kind": KIND,
            "devices": [{
                "name": claim.to_string(),
                "containerEdits": {
                    "env": [format!("LINECARD_{name}={variable}")],
                    "mounts": [
                        {"hostPath": folder.join("socket"), "containerPath": inside, "options": ["rw", "bind"]},
                        {"hostPath": folder.join("metadata"), "containerPath": metadata, "options": ["ro", "bind"]},
                    ],
                },
            }],
        })
    }
}

/// As [`write`], readable for any user of an engine or a container.
fn write_for_all(file: &Path, value: &Value) -> Result<(), Error> {
    write(file, value)?;
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(|error| Error::io(format!("opening {}", file.display()), &error, "run it as root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_the_same_name_have_devices_of_their_own() {
        let claim = |pod| Claim::new("fast", "port0", pod).expect("legal");
        let (alone, one, other) = (claim(None), claim(Some("pod-1")), claim(Some("pod-2")));
        assert_eq!(alone.device(), "linecard/port=fast_port0");
        assert_eq!(one.device(), "linecard/port=pod-1_fast_port0");
        let folder = std::env::temp_dir().join(format!("linecard-cni-claim-{}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let paths = Paths::new(&folder);
        assert_eq!(paths.device_file(&alone), folder.join("linecard-port_fast_port0.json"));
        assert_ne!(paths.device_file(&one), paths.device_file(&other));
        let device = paths.device(&one, &Parameters::default());
        assert_eq!(device["devices"][0]["name"], "pod-1_fast_port0");
        // The name that 0.2.0 gave it, which the claim of the other pod may not remove.
        fs::write(paths.device_file(&alone), device.to_string()).expect("written");
        assert_eq!(paths.old_device_file(&one), Some(paths.device_file(&alone)));
        assert_eq!((paths.old_device_file(&other), paths.old_device_file(&alone)), (None, None));
        fs::remove_dir_all(folder).expect("our folder");
    }
}
