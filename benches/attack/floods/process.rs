//! Attacks on the process: its log and its signals.

use std::{process::Stdio, sync::Arc};

use tokio::process::Command;

use crate::target::{Target, swarm, swarm_again};

/// Requests that AEM does not answer and that may not be sent twice, each of them worth a line in the log.
pub async fn failing(target: Arc<Target>) {
    swarm_again(&target, 10, |target, _| async move {
        let mut conn = target.connect(None).await?;
        let request = format!("POST /reset HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", target.addr);
        for _ in 0..50 {
            if crate::harness::exchange(&mut conn, &request).await.is_err() {
                break;
            }
        }
        Ok(())
    })
    .await;
}

pub async fn sighup(target: Arc<Target>) {
    signals(&target, "i=0; while [ $i -lt 1000 ]; do kill -HUP $1; i=$((i + 1)); sleep 0.005; done").await;
}

pub async fn other_signals(target: Arc<Target>) {
    signals(&target, "for name in USR1 USR2 ALRM PIPE; do kill -$name $1; sleep 0.2; done").await;
}

async fn signals(target: &Arc<Target>, script: &'static str) {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(target.pid.to_string());
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn();
    swarm(target, 0, |_, _| async { Ok(()) }).await;
    drop(child);
}
