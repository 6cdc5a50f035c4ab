//! What peers may make a process spend: limits for a port, and limits for the process that its ports share fairly.
//!
//! A peer decides how many descriptors, mappings and bytes of address space its port takes, and a process has only so
//! many. So whatever a peer makes it spend is charged to the port's [`Account`] before it is acquired, and given back when it is
//! really gone: a descriptor when it is closed, memory when it is unmapped. A port has a limit of its own, and a claim
//! to its *share* of the process's: the process's limit over the number of its ports and one, so that one more may come.
//! It may take more than its share as long as what every other port's share lacks stays free.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Descriptors that peers leave to the rest of the process.
const OURS: u64 = 128;

/// Why something was not charged.
///
/// ```
/// use linecard_wire::ledger::Resource;
/// let refusal = Resource::new("descriptors", 100).account(3).charge(5).expect_err("more than a port may have");
/// let limit = "5 more descriptors asked, the peer of a port may hold 3 (the port's limit) and holds 0";
/// assert_eq!(refusal.to_string(), limit);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} more {what} asked, the peer of a port may hold {max} ({}) and holds {used}", self.limit())]
pub struct LimitError {
    /// The name of the resource.
    pub what: &'static str,
    /// How much more was asked.
    pub asked: u64,
    /// What the port has already.
    pub used: u64,
    /// What it may have: its own limit, or what the other ports of the process leave to it.
    pub max: u64,
    /// Whether that is the port's share of the process's limit, and less than its own.
    pub shared: bool,
}

impl LimitError {
    /// Which limit it is, in words.
    fn limit(&self) -> &'static str {
        if self.shared { "its share of the process's limit" } else { "the port's limit" }
    }
}

/// Something that a process has so much of, and the ports that spend it.
///
/// ```
/// use linecard_wire::ledger::Resource;
/// let files = Resource::new("descriptors", 90);
/// let (greedy, modest) = (files.account(1000), files.account(1000));
/// // Thirty for each, and thirty for one more to come.
/// let most = greedy.charge_up_to(1000).expect("some");
/// assert_eq!((most.amount(), modest.room()), (30, 30));
/// drop(most);
/// assert_eq!(greedy.room(), 30);
/// ```
#[derive(Clone, Debug)]
pub struct Resource(Arc<Accounts>);

#[derive(Debug)]
struct Accounts {
    what: &'static str,
    limit: u64,
    /// What each account has spent; `None` where an account ended.
    spent: Mutex<Vec<Option<u64>>>,
}

impl Resource {
    /// `limit` of what is called `what` (in the plural) for all ports together.
    #[must_use]
    pub fn new(what: &'static str, limit: u64) -> Self {
        Self(Arc::new(Accounts { what, limit, spent: Mutex::new(Vec::new()) }))
    }

    /// An account of one more port, which may spend `limit` at most.
    #[must_use]
    pub fn account(&self, limit: u64) -> Account {
        let mut spent = self.0.spent();
        let place = spent.iter().position(Option::is_none).unwrap_or(spent.len());
        match spent.get_mut(place) {
            Some(free) => *free = Some(0),
            None => spent.push(Some(0)),
        }
        drop(spent);
        Account(Arc::new(AccountSlot { resource: self.clone(), place, limit }))
    }

    /// The share that a port has a claim to.
    #[must_use]
    pub fn share(&self) -> u64 {
        self.0.share(&self.0.spent())
    }

    /// What all ports together have.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.spent().iter().flatten().sum()
    }
}

/// The descriptors that peers may make one process hold, at whichever end of a socket they are.
///
/// A process has one table of descriptors. So the ports of all drivers whose peers send some take them from one total:
/// whoever makes the drivers gives each of them the same value of this.
///
/// ```
/// use linecard_wire::ledger::Descriptors;
/// static OURS: Descriptors = Descriptors::new();
/// // Of a limit of 1024 (`ulimit -n`), 128 are left to the rest of the process.
/// assert!(OURS.resource().share() > 0);
/// assert_eq!(Descriptors::of(90).resource().share(), 90);
/// ```
#[derive(Debug)]
pub struct Descriptors(OnceLock<Resource>);

impl Descriptors {
    /// What it is called when it is refused.
    const NAME: &str = "descriptors";

    /// As many as the process may have open when the first port is made (`RLIMIT_NOFILE`), but 128.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// As many as `limit`.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        Self(OnceLock::from(Resource::new(Self::NAME, limit)))
    }

    /// How many the process may have open now, but 128.
    #[must_use]
    pub fn allowed() -> u64 {
        crate::sys::most_descriptors().saturating_sub(OURS)
    }

    /// What accounts are opened with.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        self.0.get_or_init(|| Resource::new(Self::NAME, Self::allowed()))
    }
}

impl Default for Descriptors {
    fn default() -> Self {
        Self::new()
    }
}

impl Accounts {
    fn spent(&self) -> MutexGuard<'_, Vec<Option<u64>>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share(&self, spent: &[Option<u64>]) -> u64 {
        let ports = spent.iter().flatten().count() as u64;
        self.limit / ports.saturating_add(1)
    }

    /// Why `asked` more is refused to an account.
    fn refusal(&self, asked: u64, (max, used): (u64, u64), limit: u64) -> LimitError {
        LimitError { what: self.what, asked, used, max, shared: max < limit }
    }

    /// What the account at `place` may have in all, and what it has.
    fn bounds(&self, spent: &[Option<u64>], place: usize, limit: u64) -> (u64, u64) {
        let share = self.share(spent);
        let own = spent.get(place).copied().flatten().unwrap_or(0);
        // What the others have, or have a claim to; and the claim of one that may come.
        let (mut theirs, mut claims) = (0u64, share);
        for (at, other) in spent.iter().enumerate() {
            let Some(other) = other.filter(|_| at != place) else { continue };
            theirs = theirs.saturating_add(other);
            claims = claims.saturating_add(other.max(share));
        }
        // Its share, where others have not taken that before there were so many ports; more, where nobody has a claim.
        let left = self.limit.saturating_sub(theirs).min(share).max(self.limit.saturating_sub(claims));
        (left.min(limit), own)
    }
}

