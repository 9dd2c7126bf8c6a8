//! One request and its answer, in one attempt or, where that is safe, in another one.

mod again;
mod down;
mod flow;
mod up;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use tokio::time::Instant;

pub(super) use self::up::Up;
use self::{
    again::Chances,
    down::Stage,
    flow::{Exchange, Turn},
};
use super::{
    Proxy, Upstream, Worker,
    authorize::Identity,
    buffer::{Buffer, Head},
    client::Client,
    connection::End,
    error::ProxyError,
    framing::FramingError,
    http2,
    link::{Link, LinkError},
    request::{self, Asking},
    response::AnswerTo,
    rewrite::Members,
    route::Route,
    streams::StreamShare,
    tunnel, upstream,
};
use crate::{
    metrics::InFlight,
    network::{Cause, descriptors::Exhausted},
};

/// A request whose head has come.
pub(super) struct Request<'w> {
    /// As AEM is to see it; or why it is not to.
    pub sent: Result<Sent<'w>, ProxyError>,
    /// Whom it came to.
    pub proxy: &'w Proxy,
    pub up: Up,
    pub to: AnswerTo<'w>,
    pub asking: Asking,
    /// The origin that the client has come to, as it wrote it.
    pub local: Rc<[u8]>,
    /// What of a body of JSON is renamed.
    pub members: Members,
    /// What it asks to go on in, a WebSocket mostly.
    pub protocol: Option<Box<[u8]>>,
    /// Counts the request when it is dropped.
    pub in_flight: InFlight,
    /// When its head was whole, or its turn came.
    pub began: Instant,
}

/// A head as AEM is to see it, and what it takes to write it anew for another token.
pub(super) struct Sent<'w> {
    pub head: Head,
    /// Where it names who we are.
    pub lines: request::Identity,
    pub identity: Identity,
    pub route: &'w Route,
}

/// What comes after an answer.
pub(super) enum Then {
    /// The next request.
    Next,
    /// Nothing.
    End(End),
}

/// Why an exchange did not come to its end.
enum Failed {
    /// Nobody waits for the answer any more.
    Gone,
    /// The answer is ours to give.
    Answer(ProxyError),
    /// The connection to AEM broke off before there was an answer.
    Broken(LinkError),
    /// AEM broke off, or the client stopped reading, after the answer had begun.
    Cut,
    /// The client has its whole answer; only the rest of its body did not get through.
    Over,
}

/// Answers a request: with AEM's answer, or with one of our own.
pub(super) async fn run(client: &mut Client, worker: &Worker, request: &mut Request<'_>) -> Then {
    match forward(client, worker, request).await {
        Ok(then) => then,
        Err(Failed::Gone) => Then::End(End::Gone),
        Err(Failed::Cut) => Then::End(End::Abort),
        Err(Failed::Over) => {
            client.half = false;
            Then::End(End::Linger)
        }
        Err(Failed::Answer(error)) => answer(client, worker, request, &error).await,
        Err(Failed::Broken(error)) => answer(client, worker, request, &broken_off(error)).await,
    }
}

async fn forward(client: &mut Client, worker: &Worker, request: &mut Request<'_>) -> Result<Then, Failed> {
    let sent = std::mem::replace(&mut request.sent, Err(ProxyError::Draining));
    let mut sent = sent.map_err(Failed::Answer)?;
    // Few need to wait: it is not a part of every connection's task.
    if !worker.has_room() && !Box::pin(unless_gone(client, worker, worker.wait_for_room())).await? {
        return Err(Failed::Answer(ProxyError::NoMemory));
    }
    let mut turn = turn(client, worker, request, &sent.route.upstream).await?;
    if turn.is_some() {
        sent.renew_if_expired(worker).map_err(Failed::Answer)?;
    }
    let mut chances = Chances::new(request);
    let answered = loop {
        match attempt(client, worker, request, &mut sent, (&mut chances, &mut turn)).await {
            Ok(Some(then)) => break Ok(then),
            Ok(None) => request.up.begin_again(),
            Err(failed) => break Err(failed),
        }
    };
    worker.buffers.take_back(sent.head);
    answered
}

