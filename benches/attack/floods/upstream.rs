//! Attacks on the listener whose upstream is another one.

use std::sync::Arc;

use super::{client_http1, client_http2};
use crate::target::{Target, swarm};

pub async fn unread(target: Arc<Target>, count: usize, path: &'static str) {
    client_http2::unread(target.on_second(), count, path).await;
}

pub async fn unread_http1(target: Arc<Target>, count: usize) {
    client_http1::unread(target.on_second(), count, "/large").await;
}

/// Each request needs a connection, and so a look-up.
pub async fn unresolvable(target: Arc<Target>) {
    let target = target.on_second();
    swarm(&target, 500, |target, _| async move {
        loop {
            let mut conn = target.connect(None).await?;
            target.send(&mut conn, &target.get("/small")).await?;
            // The proxy may close after its answer.
            let _ = crate::harness::get(&mut conn, target.addr, "/small").await;
        }
    })
    .await;
}
