//! For whom the matcher works: the time that holding changes against plans takes, by principal.

use std::cell::Cell;
use std::time::Duration;

use indexmap::IndexSet;

use crate::live::ledger::Payer;
use crate::live::table::Table;

use super::slab::Slab;

/// Index of a principal here; another's once this one is forgotten.
pub type PayerId = u32;

/// Principals that a plan tells apart. What more of them share is nobody's in particular.
const FEW: usize = 8;

/// Principals without subscriptions that are remembered for what they took, so that nobody is a
/// new one by coming back.
const REMEMBERED: usize = 1_024;

/// Principals who listen, and the biggest of those who did.
#[derive(Default)]
pub struct Payers {
    ids: Table<Payer, PayerId>,
    accounts: Slab<Account>,
    /// Who left and is remembered.
    gone: IndexSet<PayerId>,
    /// Of plans that many share.
    shared: Cell<Duration>,
}

struct Account {
    payer: Payer,
    time: Cell<Duration>,
    subscriptions: usize,
}

/// Who listens to a plan.
#[derive(Debug, Default)]
pub enum Audience {
    #[default]
    Nobody,
    /// A principal, and how often it does.
    One(PayerId, u32),
    /// A few.
    Few(Box<Vec<(PayerId, u32)>>),
    /// So many subscriptions; they are told apart again when all have left.
    Many(usize),
}

/// What a principal took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spender {
    pub payer: Payer,
    /// Of the matcher's, since the server started.
    pub time: Duration,
    /// That are active now.
    pub subscriptions: usize,
}

impl Payers {
    /// A subscription of `payer`'s begins.
    pub fn enter(&mut self, payer: Payer) -> PayerId {
        if let Some(&id) = self.ids.get(&payer) {
            if let Some(account) = self.accounts.get_mut(id as usize) {
                if account.subscriptions == 0 {
                    self.gone.swap_remove(&id);
                }
                account.subscriptions += 1;
            }
            return id;
        }
        let account = Account { payer, time: Cell::default(), subscriptions: 1 };
        let id = self.accounts.add(account) as PayerId;
        self.ids.insert(payer, id);
        id
    }

    /// A subscription of `payer`'s ends; gives who that was.
    pub fn leave(&mut self, payer: Payer) -> Option<PayerId> {
        let id = *self.ids.get(&payer)?;
        let account = self.accounts.get_mut(id as usize)?;
        account.subscriptions -= 1;
        if account.subscriptions == 0 {
            if account.time.get().is_zero() {
                self.forget(id);
            } else {
                self.gone.insert(id);
                if self.gone.len() > REMEMBERED {
                    self.forget_half();
                }
            }
        }
        Some(id)
    }

    fn forget(&mut self, id: PayerId) {
        if let Some(account) = self.accounts.remove(id as usize) {
            self.ids.remove(&account.payer);
            self.gone.swap_remove(&id);
        }
    }

    /// Of those who left, the half that took least.
    fn forget_half(&mut self) {
        let known = |id: &PayerId| Some((self.accounts.get(*id as usize)?.time.get(), *id));
        let mut gone: Vec<(Duration, PayerId)> = self.gone.iter().filter_map(known).collect();
        gone.sort_unstable();
        gone.truncate(gone.len() / 2);
        gone.into_iter().for_each(|(_, id)| self.forget(id));
    }

    /// Counts what was done for these.
    pub fn charge(&self, audience: &Audience, time: Duration) {
        let add = |id: PayerId, time| {
            if let Some(account) = self.accounts.get(id as usize) {
                account.time.set(account.time.get() + time);
            }
        };
        match audience {
            Audience::Nobody => {}
            Audience::One(id, _) => add(*id, time),
            Audience::Few(few) => {
                let part = time / few.len().max(1) as u32;
                few.iter().for_each(|(id, _)| add(*id, part));
            }
            Audience::Many(_) => self.shared.set(self.shared.get() + time),
        }
    }

    /// Those who took most, the first first.
    pub fn top(&self, most: usize) -> Vec<Spender> {
        let mut all: Vec<&Account> = self.accounts.iter().map(|(_, account)| account).collect();
        all.retain(|account| !account.time.get().is_zero());
        let by = |account: &&Account| std::cmp::Reverse(account.time.get());
        if all.len() > most {
            all.select_nth_unstable_by_key(most, by);
            all.truncate(most);
        }
        all.sort_by_key(by);
        let spender = |account: &Account| Spender {
            payer: account.payer,
            time: account.time.get(),
            subscriptions: account.subscriptions,
        };
        all.into_iter().map(spender).collect()
    }

