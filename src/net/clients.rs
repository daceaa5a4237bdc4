//! Who is connected: open connections counted, all together and per address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::Limits;

/// Counts open connections and refuses those beyond the bounds.
#[derive(Debug)]
pub struct Clients {
    total: usize,
    per_client: usize,
    open: Mutex<Open>,
    /// Told on every connection's end.
    ended: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One open connection; ends when dropped.
#[derive(Debug)]
pub struct Connection {
    clients: Arc<Clients>,
    /// `None` over the owner's socket.
    pub address: Option<IpAddr>,
}

impl Clients {
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Clients {
            total: limits.connections,
            per_client: limits.connections_per_client,
            open: Mutex::default(),
            ended: tokio::sync::Notify::new(),
        })
    }

    /// Counts a new connection from `address`; `None` if that is one too many. Loopback and the
    /// owner's socket have no bound per address.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Arc<Connection>> {
        let address = address.map(|address| address.to_canonical());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.total && address.is_some() {
            return None;
        }
        if let Some(address) = address {
            let count = open.by_address.entry(address).or_default();
            if *count >= self.per_client && !address.is_loopback() {
                return None;
            }
            *count += 1;
        }
        open.all += 1;
        Some(Arc::new(Connection { clients: self.clone(), address }))
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).all
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

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(address) = self.address
            && let Entry::Occupied(mut entry) = open.by_address.entry(address)
        {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
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
        let clients = Clients::new(&limits);
        let far = Some(IpAddr::from([192, 0, 2, 1]));
        let first = clients.admit(far);
        let second = clients.admit(far);
        assert!(first.is_some() && second.is_some());
        assert!(clients.admit(far).is_none(), "a third from one address");
        drop(first);
        let third = clients.admit(far);
        assert!(third.is_some(), "room again");
        let near = clients.admit(Some(IpAddr::from([127, 0, 0, 1])));
        assert!(near.is_some());
        assert!(clients.admit(Some(IpAddr::from([127, 0, 0, 1]))).is_none(), "a fourth in all");
        assert!(clients.admit(None).is_some(), "the owner always gets in");
    }

    #[test]
    fn loopback_has_no_bound_of_its_own() {
        let limits = Limits { connections_per_client: 1, ..Limits::default() };
        let clients = Clients::new(&limits);
        let mapped: IpAddr = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
        let all: Vec<_> = (0..5).map(|_| clients.admit(Some(mapped))).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
