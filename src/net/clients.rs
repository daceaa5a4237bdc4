//! Who is connected: open connections counted, all together, per address and per event loop.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use uuid::Uuid;

use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::live::Payer;
use crate::store::fair::network;

/// Counts open connections and refuses those beyond the bounds.
#[derive(Debug)]
pub struct Clients {
    total: usize,
    per_client: usize,
    handshakes: usize,
    open: Mutex<Open>,
    /// Told on every connection's end.
    ended: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// By [`network`].
    by_address: HashMap<IpAddr, usize>,
    by_user: HashMap<Uuid, usize>,
    /// As long as there are event loops.
    by_loop: Vec<usize>,
    /// Handshakes of streams under way.
    shaking: HashMap<IpAddr, usize>,
}

/// One open connection; ends when dropped.
#[derive(Debug)]
pub struct Connection {
    clients: Arc<Clients>,
    /// `None` over the owner's socket.
    pub address: Option<IpAddr>,
    /// Whom that stands for.
    network: Option<IpAddr>,
    /// The event loop that serves it.
    home: usize,
    /// The user whose stream it has become.
    user: OnceLock<Uuid>,
}

/// An event loop may have an eighth more connections than another before new ones go there, at most
/// this many more.
const UNEVEN: usize = 16;

/// A handshake under way; ends when dropped.
#[derive(Debug)]
pub struct Shaking<'a>(&'a Connection);

impl Clients {
    /// Nobody is connected yet to any of that many event loops.
    pub fn new(limits: &Limits, loops: usize) -> Arc<Self> {
        Arc::new(Clients {
            total: limits.connections,
            per_client: limits.connections_per_client,
            handshakes: limits.handshakes_per_client,
            open: Mutex::new(Open { by_loop: vec![0; loops], ..Open::default() }),
            ended: tokio::sync::Notify::new(),
        })
    }

    /// The event loop for the next connection, if that is another than `home`, which has it now.
    ///
    /// Where few are connected they are dealt out evenly. Of many, some in a row stay where they
    /// were accepted: each that moves wakes a thread.
    pub fn elsewhere(&self, home: usize) -> Option<usize> {
        let open = self.lock();
        let here = *open.by_loop.get(home)?;
        let (other, least) = open.by_loop.iter().enumerate().min_by_key(|(_, count)| **count)?;
        (here >= least + (here / 8).clamp(1, UNEVEN)).then_some(other)
    }

