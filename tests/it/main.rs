//! The rooms put together, over real sockets: a real client, the proxy, the stand-in IMS and AEM or a raw socket.
//!
//! Everything logs at trace level into a [`log::Watch`] that looks for secrets; every harness fails its test if
//! one was seen.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(unreachable_pub, reason = "nobody reaches into a test")]

mod admin;
mod bodies;
mod bridge;
mod browser;
mod busy;
mod caps;
mod check;
mod commands;
mod connections;
mod credential_edges;
mod dns;
mod echoes;
mod edges;
mod egress;
mod engine;
mod forward;
mod guard;
mod guard_secret;
mod h2c;
mod harness;
mod http2;
mod kinds;
mod listener_tls;
mod log;
mod matrix;
mod misreadings;
mod named;
mod outage;
mod paths;
mod policies;
mod reconnects;
mod refresh;
mod refusals;
mod reload;
mod renaming;
mod restarts;
mod rotation;
mod secrets;
mod slow;
mod stopping;
mod strict;
mod unix_socket;
mod upstream_tls;
mod websocket;
