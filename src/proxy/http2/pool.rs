//! A thread's HTTP/2 connections to one AEM.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{HTTP_2, OFFERED, Stream, connection::Connection};
use crate::proxy::{
    Upstream,
    buffer::Buffers,
    link::Link,
    upstream::{ConnectError, Why},
};

/// The connections that requests share.
#[derive(Default)]
pub(in crate::proxy) struct Shared {
    connections: RefCell<Vec<Rc<Connection>>>,
    dialling: RefCell<Option<Rc<Dialling>>>,
    /// AEM chose HTTP/1.1 the last time.
    declined: Cell<bool>,
}

/// A connection that is being made, for all who wait for one.
#[derive(Default)]
struct Dialling {
    over: Cell<bool>,
    failed: Cell<Option<Why>>,
    told: Notify,
}

/// Whoever makes the connection. If they leave, another one does.
struct Dialler<'a>(&'a Shared, Rc<Dialling>);

impl Shared {
    /// A place for a request on a connection that is there.
    pub(in crate::proxy) fn take(&self) -> Option<Link> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.is_alive());
        let connection = connections.iter().find(|connection| connection.has_room())?;
        Some(Link::Stream(Box::new(Stream::new(connection.seat()))))
    }

    /// A place for a request, on a connection that is made for it or for another; or an HTTP/1.1 connection, if AEM chooses
    /// that.
    ///
    /// # Errors
    /// When AEM cannot be reached.
    pub(in crate::proxy) async fn connect(
        &self,
        upstream: &Upstream,
        buffers: &Rc<Buffers>,
        head_max: usize,
    ) -> Result<Link, ConnectError> {
        loop {
            if let Some(link) = self.take() {
                return Ok(link);
            }
            if self.declined.get() {
                return self.dial(upstream, buffers, head_max).await;
            }
            let others = self.dialling.borrow().clone();
            let Some(others) = others else {
                let dialler = Dialler::begin(self);
                let dialled = self.dial(upstream, buffers, head_max).await;
                dialler.1.failed.set(dialled.as_ref().err().map(|error| error.why));
                return dialled;
            };
            if let Some(why) = others.outcome().await {
                return Err(ConnectError::again(why));
            }
        }
    }

    async fn dial(
        &self,
        upstream: &Upstream,
        buffers: &Rc<Buffers>,
        head_max: usize,
    ) -> Result<Link, ConnectError> {
        let wire = upstream.dial(&OFFERED, buffers).await?;
        self.declined.set(wire.protocol() != Some(HTTP_2));
        if self.declined.get() {
            return Ok(Link::Wire(Box::new(wire)));
        }
        let connection = Connection::begin(wire, buffers, head_max).await.map_err(ConnectError::new)?;
        let stream = Stream::new(connection.seat());
        self.connections.borrow_mut().push(connection);
        Ok(Link::Stream(Box::new(stream)))
    }

    /// Whether AEM has chosen HTTP/1.1 the last time.
    pub(in crate::proxy) fn has_declined(&self) -> bool {
        self.declined.get()
    }

    /// Lets go of connections that were not used for `idle`, and of those older than `age`: they end with the requests that
    /// are on them.
    pub(in crate::proxy) fn sweep(&self, idle: Duration, age: Duration) {
        let now = Instant::now();
        let kept =
            |connection: &Rc<Connection>| connection.is_alive() && !connection.is_spent(now, idle, age);
        self.connections.borrow_mut().retain(kept);
    }

    /// Lets go of one, whose place is wanted.
    pub(in crate::proxy) fn let_go(&self) {
        self.connections.borrow_mut().pop();
    }

    /// Lets go of all.
    pub(in crate::proxy) fn close(&self) {
        self.connections.borrow_mut().clear();
    }
}

impl Dialling {
    /// Why there is no connection, once that is known; `None` when there may be one.
    async fn outcome(&self) -> Option<Why> {
        while !self.over.get() {
            self.told.notified().await;
        }
        self.failed.get()
    }
}

impl<'a> Dialler<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let dialling = Rc::<Dialling>::default();
        *shared.dialling.borrow_mut() = Some(Rc::clone(&dialling));
        Self(shared, dialling)
    }
}

impl Drop for Dialler<'_> {
    fn drop(&mut self) {
        *self.0.dialling.borrow_mut() = None;
        self.1.over.set(true);
        self.1.told.notify_waiters();
    }
}
