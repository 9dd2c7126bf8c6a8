//! `health` and `wait`: ask the admin listener of a running proxy. No shell and no curl needed in the image.

use std::{io, net::Ipv4Addr, net::Ipv6Addr, time::Duration};

use clap::{Args, ValueEnum};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{Failure, block_on, parse_duration, print};
use crate::config::{Admin, Config, Listen, Sources};

#[derive(Args)]
pub(super) struct Health {
    /// Which question to ask
    #[arg(long, value_enum, default_value = "live")]
    endpoint: Endpoint,
}

#[derive(Args)]
pub(super) struct Wait {
    /// How long at most
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    max: Duration,
}

#[derive(Clone, Copy, ValueEnum)]
enum Endpoint {
    /// Does the process turn?
    Live,
    /// Was there a first token?
    Startup,
    /// Is there a valid token, and is it not draining?
    Ready,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/live",
            Self::Startup => "/startup",
            Self::Ready => "/ready",
        }
    }
}

impl Health {
    pub(super) fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let listen = admin_listen(sources)?;
        let asked = block_on(ask(&listen, self.endpoint.path()))?;
        match asked {
            Ok((StatusCode::OK, text)) => print(&text),
            Ok((_, text)) => Err(Failure::wrong(text.trim_end())),
            Err(error) => Err(Failure::wrong(no_answer(&listen, &error))),
        }
    }
}

impl Wait {
    pub(super) fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let listen = admin_listen(sources)?;
        block_on(async {
            let until = Instant::now() + self.max;
            loop {
                let asked = timeout_at(until, ask(&listen, Endpoint::Ready.path())).await;
                let last = match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok((StatusCode::OK, text)) => return print(&text),
                    Ok((_, text)) => text.trim_end().to_owned(),
                    Err(error) => no_answer(&listen, &error),
                };
                if Instant::now() + PAUSE > until {
                    let max = humantime::format_duration(self.max);
                    return Err(Failure::wrong(format!("not ready after {max}: {last}")));
                }
                sleep(PAUSE).await;
            }
        })?
    }
}

fn admin_listen(sources: &Sources) -> Result<Listen, Failure> {
    let admin: Admin = Config::section(sources, "admin")?;
    match admin.listen.on() {
        Some(listen) => Ok(listen.clone()),
        None => Err(Failure::config("admin.listen is off: there is nobody to ask")),
    }
}

fn no_answer(listen: &Listen, error: &io::Error) -> String {
    format!(
        "no answer from the admin listener at {listen}: {error}; is admin.listen the same as the proxy's?"
    )
}

/// GETs `path`, within [`PATIENCE`].
async fn ask(listen: &Listen, path: &str) -> io::Result<(StatusCode, String)> {
    let asking = async {
        match listen {
            Listen::Unix(socket) => get(UnixStream::connect(socket).await?, path).await,
            Listen::Localhost(port) => {
                get(TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?, path).await
            }
            Listen::Tcp(addr) => {
                let mut addr = *addr;
                // "All addresses" is none that one can dial.
                if addr.ip().is_unspecified() {
                    addr.set_ip(if addr.is_ipv4() {
                        Ipv4Addr::LOCALHOST.into()
                    } else {
                        Ipv6Addr::LOCALHOST.into()
                    });
                }
                get(TcpStream::connect(addr).await?, path).await
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
) -> io::Result<(StatusCode, String)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(path).header(header::HOST, "localhost").body(Empty::<Bytes>::new());
    let exchange = async {
        let response =
            sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(io::Error::other)?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before its answer is read.
        _ = connection => exchange.await,
    }
}

/// The answers are a line long.
const ANSWER_MAX: usize = 16 * 1024;

/// The admin listener never waits for anybody.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two questions of `wait`.
const PAUSE: Duration = Duration::from_millis(200);
