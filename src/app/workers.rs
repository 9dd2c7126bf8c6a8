//! One thread for each core, each with a runtime of its own: a connection stays where it was put, and nothing that it
//! needs is shared. The first thread accepts, keeps its share of the connections, and hands the others over.

use std::{
    future::ready,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::warn;

use super::descriptors::Plan;
use crate::{
    deliberate::panic_if_asked,
    listener::{Detached, DetachedListener, Listener, Stream},
    memory::Memory,
    network::descriptors::Descriptors,
    proxy::{Proxy, Worker},
};

/// The threads that serve a proxy's connections. They end when this is dropped and nobody accepts any more.
pub(super) struct Workers {
    threads: Arc<[Thread]>,
    connections: TaskTracker,
    descriptors: Arc<Descriptors>,
    ends: Vec<oneshot::Receiver<()>>,
}

/// How a thread is spoken to.
struct Thread {
    jobs: mpsc::UnboundedSender<Job>,
    /// How many connections it has.
    load: Arc<AtomicUsize>,
}

enum Job {
    /// A connection to the proxy with this number, which is counted.
    Serve(Detached, usize, TaskTrackerToken),
    /// Connections to the proxy with this number.
    Accept((DetachedListener, Arc<Descriptors>), usize, Arc<[Thread]>, CancellationToken),
    /// No more connections; those that wait for a request end.
    Stop,
}

impl Workers {
    /// Starts the threads of `plan`, whose connections have their descriptors from `descriptors`, and share the budget of
    /// `memory`.
    ///
    /// # Errors
    /// When the system gives no thread, or no runtime for it.
    pub(super) fn start(
        proxies: &Arc<[Proxy]>,
        plan: &Plan,
        descriptors: &Arc<Descriptors>,
        memory: &Memory,
    ) -> io::Result<Self> {
        let connections = TaskTracker::new();
        let (mut threads, mut ends, mut reports) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..plan.workers {
            let (jobs, inbox) = mpsc::unbounded_channel();
            let (end, ended) = oneshot::channel();
            let (report, reported) = std::sync::mpsc::sync_channel(1);
            let load = Arc::new(AtomicUsize::new(0));
            let body = Body {
                proxies: Arc::clone(proxies),
                memory: memory.clone(),
                connections: connections.clone(),
                load: Arc::clone(&load),
                most: (plan.clients_each, plan.refusals_each),
                number,
                _end: end,
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || body.run(inbox, &report))?;
            threads.push(Thread { jobs, load });
            ends.push(ended);
            reports.push(reported);
        }
        for report in reports {
            report.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
        }
        let descriptors = Arc::clone(descriptors);
        Ok(Self { threads: threads.into(), connections, descriptors, ends })
    }

    /// Accepts connections to the proxy with this number until `closing` is cancelled; the listener is closed then.
    ///
    /// # Errors
    /// When the system does not let go of the listener.
    pub(super) fn accept(
        &self,
        listener: Listener,
        proxy: usize,
        closing: &CancellationToken,
    ) -> io::Result<()> {
        let (threads, descriptors) = (Arc::clone(&self.threads), Arc::clone(&self.descriptors));
        let job = Job::Accept((listener.detach()?, descriptors), proxy, threads, closing.clone());
        // A thread that is gone ends the process: see `App::run`.
        drop(self.threads[0].jobs.send(job));
        Ok(())
    }

    /// Connections that wait for a request end now, the others with their answer.
    pub(super) fn stop(&self) {
        for thread in &*self.threads {
            drop(thread.jobs.send(Job::Stop));
        }
        self.connections.close();
    }

    /// Ready when all connections have ended; after [`Workers::stop`].
    pub(super) async fn wait(&self) {
        self.connections.wait().await;
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What tells when each thread is no more.
    pub(super) fn ends(&mut self) -> Vec<oneshot::Receiver<()>> {
        std::mem::take(&mut self.ends)
    }
}

/// What a thread is made of.
struct Body {
    proxies: Arc<[Proxy]>,
    memory: Memory,
    connections: TaskTracker,
    load: Arc<AtomicUsize>,
    /// How many connections it has at most, and how many that it refuses. Each goes to the thread with the fewest: one that is
    /// full is so since all are.
    most: (usize, usize),
    number: usize,
    /// Dropped when the thread ends, however it does.
    _end: oneshot::Sender<()>,
}

impl Body {
    fn run(self, inbox: mpsc::UnboundedReceiver<Job>, report: &std::sync::mpsc::SyncSender<io::Result<()>>) {
        // Nothing blocks here: names have a resolver, and files are the main thread's.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .max_blocking_threads(1)
            .build_local(LocalOptions::default());
        // Whoever started the thread waits for this.
        match runtime {
            Ok(runtime) => {
                drop(report.send(Ok(())));
                runtime.block_on(self.work(inbox));
            }
            Err(error) => drop(report.send(Err(error))),
        }
    }

    async fn work(self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        let worker = Worker::new(Arc::clone(&self.proxies), self.most, self.memory.clone());
        let this = Rc::new(self);
        let mut tasks = JoinSet::new();
        let sweeping = Rc::clone(&worker).sweep();
        tasks.spawn_local(async {
            panic_if_asked("sweep");
            sweeping.await;
        });
        tasks.spawn_local(Rc::clone(&worker).relieve());
        panic_if_asked("worker");
        loop {
            tokio::select! {
                job = inbox.recv() => match job {
                    Some(Job::Serve(detached, proxy, token)) => match Stream::attach(detached) {
                        Ok(stream) => this.serve(&worker, stream, proxy, token),
                        Err(error) => {
                            this.load.fetch_sub(1, Relaxed);
                            warn!(%error, "A connection cannot be taken over, closing it");
                        }
                    },
                    Some(Job::Accept(listener, proxy, threads, closing)) => {
                        let (this, worker) = (Rc::clone(&this), Rc::clone(&worker));
                        tasks.spawn_local(accept(this, worker, (listener, proxy), threads, closing));
                    }
                    Some(Job::Stop) => worker.stop(),
                    None => return,
                },
                // What dies takes the thread along, and the thread the process.
                Some(Err(_)) = tasks.join_next() => return,
            }
        }
    }

    /// Serves a connection that is counted already.
    fn serve(&self, worker: &Rc<Worker>, stream: Stream, proxy: usize, token: TaskTrackerToken) {
        let load = Load(Arc::clone(&self.load));
        let place = worker.place(proxy);
        let serving = Rc::clone(worker).serve(stream, proxy, place.clone());
        let counted = async move {
            let _counted = (load, token);
            serving.await;
        };
        let task = tokio::task::spawn_local(counted);
        if let Some(place) = place {
            place.belongs_to(task.abort_handle());
        }
    }
}

/// Gives each connection to the thread that has the fewest.
async fn accept(
    own: Rc<Body>,
    worker: Rc<Worker>,
    ((listener, descriptors), proxy): ((DetachedListener, Arc<Descriptors>), usize),
    threads: Arc<[Thread]>,
    closing: CancellationToken,
) {
    let listener = match Listener::attach(listener) {
        Ok(listener) => listener,
        Err(error) => panic!("the listener cannot be taken over: {error}"),
    };
    // There are no connections left only when none can come from here.
    let _accepting = own.connections.token();
    let mut turn = 0usize;
    let mut serve = |stream: Stream| {
        if !worker.admits(&stream, proxy) {
            return;
        }
        turn = turn.wrapping_add(1);
        let Some((number, thread)) = least_busy(&threads, turn) else { return };
        thread.load.fetch_add(1, Relaxed);
        if number == own.number {
            return own.serve(&worker, stream, proxy, own.connections.token());
        }
        match stream.detach() {
            Ok(detached) => {
                let token = own.connections.token();
                drop(thread.jobs.send(Job::Serve(detached, proxy, token)));
            }
            Err(error) => {
                thread.load.fetch_sub(1, Relaxed);
                warn!(%error, "A connection cannot be handed over, closing it");
            }
        }
    };
    let mut has_room = true;
    while let Some((stream, permit)) =
        closing.run_until_cancelled(descriptors.accept(listener.accept())).await
    {
        panic_if_asked("accept");
        // While memory stays short, only the first connection waits: the others would wait for it, and for each other.
        has_room = match has_room {
            true => closing.run_until_cancelled(worker.wait_for_room()).await.unwrap_or(false),
            false => worker.has_room(),
        };
        serve(stream.permitted(permit));
    }
    for stream in listener.close() {
        let (stream, permit) = descriptors.accept(ready(stream)).await;
        serve(stream.permitted(permit));
    }
}

/// The thread with the fewest connections. Where all have as many, each has its turn: else it would always be the first one whose
/// idle connections make room.
fn least_busy(threads: &[Thread], turn: usize) -> Option<(usize, &Thread)> {
    let numbered = threads.iter().enumerate();
    let in_turn = numbered.cycle().skip(turn % threads.len().max(1)).take(threads.len());
    in_turn.min_by_key(|(_, thread)| thread.load.load(Relaxed))
}

/// One connection of a thread's, until it is dropped.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// After how many tasks a thread looks for what has come on its sockets. Where all have much to do, a new request waits for so
/// many of them at each step of its way; more often would cost a system call each.
const EVENT_INTERVAL: u32 = 16;
