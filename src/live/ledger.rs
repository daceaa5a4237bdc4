//! What each principal's subscriptions cost, bounded as long as they last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Kind, Result};
pub use crate::store::fair::Payer;

use super::table::Table;

/// All principals with subscriptions.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Mutex<Accounts>,
}

/// A table that grows a part at a time: the matcher takes the lock too, for those it ends.
type Accounts = Table<Payer, Account>;

#[derive(Debug, Default)]
struct Account {
    all: Sum,
    /// Of them, those that a bound holds for.
    bounded: Sum,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    cost: u64,
    subscriptions: usize,
}

/// A subscription's part; given back when dropped.
#[derive(Debug)]
pub struct Share {
    ledger: Arc<Ledger>,
    payer: Payer,
    cost: u64,
    bounded: bool,
}

impl Account {
    fn sums(&mut self, bounded: bool) -> impl Iterator<Item = &mut Sum> {
        std::iter::once(&mut self.all).chain(bounded.then_some(&mut self.bounded))
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a subscription of this cost for `payer`, as of now; `most`: where it is bounded, what
    /// all of its bounded ones may cost together.
    ///
    /// # Errors
    /// 429 where it would be too much.
    pub fn charge(self: &Arc<Self>, payer: Payer, cost: u64, most: Option<u64>) -> Result<Share> {
        let mut accounts = self.lock();
        let Sum { cost: sum, subscriptions: count } =
            accounts.get(&payer).map_or(Sum::default(), |account| account.bounded);
        if let Some(most) = most
            && sum.saturating_add(cost) > most
        {
            return Err(Error::new(
                Kind::Limited { retry_after: 5 },
                format!(
                    "this subscription costs {cost}, the {count} open ones {sum}, and \
                     principal_cost is {most}: close some, or ask for less"
                ),
            ));
        }
        let bounded = most.is_some();
        for sum in accounts.get_or_insert_with(payer, Account::default).sums(bounded) {
            sum.cost += cost;
            sum.subscriptions += 1;
        }
        drop(accounts);
        Ok(Share { ledger: self.clone(), payer, cost, bounded })
    }

    /// Cost and number of a principal's subscriptions.
    pub fn of(&self, payer: Payer) -> (u64, usize) {
        let accounts = self.lock();
        accounts.get(&payer).map_or((0, 0), |account| (account.all.cost, account.all.subscriptions))
    }

    /// How many principals have subscriptions.
    pub fn payers(&self) -> usize {
        self.lock().len()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut accounts = self.ledger.lock();
        if let Some(account) = accounts.get_mut(&self.payer) {
            for sum in account.sums(self.bounded) {
                sum.cost -= self.cost;
                sum.subscriptions -= 1;
            }
            if account.all.subscriptions == 0 {
                accounts.remove(&self.payer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_share_is_held_until_it_is_given_back() {
        let ledger = Arc::new(Ledger::default());
        let (one, other) = (Payer::User(Uuid::from_u128(1)), Payer::Address(None));
        let held = ledger.charge(one, 60, Some(100)).expect("room");
        let error = ledger.charge(one, 41, Some(100)).expect_err("too much");
        assert_eq!((error.status(), error.close_code()), (429, 4429));
        assert!(error.message.contains("costs 41, the 1 open ones 60"), "{error}");
        assert!(error.message.contains("principal_cost is 100"), "{error}");
        let rest = ledger.charge(one, 40, Some(100)).expect("just so");
        let free = ledger.charge(one, 1_000, None).expect("exempt");
        drop(ledger.charge(other, 100, Some(100)).expect("another's"));
        assert_eq!(ledger.of(one), (1_100, 3));
        drop((held, free));
        assert_eq!(ledger.of(one), (40, 1));
        drop(rest);
        assert_eq!(ledger.payers(), 0, "nothing is left of those who left");
    }

    #[test]
    fn what_is_exempt_takes_no_room() {
        let ledger = Arc::new(Ledger::default());
        let one = Payer::User(Uuid::from_u128(1));
        let free = ledger.charge(one, 1_000, None).expect("exempt");
        let held = ledger.charge(one, 100, Some(100)).expect("room for all of it");
        let error = ledger.charge(one, 1, Some(100)).expect_err("too much");
        assert!(error.message.contains("the 1 open ones 100"), "{error}");
        drop(held);
        drop(ledger.charge(one, 100, Some(100)).expect("room again"));
        assert_eq!(ledger.of(one), (1_000, 1));
        drop(free);
        assert_eq!(ledger.payers(), 0);
    }

    #[test]
    fn guests_of_one_address_share() {
        let four = IpAddr::from([192, 0, 2, 1]);
        let mapped = "::ffff:192.0.2.1".parse().ok();
        assert_eq!(Payer::of(None, Some(four)), Payer::of(None, mapped));
        let user = Some(Uuid::from_u128(1));
        assert_eq!(Payer::of(user, Some(four)), Payer::of(user, None));
    }
}
