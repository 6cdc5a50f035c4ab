//! The port that a container plugin gave to this container: its socket and its addresses.
//!
//! A container plugin attaches a port to a container under an interface name, such as `net1`. A program in
//! the container finds the port by that name, in this order:
//!
//! | source | where | written by |
//! |---|---|---|
//! | environment | `LINECARD_NET1=/path/of/socket` or `=@abstract/name`, then `,server=1`, `,mac=…`, `,ip=10.1.0.5/24` as needed | the user, `linecard cni run` |
//! | abstract socket | `@vport/net1` in the container's network namespace | `linecard cni`, `"mode": "abstract"` |
//! | directory | `/run/linecard/net1/sock` | the user, who mounts the directory of `"mode": "socket-dir"` there |
//! | Downward API | the network status in `/etc/podnetinfo/annotations` | Kubernetes with Multus |
//!
//! Addresses come from the same source, or from the kernel interface of that name that the plugin creates
//! beside the port.
//!
//! ```
//! use linecard::container::ContainerPort;
//! let problem = ContainerPort::find("no-such-port").expect_err("this is no container");
//! assert!(problem.to_string().contains("no port 'no-such-port'"));
//! ```

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::netdev::{Interface, Namespace};
use crate::pmd::{self, DevArgs, Device, Driver, Port, ProbeContext};
use crate::prelude::{Eal, Pool};

/// The prefix of a path that [`ContainerPort::find`] resolves.
const AUTO: &str = "auto:";
/// The file of pod annotations, by the convention of the Network Plumbing Working Group.
const ANNOTATIONS: &str = "/etc/podnetinfo/annotations";
/// The directory that holds the plugin's socket directories.
const FOLDERS: &str = "/run/linecard";
/// The most bytes read from a file that another program writes.
const MOST: u64 = 1 << 20;

