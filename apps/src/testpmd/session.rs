//! The state of one testpmd run, and the operations that several commands share.

mod stats;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use linecard::capture::Hub;
use linecard::eal::{Eal, Stop};
use linecard::mempool::Pool;
use linecard::pmd::{PortConfig, ProbeContext, Registry};

use super::engine::{BurstsOf, Forwarding, Plan, spreads};
use super::latency::Latency;
use super::layout;
use super::links::LinkNews;
use super::live::Live;
use super::options::Options;
use super::ports::{ETHER_OVERHEAD, PortRecord, Ports};
use super::recording::Recording;
use super::settings::{ModeKind, PortTopology, Settings};
use super::telling::Telling;
use super::topology::{self, Share, Stream};
use crate::capture::ControlSocket;
use crate::error::Error;
use crate::output::{Output, err, out};

/// The state of a run.
pub(crate) struct Session {
    pub(crate) out: Output,
    pub(crate) eal: Eal,
    pub(crate) registry: Registry,
    pub(crate) context: ProbeContext,
    pub(crate) pool: Pool,
    pub(crate) ports: Ports,
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) live: Arc<Live>,
    /// Wakes the console when a link may have changed.
    pub(crate) link_news: Arc<LinkNews>,
    /// A command requested the end of the run.
    pub(crate) quit: bool,
    /// A signal requested it.
    pub(crate) signalled: Stop,
    /// The ports that can be captured.
    pub(crate) hub: Hub,
    /// Lets other processes capture; absent with `--in-memory`, or if it cannot listen.
    pub(crate) server: Option<ControlSocket>,
    /// Telemetry and metrics of the run.
    telling: Telling,
    /// Captures into files, by port.
    pub(crate) recordings: BTreeMap<u16, Recording>,
    /// The warning about an odd number of paired ports was printed; DPDK prints it once.
    odd_warned: bool,
    /// The nesting depth of `load`.
    pub(crate) load_depth: u8,
    /// The first line of a file that is not a command; it determines the exit status, for scripts that do not
    /// read the output.
    pub(crate) bad_line: Option<String>,
    /// The log levels: each `--log-level`, then each `set log`.
    pub(crate) log_levels: Vec<String>,
    forwarding: Option<Forwarding>,
    /// The totals of each stream in the current or the last run.
    last_totals: Vec<(Stream, layout::StreamTotals)>,
    /// The burst sizes of that run, if they are recorded.
    last_bursts: Vec<BurstsOf>,
    /// The ports of that run.
    last_ports: Vec<u16>,
}

/// The parts of a new [`Session`].
pub(crate) struct SessionConfig {
    pub(crate) eal: Eal,
    pub(crate) registry: Registry,
    pub(crate) context: ProbeContext,
    pub(crate) pool: Pool,
    pub(crate) ports: Ports,
    pub(crate) options: Options,
    pub(crate) hub: Hub,
    pub(crate) server: Option<ControlSocket>,
    pub(crate) telling: Telling,
    pub(crate) log_levels: Vec<String>,
}

impl Session {
    pub(crate) fn new(out: Output, parts: SessionConfig) -> Self {
        let SessionConfig { eal, registry, context, pool, ports, options, hub, server, telling, log_levels } =
            parts;
        let settings = options.settings.clone();
        let latency = options.latency_lcore.map(|_| Latency::new(eal.clock()));
        Self {
            out,
            eal,
            registry,
            context,
            pool,
            ports,
            options,
            settings,
            live: Arc::new(Live::new(latency)),
            link_news: Arc::default(),
            quit: false,
            signalled: Stop::default(),
            hub,
            server,
            telling,
            recordings: BTreeMap::new(),
            odd_warned: false,
            load_depth: 0,
            bad_line: None,
            log_levels,
            forwarding: None,
            last_totals: Vec::new(),
            last_bursts: Vec::new(),
            last_ports: Vec::new(),
        }
    }

    pub(crate) fn forwarding(&self) -> bool {
        self.forwarding.is_some()
    }

    /// Opens a device and adds it as a port, which is not started.
    ///
    /// # Errors
    /// A device of that name already exists, or it cannot be opened.
    pub(crate) fn attach(&mut self, device: &str) -> Result<u16, Error> {
        let name = device.split(',').next().unwrap_or(device);
        if let Some(id) = self.ports.named(name) {
            return Err(Error::Failed(format!(
                "{name} is port {id} already; give the new one another number"
            )));
        }
        let opened = self.registry.probe(&self.context, device)?;
        let id = self.ports.add(device, opened, Self::port_config(&self.options))?;
        if let Some(slot) = self.ports.get_mut(id) {
            slot.soft.vlan = self.options.vlan.clone();
        }
        Ok(id)
    }

