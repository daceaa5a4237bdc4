//! Changes by asking: a short subscription whose messages are collected into one answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, timeout_at};

use crate::auth::principal::Principal;
use crate::dialects::fastschema::poll::{self, Page, Pages};
use crate::dialects::fastschema::sse;
use crate::error::Result;
use crate::limits::Limits;
use crate::live::{Close, Frame, Live, Outbox, Start, Subscription};

use super::clients::Connection;
use super::socket;

/// Frames and bytes taken from the outbox at once.
const BATCH_FRAMES: usize = 64;
const BATCH_BYTES: usize = 256 << 10;

/// What one look at the outbox gave.
enum Look {
    /// The page is full.
    Full,
    /// All that there is was taken.
    CaughtUp,
    Ended(Close),
}

/// A client's question, subscribed: dropping it ends the subscription.
pub struct Asked {
    outbox: Arc<Outbox>,
    _subscription: Subscription,
    page: Page,
    /// When the client will wait no longer for a first change.
    until: Instant,
    /// When a long way through the log is answered with how far it went.
    deadline: Instant,
}

/// Subscribes as a query string (without `?`) says.
///
/// # Errors
/// As HTTP: 400, 401, 403, 404 for no such schema, 410 with the oldest cursor in `detail`, 429.
pub async fn ask(
    query: &str,
    principal: Arc<Principal>,
    connection: &Connection,
    live: &Live,
    limits: &Limits,
) -> Result<Asked> {
    let poll::Poll { wish, wait, limit } = poll::poll(query, limits)?;
    let since = match wish.start {
        Start::After(cursor) => Some(cursor),
        _ => None,
    };
    let began = Instant::now();
    let outbox = Outbox::new(limits, socket::overflow());
    let payer = connection.payer(&principal);
    let who = (principal, payer);
    let subscribed = socket::subscribe(wish, Arc::new(Pages), who, live, limits, &outbox);
    Ok(Asked {
        _subscription: subscribed.await.map_err(sse::refusal)?,
        outbox,
        page: Page::new(limit, limits.outbox_bytes, since),
        until: began + wait,
        deadline: began + wait.max(limits.head_time),
    })
}

impl Asked {
    /// What stands under `data` of the answer, once there is something, or time is up.
    ///
    /// # Errors
    /// How the subscription ended before it told anything.
    pub async fn answer(mut self) -> Result<Vec<u8>> {
        let mut caught_up = false;
        loop {
            let until = if caught_up { self.until } else { self.deadline };
            let look = std::future::poll_fn(|cx| self.look(cx, caught_up));
            let look = timeout_at(until, look).await;
            let page = &self.page;
            match look {
                Ok(Look::Full) => return Ok(page.answer(false)),
                Ok(Look::Ended(close)) if page.is_empty() => return Err(poll::refusal(&close)),
                // What was collected is good; why there is no more is told to who asks again.
                Ok(Look::Ended(_)) => return Ok(page.answer(false)),
                Ok(Look::CaughtUp) if page.is_empty() && Instant::now() < self.until => {
                    caught_up = true;
                }
                Ok(Look::CaughtUp) => return Ok(page.answer(true)),
                Err(_) => return Ok(self.out_of_time(caught_up)),
            }
        }
    }

    /// The answer with what came up to the last moment.
    fn out_of_time(mut self, caught_up: bool) -> Vec<u8> {
        let look = self.look(&mut Context::from_waker(Waker::noop()), false);
        let complete = matches!(look, Poll::Ready(Look::CaughtUp)) || caught_up;
        self.page.answer(complete && !self.page.is_full())
    }

    /// Takes what waits. Once caught up, ready only when more has come.
    fn look(&mut self, cx: &mut Context<'_>, caught_up: bool) -> Poll<Look> {
        let Asked { outbox, page, .. } = self;
        let mut frames: VecDeque<Frame> = VecDeque::new();
        loop {
            // Looked at first: what is told up to there is in the outbox by then.
            let (passed, active) = outbox.progress();
            match outbox.poll_take(cx, &mut frames, BATCH_FRAMES, BATCH_BYTES) {
                Poll::Ready(Some(close)) => return Poll::Ready(Look::Ended(close)),
                Poll::Ready(None) => {
                    frames.drain(..).for_each(|frame| page.take(&frame));
                    if page.is_full() {
                        return Poll::Ready(Look::Full);
                    }
                }
                Poll::Pending => {
                    if let Some(passed) = passed {
                        page.reached(passed);
                    }
                    if !active || !page.is_whole() {
                        return Poll::Pending;
                    }
                    return match caught_up && page.is_empty() {
                        true => Poll::Pending,
                        false => Poll::Ready(Look::CaughtUp),
                    };
                }
            }
        }
    }
}
