//! Limits on the rate of what peers make a process do: a limit for each port, and a limit for the process that
//! its ports share fairly.
//!
//! The [`ledger`](crate::ledger) limits what is *held*, this module what is *done* per second: log lines,
//! interruptions of other threads, processor time. Each port has its own limit and is entitled to a *share* of
//! the process's limit: that limit divided by the number of ports. It may do more as long as the other ports
//! leave something of the process's limit. What it does beyond its share does not count against its share.
//!
//! ```text
//!   a port may go on, if    its own limit leaves something
//!                    and    (its share, or the process's limit, leaves something)
//! ```
//! An operation is counted after it was allowed and may cost more than is left. The excess is a debt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The resolution of a bucket: a token is so many units, so that a share may be less than a token per second.
const UNITS: u64 = 1_000_000;
const NANOS: u128 = 1_000_000_000;

/// A rate in tokens, such as operations or microseconds of processor time.
///
/// ```
/// use linecard_wire::rate::Rate;
/// let lines = Rate { per_second: 1, burst: 10 };
/// assert!(lines.burst > lines.per_second);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The tokens of a second in the long run.
    pub per_second: u32,
    /// The tokens that may be used at once after a pause. With 0 nothing is ever allowed.
    pub burst: u32,
}

impl Rate {
    fn units(self) -> Units {
        Units {
            per_second: u64::from(self.per_second).saturating_mul(UNITS),
            burst: u64::from(self.burst).saturating_mul(UNITS),
        }
    }
}

/// A rate in units.
#[derive(Clone, Copy, Debug)]
struct Units {
    per_second: u64,
    burst: u64,
}

impl Units {
    /// One of `ports` equal parts, which is never zero unless the whole is.
    fn share(self, ports: u32) -> Self {
        let part = |whole: u64| whole.div_ceil(u64::from(ports.max(1)));
        Self { per_second: part(self.per_second), burst: part(self.burst) }
    }
}

/// A token bucket, in units. It may become negative.
#[derive(Debug)]
struct Bucket {
    left: i64,
    /// The time up to which units were added.
    counted: Instant,
}

impl Bucket {
    fn full(rate: Units, now: Instant) -> Self {
        Self { left: signed(rate.burst), counted: now }
    }

    /// Adds what was earned until `now`. Returns whether the bucket is full.
    fn fill(&mut self, rate: Units, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted).as_nanos();
        let earned = passed.saturating_mul(rate.per_second.into()) / NANOS;
        let left = i128::from(self.left).saturating_add(earned.try_into().unwrap_or(i128::MAX));
        if left >= i128::from(rate.burst) {
            *self = Self::full(rate, now);
            return true;
        }
        self.left = i64::try_from(left).unwrap_or(i64::MAX);
        // The time of a part of a unit is left for the next call.
        let spent = earned.saturating_mul(NANOS).checked_div(rate.per_second.into()).unwrap_or(0);
        self.counted += Duration::from_nanos(u64::try_from(spent).unwrap_or(u64::MAX));
        false
    }

    fn spend(&mut self, units: i64) {
        self.left = self.left.saturating_sub(units);
    }

    fn allows(&self) -> bool {
        self.left > 0
    }

    /// The time after which the bucket, filled just now, allows something.
    fn wait(&self, rate: Units) -> Duration {
        let lacking = u128::from(1_i64.saturating_sub(self.left.min(1)).unsigned_abs());
        let nanos = lacking.saturating_mul(NANOS).checked_div(rate.per_second.into());
        Duration::from_nanos(nanos.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(u64::MAX))
    }
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

/// A rate of a process, which its ports share.
///
/// ```
/// use std::time::Instant;
/// use linecard_wire::rate::{Rate, SharedRate};
/// let (now, lines) = (Instant::now(), SharedRate::new(Rate { per_second: 20, burst: 200 }));
/// let (noisy, quiet) = (lines.port(Rate { per_second: 50, burst: 500 }), lines.port(Rate { per_second: 1, burst: 10 }));
/// while noisy.allows(now) {
///     noisy.spend(1);
/// }
/// assert!(quiet.allows(now), "half of it is its share");
/// ```
#[derive(Clone, Debug)]
pub struct SharedRate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: Rate,
    state: Mutex<SharedState>,
}

