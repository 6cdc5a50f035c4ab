//! `linecard demo`: a backend process and a frontend process move checked packets over vhost-user.
//!
//! ```text
//! coordinator ──orders──► backend  ◄─ vhost-user socket, shared memory ─► frontend ◄──orders── coordinator
//!             ◄─reports──  numbers, echoes, checks         numbers, echoes, checks  ──reports─►
//! ```

mod end;
mod frame;
mod place;
mod process;
mod report;
mod show;
mod traffic;

use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use linecard::eal::cores;
use linecard_apps_common::PrivateFolder;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::end::Role;
pub(crate) use self::end::{EndArgs, run as run_end};
use self::process::End;

use self::report::{Circumstances, EndReport, Message, Progress, Summary};
use self::show::Show;
use crate::error::Error;
use crate::output::Output;

/// Arguments of `linecard demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// How long to move packets; the whole run ends at most 30 s later
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Print one line of JSON instead of a live view
    #[arg(long)]
    json: bool,
}

/// The events that the coordinator handles.
enum Event {
    Said(Role, Message),
    /// An end closed its output.
    Closed(Role),
    Signal,
}

/// Runs the demo.
///
/// # Errors
/// An end fails to start, or exits early.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode, Error> {
    let exec_ns = process::exec_time_ns();
    let started = Instant::now();
    let mut show = Show::new(Output::standard(), args.json);
    let placement = place::choose(&cores::allowed());
    let folder = PrivateFolder::new()?;
    let socket = folder.path().join("demo.sock");
    let (sender, events) = mpsc::channel();
    watch_signals(sender.clone())?;
    show.begin(&placement, &socket);
    let start = |role, core: Option<u32>| {
        let events = sender.clone();
        End::start(role, &socket, core, placement.cores.is_none(), move |event| {
            // The coordinator may have ended already.
            let _ = events.send(match event {
                Some(message) => Event::Said(role, message),
                None => Event::Closed(role),
            });
        })
    };
    let cores = placement.cores.map(|(back, front)| (back.0, front.0));
    let mut backend = start(Role::Backend, cores.map(|c| c.0))?;
    let mut frontend = start(Role::Frontend, cores.map(|c| c.1))?;
    let time = Duration::from_secs(args.seconds.into());
    let deadline = started + time + GRACE;
    let mut run = Run { events, state: [State::default(), State::default()], interrupted: false, deadline };
    run.traffic(time, FIRST_WITHIN, &mut show)?;
    let order = |word: &str| [&mut backend, &mut frontend].into_iter().for_each(|end| end.order(word));
    run.collect(GRACE, order, &mut show)?;
    let [back, front] = run.state.map(|state| state.report.unwrap_or_default());
    let circumstances = Circumstances {
        exec_ns,
        cores: cores.map_or(Vec::new(), |(back, front)| vec![back, front]),
        cores_why: placement.why.clone(),
    };
    let summary = Summary::of(&back, &front, circumstances);
    show.end(&summary)?;
    Ok(if summary.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn watch_signals(events: Sender<Event>) -> Result<(), Error> {
    let failed = |source| Error::System {
        action: "signals cannot be watched".into(),
        source,
        remedy: "raise the limits on processes and open files (ulimit -u, ulimit -n)",
    };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let body = move || {
        for _ in signals.forever() {
            let _ = events.send(Event::Signal);
        }
    };
    thread::Builder::new().name("lc-signals".into()).spawn(body).map(drop).map_err(failed)
}

/// The state of one end.
#[derive(Default)]
struct State {
    progress: Progress,
    report: Option<EndReport>,
    closed: bool,
}

struct Run {
    events: Receiver<Event>,
    /// Backend, then frontend.
    state: [State; 2],
    interrupted: bool,
    /// When the demo ends in any case.
    deadline: Instant,
}

/// The most time to wait in addition to the traffic: for the first packet, the last echoes, the reports. An
/// end that is scheduled needs less than a second; on a busy machine it may take longer.
const GRACE: Duration = Duration::from_secs(30);
/// The most time to wait for the first packet.
const FIRST_WITHIN: Duration = Duration::from_secs(20);
/// The time after which the wait is reported.
const QUIETLY: Duration = Duration::from_secs(1);
const SHOW_EVERY: Duration = Duration::from_millis(500);

impl Run {
    fn state(&mut self, role: Role) -> &mut State {
        &mut self.state[usize::from(role == Role::Frontend)]
    }

    fn received(&self) -> u64 {
        self.state.iter().map(|state| state.progress.received).sum()
    }

    /// Handles events until `until`, until `done` returns true, or until a signal.
    fn listen(&mut self, until: Instant, done: impl Fn(&Self) -> bool) -> Result<(), Error> {
        while !done(self) {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Said(role, Message::Progress(progress))) => self.state(role).progress = progress,
                Ok(Event::Said(role, Message::Final(report))) => self.state(role).report = Some(*report),
                Ok(Event::Closed(role)) => {
                    self.state(role).closed = true;
                    if self.state(role).report.is_none() {
                        return Err(ended_early(role));
                    }
                }
                Ok(Event::Signal) => {
                    self.interrupted = true;
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
        Ok(())
    }

    /// The same as [`listen`](Self::listen); reports what it waits for, if that takes long.
    fn await_all(
        &mut self,
        until: Instant,
        what: &str,
        show: &mut Show,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), Error> {
        let start = Instant::now();
        self.listen(until.min(start + QUIETLY), &done)?;
        if !done(self) && !self.interrupted && Instant::now() < until {
            show.waiting(what, until.saturating_duration_since(start));
            self.listen(until, done)?;
        }
        Ok(())
    }

    /// Lets traffic run for `time`, from the first packet on, which must arrive `within` a time.
    fn traffic(&mut self, time: Duration, within: Duration, show: &mut Show) -> Result<(), Error> {
        let until = Instant::now() + within;
        self.await_all(until, "the first packet", show, |run| run.received() > 0)?;
        if self.received() == 0 && !self.interrupted {
            let within = within.as_secs();
            return Err(Error::Failed(format!(
                "no packet came within {within} s; end programs that keep the cores busy, or run `linecard doctor`"
            )));
        }
        show.mark(self.received());
        let end = Instant::now() + time;
        while Instant::now() < end && !self.interrupted && !show.failed() {
            self.listen((Instant::now() + SHOW_EVERY).min(end), |_| false)?;
            show.progress(&self.state.each_ref().map(|state| state.progress));
        }
        Ok(())
    }

    /// Stops requests, waits for the last echoes, requests the reports and waits for them: until the deadline,
    /// and at most for the time `within`, because an interruption may come long before the deadline. `order`
    /// sends an order to both ends.
    ///
    /// # Errors
    /// An end exited early, or the time passed: then it is unknown whether the outstanding packets are lost.
    fn collect(
        &mut self,
        within: Duration,
        mut order: impl FnMut(&str),
        show: &mut Show,
    ) -> Result<(), Error> {
        // The results are shown after an interruption too.
        self.interrupted = false;
        let start = Instant::now();
        let until = self.deadline.min(start + within);
        let within = until.saturating_duration_since(start);
        order(end::DRAIN);
        let drained = |state: &State| state.progress.drained;
        self.await_all(until, "the last echoes", show, |run| run.state.iter().all(drained))?;
        self.in_time("the last echoes of", within, drained)?;
        order(end::REPORT);
        let reported = |state: &State| state.report.is_some();
        self.await_all(until, "the reports", show, |run| run.state.iter().all(reported))?;
        self.in_time("the report of", within, reported)
    }

    /// Returns an error about the first end that did not finish `within` the time that it had.
    fn in_time(&self, what: &str, within: Duration, done: impl Fn(&State) -> bool) -> Result<(), Error> {
        let both = [Role::Backend, Role::Frontend].into_iter().zip(&self.state);
        match both.into_iter().find(|(_, state)| !done(state)) {
            None => Ok(()),
            Some((role, state)) if state.closed => Err(ended_early(role)),
            Some((role, _)) if self.interrupted => Err(Error::Failed(format!(
                "interrupted before {what} the {} came; run it again",
                role.name()
            ))),
            Some((role, _)) => Err(Error::Failed(format!(
                "{what} the {} did not come within {:.0} s after the traffic, so whether packets were lost is not known; \
                 end programs that keep the cores busy and run it again",
                role.name(),
                within.as_secs_f64()
            ))),
        }
    }
}

fn ended_early(role: Role) -> Error {
    Error::Failed(format!(
        "the {} ended early; what it said is above, `linecard doctor` may help",
        role.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that ends `deadline` from now, without any end.
    fn run(deadline: Duration) -> (Sender<Event>, Run) {
        let (sender, events) = mpsc::channel();
        let state = [State::default(), State::default()];
        (sender, Run { events, state, interrupted: false, deadline: Instant::now() + deadline })
    }

    /// If both ends run but no packet arrives, the demo gives up and says what to do.
    #[test]
    fn the_first_packet_is_not_waited_for_for_ever() {
        let (long, short) = (Duration::from_secs(3600), Duration::from_secs(1));
        let (_sender, mut run) = run(long);
        let mut show = Show::new(Output::standard(), true);
        let error = run.traffic(long, short, &mut show).expect_err("nothing came");
        assert_eq!(
            error.to_string(),
            "no packet came within 1 s; end programs that keep the cores busy, or run `linecard doctor`"
        );
    }

    /// The wait after the traffic ends after its own time, long before the deadline of a run that was
    /// interrupted, and at the deadline, if that comes first. The error names the time that was waited.
    #[test]
    fn the_last_echoes_are_not_waited_for_for_ever() {
        let (long, short) = (Duration::from_secs(3600), Duration::from_secs(1));
        for (deadline, within) in [(long, short), (short, long)] {
            let (_sender, mut run) = run(deadline);
            let mut orders = Vec::new();
            let mut show = Show::new(Output::standard(), true);
            let error = run.collect(within, |word| orders.push(word.to_owned()), &mut show);
            let error = error.expect_err("no end answers").to_string();
            // What is left of a second until the deadline may be less than half of it on a busy machine.
            let rest = ["1 s", "0 s"].map(|time| format!("did not come within {time} after the traffic"));
            assert!(rest.iter().any(|text| error.contains(text)), "{error}");
            assert_eq!(orders, [end::DRAIN]);
        }
    }
}
