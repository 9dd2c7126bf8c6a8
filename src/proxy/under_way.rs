//! Requests that leave together: what has come on several connections is read first, and sent then.
//!
//! Whoever it is sent to is woken by the first of them and is still at work when the others come. To wake somebody on another
//! core costs about as much as to send, so requests that leave one by one, each with the work for the next one in between, cost
//! more.

use std::{cell::Cell, future::poll_fn, ops::RangeInclusive, task::Poll};

/// How many requests of a thread are on their way.
#[derive(Default)]
pub(super) struct UnderWay(Cell<usize>);

/// One of them, until it is dropped.
pub(super) struct Counted<'w>(&'w UnderWay);

impl UnderWay {
    /// One more is on its way.
    pub(super) fn begin(&self) -> Counted<'_> {
        self.0.set(self.0.get() + 1);
        Counted(self)
    }
}

impl Counted<'_> {
    /// Lets the requests be read that have come at the same time, where there may be some.
    pub(super) async fn gather(&self) {
        let mut gathered = !FEW.contains(&self.0.0.get());
        poll_fn(|cx| {
            if std::mem::replace(&mut gathered, true) {
                return Poll::Ready(());
            }
            // The task's next turn comes after those that are due already.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// A single request has nobody to leave with. Where there are many, nobody sleeps who would have to be woken, and what was read
/// would be out of the processor's reach again when it is sent.
const FEW: RangeInclusive<usize> = 2..=128;

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, pin::pin, rc::Rc};

    use tokio::task::LocalSet;

    use super::*;

    /// What so many requests that come at once do, and in which order.
    async fn order(requests: usize) -> String {
        let all = Rc::<(UnderWay, RefCell<String>)>::default();
        let tasks = LocalSet::new();
        let earlier: Vec<_> = (0..requests).map(|_| all.0.begin()).collect();
        for _ in 0..3 {
            let all = Rc::clone(&all);
            tasks.spawn_local(async move {
                let one = all.0.begin();
                all.1.borrow_mut().push('r');
                one.gather().await;
                all.1.borrow_mut().push('s');
            });
        }
        tasks.await;
        drop(earlier);
        assert_eq!(all.0.0.get(), 0);
        all.1.take()
    }

    #[tokio::test]
    async fn requests_that_come_together_leave_together() {
        assert_eq!(order(1).await, "rrrsss");
        assert_eq!(order(*FEW.end()).await, "rsrsrs", "many do not wait for each other");
    }

    #[tokio::test]
    async fn a_single_request_leaves_at_once() {
        let all = UnderWay::default();
        let one = all.begin();
        let mut gathers = pin!(one.gather());
        assert!(poll_fn(|cx| Poll::Ready(gathers.as_mut().poll(cx))).await.is_ready());
    }
}