#[derive(Debug)]
struct SharedState {
    /// What all ports leave of the limit. It is negative when ports have used their shares at once.
    rest: Bucket,
    ports: u32,
}

impl SharedRate {
    /// A rate of which all ports together may use `limit`.
    #[must_use]
    pub fn new(limit: Rate) -> Self {
        let rest = Bucket::full(limit.units(), Instant::now());
        Self(Arc::new(Shared { limit, state: Mutex::new(SharedState { rest, ports: 0 }) }))
    }

    /// Counts another port, which may use at most `limit`, until the result is dropped.
    #[must_use]
    pub fn port(&self, limit: Rate) -> PortRate {
        let now = Instant::now();
        let mut state = self.0.state();
        state.ports = state.ports.saturating_add(1);
        let share = Bucket::full(self.0.limit.units().share(state.ports), now);
        drop(state);
        let own = Bucket::full(limit.units(), now);
        let state = Mutex::new(PortState { own, share, is_told: false });
        PortRate { shared: self.clone(), limit: limit.units(), state }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one port may use of a [`SharedRate`]. Any thread may use it.
#[derive(Debug)]
pub struct PortRate {
    shared: SharedRate,
    limit: Units,
    state: Mutex<PortState>,
}

#[derive(Debug)]
struct PortState {
    own: Bucket,
    share: Bucket,
    /// It was reported that nothing is left, and the share has not been full since.
    is_told: bool,
}

impl PortRate {
    /// Whether the port may do something at `now`.
    #[must_use]
    pub fn allows(&self, now: Instant) -> bool {
        let mut state = self.state();
        let mut shared = self.shared.0.state();
        let share = self.fill(&mut state, &mut shared, now);
        drop(shared);
        share.is_zero()
    }

    /// Counts what the port did.
    pub fn spend(&self, tokens: u32) {
        let units = signed(u64::from(tokens).saturating_mul(UNITS));
        let mut state = self.state();
        let mut shared = self.shared.0.state();
        state.own.spend(units);
        // Beyond its share, the port used what others left.
        if state.share.allows() || !shared.rest.allows() {
            state.share.spend(units);
        }
        shared.rest.spend(units);
    }

    /// The time after which the port may do something, if other ports do nothing meanwhile; zero if it may now.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let mut state = self.state();
        let mut shared = self.shared.0.state();
        self.fill(&mut state, &mut shared, now)
    }

    /// Whether it should be reported that nothing is left: once, until the share was full again.
    #[must_use]
    pub fn is_news(&self, now: Instant) -> bool {
        let mut state = self.state();
        let mut shared = self.shared.0.state();
        let denied = !self.fill(&mut state, &mut shared, now).is_zero();
        drop(shared);
        denied && !std::mem::replace(&mut state.is_told, true)
    }

    /// Fills all buckets, and returns the time after which the port may do something.
    fn fill(&self, state: &mut PortState, shared: &mut SharedState, now: Instant) -> Duration {
        let whole = self.shared.0.limit.units();
        let share = whole.share(shared.ports);
        state.own.fill(self.limit, now);
        shared.rest.fill(whole, now);
        if state.share.fill(share, now) {
            state.is_told = false;
        }
        let wait = |bucket: &Bucket, rate| if bucket.allows() { Duration::ZERO } else { bucket.wait(rate) };
        let process = wait(&state.share, share).min(wait(&shared.rest, whole));
        wait(&state.own, self.limit).max(process)
    }

    fn state(&self) -> MutexGuard<'_, PortState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PortRate {
    fn drop(&mut self) {
        let mut shared = self.shared.0.state();
        shared.ports = shared.ports.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const UNLIMITED: Rate = Rate { per_second: u32::MAX, burst: u32::MAX };

    /// Does as much as is allowed at `now`, `cost` at a time, and returns how much that was.
    fn all(port: &PortRate, now: Instant, cost: u32) -> u32 {
        let mut spent = 0;
        while spent < 1_000_000 && port.allows(now) {
            port.spend(cost);
            spent += cost;
        }
        spent
    }

    #[test]
    fn a_port_alone_has_its_own_limit_or_the_processs() {
        let shared = SharedRate::new(Rate { per_second: 100, burst: 200 });
        let port = shared.port(Rate { per_second: 10, burst: 30 });
        let start = Instant::now();
        assert!(!port.is_news(start));
        assert_eq!(all(&port, start, 1), 30);
        assert!(port.is_news(start) && !port.is_news(start), "once");
        assert_eq!(port.wait(start).as_millis(), 0, "a millionth of a token is enough");
        assert_eq!(all(&port, start + SECOND, 1), 10);
        assert_eq!(all(&port, start + 100 * SECOND, 1), 30, "a pause makes up");
        assert!(port.is_news(start + 100 * SECOND), "it was full again");
        drop(port);
        let port = shared.port(UNLIMITED);
        let later = start + 200 * SECOND;
        assert_eq!(all(&port, later, 1), 200, "what the process may");
        assert_eq!(all(&port, later + SECOND, 1), 100);
    }

    /// However many ports there are, and whatever the others do, each may do something.
    #[test]
    fn a_share_is_never_nothing() {
        for ports in [2_u32, 34, 1000, 4096] {
            let shared = SharedRate::new(Rate { per_second: 500_000, burst: 1_000_000 });
            let all_ports: Vec<_> = (0..ports).map(|_| shared.port(UNLIMITED)).collect();
            let (last, greedy) = all_ports.split_last().expect("some");
            let start = Instant::now();
            for second in 0..20 {
                let _ = greedy.iter().map(|port| all(port, start + second * SECOND, 2000)).sum::<u32>();
            }
            let now = start + 20 * SECOND;
            let _ = greedy.iter().map(|port| all(port, now, 2000)).sum::<u32>();
            // A reconnection of two milliseconds, and the next one when its share has paid for it.
            assert!(last.allows(now), "{ports} ports");
            last.spend(2000);
            let wait = last.wait(now);
            let share = SECOND * 2000 * ports / 500_000;
            assert!(wait <= share + SECOND / 1000, "{ports} ports: {wait:?}");
            assert!(last.allows(now + wait + SECOND / 1000), "{ports} ports");
        }
    }

    /// What all ports do in a long time is what the process may do.
    #[test]
    fn greedy_ports_have_the_limit_of_the_process_together() {
        let shared = SharedRate::new(Rate { per_second: 1000, burst: 1000 });
        let ports: Vec<_> = (0..33).map(|_| shared.port(UNLIMITED)).collect();
        let start = Instant::now();
        let mut spent = 0;
        for tick in 0..1000 {
            let now = start + SECOND / 10 * tick;
            spent += ports.iter().map(|port| all(port, now, 1)).sum::<u32>();
        }
        // A hundred seconds, and two bursts.
        assert!((95_000..=102_000 + 33).contains(&spent), "{spent}");
    }

    /// What a port did alone does not count against its share when others come.
    #[test]
    fn the_use_of_what_others_leave_is_no_debt() {
        let shared = SharedRate::new(Rate { per_second: 100, burst: 100 });
        let first = shared.port(UNLIMITED);
        let second = shared.port(UNLIMITED);
        let start = Instant::now();
        assert_eq!(all(&first, start, 1), 100);
        assert_eq!(all(&second, start, 1), 50, "its share");
        let later = start + SECOND;
        assert_eq!(all(&first, later, 1), 50, "each has its share of a second");
        assert_eq!(all(&second, later, 1), 50);
        drop(second);
        assert_eq!(all(&first, later + 2 * SECOND, 1), 100);
    }

    #[test]
    fn a_debt_is_paid_first() {
        let shared = SharedRate::new(Rate { per_second: 1000, burst: 1000 });
        let port = shared.port(Rate { per_second: 10, burst: 10 });
        let start = Instant::now();
        port.spend(30);
        let wait = port.wait(start);
        assert!((1999..=2001).contains(&wait.as_millis()), "{wait:?}");
        assert!(!port.allows(start + wait - SECOND / 100));
        assert!(port.allows(start + wait + SECOND / 100));
        let silent = shared.port(Rate { per_second: 0, burst: 0 });
        assert!(!silent.allows(start + 1000 * SECOND));
    }
}