    /// What was done for plans that more than a few share.
    pub fn shared(&self) -> Duration {
        self.shared.get()
    }
}

impl Audience {
    /// One more subscription of `payer`'s.
    pub fn add(&mut self, payer: PayerId) {
        match self {
            Audience::Nobody => *self = Audience::One(payer, 1),
            Audience::One(id, count) if *id == payer => *count += 1,
            Audience::One(id, count) => {
                *self = Audience::Few(Box::new(vec![(*id, *count), (payer, 1)]));
            }
            Audience::Few(few) => match few.iter().position(|(id, _)| *id == payer) {
                Some(at) => few[at].1 += 1,
                None if few.len() < FEW => few.push((payer, 1)),
                None => {
                    let all: u32 = few.iter().map(|(_, count)| count).sum();
                    *self = Audience::Many(all as usize + 1);
                }
            },
            Audience::Many(count) => *count += 1,
        }
    }

    /// One less.
    pub fn remove(&mut self, payer: PayerId) {
        match self {
            Audience::Nobody => {}
            Audience::One(id, count) if *id == payer => {
                *count -= 1;
                if *count == 0 {
                    *self = Audience::Nobody;
                }
            }
            Audience::One(..) => {}
            Audience::Few(few) => {
                if let Some(at) = few.iter().position(|(id, _)| *id == payer) {
                    few[at].1 -= 1;
                    if few[at].1 == 0 {
                        few.swap_remove(at);
                    }
                }
                if let [(id, count)] = few[..] {
                    *self = Audience::One(id, count);
                }
            }
            Audience::Many(count) => {
                *count -= 1;
                if *count == 0 {
                    *self = Audience::Nobody;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn payer(n: u128) -> Payer {
        Payer::User(Uuid::from_u128(n))
    }

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn time_goes_to_those_who_listen() {
        let mut payers = Payers::default();
        let mut audience = Audience::default();
        let ids: Vec<PayerId> = (0..=FEW as u128).map(|n| payers.enter(payer(n))).collect();
        payers.charge(&audience, MICRO);
        audience.add(ids[0]);
        payers.charge(&audience, 4 * MICRO);
        audience.add(ids[1]);
        payers.charge(&audience, 2 * MICRO);
        let spent = |n: u128, micros: u32| Spender {
            payer: payer(n),
            time: micros * MICRO,
            subscriptions: 1,
        };
        assert_eq!(payers.top(9), [spent(0, 5), spent(1, 1)]);
        assert_eq!(payers.top(1), [spent(0, 5)]);
        ids[2..].iter().for_each(|id| audience.add(*id));
        payers.charge(&audience, MICRO);
        assert_eq!((payers.top(9).len(), payers.shared()), (2, MICRO));
        ids.iter().for_each(|id| audience.remove(*id));
        assert!(matches!(audience, Audience::Nobody));
        audience.add(ids[3]);
        audience.add(ids[4]);
        audience.remove(ids[3]);
        assert!(matches!(audience, Audience::One(id, 1) if id == ids[4]));
    }

    #[test]
    fn who_left_is_remembered_within_bounds() {
        let mut payers = Payers::default();
        for n in 0..10_000 {
            let mut audience = Audience::default();
            audience.add(payers.enter(payer(n)));
            payers.charge(&audience, MICRO * (n as u32 + 1));
            payers.leave(payer(n));
        }
        assert!(payers.ids.len() <= REMEMBERED && payers.accounts.places() <= REMEMBERED + 2);
        assert_eq!(payers.top(1)[0].time, MICRO * 10_000, "the biggest stay");
        let known = payers.accounts.len();
        assert_eq!((payers.gone.len(), payers.ids.len()), (known, known), "all have left");
        let id = payers.enter(payer(9_999));
        assert_eq!(payers.top(1)[0].subscriptions, 1);
        assert!(!payers.gone.contains(&id), "back");
        let mut audience = Audience::default();
        audience.add(id);
        payers.charge(&audience, MICRO);
        assert_eq!(payers.top(1)[0].time, MICRO * 10_001, "nobody is new by coming back");
        payers.enter(payer(20_000));
        payers.leave(payer(20_000));
        assert!(payers.ids.get(&payer(20_000)).is_none(), "who took nothing is forgotten");
    }
}