/// A port found in this container.
///
/// ```
/// use linecard::container::ContainerPort;
/// let port = ContainerPort::parse("@vport/net1,mac=02:00:00:00:00:01,ip=10.1.0.5/24").expect("well formed");
/// assert_eq!(port.path.to_str(), Some("@vport/net1"));
/// assert_eq!((port.mac, port.addresses.len()), (Some([2, 0, 0, 0, 0, 1]), 1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPort {
    /// The socket: a path, or `@name` for an abstract one.
    pub path: PathBuf,
    /// Whether the container listens on the socket and the switch connects.
    pub server: bool,
    /// The source address that the switch expects in frames.
    pub mac: Option<[u8; 6]>,
    /// Largest layer-3 packet, in bytes.
    pub mtu: Option<u32>,
    /// IP addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl ContainerPort {
    /// Finds the port of the interface `name` of this container.
    ///
    /// # Errors
    /// The container has no such port, or its description is malformed.
    pub fn find(name: &str) -> Result<Self, pmd::Error> {
        Self::find_in(name, &Paths::default())
    }

    /// Returns the name of the environment variable that describes the port of the interface `name`; see
    /// [`parse`](Self::parse).
    ///
    /// ```
    /// use linecard::container::ContainerPort;
    /// assert_eq!(ContainerPort::variable("net1"), "LINECARD_NET1");
    /// ```
    #[must_use]
    pub fn variable(name: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("LINECARD_{}", name.chars().map(plain).collect::<String>())
    }

    fn find_in(name: &str, places: &Paths<'_>) -> Result<Self, pmd::Error> {
        let variable = Self::variable(name);
        let wrong = |problem: String| pmd::Error::Argument {
            device: name.into(),
            problem: format!("{variable}: {problem}"),
            remedy: format!("write {variable}=SOCKET,mac=02:00:00:00:00:01,ip=10.1.0.5/24"),
        };
        let mut found = match (places.variable)(&variable) {
            Some(text) => Self::parse(&text).map_err(wrong)?,
            None => places.look(name).ok_or_else(|| pmd::Error::Argument {
                device: name.into(),
                problem: format!("this container has no port '{name}'"),
                remedy: format!(
                    "attach it to a network of `linecard cni` under that name, or set {variable}"
                ),
            })?,
        };
        found.complete(name);
        Ok(found)
    }

    /// Parses the value of the environment variable: a socket, then `server`, `mac`, `mtu` and any number of
    /// `ip`.
    ///
    /// # Errors
    /// What is wrong, as a clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = text.split(',');
        let path = pieces.next().filter(|path| !path.is_empty()).ok_or("it names no socket")?;
        let mut port = Self { path: path.into(), ..Self::default() };
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let (key, value) = piece.split_once('=').ok_or(format!("'{piece}' has no value"))?;
            let wrong = || format!("'{piece}' is not possible");
            match key {
                "server" => port.server = value == "1",
                "mac" => port.mac = Some(mac(value).ok_or_else(wrong)?),
                "mtu" => port.mtu = Some(value.parse().map_err(|_| wrong())?),
                "ip" => port.addresses.push(cidr(value).ok_or_else(wrong)?),
                _ => return Err(format!("'{key}' is unknown; there are server, mac, mtu and ip")),
            }
        }
        Ok(port)
    }

    /// Fills in the missing address, MTU and IP addresses from the kernel interface of that name.
    fn complete(&mut self, name: &str) {
        let Ok(interface) = Interface::find(name, &Namespace::default(), name) else { return };
        if let Ok(info) = interface.info() {
            self.mac = self.mac.or(info.mac);
            self.mtu = self.mtu.or(Some(info.mtu));
        }
        if self.addresses.is_empty() {
            let addresses = interface.addresses().unwrap_or_default().into_iter();
            let local = |address: &IpAddr| matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
            self.addresses = addresses.filter(|(address, _)| !local(address)).collect();
        }
    }

    /// The arguments of a `net_virtio_user` device for this port.
    ///
    /// ```
    /// use linecard::container::ContainerPort;
    /// let port = ContainerPort::parse("/run/s,server=1,mac=02:00:00:00:00:01").expect("well formed");
    /// assert_eq!(port.device(3), "net_virtio_user3,path=/run/s,server=1,mac=02:00:00:00:00:01");
    /// let port = ContainerPort { path: "/run/a,b".into(), ..port };
    /// assert!(port.device(3).contains("path=[/run/a,b],"));
    /// ```
    #[must_use]
    pub fn device(&self, number: u32) -> String {
        let path = self.path.display().to_string();
        // A comma separates arguments, except in brackets.
        let path = if path.contains(',') { format!("[{path}]") } else { path };
        let mut text = format!("net_virtio_user{number},path={path}");
        if self.server {
            text.push_str(",server=1");
        }
        if let Some(mac) = self.mac {
            let _ = write!(text, ",mac={}", crate::net::MacAddr(mac));
        }
        text
    }

    /// Returns the first IPv4 address and its prefix length.
    #[must_use]
    pub fn ipv4(&self) -> Option<([u8; 4], u8)> {
        self.addresses.iter().find_map(|(address, prefix)| match address {
            IpAddr::V4(address) => Some((address.octets(), *prefix)),
            IpAddr::V6(_) => None,
        })
    }
}

/// Opens the port of the interface `name` of this container and starts it with one queue each way and packets
/// from `pool`.
///
/// ```no_run
/// use linecard::prelude::*;
/// let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"])?.0)?;
/// let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// let (port, given) = linecard::container::open(&eal, &pool, "net1")?;
/// println!("{} has the addresses {:?}", port.control.name(), given.addresses);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`ContainerPort::find`] and [`open`](crate::open()).
pub fn open(eal: &Eal, pool: &Pool, name: &str) -> Result<(Port, ContainerPort), pmd::Error> {
    let found = ContainerPort::find(name)?;
    Ok((crate::open(eal, pool, &found.device(0))?, found))
}

