//! Name look-ups of the whole process: a few threads, started when look-ups wait, one look-up of a name at a time, answers
//! kept for seconds.
//!
//! The system's own resolver (`getaddrinfo`) does the work, so hosts file, search list, `ndots` and nsswitch modules apply.
//! It blocks for as long as it likes: callers have time limits of their own, and a name whose look-up hangs holds one
//! thread, however many requests wait for it.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    thread,
    time::Duration,
    vec,
};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::{sync::watch, time::Instant};
use tower::Service;

/// The addresses of a name, or why there are none.
pub type Answer = Result<Arc<[SocketAddr]>, LookupError>;

/// Why a name has no addresses. Cheap to clone: all who wait for a look-up get the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LookupError {
    /// The system's resolver says so.
    #[error("{0}")]
    System(Arc<io::Error>),
    /// The system's resolver answers with an empty list.
    #[error("the name has no address")]
    NoAddress,
    /// Look-ups of too many names wait.
    #[error("too many name look-ups wait")]
    QueueFull,
    /// The system starts no thread for look-ups, and none is running.
    #[error("no thread can be started for name look-ups: {0}")]
    NoThread(Arc<io::Error>),
    /// The thread ended in the middle of the look-up.
    #[error("the name look-up was aborted")]
    Aborted,
}

impl LookupError {
    /// Whether the next look-up may succeed, whatever the name.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::QueueFull | Self::NoThread(_) | Self::Aborted)
    }
}

/// The resolver of this process.
pub fn process() -> &'static Resolver {
    static PROCESS: LazyLock<Resolver> = LazyLock::new(|| Resolver::new(system));
    &PROCESS
}

fn system(name: &str) -> io::Result<Vec<SocketAddr>> {
    // The port is not looked up: whoever connects has it.
    Ok((name, 0).to_socket_addrs()?.collect())
}

/// Looks names up on threads of its own, which run for as long as the process does.
pub struct Resolver {
    state: Mutex<State>,
    queued: Condvar,
    lookup: fn(&str) -> io::Result<Vec<SocketAddr>>,
}

#[derive(Default)]
struct State {
    names: HashMap<Arc<str>, Entry>,
    queue: VecDeque<Lookup>,
    /// Running threads.
    threads: usize,
    /// Those of them that wait for a look-up.
    free: usize,
}

/// What is known of a name.
enum Entry {
    /// A look-up waits or runs.
    InFlight(watch::Receiver<Option<Answer>>),
    /// The answer of the last look-up.
    Known { answer: Answer, until: Instant },
}

/// A look-up that waits for a thread.
struct Lookup {
    name: Arc<str>,
    result: watch::Sender<Option<Answer>>,
}

