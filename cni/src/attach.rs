//! ADD and CHECK.

use std::os::fd::AsFd;
use std::path::PathBuf;

use linecard_netdev::Placeholder;
use linecard_switch::api::{PortInfo, PortSpec, PortState, Share, SocketOrigin, Vlan};
use serde_json::Value;

use crate::address::{Cidr, Mac};
use crate::config::Mode;
use crate::environment::{Attachment, Command};
use crate::error::{Code, Error};
use crate::handover::{self, Handover, write_device_info};
use crate::kernel;
use crate::link;
use crate::netns::Netns;
use crate::plugin::Plugin;
use crate::result::{Builder, Interface, addresses_of, find};
use crate::state::{Record, State, boot};
use crate::step;
use crate::switch::Switch;

/// Keys of a port's `meta`, by which GC (and the switch, if no runtime calls GC) finds the plugin's ports.
pub(crate) mod meta {
    pub(crate) const OWNER: &str = "owner";
    pub(crate) const OWNER_IS: &str = "linecard-cni";
    pub(crate) const NETWORK: &str = "network";
    pub(crate) const CONTAINER: &str = "container";
    pub(crate) const IFNAME: &str = "ifname";
    pub(crate) const NETNS: &str = "netns";
    pub(crate) const NAMESPACE: &str = "namespace";
}

impl Plugin {
    /// Attaches a container. If a step fails, all earlier ones are undone. A killed plugin leaves a record
    /// with which DEL, GC or the next ADD undoes them.
    pub(crate) fn add(&self) -> Result<Value, Error> {
        let attachment = self.attachment()?;
        handover::check(&self.config, attachment)?;
        let (path, sandbox) = self.sandbox();
        let netns = Netns::open(&path)?;
        if self.config.mode == Mode::Abstract && netns.is_own() {
            return Err(Error::new(
                Code::Namespace,
                format!("CNI_NETNS {sandbox} is the host's own network namespace"),
                "give the container a namespace of its own, or use \"mode\": \"socket-dir\"",
            ));
        }
        let state = State::open(&self.config.state_dir)?;
        let _lock = state.lock(attachment)?;
        self.catch_up(&state);
        self.make_room(&state, attachment, &netns)?;
        let known =
            self.config.prev_result.as_ref().and_then(|prev| find(prev, attachment.ifname(), &sandbox));
        if known.is_none() && netns.has_interface(attachment.ifname())? {
            return Err(Error::new(
                Code::Exists,
                format!("the container has an interface {} already", attachment.ifname()),
                "choose another interface name for this network",
            ));
        }
        self.check_sharing(attachment, known.is_some(), &netns)?;
        // Checked before anything is created, so that nothing has to be undone.
        self.find_ipam()?;
        let switch = Switch::connect(&self.config.switch)?;
        step::done("the switch is connected");
        let mut record = self.record(attachment, &netns);
        // An interface made by another plugin of the chain shows the addresses already.
        record.link = Some(path).filter(|_| self.config.link && known.is_none() && !netns.is_own());
        state.write(&record)?;
        self.attach(&state, record, &netns, switch).inspect_err(|_| {
            // The first error is the one to report; whatever cannot be undone now stays on record for DEL.
            let _ = self.undo(&state, attachment);
        })
    }

    /// `CNI_NETNS` as a path, and as text for results.
    fn sandbox(&self) -> (PathBuf, String) {
        let path = self.environment.netns.clone().unwrap_or_default();
        let text = path.to_string_lossy().into_owned();
        (path, text)
    }

    /// Undoes an ADD that did not finish; fails if the attachment is complete and valid.
    fn make_room(&self, state: &State, attachment: &Attachment, netns: &Netns) -> Result<(), Error> {
        if !state.attachments().contains(attachment) {
            return Ok(());
        }
        let lives = |record: &Record| {
            record.complete && record.boot == boot() && record.netns == Some(netns.identity)
        };
        if state.read(attachment).as_ref().is_some_and(lives) {
            return Err(Error::new(
                Code::Exists,
                format!("the container has a port {} already", attachment.ifname()),
                "run DEL first, or choose another interface name for this network",
            ));
        }
        self.undo(state, attachment)
    }

    /// Checks that there is an interface whose address can be shared.
    fn check_sharing(&self, attachment: &Attachment, is_known: bool, netns: &Netns) -> Result<(), Error> {
        let (name, remedy) =
            (attachment.ifname(), "leave 'ports' out, or let this plugin make the interface");
        let problem = match &self.config.ports {
            Some(_) if is_known => {
                format!("'ports' shares the interface {name}, which another plugin of the chain has made")
            }
            Some(_) if netns.is_own() => {
                format!(
                    "'ports' shares the interface {name}, and none is made in the host's own network namespace"
                )
            }
            _ => return Ok(()),
        };
        Err(Error::config(problem, remedy))
    }

