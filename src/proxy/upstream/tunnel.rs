//! A way through an egress proxy: CONNECT (RFC 9110, section 9.3.6), in HTTP/1.1 and in the clear. What goes through is TLS.
//!
//! hyper-util has a tunnel too, which does not tell a proxy that forbids from one that finds no way.

use std::io;

use http::Uri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use zeroize::Zeroizing;

use crate::{config::ProxyUrl, network::Cause};

/// Why there is no way through.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    #[error("the egress proxy {0} cannot be reached")]
    Unreachable(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the egress proxy {0} answers {1} to CONNECT")]
    Refused(String, u16),
    #[error("the egress proxy {0} broke off")]
    BrokenOff(String, #[source] io::Error),
    #[error("the egress proxy {0} does not answer in HTTP")]
    NotHttp(String),
}

impl TunnelError {
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Unreachable(_, source) if Cause::of(&**source) == Cause::TimedOut => Cause::TimedOut,
            Self::Unreachable(..) => Cause::EgressUnreachable,
            Self::Refused(_, 407) => Cause::EgressCredentials,
            Self::Refused(_, 500..) | Self::BrokenOff(..) | Self::NotHttp(_) => Cause::EgressFailed,
            Self::Refused(..) => Cause::EgressRefused,
        }
    }
}

/// Asks `proxy`, to which `socket` leads, for a way to `origin`.
pub(super) async fn open(
    mut socket: TcpStream,
    proxy: &ProxyUrl,
    origin: &Uri,
) -> Result<TcpStream, TunnelError> {
    let broken = |error| TunnelError::BrokenOff(proxy.to_string(), error);
    socket.write_all(&request(proxy, origin)).await.map_err(broken)?;
    let mut head = Vec::new();
    loop {
        let read = (&mut socket).take((HEAD_MAX - head.len()) as u64).read_buf(&mut head).await;
        if read.map_err(broken)? == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        // AEM does not speak before it is spoken to: nothing comes behind the head.
        match answer(&head) {
            Answer::Partial if head.len() < HEAD_MAX => {}
            Answer::Status(200..=299) => return Ok(socket),
            Answer::Status(status) => return Err(TunnelError::Refused(proxy.to_string(), status)),
            Answer::Partial | Answer::NotHttp => return Err(TunnelError::NotHttp(proxy.to_string())),
        }
    }
}

/// It may hold a password.
fn request(proxy: &ProxyUrl, origin: &Uri) -> Zeroizing<Vec<u8>> {
    let (host, port) = (origin.host().unwrap_or_default(), origin.port_u16().unwrap_or(443));
    let first = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    let mut request = Zeroizing::new(Vec::with_capacity(HEAD_MAX));
    request.extend_from_slice(first.as_bytes());
    if let Some(value) = proxy.authorization() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// What has come of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Partial,
    Status(u16),
    NotHttp,
}

fn answer(head: &[u8]) -> Answer {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Partial) => Answer::Partial,
        Ok(httparse::Status::Complete(_)) => response.code.map_or(Answer::NotHttp, Answer::Status),
        Err(_) => Answer::NotHttp,
    }
}

/// More than any proxy says, a page of excuses behind it not counted.
const HEAD_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_once_it_is_whole() {
        for (head, read) in [
            ("", Answer::Partial),
            ("HTTP/1.1 200 Connection established\r\n", Answer::Partial),
            ("HTTP/1.1 200 Connection established\r\n\r\n", Answer::Status(200)),
            ("HTTP/1.0 407 Who are you?\r\nProxy-Authenticate: Basic\r\n\r\n<html>", Answer::Status(407)),
            ("SSH-2.0-OpenSSH\r\n", Answer::NotHttp),
        ] {
            assert_eq!(answer(head.as_bytes()), read, "{head:?}");
        }
    }
}