    /// The configuration of a new port, from the command line.
    pub(crate) fn port_config(options: &Options) -> PortConfig {
        let mtu = options
            .max_packet_len
            .map_or(1500, |len| u16::try_from(len.saturating_sub(ETHER_OVERHEAD)).unwrap_or(u16::MAX));
        PortConfig::default()
            .rx_queues(options.rx_queues.unwrap_or(1))
            .tx_queues(options.tx_queues.unwrap_or(1))
            .rx_depth(options.rx_depth)
            .tx_depth(options.tx_depth)
            .mtu(mtu)
            .offloads(options.offloads)
    }

    /// The lcores that may forward: the workers, or the main lcore if it is the only one.
    pub(crate) fn worker_lcores(&self) -> Vec<u32> {
        let map = self.eal.lcores();
        let workers: Vec<u32> = map.workers().map(|lcore| lcore.id.0).collect();
        if workers.is_empty() { vec![map.main().id.0] } else { workers }
    }

    /// The lcores selected for forwarding, in order; the first `nbcore` of them forward.
    pub(crate) fn configured_lcores(&self) -> Vec<u32> {
        self.settings.lcores.clone().unwrap_or_else(|| self.worker_lcores())
    }

    /// The lcores that will forward, in order.
    pub(crate) fn forwarding_lcores(&self) -> Vec<u32> {
        let mut lcores = self.configured_lcores();
        lcores.truncate(self.settings.nb_cores as usize);
        lcores
    }

    /// The ports that will forward, in order.
    pub(crate) fn forwarding_ports(&self) -> Vec<u16> {
        let mut ports = self.settings.ports.clone().unwrap_or_else(|| self.ports.ids());
        ports.retain(|id| self.ports.get(*id).is_some());
        ports.truncate(self.settings.nb_ports.map_or(usize::MAX, usize::from));
        ports
    }