/// Sends a request once. `None` when it is to be sent again.
async fn attempt<'w>(
    client: &mut Client,
    worker: &Worker,
    request: &mut Request<'w>,
    sent: &mut Sent<'w>,
    (chances, turn): (&mut Chances, &mut Option<upstream::Turn<'w>>),
) -> Result<Option<Then>, Failed> {
    let under_way = worker.under_way.begin();
    let upstream = &*sent.route.upstream;
    // Requests that share a connection leave together anyway.
    if !upstream.takes_http2() {
        under_way.gather().await;
    }
    let mut since = chances.since(request);
    // Over HTTP/2 there is no upgrade, and not every target.
    let alone = upstream.takes_http2() && (request.protocol.is_some() || !http2::carries(sent.head.filled()));
    let _share = stream_share(client, worker, upstream, alone)?;
    let mut link = match worker.at_hand(upstream, alone, since) {
        Some(link) => link,
        None => {
            // Few need it: not a part of every connection's task.
            let link = Box::pin(connect(client, worker, upstream, alone)).await?;
            since = Instant::now();
            link
        }
    };
    if since != request.began
        && let Err(error) = sent.renew_if_expired(worker)
    {
        worker.pool(upstream).keep(link, since, &worker.buffers);
        return Err(Failed::Answer(error));
    }
    push(client, worker, request, sent, &mut link)?;
    let limits = &request.proxy.limits.timeouts;
    let limit = if request.up.is_done() { limits.response_head } else { limits.idle };
    client.watch.begin(limit, since);
    let holds = chances.holds(request, sent);
    let mut exchange = Exchange::new(client, worker, link, request, sent, holds);
    loop {
        match poll_fn(|cx| exchange.poll(cx)).await {
            Ok(Turn::Over) => {
                // A tunnel may last for hours.
                drop(under_way);
                return Ok(Some(finish(exchange, turn).await));
            }
            Ok(Turn::Held(held)) => {
                if again::is_worth_it(&mut exchange, chances, held).await? {
                    exchange.dismiss();
                    return Ok(None);
                }
                exchange.release()?;
            }
            Err(Failed::Broken(error)) if chances.reconnect(&exchange, &error) => {
                chances.pause(&mut exchange).await?;
                return Ok(None);
            }
            Err(failed) => return Err(failed),
        }
    }
}

/// The request's turn, which it may have to wait for; none where AEM takes as many as there are.
async fn turn<'w>(
    client: &mut Client,
    worker: &Worker,
    request: &mut Request<'_>,
    upstream: &'w Upstream,
) -> Result<Option<upstream::Turn<'w>>, Failed> {
    let Some(turns) = upstream.turns() else { return Ok(None) };
    if let Some(turn) = turns.at_once() {
        return Ok(Some(turn));
    }
    // Few need it: not a part of every connection's task.
    let waited = Box::pin(unless_gone(client, worker, turns.wait())).await?;
    request.began = Instant::now();
    waited.map(Some).map_err(|busy| Failed::Answer(busy.into()))
}

/// The right of an HTTP/2 stream to a connection to AEM of its own. Other requests need none: each has a connection of the
/// client, with which goes one to AEM; and those over HTTP/2 to AEM share one.
fn stream_share<'w>(
    client: &Client,
    worker: &Worker,
    upstream: &'w Upstream,
    alone: bool,
) -> Result<Option<StreamShare<'w>>, Failed> {
    let Some(streams) = client.stream.streams() else { return Ok(None) };
    if worker.shares_connections(upstream, alone) {
        return Ok(None);
    }
    let share = streams.share(upstream.descriptors());
    share.map(Some).map_err(|Exhausted| Failed::Answer(upstream.out_of_descriptors().into()))
}

/// Hands the head to the connection, and with it what there is of the body.
fn push(
    client: &mut Client,
    worker: &Worker,
    request: &mut Request<'_>,
    sent: &Sent<'_>,
    link: &mut Link,
) -> Result<(), Failed> {
    let buffers = &worker.buffers;
    let earlier = request.up.kept().unwrap_or_default();
    let pushed = if earlier.is_empty() && (request.up.is_done() || request.up.gate.is_some()) {
        link.push(sent.head.filled(), buffers)
    } else {
        let mut together = Buffer::default();
        buffers.equip(&mut together);
        together.push(sent.head.filled());
        together.push(earlier);
        if request.up.gate.is_none() && !request.up.is_done() {
            let body = request.up.pass(&mut client.input, |data| {
                together.push(data);
                Ok(())
            });
            body.map_err(|error| Failed::Answer(request_broken(error)))?;
            buffers.release(&mut client.input);
        }
        let pushed = link.push(together.filled(), buffers);
        together.wipe(sent.head.len());
        buffers.release(&mut together);
        pushed
    };
    pushed.map_err(|error| Failed::Answer(ProxyError::BrokenOff(Box::new(error))))
}

