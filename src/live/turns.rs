//! Turns at work that is done by few at a time, fairly among those who ask.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::Result;
use crate::store::fair::Fair;

use super::ledger::Payer;
use super::way::stopping;

/// So many turns at once, no more. Who has to wait waits in the line of its payer, and each payer
/// has its turn: whoever comes back a thousand times holds up itself.
#[derive(Debug)]
pub struct Turns {
    state: Arc<Mutex<State>>,
    most: usize,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: Fair<Payer, oneshot::Sender<Turn>>,
}

/// A turn; when dropped the next one has it.
#[derive(Debug)]
pub struct Turn {
    /// `None` once it is another's.
    state: Option<Arc<Mutex<State>>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turns {
    /// At most `most` at once.
    pub fn new(most: usize) -> Self {
        let state = State { free: most, waiting: Fair::default() };
        Turns { state: Arc::new(Mutex::new(state)), most }
    }

    /// Waits for a turn of `payer`'s.
    ///
    /// # Errors
    /// 503 where there will be none any more.
    pub async fn take(&self, payer: Payer) -> Result<Turn> {
        let turn = {
            let mut state = lock(&self.state);
            // While one is free nobody waits.
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn { state: Some(self.state.clone()) });
            }
            let (give, turn) = oneshot::channel();
            state.waiting.push(payer, give);
            turn
        };
        turn.await.map_err(|_| stopping())
    }

    /// Turns that are taken.
    pub fn taken(&self) -> usize {
        self.most - lock(&self.state).free
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(state) = self.state.take() else { return };
        let mut gone = Vec::new();
        loop {
            let mut held = lock(&state);
            let Some(next) = held.waiting.pop(oneshot::Sender::is_closed, &mut gone) else {
                held.free += 1;
                return;
            };
            drop(held);
            match next.send(Turn { state: Some(state.clone()) }) {
                Ok(()) => return,
                // Whoever it was has left just now.
                Err(mut turn) => turn.state = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt;

    use super::*;

    fn payer(last: u8) -> Payer {
        Payer::of(None, Some(IpAddr::from([192, 0, 2, last])))
    }

    #[tokio::test]
    async fn those_who_left_cost_their_payer_no_turn() {
        let turns = Turns::new(1);
        let held = turns.take(payer(1)).await.expect("a turn");
        let mut left: Vec<_> = (0..100).map(|_| Box::pin(turns.take(payer(1)))).collect();
        for waiting in &mut left {
            assert!(waiting.now_or_never().is_none());
        }
        drop(left);
        let mut one = Box::pin(turns.take(payer(1)));
        assert!((&mut one).now_or_never().is_none());
        let mut others: Vec<_> = (0..10).map(|_| Box::pin(turns.take(payer(2)))).collect();
        for waiting in &mut others {
            assert!(waiting.now_or_never().is_none());
        }
        drop(held);
        let before =
            others.iter_mut().map(FutureExt::now_or_never).take_while(Option::is_some).count();
        assert!(before < 2, "{before} of another before it");
        assert!(one.now_or_never().is_some());
    }

    #[tokio::test]
    async fn each_payer_in_turn_and_who_leaves_costs_nothing() {
        let turns = Turns::new(1);
        let held = turns.take(payer(1)).await.expect("a turn");
        let mut many: Vec<_> = (0..100).map(|_| Box::pin(turns.take(payer(1)))).collect();
        let mut other = Box::pin(turns.take(payer(2)));
        for waiting in many.iter_mut().chain([&mut other]) {
            assert!(waiting.now_or_never().is_none());
        }
        assert_eq!(turns.taken(), 1);
        drop(held);
        let turn = (&mut many[0]).now_or_never().expect("its turn").expect("a turn");
        // Those who leave before their turn are passed over.
        many.drain(1..50);
        assert!((&mut other).now_or_never().is_none());
        drop(turn);
        let turn = (&mut other).now_or_never().expect("its turn").expect("a turn");
        drop(turn);
        let turn = (&mut many[1]).now_or_never().expect("its turn").expect("a turn");
        drop(turn);
        // A turn that was given to somebody who left before taking it goes on.
        drop(many);
        assert_eq!(turns.taken(), 0);
        assert!(turns.take(payer(3)).now_or_never().is_some());
    }
}
