//! Removal of ports whose containers no longer exist although nobody removed them: a container runtime may
//! lose its DEL, and not every runtime calls GC.
//!
//! ```text
//!     a port of the container plugin whose namespace the switch has seen at its path
//!       the path still leads there                     stays
//!       it leads elsewhere, or nowhere, and
//!         the namespace is mounted, or has a process   stays
//!         otherwise, or after a reboot                 is removed, with its kept data
//! ```
//! The inode of a namespace that has ended may have been reused by another one: then the port stays as long
//! as that one exists. A switch that does not see the containers' namespaces, because it runs in a container
//! itself, removes nothing.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Service;
use crate::api::{PortKind, PortSpec};
use crate::origin::{Namespace, boot};

/// Keys of a port's `meta` in which the container plugin records the owner and the namespace.
const OWNER: &str = "owner";
const PLUGIN: &str = "linecard-cni";
const NETNS: &str = "netns";
const NAMESPACE: &str = "namespace";

impl Service {
    /// Removes ports of the container plugin whose network namespaces no longer exist; returns their keys. It
    /// may wait for the files that it checks and the devices that it closes: call it in a thread for which
    /// nothing waits, such as a [`Sweeper`]'s.
    pub fn sweep(&self) -> Vec<String> {
        // Without the boot ID namespaces cannot be compared.
        let Ok(boot) = boot() else { return Vec::new() };
        let mut swept = Vec::new();
        for spec in self.switch.specs() {
            if let Some(path) = self.is_orphaned(&spec, &boot)
                && self.removes(&spec, &path)
            {
                swept.push(spec.key);
            }
        }
        swept
    }

    /// Records the namespace of a new port's container, if the switch can see it.
    pub(super) fn see(&self, spec: &PortSpec) {
        let Some((path, made)) = namespace(spec) else { return };
        let (Ok(boot), Ok(found)) = (boot(), Namespace::at(&path)) else { return };
        let found = found.identity(&boot);
        if made.is_none_or(|made| made == found) {
            self.namespaces().insert(spec.key.clone(), found);
        }
    }

    pub(super) fn namespaces(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of the port's container, if its namespace no longer exists.
    fn is_orphaned(&self, spec: &PortSpec, boot: &str) -> Option<PathBuf> {
        let (path, made) = namespace(spec)?;
        if !self.kept.lock().unwrap_or_else(PoisonError::into_inner).contains(&spec.key) {
            return None;
        }
        let seen = self.namespaces().get(&spec.key).cloned();
        let (made_boot, made) = Namespace::read(made.as_ref().or(seen.as_ref())?)?;
        if made_boot != boot {
            return Some(path);
        }
        let is_there = match Namespace::at(&path) {
            Ok(found) => found == made,
            Err(error) => !is_absent(&error),
        };
        if is_there {
            self.see(spec);
            return None;
        }
        (seen.is_some() && !made.is_mounted() && !made.has_processes()).then_some(path)
    }

    /// Removes a port whose container no longer exists; returns whether the port was there, unchanged.
    fn removes(&self, spec: &PortSpec, path: &Path) -> bool {
        let successor = self.successor.read().unwrap_or_else(PoisonError::into_inner);
        if successor.is_some() {
            return false;
        }
        match self.remove_if(&spec.key, |now| now == spec) {
            Ok(true) => {
                self.switch.swept.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    "port {} is removed: the network namespace of its container, {}, is gone",
                    spec.key,
                    path.display()
                );
                true
            }
            Ok(false) => false,
            Err(problem) => {
                tracing::warn!("port {}, whose container is gone, cannot be removed: {problem}", spec.key);
                false
            }
        }
    }
}

/// The path of the namespace of a plugin port's container, and the identity that the plugin recorded, if any.
fn namespace(spec: &PortSpec) -> Option<(PathBuf, Option<String>)> {
    if let PortKind::VhostUserFd { origin: Some(origin) } = &spec.kind {
        return Some((origin.netns.clone(), origin.namespace.clone()));
    }
    let is_plugins = spec.meta.get(OWNER).is_some_and(|owner| owner == PLUGIN);
    let path = spec.meta.get(NETNS).filter(|path| is_plugins && path.starts_with('/'))?;
    Some((path.into(), spec.meta.get(NAMESPACE).cloned()))
}

/// Returns whether nothing exists at a path, as opposed to something that cannot be accessed.
fn is_absent(error: &io::Error) -> bool {
    let vanished = error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    vanished || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A thread that [sweeps](Service::sweep) at once and then periodically, until this is dropped.
///
/// ```no_run
/// use std::{sync::Arc, time::Duration};
/// use linecard_switch::server::{Service, Sweeper};
/// fn keep_clean(service: &Arc<Service>) -> std::io::Result<Sweeper> {
///     Sweeper::start(Arc::clone(service), Duration::from_secs(10))
/// }
/// ```
#[derive(Debug)]
pub struct Sweeper {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Sweeps at this interval.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(service: Arc<Service>, every: Duration) -> io::Result<Self> {
        let stop = Arc::<(Mutex<bool>, Condvar)>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("lc-sweep".into()).spawn(move || {
            let (stopped, told) = &*stopped;
            let mut stop = stopped.lock().unwrap_or_else(PoisonError::into_inner);
            while !*stop {
                drop(stop);
                service.sweep();
                stop = stopped.lock().unwrap_or_else(PoisonError::into_inner);
                stop = told
                    .wait_timeout_while(stop, every, |stop| !*stop)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        let (stop, told) = &*self.stop;
        *stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        told.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
