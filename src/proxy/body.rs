//! Bodies on their way: passed on frame by frame, watched, never held.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{sync::oneshot, time::Sleep};
use tracing::warn;

use super::activity::Activity;
use crate::metrics::InFlight;

/// A request's body, from the client to AEM.
pub(super) struct RequestBody {
    incoming: Incoming,
    activity: Arc<Activity>,
    gate: Option<Gate>,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, activity: Arc<Activity>) -> Self {
        let ended = incoming.is_end_stream();
        if ended {
            activity.uploaded();
        }
        Self { incoming, activity, gate: None, ended }
    }

    /// Reads nothing before `gate` opens. hyper sends the client its `100 Continue` with the first read: so the
    /// client hears it when AEM has said it, and hears AEM's refusal instead where there is one.
    pub(super) fn wait_for(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    fn end(&mut self) {
        self.ended = true;
        self.activity.uploaded();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if let Some(gate) = &mut this.gate {
            ready!(gate.poll(cx));
            this.gate = None;
        }
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        match &frame {
            None | Some(Err(_)) => this.end(),
            Some(Ok(_)) if this.incoming.is_end_stream() => this.end(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended {
            self.activity.abandon();
        }
    }
}

/// Opens when AEM has said `100 Continue`, or has been silent for so long that it never will.
pub(super) struct Gate {
    /// Gone when it can say no more.
    told: Option<oneshot::Receiver<()>>,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    /// A gate that opens with AEM's interim answer to `request` (RFC 9110, section 10.1.1).
    pub(super) fn before<B>(request: &mut Request<B>) -> Self {
        let (tell, told) = oneshot::channel();
        let tell = Mutex::new(Some(tell));
        hyper::ext::on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE
                && let Some(tell) = tell.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                // Nobody listens any more once the patience was over.
                let _ = tell.send(());
            }
        });
        Self { told: Some(told), patience: Box::pin(tokio::time::sleep(CONTINUE_PATIENCE)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(told) = &mut self.told {
            match Pin::new(told).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                // AEM's final answer came without a 100: nobody will say more, and a receiver is not polled twice.
                Poll::Ready(Err(_)) => self.told = None,
                Poll::Pending => {}
            }
        }
        self.patience.as_mut().poll(cx)
    }
}

/// As long as curl waits by itself before it sends the body anyway.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// A response's body, from AEM or from us. Dropping it ends the request.
pub(super) struct ResponseBody {
    source: Source,
    activity: Arc<Activity>,
    /// Counts the request when it is dropped; a tunnel counts its own.
    _in_flight: Option<InFlight>,
}

enum Source {
    Upstream(Incoming),
    Own(Option<Bytes>),
}

impl ResponseBody {
    pub(super) fn upstream(incoming: Incoming, activity: Arc<Activity>, in_flight: InFlight) -> Self {
        Self::new(Source::Upstream(incoming), activity, Some(in_flight))
    }

    pub(super) fn own(text: Bytes, activity: Arc<Activity>, in_flight: InFlight) -> Self {
        Self::new(Source::Own(Some(text)), activity, Some(in_flight))
    }

    pub(super) fn empty(activity: Arc<Activity>) -> Self {
        Self::new(Source::Own(None), activity, None)
    }

    fn new(source: Source, activity: Arc<Activity>, in_flight: Option<InFlight>) -> Self {
        activity.response();
        Self { source, activity, _in_flight: in_flight }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        match &mut this.source {
            Source::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Upstream(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                if let Some(Err(error)) = &frame {
                    warn!(%error, "AEM broke off in the body of its response, cutting the client's connection");
                    this.activity.cut();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Upstream(incoming) => incoming.is_end_stream(),
            Source::Own(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Upstream(incoming) => incoming.size_hint(),
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.activity.answered();
    }
}
