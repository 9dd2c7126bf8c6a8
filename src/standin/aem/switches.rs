//! What the stand-in AEM can be told to do, and what it has seen.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::StatusCode;
use tokio::sync::watch;

use super::{
    arrivals::Arrivals,
    assets::AssetChange,
    faults::{Break, Busy, Fault, Faults, TokenRefusal},
};

/// Fault switches and counters. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Switches(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reserved: Mutex<Vec<(String, String)>>,
    faults: Faults,
    arrivals: Arrivals,
    changes: Mutex<VecDeque<AssetChange>>,
    counts: watch::Sender<Counts>,
    released: watch::Sender<bool>,
    completes_relatively: AtomicBool,
    compresses: AtomicBool,
    ignores_referrers: AtomicBool,
    ignores_csrf: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: usize,
    pub(super) refused: usize,
    pub(super) expired_seen: usize,
    pub(super) revoked_seen: usize,
    pub(super) busy_answers: usize,
    pub(super) broken_off: usize,
    pub(super) writes: usize,
    pub(super) uploads_completed: usize,
    pub(super) referrer_refused: usize,
    pub(super) csrf_refused: usize,
    pub(super) packages_installed: usize,
}

impl Switches {
    /// How many requests came in, refused ones included.
    pub fn requests(&self) -> usize {
        self.counts().requests
    }

    /// How many requests were turned away at one of the doors.
    pub fn refused(&self) -> usize {
        self.counts().refused
    }

    /// How many requests carried a token past its end.
    pub fn expired_seen(&self) -> usize {
        self.counts().expired_seen
    }

    /// How many requests carried a token that had been revoked.
    pub fn revoked_seen(&self) -> usize {
        self.counts().revoked_seen
    }

    /// How many requests were answered as [`Switches::busy`] says.
    pub fn busy_answers(&self) -> usize {
        self.counts().busy_answers
    }

    /// How many requests lost their connection as [`Switches::break_off`] says.
    pub fn broken_off(&self) -> usize {
        self.counts().broken_off
    }

    /// Waits until the `count`-th request has come in; it may still be under way.
    pub async fn requests_reach(&self, count: usize) {
        self.wait_for(|counts| counts.requests >= count).await;
    }

    /// How often a request with this number in `x-standin-id` came in, refused ones included.
    pub fn seen_of(&self, id: u64) -> usize {
        self.0.arrivals.of(id).seen
    }

    /// How often such a request was let in and had its body arrive in full, at an endpoint that reads it (`/echo`,
    /// `/upload`, `/hold` and all that change content): what AEM would have carried out.
    pub fn writes_of(&self, id: u64) -> usize {
        self.0.arrivals.of(id).written
    }

    /// Waits until that many requests with a number, whichever, have arrived in full.
    pub async fn writes_reach(&self, count: usize) {
        self.wait_for(|counts| counts.writes >= count).await;
    }

    /// Refuses every request from now on that has a good token, in this way; `None` is good health.
    pub fn refuse_all(&self, how: Option<TokenRefusal>) {
        self.0.faults.refuse_all(how);
    }

    /// Answers the next `times` requests with this status, whoever asks, after those already told of.
    pub fn busy(&self, status: StatusCode, retry_after: Option<&str>, times: usize) {
        let busy = Busy { status, retry_after: retry_after.map(str::to_owned) };
        self.0.faults.push(Fault::Busy(busy), times);
    }

    /// Cuts the connections of the next `times` requests in place of an answer, after those already told of.
    pub fn break_off(&self, when: Break, times: usize) {
        self.0.faults.push(Fault::Break(when), times);
    }

    /// Lets all requests for `/hold` go on, those under way and those to come.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    /// Whether answers from now on name `completeURI` by its path alone. A client has to understand both.
    pub fn relative_complete_uri(&self, relative: bool) {
        self.0.completes_relatively.store(relative, Relaxed);
    }

    /// Whether JSON of the Assets HTTP API, of GraphQL and of uploads comes in gzip to who takes it.
    pub fn compress(&self, compress: bool) {
        self.0.compresses.store(compress, Relaxed);
    }

    /// How many direct binary uploads were completed.
    pub fn uploads_completed(&self) -> usize {
        self.counts().uploads_completed
    }

    /// How many packages were installed.
    pub fn packages_installed(&self) -> usize {
        self.counts().packages_installed
    }

    /// Whether changes by browsers have to come from AEM's own pages, which is so at first.
    pub fn filter_referrers(&self, filter: bool) {
        self.0.ignores_referrers.store(!filter, Relaxed);
    }

    /// How many changes did not.
    pub fn referrer_refused(&self) -> usize {
        self.counts().referrer_refused
    }

    /// Whether changes by browsers need a token against forgery, which is so at first.
    pub fn filter_csrf(&self, filter: bool) {
        self.0.ignores_csrf.store(!filter, Relaxed);
    }

    /// How many changes had none.
    pub fn csrf_refused(&self) -> usize {
        self.counts().csrf_refused
    }

    /// The last changes by the Assets HTTP API, in their order.
    pub fn asset_changes(&self) -> Vec<AssetChange> {
        self.changes().iter().cloned().collect()
    }

    /// From now on, paths under `prefix` take tokens of `client_id` only: another one's are refused as unknown ones are.
    /// AEM's newer APIs know OAuth credentials alone.
    pub fn reserve(&self, prefix: &str, client_id: &str) {
        self.reserved().push((prefix.to_owned(), client_id.to_owned()));
    }

    pub(super) fn is_open_to(&self, client_id: &str, path: &str) -> bool {
        self.reserved().iter().all(|(prefix, only)| !path.starts_with(prefix) || only == client_id)
    }

    pub(super) fn completes_relatively(&self) -> bool {
        self.0.completes_relatively.load(Relaxed)
    }

    pub(super) fn compresses(&self) -> bool {
        self.0.compresses.load(Relaxed)
    }

    pub(super) fn filters_referrers(&self) -> bool {
        !self.0.ignores_referrers.load(Relaxed)
    }

    pub(super) fn filters_csrf(&self) -> bool {
        !self.0.ignores_csrf.load(Relaxed)
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(super) fn arrivals(&self) -> &Arrivals {
        &self.0.arrivals
    }

    pub(super) fn changed(&self, change: AssetChange) {
        let mut changes = self.changes();
        if changes.len() == CHANGES_MAX {
            changes.pop_front();
        }
        changes.push_back(change);
    }

    pub(super) async fn released(&self) {
        let _ = self.0.released.subscribe().wait_for(|released| *released).await;
    }

    pub(super) fn count(&self, what: impl FnOnce(&mut Counts)) {
        self.0.counts.send_modify(what);
    }

    fn counts(&self) -> Counts {
        *self.0.counts.borrow()
    }

    async fn wait_for(&self, reached: impl FnMut(&Counts) -> bool) {
        // The sender is in `self`, so the channel cannot close.
        let _ = self.0.counts.subscribe().wait_for(reached).await;
    }

    fn reserved(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.0.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn changes(&self) -> MutexGuard<'_, VecDeque<AssetChange>> {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than a test makes.
const CHANGES_MAX: usize = 1000;