/// A driver that resolves `path=auto:NAME` to the port NAME of this container.
#[derive(Debug)]
pub(crate) struct Found<D> {
    driver: D,
}

impl<D> Found<D> {
    pub(crate) const fn new(driver: D) -> Self {
        Self { driver }
    }
}

impl<D: Driver> Driver for Found<D> {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn summary(&self) -> &'static str {
        self.driver.summary()
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), pmd::Error> {
        match args.value("path").is_some_and(|path| path.starts_with(AUTO)) {
            // The socket is only known when the port opens.
            true => self.driver.check_args(&args.clone().with("path", "/run/auto.sock")),
            false => self.driver.check_args(args),
        }
    }

    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, pmd::Error> {
        let Some(name) = args.value("path").and_then(|path| path.strip_prefix(AUTO)) else {
            return self.driver.probe(context, args);
        };
        let found = ContainerPort::find(name)?;
        let mut args = args.clone().with("path", &found.path.to_string_lossy());
        if found.server {
            args = args.with("server", "1");
        }
        if let Some(mac) = found.mac.filter(|_| args.value("mac").is_none()) {
            args = args.with("mac", &crate::net::MacAddr(mac).to_string());
        }
        self.driver.probe(context, &args)
    }
}

/// The sources in which a port is looked up.
struct Paths<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    sockets: &'a Path,
    folders: &'a Path,
    annotations: &'a Path,
}

impl Default for Paths<'_> {
    fn default() -> Self {
        Self {
            variable: &|name| std::env::var(name).ok().filter(|text| !text.is_empty()),
            sockets: "/proc/net/unix".as_ref(),
            folders: FOLDERS.as_ref(),
            annotations: ANNOTATIONS.as_ref(),
        }
    }
}

impl Paths<'_> {
    fn look(&self, name: &str) -> Option<ContainerPort> {
        let status = read(self.annotations).and_then(|text| status(&text, name));
        let address = |path: PathBuf| ContainerPort { path, ..status.clone().unwrap_or_default() };
        let socket = format!("@vport/{name}");
        // `/proc/net/unix` lists the sockets of this network namespace; an abstract name ends its line.
        if read(self.sockets)
            .is_some_and(|list| list.lines().any(|line| line.split_whitespace().nth(7) == Some(&socket)))
        {
            return Some(ContainerPort { server: false, ..address(socket.into()) });
        }
        let folder = self.folders.join(name);
        if folder.join("sock").exists() {
            return Some(ContainerPort { server: false, ..address(folder.join("sock")) });
        }
        let status = status.as_ref()?;
        if status.path.exists() {
            return Some(status.clone());
        }
        // The directory is mounted, and this process creates the socket.
        (status.server && folder.is_dir()).then(|| address(folder.join("sock")))
    }
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST), &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the entry for `name` in the network status of a pod. Each line of the file is an annotation with a
/// quoted value.
fn status(annotations: &str, name: &str) -> Option<ContainerPort> {
    let line = annotations.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key == "k8s.v1.cni.cncf.io/network-status").then_some(value)
    })?;
    let text: String = serde_json::from_str(line).ok()?;
    let list: Vec<Value> = serde_json::from_str(&text).ok()?;
    let entry = list.iter().find(|entry| entry["interface"] == name)?;
    let info = &entry["device-info"]["vhost-user"];
    let ips = entry["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    Some(ContainerPort {
        path: info["path"].as_str().unwrap_or_default().into(),
        server: info["mode"] == "server",
        mac: entry["mac"].as_str().and_then(mac),
        mtu: entry["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok()),
        addresses: ips.iter().filter_map(|ip| cidr(ip.as_str()?)).collect(),
    })
}

fn mac(text: &str) -> Option<[u8; 6]> {
    text.parse().ok().map(|mac: crate::net::MacAddr| mac.0)
}