    fn record(&self, attachment: &Attachment, netns: &Netns) -> Record {
        let in_folder = self.config.mode != Mode::Abstract;
        // An existing file belongs to another program.
        let file = self.config.device_info.clone().filter(|file| in_folder && !file.exists());
        Record {
            attachment: attachment.clone(),
            network: self.config.name.clone(),
            complete: false,
            boot: boot(),
            netns: Some(netns.identity),
            switch: self.config.switch.clone(),
            folder: handover::folder(&self.config, attachment),
            device_info: file,
            link: None,
            ports: self.config.ports.clone(),
            mac: None,
            port: None,
            kernel_port: None,
        }
    }

    fn attach(
        &self,
        state: &State,
        mut record: Record,
        netns: &Netns,
        mut switch: Switch,
    ) -> Result<Value, Error> {
        let attachment = record.attachment.clone();
        let (path, sandbox) = self.sandbox();
        if state.was_detached(&attachment) {
            switch.remove(&attachment.to_string())?;
        }
        let given = self.delegate(Command::Add, None)?;
        step::done("addresses are given");
        let handover = Handover::make(&self.config, &attachment, netns, &path)?;
        step::done("the socket is made");
        let mac = self.mac(&attachment, &sandbox);
        let interface = Interface {
            name: attachment.ifname(),
            mac,
            mtu: self.config.mtu,
            sandbox: &sandbox,
            socket: handover.socket.as_deref(),
        };
        let (result, ips) = self.result(&interface, &given)?;
        let spec = self.port(&attachment, &handover, mac, &ips);
        let shown = link::shown(mac, self.config.mtu, &ips);
        record.mac = Some(mac);
        record.port = serde_json::to_value(&spec).ok();
        if record.ports.is_some() {
            attach_kernel(&mut switch, &mut record, &spec, &shown, &given)?;
        }
        switch.add(&spec, handover.listener())?;
        step::done("the port is added");
        if let (Some(path), None) = (&record.link, &record.ports) {
            link::make(path, &attachment, &shown)?;
            step::done("the interface is made");
        }
        if let (Some(file), Some(socket)) = (&record.device_info, &handover.socket) {
            let container_listens =
                matches!(self.config.mode, Mode::SocketDir { container_listens: true, .. });
            write_device_info(file, socket, container_listens)?;
        }
        record.complete = true;
        state.write(&record)?;
        Ok(result)
    }

    /// The MAC address of the port: the requested one, that of the kernel interface to which it belongs, or
    /// one derived from the attachment's name.
    fn mac(&self, attachment: &Attachment, sandbox: &str) -> Mac {
        let before = || {
            let (_, entry) = find(self.config.prev_result.as_ref()?, attachment.ifname(), sandbox)?;
            entry["mac"].as_str()?.parse().ok()
        };
        self.config.mac.or_else(before).unwrap_or_else(|| Mac::of(attachment))
    }

    /// The result of ADD, and the addresses of the port.
    fn result(&self, interface: &Interface<'_>, given: &Value) -> Result<(Value, Vec<Cidr>), Error> {
        let mut builder = Builder::new(self.config.version, self.config.prev_result.as_ref());
        let at = builder.interface(interface);
        let mut ips = builder.ipam(given, at)?;
        if self.config.ipam.is_none() {
            for cidr in &self.config.ips {
                builder.address(*cidr, None, at);
            }
            ips.extend(&self.config.ips);
        }
        builder.dns(self.config.dns.as_ref());
        let result = builder.finish();
        if ips.is_empty() {
            ips = addresses_of(&result, at)?;
        }
        Ok((result, ips))
    }

    /// The parameters of the port for the switch.
    fn port(&self, attachment: &Attachment, handover: &Handover, mac: Mac, ips: &[Cidr]) -> PortSpec {
        let (path, sandbox) = self.sandbox();
        // The namespace to which the path leads now: it may lead elsewhere when the container has ended.
        let namespace = SocketOrigin::new(path, "").namespace;
        let about = [
            (meta::OWNER, meta::OWNER_IS.to_owned()),
            (meta::NETWORK, self.config.name.clone()),
            (meta::CONTAINER, attachment.container().to_owned()),
            (meta::IFNAME, attachment.ifname().to_owned()),
            (meta::NETNS, sandbox),
        ];
        let about = about.into_iter().chain(namespace.map(|namespace| (meta::NAMESPACE, namespace)));
        let mut spec = PortSpec::new(attachment.to_string(), handover.kind.clone());
        spec.mac = mac.to_string().parse().ok();
        spec.ips = ips.iter().map(|cidr| cidr.address).collect();
        spec.vlan = self.config.vlan.map(Vlan::Access);
        spec.mtu = self.config.mtu;
        spec.queues = self.config.queues;
        let ports = self.config.ports.clone();
        spec.shares = ports.map(|ports| Share { with: kernel::key(&spec.key), ports });
        spec.meta = about.map(|(key, value)| (key.to_owned(), value)).collect();
        spec
    }

