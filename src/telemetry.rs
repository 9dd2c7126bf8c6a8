//! Logs: `tracing-subscriber`, once, on the standard error, through a queue with a thread of its own.
//!
//! A reader that is gone, a full disk or a pipe that is not read loses lines; it stops nothing else.

mod descriptor;
mod line;
mod queue;
mod repeats;

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tracing::{Level, Metadata, callsite::Identifier, error};
use tracing_subscriber::{
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
};

pub use self::descriptor::write_stdout;
use self::queue::Queue;
use crate::{
    config::{self, Log, LogFormat},
    metrics,
};

/// Why logging does not start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `log.level` is neither a level nor a filter.
    #[error("neither a level nor a filter")]
    Filter,
    /// The system gives no thread for the writer.
    #[error("no thread for the log: {0}")]
    Thread(io::Error),
}

/// Starts logging. A second call changes nothing.
///
/// # Errors
/// When `log.level` is neither a level nor a filter, or when there is no thread for the writer.
pub fn init(log: &Log) -> Result<(), InitError> {
    let filter = config::log_filter(&log.level).ok_or(InitError::Filter)?;
    let writer = LogWriter(queue().map_err(InitError::Thread)?);
    let is_terminal = io::stderr().is_terminal();
    // Its own report of a failed write is an `eprintln!`, which panics.
    let lines = fmt::layer().log_internal_errors(false).with_writer(writer);
    let subscriber = tracing_subscriber::registry().with(filter);
    let json = match log.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // An error says only that logging was started before.
    let _ = if json {
        tracing::subscriber::set_global_default(subscriber.with(lines.json().flatten_event(true)))
    } else {
        let lines = lines.with_ansi(is_terminal).with_target(false);
        tracing::subscriber::set_global_default(subscriber.with(lines))
    };
    Ok(())
}

/// Writes lines of text to the standard error as the log does: without waiting for a reader.
pub fn write_stderr(text: &str) {
    match queue() {
        Ok(queue) => text.lines().for_each(|line| queue.push(format!("{line}\n").as_bytes())),
        // Without a thread this may wait; there is nothing else to hold up.
        Err(_) => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until the lines so far are written, for [`FLUSH`] at most: the standard error may be a pipe that is not read.
pub fn flush() {
    if let Some(Ok(queue)) = QUEUE.get() {
        queue.flush(FLUSH);
    }
}

/// Logs and counts each panic: the place in the source and the thread. Never the payload, which may hold a secret.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        metrics::panics().inc();
        let location = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        let thread = thread.name();
        // It is asked for with RUST_BACKTRACE, and holds names and places.
        let backtrace = std::backtrace::Backtrace::capture();
        let is_captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
        let backtrace = is_captured.then(|| format!("stack backtrace:\n{backtrace}"));
        if tracing::dispatcher::has_been_set() {
            error!(location, thread, backtrace, "A task panicked; this is a defect of the proxy");
        } else {
            let mut text = format!("panicked at {}", location.unwrap_or_default());
            let _ = write!(text, "; this is a defect of the proxy\n{}", backtrace.unwrap_or_default());
            write_stderr(&text);
        }
    }));
}

/// The queue of the standard error; its thread starts with the first call.
fn queue() -> io::Result<Arc<Queue>> {
    let queue = QUEUE.get_or_init(|| Queue::start(io::stderr()));
    // The error of `io` cannot be cloned.
    queue.as_ref().map(Arc::clone).map_err(|error| error.kind().into())
}

static QUEUE: OnceLock<io::Result<Arc<Queue>>> = OnceLock::new();

/// Puts each line of the log into the queue.
struct LogWriter(Arc<Queue>);

/// The line of one event.
struct EventWriter<'a> {
    queue: &'a Queue,
    /// Of a warning or an error, of which equal ones are collapsed.
    call_site: Option<Identifier>,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = EventWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        EventWriter { queue: &self.0, call_site: None }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let call_site = (*meta.level() <= Level::WARN).then(|| meta.callsite());
        EventWriter { queue: &self.0, call_site }
    }
}

impl Write for EventWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &self.call_site {
            Some(call_site) => self.queue.push_warning(call_site, line),
            None => self.queue.push(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long the end of the process waits for the last lines of the log.
const FLUSH: Duration = Duration::from_secs(1);