/// Parses an address with its prefix length; without one, the prefix covers the whole address.
fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(most), |prefix| prefix.parse().ok())?;
    (prefix <= most).then_some((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_in_their_order() {
        let folder = std::env::temp_dir().join(format!("linecard-container-{}", std::process::id()));
        let own = folder.join("net1");
        std::fs::create_dir_all(&own).expect("made");
        let (sockets, annotations) = (folder.join("unix"), folder.join("annotations"));
        let find = |text: Option<&str>| {
            let variable = |name: &str| text.filter(|_| name == "LINECARD_NET1").map(str::to_owned);
            let places =
                Paths { variable: &variable, sockets: &sockets, folders: &folder, annotations: &annotations };
            ContainerPort::find_in("net1", &places)
        };
        let problem = find(None).expect_err("nothing yet").to_string();
        assert!(problem.contains("no port 'net1'") && problem.contains("LINECARD_NET1"), "{problem}");

        let status = r#"[{"interface": "eth0"}, {"interface": "net1", "mac": "02:00:00:00:00:01", "mtu": 9000,
            "ips": ["10.1.0.5"], "device-info": {"vhost-user": {"mode": "server", "path": "/no/such/socket"}}}]"#;
        let quoted = serde_json::to_string(&status.replace('\n', "")).expect("JSON");
        std::fs::write(&annotations, format!("a=\"b\"\nk8s.v1.cni.cncf.io/network-status={quoted}\n"))
            .expect("written");
        let port = find(None).expect("by the network status");
        assert_eq!((port.path.as_path(), port.server), (own.join("sock").as_path(), true));
        assert_eq!((port.mtu, port.ipv4()), (Some(9000), Some(([10, 1, 0, 5], 32))));

        std::fs::write(own.join("sock"), "").expect("written");
        let port = find(None).expect("by its folder");
        assert_eq!((port.server, port.mac), (false, Some([2, 0, 0, 0, 0, 1])));

        let line = "0000: 00000002 00000000 00010000 0001 01 4711 @vport/net1\n";
        std::fs::write(&sockets, line.replace("net1", "net11")).expect("written");
        assert_eq!(find(None).expect("that is another one").path, own.join("sock"));
        std::fs::write(&sockets, line).expect("written");
        assert_eq!(find(None).expect("by its abstract socket").path, Path::new("@vport/net1"));

        let port = find(Some("/tmp/s,server=1,ip=10.0.0.1/8,mtu=1400")).expect("by the variable");
        assert_eq!((port.path.as_path(), port.server, port.mtu), (Path::new("/tmp/s"), true, Some(1400)));
        for (text, part) in [
            ("x,y", "'y' has no value"),
            ("x,mac=1", "'mac=1'"),
            ("x,a=1", "'a' is unknown"),
            (",", "no socket"),
        ] {
            let problem = find(Some(text)).expect_err(text).to_string();
            assert!(problem.contains(part) && problem.contains("write LINECARD_NET1="), "{problem}");
        }
        for junk in [
            "k8s.v1.cni.cncf.io/network-status=[",
            "k8s.v1.cni.cncf.io/network-status=\"[1]\"",
            "\0=\u{fffd}",
        ] {
            std::fs::write(&annotations, junk).expect("written");
            assert!(find(None).is_ok(), "the socket is there all the same");
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_device_argument_is_completed() {
        let args = DevArgs::parse("net_virtio_user0,path=auto:no-such,queues=2").expect("well formed");
        let eal = Eal::new(&crate::prelude::EalArgs::parse(["--no-huge", "-m", "32"]).expect("ours").0);
        let eal = eal.expect("memory");
        let context = ProbeContext::new(
            eal.memory().clone(),
            eal.default_domain(),
            std::time::Duration::from_millis(10),
        );
        let driver = Found::new(crate::virtio_user::VirtioUser::new());
        let Err(problem) = driver.probe(&context, &args) else { panic!("there is no such port") };
        assert!(problem.to_string().contains("no port 'no-such'"), "{problem}");
    }
}
