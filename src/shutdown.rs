//! Signals become futures.

use std::{future::poll_fn, io, task::Poll};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info};

/// The signals that ask the process to stop, and those that are ignored.
#[derive(Debug)]
pub struct Signals {
    stop: [(&'static str, Signal); 3],
    ignored: Ignored,
}

impl Signals {
    /// Listens for them from here on; before this the system's own reaction holds.
    ///
    /// # Errors
    /// When the system gives no handler.
    pub fn listen() -> io::Result<Self> {
        let stop = [
            ("SIGTERM", signal(SignalKind::terminate())?),
            ("SIGINT", signal(SignalKind::interrupt())?),
            // Its default is a core dump.
            ("SIGQUIT", signal(SignalKind::quit())?),
        ];
        Ok(Self { stop, ignored: Ignored::listen()? })
    }

    /// The next request to stop: the first one drains, the second one ends at once.
    pub async fn next(&mut self) {
        let name = loop {
            tokio::select! {
                name = received(&mut self.stop) => break name,
                name = received(&mut self.ignored.0) => debug!(signal = name, "Ignored"),
            }
        };
        info!(signal = name, "Asked to stop");
    }
}

/// Signals whose default is to kill, and that other programs take for something harmless.
#[derive(Debug)]
pub struct Ignored([(&'static str, Signal); 7]);

impl Ignored {
    /// Ignores them from here on, for the life of the process.
    ///
    /// # Errors
    /// When the system gives no handler.
    pub fn listen() -> io::Result<Self> {
        let numbered = |number: Number| signal(SignalKind::from_raw(number.as_raw()));
        Ok(Self([
            ("SIGUSR1", signal(SignalKind::user_defined1())?),
            ("SIGUSR2", signal(SignalKind::user_defined2())?),
            ("SIGALRM", signal(SignalKind::alarm())?),
            ("SIGVTALRM", numbered(Number::VTALARM)?),
            ("SIGPROF", numbered(Number::PROF)?),
            ("SIGIO", signal(SignalKind::io())?),
            // A log file that has reached `ulimit -f` loses lines, and no more.
            ("SIGXFSZ", numbered(Number::XFSZ)?),
        ]))
    }
}

/// The next of these signals.
async fn received(signals: &mut [(&'static str, Signal)]) -> &'static str {
    poll_fn(|cx| {
        let came =
            signals.iter_mut().find_map(|(name, signal)| signal.poll_recv(cx).is_ready().then_some(*name));
        came.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// The signal that asks to read credentials anew. Its default, to kill, holds no longer.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Hangup {
    /// Listens for it from here on.
    ///
    /// # Errors
    /// When the system gives no handler.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// The next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}