/// Both directions are over: what becomes of the connections.
async fn finish(exchange: Exchange<'_, '_>, turn: &mut Option<upstream::Turn<'_>>) -> Then {
    let upstream = exchange.upstream();
    let Exchange { client, worker, down, link, request, .. } = exchange;
    let (limits, buffers) = (&request.proxy.limits.timeouts, &worker.buffers);
    client.watch.rest();
    if matches!(down.stage, Stage::Tunnel) {
        // It is a connection that is held, and no request any more.
        *turn = None;
        return Then::End(tunnel::run(client, worker, link, limits.idle).await);
    }
    client.half = false;
    let now = Instant::now();
    request.in_flight.ended(now);
    client.watch.begin(limits.keep_alive, now);
    if !(down.is_used_up() || down.early) && request.up.is_done() && link.is_flushed() {
        worker.pool(upstream).keep(link, now, buffers);
    } else {
        link.close(buffers);
    }
    match (request.up.is_done(), down.close) {
        (true, false) => Then::Next,
        (true, true) => Then::End(End::Close),
        (false, _) => Then::End(End::Linger),
    }
}

async fn connect(
    client: &mut Client,
    worker: &Worker,
    upstream: &Upstream,
    alone: bool,
) -> Result<Link, Failed> {
    let connected = unless_gone(client, worker, worker.connect(upstream, alone)).await?;
    connected.map_err(|error| Failed::Answer(error.into()))
}

/// Waits for `what`, unless the client leaves meanwhile.
async fn unless_gone<T>(
    client: &mut Client,
    worker: &Worker,
    what: impl Future<Output = T>,
) -> Result<T, Failed> {
    let mut what = pin!(what);
    poll_fn(|cx| match what.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => client.poll_gone(cx, &worker.buffers).map(|()| Err(Failed::Gone)),
    })
    .await
}

fn broken_off(error: LinkError) -> ProxyError {
    match &error {
        LinkError::Io(io) => match Cause::of(io) {
            cause @ (Cause::TlsAlert | Cause::ClientCertificate) => {
                ProxyError::Unreachable(cause, Box::new(error))
            }
            _ => ProxyError::BrokenOff(Box::new(error)),
        },
        _ => ProxyError::BrokenOff(Box::new(error)),
    }
}

fn request_broken(error: LinkError) -> ProxyError {
    match error {
        LinkError::Framing(FramingError { .. }) => ProxyError::RequestBroken(Box::new(error)),
        error => ProxyError::BrokenOff(Box::new(error)),
    }
}

/// Gives one of our own answers.
async fn answer(client: &mut Client, worker: &Worker, request: &mut Request<'_>, error: &ProxyError) -> Then {
    error.log();
    if let Some(reason) = error.denied() {
        request.proxy.metrics.denied(reason);
    }
    let read = request.up.skip(&mut client.input);
    let close = !read || !request.to.keep_alive || worker.is_stopping();
    let (status, close) = error.write(request.to, close, &mut client.output);
    request.in_flight.answered(status);
    client.watch.begin(request.proxy.limits.timeouts.idle, Instant::now());
    let flushed = poll_fn(|cx| match client.poll_flush(cx, &worker.buffers) {
        Err(_) => Poll::Ready(End::Gone),
        Ok(_) if client.output.is_empty() => Poll::Ready(End::Close),
        Ok(sent) => {
            if sent > 0 {
                client.watch.moved();
            }
            client.watch.poll_pace(cx, true).map(|()| End::Abort)
        }
    });
    let now = match flushed.await {
        End::Close => Instant::now(),
        end => return Then::End(end),
    };
    client.watch.begin(request.proxy.limits.timeouts.keep_alive, now);
    client.watch.rest();
    worker.buffers.release(&mut client.input);
    match (close, read) {
        (false, _) => Then::Next,
        (true, true) => Then::End(End::Close),
        (true, false) => Then::End(End::Linger),
    }
}