    /// Counts a new connection from `address` on an event loop; `None` if that is one too many.
    /// Loopback and the owner's socket have no bound per address.
    pub fn admit(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        home: usize,
    ) -> Option<Arc<Connection>> {
        let address = address.map(|address| address.to_canonical());
        let network = address.map(network);
        let mut open = self.lock();
        if open.all >= self.total && address.is_some() {
            return None;
        }
        if let Some(network) = network {
            let count = open.by_address.entry(network).or_default();
            if *count >= self.per_client && !network.is_loopback() {
                return None;
            }
            *count += 1;
        }
        open.all += 1;
        if let Some(count) = open.by_loop.get_mut(home) {
            *count += 1;
        }
        let clients = self.clone();
        Some(Arc::new(Connection { clients, address, network, home, user: OnceLock::new() }))
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are open on each event loop.
    pub fn by_loop(&self) -> Vec<usize> {
        self.lock().by_loop.clone()
    }

    /// Waits until none is open.
    pub async fn all_gone(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Connection {
    /// Whether bounds per address and user do not hold here.
    fn exempt(&self) -> bool {
        self.address.is_none_or(|address| address.is_loopback())
    }

    /// Whom this connection's subscriptions are counted for, and whether that is unbounded.
    pub fn payer(&self, principal: &Principal) -> (Payer, bool) {
        (Payer::of(principal.user, self.address), self.exempt())
    }

    /// Begins a stream's handshake.
    ///
    /// # Errors
    /// 429 where too many of this address are under way.
    pub fn shake_hands(&self) -> Result<Shaking<'_>> {
        if let Some(network) = self.network {
            let mut open = self.clients.lock();
            let count = open.shaking.entry(network).or_default();
            if *count >= self.clients.handshakes && !network.is_loopback() {
                return Err(limited("too many handshakes at once from this address"));
            }
            *count += 1;
        }
        Ok(Shaking(self))
    }

    /// Counts this connection as one of the user's until it ends.
    ///
    /// # Errors
    /// 429 where the user has too many.
    pub fn sit(&self, user: Uuid) -> Result<()> {
        if self.user.get() == Some(&user) {
            return Ok(());
        }
        let mut open = self.clients.lock();
        let count = open.by_user.entry(user).or_default();
        if *count >= self.clients.per_client && !self.exempt() {
            return Err(limited("too many connections of this user"));
        }
        if self.user.set(user).is_ok() {
            *count += 1;
        }
        Ok(())
    }
}

fn limited(message: &str) -> Error {
    Error::new(Kind::Limited { retry_after: 5 }, message)
}

fn one_less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

impl Drop for Shaking<'_> {
    fn drop(&mut self) {
        if let Some(network) = self.0.network {
            one_less(&mut self.0.clients.lock().shaking, network);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.clients.lock();
        open.all -= 1;
        if let Some(count) = open.by_loop.get_mut(self.home) {
            *count -= 1;
        }
        if let Some(network) = self.network {
            one_less(&mut open.by_address, network);
        }
        if let Some(user) = self.user.get() {
            one_less(&mut open.by_user, *user);
        }
        drop(open);
        self.clients.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_per_address_and_in_all() {
        let limits = Limits { connections: 3, connections_per_client: 2, ..Limits::default() };
        let clients = Clients::new(&limits, 1);
        let far = Some(IpAddr::from([192, 0, 2, 1]));
        let first = clients.admit(far, 0);
        let second = clients.admit(far, 0);
        assert!(first.is_some() && second.is_some());
        assert!(clients.admit(far, 0).is_none(), "a third from one address");
        drop(first);
        let third = clients.admit(far, 0);
        assert!(third.is_some(), "room again");
        let near = clients.admit(Some(IpAddr::from([127, 0, 0, 1])), 0);
        assert!(near.is_some());
        assert!(clients.admit(Some(IpAddr::from([127, 0, 0, 1])), 0).is_none(), "a fourth in all");
        assert!(clients.admit(None, 0).is_some(), "the owner always gets in");
    }

    #[test]
    fn a_network_of_version_6_is_one_client() {
        let limits =
            Limits { connections_per_client: 2, handshakes_per_client: 1, ..Limits::default() };
        let clients = Clients::new(&limits, 1);
        let from = |text: &str| clients.admit(Some(text.parse().expect("an address")), 0);
        let first = from("2001:db8:1:2::1").expect("the first");
        let second = from("2001:db8:1:2::2").expect("the second");
        assert!(from("2001:db8:1:2:3:4:5:6").is_none(), "a third from one network");
        let other = from("2001:db8:1:3::1").expect("another network");
        assert_eq!(first.address, Some("2001:db8:1:2::1".parse().expect("an address")));
        let shaking = first.shake_hands().expect("the first");
        assert_eq!(second.shake_hands().expect_err("a second").status(), 429);
        assert!(other.shake_hands().is_ok());
        drop(shaking);
        drop(first);
        assert!(second.shake_hands().is_ok() && from("2001:db8:1:2::3").is_some());
        drop((second, other));
        assert!(clients.lock().by_address.is_empty());
    }

    #[test]
    fn handshakes_and_users_are_counted() {
        let limits =
            Limits { connections_per_client: 2, handshakes_per_client: 1, ..Limits::default() };
        let clients = Clients::new(&limits, 1);
        let from =
            |last| clients.admit(Some(IpAddr::from([192, 0, 2, last])), 0).expect("admitted");
        let (one, two, three) = (from(1), from(2), from(3));
        let shaking = one.shake_hands().expect("the first");
        assert_eq!(one.shake_hands().expect_err("a second").status(), 429);
        assert!(two.shake_hands().is_ok(), "another address");
        drop(shaking);
        assert!(one.shake_hands().is_ok());

        let user = Uuid::from_u128(1);
        one.sit(user).expect("the first");
        two.sit(user).expect("the second");
        assert_eq!(three.sit(user).expect_err("a third").status(), 429);
        one.sit(user).expect("counted already");
        drop(one);
        three.sit(user).expect("room again");
    }

    /// Lets so many in, one after the other, where an acceptor would serve them; gives their loops.
    fn deal(clients: &Arc<Clients>, home: &mut usize, count: usize) -> Vec<Arc<Connection>> {
        let one = |_| {
            *home = clients.elsewhere(*home).unwrap_or(*home);
            clients.admit(None, *home).expect("the owner")
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn event_loops_share_connections() {
        let clients = Clients::new(&Limits::default(), 3);
        let mut home = 0;
        let mut all = Vec::new();
        // Whether two or ten thousand: none has more than a few more than another.
        for count in [2, 1, 3, 100, 10_000] {
            let before = home;
            all.extend(deal(&clients, &mut home, count));
            let by_loop = clients.by_loop();
            let (least, most) = (by_loop.iter().min(), by_loop.iter().max());
            let (least, most) = (*least.expect("three"), *most.expect("three"));
            let fair = all.len() / 3;
            assert!(most - least <= (fair / 8).clamp(1, UNEVEN) + 1, "{before}: {by_loop:?}");
        }
        let moves = all.windows(2).filter(|two| two[0].home != two[1].home).count();
        assert!(moves < all.len() / 8, "{moves} moves");
        // Whoever comes alone stays where it is accepted.
        let mut kept = all.pop();
        all.clear();
        kept = kept.filter(|kept| kept.home != home);
        drop(kept);
        assert!((0..9).all(|_| deal(&clients, &mut home, 1)[0].home == home));
        // A loop that others have left gets the next.
        let (mut one, mut others) = (deal(&clients, &mut home, 60), Vec::new());
        one.retain(|held| held.home == 1);
        others.extend(deal(&clients, &mut home, 10));
        assert!(others.iter().all(|held| held.home != 1));
    }

    #[test]
    fn loopback_has_no_bound_of_its_own() {
        let limits = Limits { connections_per_client: 1, ..Limits::default() };
        let clients = Clients::new(&limits, 1);
        let mapped: IpAddr = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
        let all: Vec<_> = (0..5).map(|_| clients.admit(Some(mapped), 0)).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