/// Decrements the count of threads when one ends.
struct Running(&'static Resolver);

impl Resolver {
    fn new(lookup: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        Self { state: Mutex::default(), queued: Condvar::new(), lookup }
    }

    /// Starts the first thread, so that a process without threads ends at its start. More come when look-ups wait.
    ///
    /// # Errors
    /// When the system starts none.
    pub fn start(&'static self) -> io::Result<()> {
        self.start_thread(&mut self.state())
    }

    /// One thread more, if all are busy and they are not [`THREADS`] yet.
    fn start_thread(&'static self, state: &mut State) -> io::Result<()> {
        if state.queue.len() < state.free || state.threads == THREADS {
            return Ok(());
        }
        let thread = thread::Builder::new().name("lookup".to_owned());
        match thread.spawn(|| self.run()) {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => return Err(error),
            // One is enough to answer, late.
            Err(_) => {}
        }
        Ok(())
    }

    /// The addresses of `name`, with port 0, in the order in which the system prefers them.
    ///
    /// # Errors
    /// When it has none. There is no time limit: dropping the future is cheap, the look-up goes on for others.
    pub async fn look_up(&'static self, name: &str) -> Answer {
        let mut result = match self.begin(name)? {
            Entry::Known { answer, .. } => return answer,
            Entry::InFlight(result) => result,
        };
        match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            Ok(None) | Err(_) => Err(LookupError::Aborted),
        }
    }

    /// Forgets the addresses of `name`: none of them can be connected to. The next request looks it up again.
    pub fn forget(&self, name: &str) {
        let mut state = self.state();
        if matches!(state.names.get(name), Some(Entry::Known { answer: Ok(_), .. })) {
            state.names.remove(name);
        }
    }

    /// What is known of `name` now; a look-up is queued where nothing is.
    fn begin(&'static self, name: &str) -> Result<Entry, LookupError> {
        let now = Instant::now();
        let mut state = self.state();
        match state.names.get(name) {
            Some(Entry::Known { answer, until }) if now < *until => {
                return Ok(Entry::Known { answer: answer.clone(), until: *until });
            }
            // Without a sender there will be no answer.
            Some(Entry::InFlight(result)) if result.has_changed().is_ok() => {
                return Ok(Entry::InFlight(result.clone()));
            }
            _ => {}
        }
        if state.queue.len() >= QUEUE_MAX {
            return Err(LookupError::QueueFull);
        }
        self.start_thread(&mut state).map_err(|error| LookupError::NoThread(Arc::new(error)))?;
        if state.names.len() >= NAMES_MAX {
            state.names.retain(|_, entry| !entry.is_outdated(now));
        }
        let name: Arc<str> = name.into();
        let (sender, result) = watch::channel(None);
        state.names.insert(Arc::clone(&name), Entry::InFlight(result.clone()));
        state.queue.push_back(Lookup { name, result: sender });
        drop(state);
        self.queued.notify_one();
        Ok(Entry::InFlight(result))
    }

    /// The body of a thread.
    fn run(&'static self) {
        let _running = Running(self);
        loop {
            let Lookup { name, result } = self.next();
            let answer = match (self.lookup)(&name) {
                Ok(addresses) if addresses.is_empty() => Err(LookupError::NoAddress),
                Ok(addresses) => Ok(Arc::from(addresses)),
                Err(error) => Err(LookupError::System(Arc::new(error))),
            };
            let until = Instant::now() + if answer.is_ok() { KEEP_ADDRESSES } else { KEEP_FAILURE };
            self.state().names.insert(name, Entry::Known { answer: answer.clone(), until });
            // All who waited may have left.
            let _ = result.send(Some(answer));
        }
    }

    fn next(&self) -> Lookup {
        let mut state = self.state();
        loop {
            if let Some(next) = state.queue.pop_front() {
                return next;
            }
            state.free += 1;
            state = self.queued.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.free -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_outdated(&self, now: Instant) -> bool {
        matches!(self, Self::Known { until, .. } if *until <= now)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state().threads -= 1;
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The resolver of this process, as hyper-util and reqwest ask one.
#[derive(Debug, Clone, Copy)]
pub struct ProcessResolver;

type Looking<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<Name> for ProcessResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = Looking<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move { Ok(Vec::from(&*process().look_up(name.as_str()).await?).into_iter()) })
    }
}

impl reqwest::dns::Resolve for ProcessResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = Vec::from(&*process().look_up(name.as_str()).await?);
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// Threads, and so look-ups at once. A name that hangs holds one of them; configurations have few names, and all that hang
/// together are those of a name server that does not answer.
pub const THREADS: usize = 4;

/// Names that wait for a thread. Names come from the configuration alone.
const QUEUE_MAX: usize = 256;

/// Names that are kept before outdated ones are removed.
const NAMES_MAX: usize = 64;

/// How long addresses are kept: `getaddrinfo` does not tell the record's TTL. Short enough for a failover by DNS, whose TTLs
/// are a minute most often; long enough that a burst of new connections is one look-up.
const KEEP_ADDRESSES: Duration = Duration::from_secs(5);

/// How long a failure is kept: requests that come together fail together, and the next second tries again.
const KEEP_FAILURE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use super::*;

    fn resolver(lookup: fn(&str) -> io::Result<Vec<SocketAddr>>) -> &'static Resolver {
        Box::leak(Box::new(Resolver::new(lookup)))
    }

    fn one(last: u8) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![([127, 0, 0, last], 0).into()])
    }

    #[tokio::test]
    async fn requests_for_one_name_share_one_look_up_and_its_answer_is_kept() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        static GO: Barrier = Barrier::new(2);
        let resolver = resolver(|_| {
            CALLS.fetch_add(1, SeqCst);
            GO.wait();
            one(1)
        });
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(resolver.look_up("aem.example"))).collect();
        for request in &mut waiting {
            assert!(poll_once(request).is_none(), "the look-up has not ended");
        }
        GO.wait();
        for request in waiting {
            assert_eq!(*request.await.unwrap(), *one(1).unwrap());
        }
        assert_eq!(*resolver.look_up("aem.example").await.unwrap(), *one(1).unwrap());
        assert_eq!(CALLS.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn a_name_that_hangs_holds_one_thread_and_other_names_are_looked_up() {
        static HANGING: AtomicUsize = AtomicUsize::new(0);
        let resolver = resolver(|name| {
            if name == "hangs.example" {
                HANGING.fetch_add(1, SeqCst);
                loop {
                    thread::park();
                }
            }
            one(2)
        });
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(resolver.look_up("hangs.example"))).collect();
        for request in &mut waiting {
            assert!(poll_once(request).is_none());
        }
        for name in ["a.example", "b.example", "c.example", "d.example", "e.example"] {
            assert_eq!(*resolver.look_up(name).await.unwrap(), *one(2).unwrap());
        }
        // Those who left do not begin another one.
        drop(waiting);
        assert!(poll_once(&mut Box::pin(resolver.look_up("hangs.example"))).is_none());
        assert_eq!(resolver.look_up("f.example").await.map(|found| found.len()).unwrap(), 1);
        assert_eq!(HANGING.load(SeqCst), 1);
        assert!(resolver.state().threads <= THREADS);
    }

    #[tokio::test]
    async fn a_thread_more_is_started_only_where_a_look_up_would_wait() {
        let resolver = resolver(|name| {
            if name.starts_with("hangs") {
                loop {
                    thread::park();
                }
            }
            one(3)
        });
        resolver.start().unwrap();
        assert_eq!(resolver.state().threads, 1);
        let mut waiting = Vec::new();
        for number in 0..THREADS - 1 {
            let name = format!("hangs{number}.example");
            let mut request = Box::pin(async move { resolver.look_up(&name).await });
            assert!(poll_once(&mut request).is_none());
            waiting.push(request);
        }
        // All but one hang.
        for name in ["a.example", "b.example", "c.example"] {
            assert_eq!(*resolver.look_up(name).await.unwrap(), *one(3).unwrap());
        }
        assert_eq!(resolver.state().threads, THREADS);
    }

    #[tokio::test]
    async fn forgotten_addresses_are_looked_up_again() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let resolver = resolver(|_| one(CALLS.fetch_add(1, SeqCst) as u8));
        assert_eq!(*resolver.look_up("aem.example").await.unwrap(), *one(0).unwrap());
        resolver.forget("other.example");
        assert_eq!(*resolver.look_up("aem.example").await.unwrap(), *one(0).unwrap());
        resolver.forget("aem.example");
        assert_eq!(*resolver.look_up("aem.example").await.unwrap(), *one(1).unwrap());
    }

    #[tokio::test]
    async fn too_many_names_at_once_are_a_temporary_error() {
        let resolver = resolver(|_| {
            loop {
                thread::park();
            }
        });
        let mut waiting = Vec::new();
        let full = loop {
            let name = format!("{}.example", waiting.len());
            let mut request = Box::pin(async move { resolver.look_up(&name).await });
            match poll_once(&mut request) {
                Some(answer) => break answer.unwrap_err(),
                None => waiting.push(request),
            }
            assert!(waiting.len() <= QUEUE_MAX + THREADS);
        };
        assert!(matches!(full, LookupError::QueueFull) && full.is_temporary());
        assert!(waiting.len() >= QUEUE_MAX);
    }

    #[tokio::test]
    async fn a_name_without_address_is_an_error() {
        let resolver = resolver(|_| Ok(Vec::new()));
        assert!(matches!(resolver.look_up("aem.example").await, Err(LookupError::NoAddress)));
    }

    /// What comes of one poll.
    fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        match Pin::new(future).poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
