//! Deliberate panics, for the tests of what a panic ends. A release has none of them.

/// Panics where `AEM_AUTH_PROXY_PANIC_IN` names this place, the first time that it comes by. In a release it does nothing.
pub(crate) fn panic_if_asked(place: &str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::{LazyLock, atomic};
        static ASKED: LazyLock<String> =
            LazyLock::new(|| std::env::var("AEM_AUTH_PROXY_PANIC_IN").unwrap_or_default());
        static DONE: atomic::AtomicBool = atomic::AtomicBool::new(false);
        // The text is one that no log may hold: a panic's may be anything.
        assert!(
            *ASKED != place || DONE.swap(true, atomic::Ordering::Relaxed),
            "asked to panic with p8e-a-secret in {place}"
        );
    }
    #[cfg(not(debug_assertions))]
    let _ = place;
}