    /// Checks that everything that ADD made is still there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let attachment = self.attachment()?;
        let Some(prev) = &self.config.prev_result else {
            return Err(Error::config("CHECK has no 'prevResult'", "pass the result of ADD"));
        };
        let (path, sandbox) = self.sandbox();
        let broken = |problem: String| {
            let remedy = "remove the container and make it anew, so that DEL and ADD are run";
            Error::new(Code::CheckFailed, problem, remedy)
        };
        let Some((_, entry)) = find(prev, attachment.ifname(), &sandbox) else {
            return Err(broken(format!(
                "'prevResult' has no interface {} in {sandbox}",
                attachment.ifname()
            )));
        };
        let netns = Netns::open(&path)?;
        let state = State::open_existing(&self.config.state_dir);
        let record = state.and_then(|state| state.read(attachment)).filter(|record| record.complete);
        let record = record.ok_or_else(|| broken(format!("there is no record of {attachment}")))?;
        if record.netns != Some(netns.identity) {
            return Err(broken(format!("{attachment} belongs to another network namespace")));
        }
        let chained = prev["interfaces"].as_array().is_some_and(|list| list.len() > 1);
        let mac = record.mac.map(|mac| mac.to_string());
        if !chained && mac.as_deref() != entry["mac"].as_str() {
            return Err(broken(format!("'prevResult' has the address {}, not the port's", entry["mac"])));
        }
        let made_interface = record.link.is_some() || record.ports.is_some();
        if made_interface && !netns.has_interface(attachment.ifname())? {
            return Err(broken(format!("the container has no interface {} any more", attachment.ifname())));
        }
        let mut switch = Switch::connect(&record.switch)?;
        let tap =
            record.kernel_port.is_some().then(|| (kernel::key(&attachment.to_string()), &record.kernel_port));
        for (key, asked) in [(attachment.to_string(), &record.port)].into_iter().chain(tap) {
            let port = switch.show(&key)?;
            let port = port.ok_or_else(|| broken(format!("the switch has no port {key}")))?;
            check_port(&port, asked.as_ref()).map_err(broken)?;
        }
        if let Some(problem) = handover::missing(&record, &netns)? {
            return Err(broken(problem));
        }
        self.delegate(Command::Check, None).map(drop)
    }
}

/// Creates the kernel's half of the port `fast`, with the routes of the IPAM plugin.
fn attach_kernel(
    switch: &mut Switch,
    record: &mut Record,
    fast: &PortSpec,
    shown: &Placeholder,
    given: &Value,
) -> Result<(), Error> {
    let Some(path) = &record.link else { return Ok(()) };
    let tap = link::make_tap(path, &record.attachment, shown, &kernel::routes(given)?)?;
    step::done("the interface is made");
    let kernel = kernel::port(fast, record.attachment.ifname(), path);
    record.kernel_port = serde_json::to_value(&kernel).ok();
    switch.add(&kernel, Some(tap.as_fd()))?;
    step::done("the interface is a port");
    Ok(())
}

/// Compares a port with the parameters of ADD.
fn check_port(port: &PortInfo, asked: Option<&Value>) -> Result<(), String> {
    let asked: Option<PortSpec> = asked.cloned().and_then(|value| serde_json::from_value(value).ok());
    let Some(asked) = asked else {
        return Err("its record does not say what was asked of the switch".into());
    };
    let is = &port.spec;
    let differs = [
        ("address", is.mac != asked.mac),
        ("IP addresses", is.ips != asked.ips),
        ("VLAN", is.vlan != asked.vlan),
        ("MTU", is.mtu != asked.mtu),
        ("number of queues", is.queues != asked.queues),
        ("shared ports", is.shares != asked.shares),
    ];
    if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
        return Err(format!("the {what} of the port {} is not what ADD asked for", is.key));
    }
    match port.state {
        PortState::Waiting => {
            Err(format!("the port {} waits for its other end since the switch was restarted", is.key))
        }
        _ => Ok(()),
    }
}