    /// The streams of each lcore, according to the current settings.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let ports = self.forwarding_ports();
        let slots = || ports.iter().filter_map(|id| self.ports.get(*id));
        let rx = slots().map(|slot| slot.config().rx_queues).min().unwrap_or(0);
        let tx = slots().map(|slot| slot.config().tx_queues).min().unwrap_or(0);
        let streams = topology::streams(&ports, self.settings.topology, self.settings.mode, rx, tx);
        topology::shares(&streams, &self.forwarding_lcores())
    }

    /// Prints a warning, once, if the last port of an odd number is paired with itself.
    pub(crate) fn warn_odd_ports(&mut self) {
        let odd = self.settings.topology == PortTopology::Paired && self.forwarding_ports().len() % 2 == 1;
        if odd && !std::mem::replace(&mut self.odd_warned, true) {
            err!(
                self.out,
                "\nWarning! port-topology=paired and odd forward ports number, the last port will pair with \
                 itself.\n\n"
            );
        }
    }

    /// Starts all stopped ports, or `only` that one; returns whether any was started. Stops at the first
    /// failure.
    ///
    /// # Errors
    /// The first port that did not start.
    pub(crate) fn start_ports(&mut self, only: Option<u16>) -> Result<bool, Error> {
        let mut any = false;
        for slot in self.ports.iter_mut().filter(|slot| only.is_none_or(|id| id == slot.id)) {
            if slot.started() {
                continue;
            }
            if slot.reshaped() {
                out!(self.out, "Configuring Port {} (socket 0)\n", slot.id);
                self.out.flush();
            }
            slot.count_classes(self.settings.record_classes);
            slot.tell_links_to(&self.link_news);
            slot.start(&self.pool, &self.hub)?;
            out!(self.out, "Port {}: {}\n", slot.id, slot.mac());
            any = true;
        }
        Ok(any)
    }

    /// Reports the current ports to telemetry; to call after every possible change.
    pub(crate) fn tell_ports(&self) {
        self.telling.ports(self.ports.iter().map(|slot| (slot.id, slot.entry())));
    }

    /// `start`: moves the queues to their threads.
    pub(crate) fn start_forwarding(&mut self, tx_first: u32) {
        if self.forwarding.is_some() {
            err!(self.out, "Packet forwarding already started\n");
            return;
        }
        if self.ports.iter().any(|slot| !slot.started()) {
            err!(self.out, "Not all ports were started\n");
            return;
        }
        let shares = self.shares();
        if shares.is_empty() {
            err!(self.out, "No port or no lcore to forward on; attach a port, or see `show config fwd`\n");
            return;
        }
        self.warn_odd_ports();
        if self.settings.flush_rx {
            self.ports.iter_mut().for_each(|slot| slot.flush_rx(FLUSH_BURSTS));
        }
        self.print_forwarding(&shares);
        self.print_mode_start();
        self.print_rxtx();
        self.ports.iter_mut().for_each(PortRecord::mark_forwarding);
        self.live.set_verbose(self.settings.verbose);
        self.live.set_work_cycles(self.settings.work_cycles);
        self.forget_rules();
        self.ports.ids().into_iter().for_each(|id| self.apply_rules(id));
        let memories = match self.memories(&shares) {
            Ok(memories) => memories,
            Err(problem) => return err!(self.out, "error: {problem}\n"),
        };
        let tags: HashMap<_, _> =
            self.ports.iter().filter_map(|slot| Some((slot.id, slot.soft.tags?))).collect();
        let macs: HashMap<_, _> = self.ports.iter().map(|slot| (slot.id, slot.mac())).collect();
        let checksums: HashMap<_, _> =
            self.ports.iter().map(|slot| (slot.id, slot.checksum_rule(self.settings.gso_size))).collect();
        let plan = Plan {
            settings: &self.settings,
            pool: &self.pool,
            macs: &macs,
            checksums: &checksums,
            tags: &tags,
            tx_first,
            signalled: self.signalled.clone(),
            live: Arc::clone(&self.live),
            clock: self.eal.clock(),
            memories: RefCell::new(memories),
        };
        let ports = &mut self.ports;
        match Forwarding::start(&self.eal, &plan, &shares, |stream| ports.lend(stream)) {
            Ok(forwarding) => {
                self.telling.forwarding(Some(&forwarding), self.settings.record_cycles);
                self.forwarding = Some(forwarding);
                self.last_ports = self.forwarding_ports();
            }
            Err((queues, error)) => {
                queues.into_iter().for_each(|queues| self.ports.give_back(queues));
                err!(self.out, "error: {error}\n");
            }
        }
    }

    /// Allocates the lookup memories of mode noisy, one per stream.
    fn memories(&self, shares: &[Share]) -> Result<Vec<Vec<u8>>, String> {
        let noisy = self.settings.mode == ModeKind::Noisy && self.settings.noisy.looks_up();
        let streams = if noisy { shares.iter().map(|share| share.streams.len()).sum() } else { 0 };
        (0..streams).map(|_| self.settings.noisy.memory()).collect()
    }

    /// Makes the threads apply the port's current software settings.
    pub(crate) fn apply_rules(&mut self, id: u16) {
        let Some(slot) = self.ports.get_mut(id) else { return };
        self.live.set_rules(id, slot.rules());
    }

    /// Removes all rules and frees packets that still wait for a queue.
    fn forget_rules(&mut self) {
        self.live.forget_rules();
        self.ports.iter_mut().for_each(|slot| slot.soft.restart());
    }

    /// `stop`: returns the queues to their ports and prints the statistics.
    pub(crate) fn stop_forwarding(&mut self) {
        let Some(forwarding) = self.forwarding.take() else {
            err!(self.out, "Packet forwarding not started\n");
            return;
        };
        out!(self.out, "Telling cores to stop...");
        forwarding.halt();
        out!(self.out, "\nWaiting for lcores to finish...\n");
        self.out.flush();
        // The counters outlive the threads, because they are shared.
        let lanes = forwarding.lanes();
        self.telling.forwarding(None, false);
        let (queues, troubles) = forwarding.join();
        queues.into_iter().for_each(|queues| self.ports.give_back(queues));
        self.live.shown.flush();
        self.forget_rules();
        for trouble in troubles {
            err!(self.out, "error: {trouble}; stop and start its ports to use them again\n");
        }
        self.last_totals = lanes.iter().map(|(stream, counters)| (*stream, counters.totals())).collect();
        self.last_bursts = spreads(&lanes);
        self.print_forward_stats();
        out!(self.out, "\nDone.\n");
    }

    /// `clear fwd stats all`.
    pub(crate) fn clear_forward_stats(&mut self) {
        self.ports.iter_mut().for_each(PortRecord::mark_forwarding);
        if let Some(forwarding) = &mut self.forwarding {
            forwarding.clear();
        }
        if let Some(latency) = &self.live.latency {
            latency.clear();
        }
        self.last_totals.clear();
        self.last_bursts.clear();
    }

    /// Ends the run: stops forwarding and closes the ports.
    pub(crate) fn close(&mut self) {
        if self.forwarding() {
            self.stop_forwarding();
        }
        // Capture clients are disconnected, and files completed, before the ports stop.
        self.server = None;
        self.telling.end();
        self.recordings.clear();
        for id in self.ports.ids() {
            out!(self.out, "\nStopping port {id}...\nStopping ports...\n");
            self.out.flush();
            if let Some(slot) = self.ports.get_mut(id) {
                slot.stop();
            }
            out!(self.out, "Done\n");
        }
        for id in self.ports.ids() {
            out!(self.out, "\nShutting down port {id}...\nClosing ports...\n");
            self.ports.close(id);
            out!(self.out, "Port {id} is closed\nDone\n");
        }
        out!(self.out, "\nBye...\n");
        self.out.flush();
    }

    /// Returns a message for each link that went up or down since the last call.
    pub(crate) fn report_links(&mut self) -> String {
        let changed = self.ports.iter_mut().filter_map(|slot| slot.link_change().map(|_| slot.id));
        changed.map(|id| format!("\nPort {id}: link state change event\n")).collect()
    }
}

/// The most bursts discarded per queue when forwarding starts: a source that never pauses must not prevent
/// the start.
const FLUSH_BURSTS: usize = 1024;
