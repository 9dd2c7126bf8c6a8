//! The process keeps its memory to itself: no core dump, no debugger, no swapped-out keys.
//!
//! What this cannot do: root may read everything, hibernation writes everything to disk, and what a library has copied (the
//! HTTP clients, TLS, ring) is not locked. The program's allocator wipes it when it is freed (`main.rs`).

use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use super::pages;

/// Switches core dumps off, and with them what other processes of the same user may do: attach a debugger, or read
/// `/proc/PID/mem` and `/proc/PID/environ` (prctl(2), `PR_SET_DUMPABLE`). Before any secret is read.
pub fn close() {
    let before = getrlimit(Resource::Core);
    // The soft limit alone: `open` is to be able to undo it.
    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: before.maximum });
    #[cfg(target_os = "linux")]
    let limited = limited.and(set_dumpable_behavior(DumpableBehavior::NotDumpable));
    let _ = BEFORE.set((before, limited));
}

/// Undoes [`close`], for whoever has to look into it: `secrets.core_dumps`.
pub fn open() {
    let Some((before, _)) = BEFORE.get() else { return };
    let opened = setrlimit(Resource::Core, *before);
    #[cfg(target_os = "linux")]
    let opened = opened.and(set_dumpable_behavior(DumpableBehavior::Dumpable));
    match opened {
        Ok(()) => warn!(
            "secrets.core_dumps is on: a core dump shows the credentials, and so does a debugger of the same user"
        ),
        Err(error) => warn!(%error, "secrets.core_dumps is on, but core dumps stay off"),
    }
}

/// Says what of it was not to be had, once there is a log.
pub fn tell() {
    if let Some((_, Err(error))) = BEFORE.get() {
        debug!(%error, "Core dumps cannot be switched off");
    }
    pages::tell();
}

/// The limit that there was, and how closing went.
static BEFORE: OnceLock<(Rlimit, rustix::io::Result<()>)> = OnceLock::new();
