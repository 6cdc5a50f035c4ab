//! Limits on the resources that peers make a process use: a limit for each port, and a limit for the process
//! that its ports share fairly.
//!
//! A peer determines how many descriptors, mappings and bytes of address space its port uses, and a process
//! has only a limited number. Each resource is therefore charged to the port's [`Account`] before it is
//! acquired, and the charge is returned when the resource is released: when a descriptor is closed, or memory
//! is unmapped. A port has its own limit and is entitled to a *share* of the process's limit: that limit
//! divided by the number of ports plus one, so that another port can be added. It may use more than its share
//! as long as the unused shares of all other ports stay available.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Descriptors of the process that peers cannot use.
const OURS: u64 = 128;

/// Why a charge was refused.
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
    /// The additional amount requested.
    pub asked: u64,
    /// The amount that the port has already.
    pub used: u64,
    /// The amount that the port may have: its own limit, or what the other ports of the process leave.
    pub max: u64,
    /// Whether `max` is the port's share of the process's limit, which is less than its own limit.
    pub shared: bool,
}

impl LimitError {
    /// The name of the limit.
    fn limit(&self) -> &'static str {
        if self.shared { "its share of the process's limit" } else { "the port's limit" }
    }
}

/// A limited resource of a process, and the accounts of the ports that use it.
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
    /// The amount used by each account; `None` for a closed account.
    spent: Mutex<Vec<Option<u64>>>,
}

impl Resource {
    /// A resource of which all ports together may use `limit`. `what` is its name in the plural.
    #[must_use]
    pub fn new(what: &'static str, limit: u64) -> Self {
        Self(Arc::new(Accounts { what, limit, spent: Mutex::new(Vec::new()) }))
    }

    /// Opens an account for another port, which may use at most `limit`.
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

    /// The share to which each port is entitled.
    #[must_use]
    pub fn share(&self) -> u64 {
        self.0.share(&self.0.spent())
    }

    /// The total used by all ports.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.spent().iter().flatten().sum()
    }
}

/// The descriptors that peers may make a process hold, at either end of a socket.
///
/// A process has one descriptor table. All drivers whose peers send descriptors should therefore share one
/// total: create one value, and pass it to each of these drivers.
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
    /// The name of the resource in a refusal.
    const NAME: &str = "descriptors";

    /// A total of the descriptors that the process may have open when the first port is created
    /// (`RLIMIT_NOFILE`), minus 128.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// A total of `limit` descriptors.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        Self(OnceLock::from(Resource::new(Self::NAME, limit)))
    }

    /// The descriptors that the process may have open now, minus 128.
    #[must_use]
    pub fn allowed() -> u64 {
        crate::sys::most_descriptors().saturating_sub(OURS)
    }

    /// The resource from which accounts are opened.
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

    /// The error for a refused charge of `asked`.
    fn refusal(&self, asked: u64, (max, used): (u64, u64), limit: u64) -> LimitError {
        LimitError { what: self.what, asked, used, max, shared: max < limit }
    }

    /// The largest total of the account at `place`, and its current total.
    fn bounds(&self, spent: &[Option<u64>], place: usize, limit: u64) -> (u64, u64) {
        let share = self.share(spent);
        let own = spent.get(place).copied().flatten().unwrap_or(0);
        // The amounts or shares of the other accounts, whichever is larger, and the share of a future
        // account.
        let (mut theirs, mut claims) = (0u64, share);
        for (at, other) in spent.iter().enumerate() {
            let Some(other) = other.filter(|_| at != place) else { continue };
            theirs = theirs.saturating_add(other);
            claims = claims.saturating_add(other.max(share));
        }
        // The account's share, unless others took it earlier when there were fewer ports; more if no other
        // account is entitled to it.
        let left = self.limit.saturating_sub(theirs).min(share).max(self.limit.saturating_sub(claims));
        (left.min(limit), own)
    }
}

/// The part of a [`Resource`] that one port uses. Clones are the same account.
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
        // Every charge holds its account, so nothing is in use any more.
        if let Some(spent) = self.resource.0.spent().get_mut(self.place) {
            *spent = None;
        }
    }
}

impl Account {
    /// Charges `amount`.
    ///
    /// # Errors
    /// The port would exceed its limit; nothing is charged.
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

    /// Charges `most`, or less if the port may not have that much.
    ///
    /// # Errors
    /// The port may not have any more.
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

    /// The amount that the port may still charge.
    #[must_use]
    pub fn room(&self) -> u64 {
        let shared = &*self.0.resource.0;
        let (max, used) = shared.bounds(&shared.spent(), self.0.place, self.0.limit);
        max.saturating_sub(used)
    }

    /// The amount that the port uses.
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

/// A charged amount, which is returned on drop.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub struct Charge {
    account: Account,
    amount: u64,
}

impl Charge {
    /// The amount.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Moves `amount`, or as much as there is, into a separate charge.
    pub fn split(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Self { account: self.account.clone(), amount }
    }

    /// Adds `other`, a charge of the same account.
    pub(crate) fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.account.0, &other.account.0));
        self.amount = self.amount.saturating_add(std::mem::take(&mut other.amount));
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

    /// Charges all that `account` may have, one by one.
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
        // A port that is added when all others have their maximum still gets its share.
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
