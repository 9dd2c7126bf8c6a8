//! The rooms put together, over real sockets: a real client, the proxy, the stand-in IMS and AEM or a raw socket.
//!
//! Everything logs at trace level into a [`log::Watch`]; every harness searches what was logged in its time for every
//! secret that its stand-ins know, and fails its test if one is there: see `docs/leak-test.md`.

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
mod crossing;
mod descriptors;
mod dns;
mod echoes;
mod edges;
mod egress;
mod egress_credentials;
mod engine;
mod forward;
mod guard;
mod guard_secret;
mod h2c;
mod harness;
mod http2;
mod http2_edges;
mod http2_responses;
mod kinds;
mod leaks;
mod listener_tls;
mod log;
mod many_fields;
mod matrix;
mod memory;
mod memory_budget;
mod misreadings;
mod named;
mod outage;
mod paths;
mod policies;
mod process;
mod reconnects;
mod refresh;
mod refusals;
mod reload;
mod renaming;
mod restarts;
mod rotation;
mod searching;
mod secrets;
mod slow;
mod stopping;
mod strict;
mod text_files;
mod threads;
mod tls_causes;
mod unix_socket;
mod upstream_tls;
mod websocket;
