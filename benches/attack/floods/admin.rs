//! Attacks on the admin listener.

use std::{io, sync::Arc};

use super::client_http1::read_all;
use crate::{
    harness::Conn,
    target::{Target, hold, swarm},
};

pub async fn half_heads(target: Arc<Target>, count: usize) {
    swarm(&target, count, |target, _| async move {
        let mut conn = connect(&target, None).await?;
        let mut head = format!("GET /live HTTP/1.1\r\nHost: {}\r\nX-Long: ", target.admin).into_bytes();
        head.resize(60 * 1024, b'a');
        target.send(&mut conn, &head).await?;
        read_all(&mut conn).await
    })
    .await;
}

pub async fn idle(target: Arc<Target>, count: usize) {
    swarm(&target, count, |target, _| async move {
        let mut conn = connect(&target, None).await?;
        read_all(&mut conn).await
    })
    .await;
}

/// Pipelined, so that more comes than the kernel takes.
pub async fn unread(target: Arc<Target>) {
    swarm(&target, 200, |target, _| async move {
        let mut conn = connect(&target, Some(4096)).await?;
        let one = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", target.admin);
        target.send(&mut conn, one.repeat(100).as_bytes()).await?;
        hold().await
    })
    .await;
}

async fn connect(target: &Target, receive_buffer: Option<u32>) -> io::Result<Conn> {
    target.connect_to(target.admin, receive_buffer, false).await
}