/// What one port spends of a [`Resource`]; clones are the same account.
#[derive(Clone, Debug)]
pub struct Account(Arc<AccountSlot>);

#[derive(Debug)]
struct AccountSlot {
    resource: Resource,
    place: usize,
    limit: u64,
}

impl Drop for AccountSlot {
    fn drop(&mut self) {
        // Every charge holds its account: nothing is spent any more.
        if let Some(spent) = self.resource.0.spent().get_mut(self.place) {
            *spent = None;
        }
    }
}

impl Account {
    /// Charges `amount`.
    ///
    /// # Errors
    /// The port would have more than it may; nothing is charged.
    pub fn charge(&self, amount: u64) -> Result<Charge, LimitError> {
        let shared = &*self.0.resource.0;
        let mut spent = shared.spent();
        let (max, used) = shared.bounds(&spent, self.0.place, self.0.limit);
        if used.saturating_add(amount) > max {
            return Err(shared.refusal(amount, (max, used), self.0.limit));
        }
        self.add(&mut spent, amount);
        Ok(Charge { account: self.clone(), amount })
    }

    /// Charges `most`, or as much less as the port may still have.
    ///
    /// # Errors
    /// The port may have no more at all.
    pub fn charge_up_to(&self, most: u64) -> Result<Charge, LimitError> {
        let shared = &*self.0.resource.0;
        let mut spent = shared.spent();
        let (max, used) = shared.bounds(&spent, self.0.place, self.0.limit);
        let amount = max.saturating_sub(used).min(most);
        if amount == 0 {
            return Err(shared.refusal(most, (max, used), self.0.limit));
        }
        self.add(&mut spent, amount);
        Ok(Charge { account: self.clone(), amount })
    }

    /// What the port may still have.
    #[must_use]
    pub fn room(&self) -> u64 {
        let shared = &*self.0.resource.0;
        let (max, used) = shared.bounds(&shared.spent(), self.0.place, self.0.limit);
        max.saturating_sub(used)
    }

    /// What the port has.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.resource.0.spent().get(self.0.place).copied().flatten().unwrap_or(0)
    }

    fn add(&self, spent: &mut [Option<u64>], amount: u64) {
        if let Some(Some(own)) = spent.get_mut(self.0.place) {
            *own = own.saturating_add(amount);
        }
    }
}

/// What was charged; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub struct Charge {
    account: Account,
    amount: u64,
}

impl Charge {
    /// How much it is.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes `amount` of it, or what there is, into a charge of its own.
    pub fn split(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Self { account: self.account.clone(), amount }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let place = &*self.account.0;
        if let Some(Some(own)) = place.resource.0.spent().get_mut(place.place) {
            *own = own.saturating_sub(self.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all that `account` may have, one by one.
    fn all(account: &Account) -> Vec<Charge> {
        std::iter::from_fn(|| account.charge(1).ok()).collect()
    }

    #[test]
    fn many_greedy_ports_leave_the_last_its_share() {
        let resource = Resource::new("descriptors", 1000);
        let greedy: Vec<_> = (0..33).map(|_| resource.account(u64::MAX)).collect();
        let last = resource.account(u64::MAX);
        let held: Vec<_> = greedy.iter().map(all).collect();
        let spent: usize = held.iter().map(Vec::len).sum();
        assert!(spent <= 1000 - 2 * 28, "{spent}");
        assert_eq!(all(&last).len(), 28, "1000 over 34 ports and one to come");
        // One that comes when all have taken theirs finds what was kept for it.
        let late = resource.account(u64::MAX);
        assert!(late.room() >= 27, "{}", late.room());
    }

    #[test]
    fn one_port_alone_has_all_but_the_next_ones_share() {
        let resource = Resource::new("regions", 10);
        let only = resource.account(8);
        assert_eq!(all(&only).len(), 5);
        assert_eq!(only.used(), 0, "all are given back");
    }

    #[test]
    fn what_others_took_before_is_not_there() {
        let resource = Resource::new("bytes", 90);
        let first = resource.account(u64::MAX);
        let mut before = first.charge(45).expect("half is for one to come");
        let accounts: Vec<_> = (0..4).map(|_| resource.account(u64::MAX)).collect();
        let held: Vec<_> = accounts.iter().map(all).collect();
        assert_eq!(held.iter().map(Vec::len).sum::<usize>(), 45, "never more than there is");
        let refusal = first.charge(1).expect_err("over its share");
        assert_eq!((refusal.max, refusal.shared), (15, true));
        drop(before.split(40));
        assert_eq!((before.amount(), first.used()), (5, 5));
        assert_eq!(all(&first).len(), 10);
    }

    #[test]
    fn an_account_that_ended_is_no_claim() {
        let resource = Resource::new("regions", 12);
        let (first, second) = (resource.account(100), resource.account(100));
        let charge = first.charge(4).expect("its share");
        drop(first);
        assert_eq!(resource.share(), 4, "a charge keeps its account");
        drop(charge);
        assert_eq!((resource.share(), second.room()), (6, 6));
    }
}
