//! One thread for each core, each with a runtime of its own: a connection stays where it was put, and nothing that it
//! needs is shared.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::{
    listener::{Detached, Stream},
    proxy::{Proxy, Worker},
};

/// The threads that serve a proxy's connections. They end when this is dropped.
pub(super) struct Workers {
    threads: Vec<Thread>,
    connections: TaskTracker,
}

struct Thread {
    jobs: mpsc::UnboundedSender<Job>,
    /// How many connections it has.
    load: Arc<AtomicUsize>,
    /// Resolves when the thread is no more.
    ended: Option<oneshot::Receiver<()>>,
}

enum Job {
    Serve(Detached),
    /// No more connections; those that wait for a request end.
    Stop,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system gives no thread, or no runtime for it.
    pub(super) fn start(proxy: &Arc<Proxy>, count: usize) -> io::Result<Self> {
        let connections = TaskTracker::new();
        let threads = (0..count.max(1))
            .map(|number| Thread::start(Arc::clone(proxy), connections.clone(), number))
            .collect::<io::Result<_>>()?;
        Ok(Self { threads, connections })
    }

    /// Gives a connection to the thread that has the fewest.
    pub(super) fn serve(&self, stream: Stream) {
        let Some(thread) = self.threads.iter().min_by_key(|thread| thread.load.load(Relaxed)) else { return };
        match stream.detach() {
            Ok(detached) => {
                thread.load.fetch_add(1, Relaxed);
                // A thread that is gone ends the process: see `App::run`.
                let _ = thread.jobs.send(Job::Serve(detached));
            }
            Err(error) => warn!(%error, "A connection cannot be handed over, closing it"),
        }
    }

    /// Connections that wait for a request end now, the others with their answer.
    pub(super) fn stop(&self) {
        for thread in &self.threads {
            let _ = thread.jobs.send(Job::Stop);
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
        self.threads.iter_mut().filter_map(|thread| thread.ended.take()).collect()
    }
}

impl Thread {
    fn start(proxy: Arc<Proxy>, connections: TaskTracker, number: usize) -> io::Result<Self> {
        let (jobs, mut inbox) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel::<()>();
        let load = Arc::new(AtomicUsize::new(0));
        let served = Arc::clone(&load);
        let (report, reported) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            // Dropped when the thread ends, however it does.
            let _end = end;
            let runtime =
                match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(report.send(Err(error))),
                };
            drop(report.send(Ok(())));
            runtime.block_on(async {
                let worker = Worker::new(proxy);
                tokio::task::spawn_local(std::rc::Rc::clone(&worker).sweep());
                while let Some(job) = inbox.recv().await {
                    match job {
                        Job::Serve(detached) => {
                            let load = Load(Arc::clone(&served));
                            let worker = std::rc::Rc::clone(&worker);
                            let serve = async move {
                                let _load = load;
                                match Stream::attach(detached) {
                                    Ok(stream) => worker.serve(stream).await,
                                    Err(error) => {
                                        warn!(%error, "A connection cannot be taken over, closing it")
                                    }
                                }
                            };
                            tokio::task::spawn_local(connections.track_future(serve));
                        }
                        Job::Stop => worker.stop(),
                    }
                }
            });
        };
        thread::Builder::new().name(format!("worker-{number}")).spawn(body)?;
        reported.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
        Ok(Self { jobs, load, ended: Some(ended) })
    }
}

/// One connection of a thread's, until it is dropped.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
