//! The attacks: which there are, and what the proxy needs for each.

mod admin;
mod client_http1;
mod client_http2;
mod process;
mod upstream;

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    harness::proxy::{Launch, Output},
    origin,
    target::Target,
};

/// The attack, running.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The upstream of the proxy's second listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    /// There is none.
    None,
    /// The origin, over HTTP/2.
    Http2,
    /// A name that cannot be resolved.
    Unresolvable,
}

/// One attack.
pub struct Attack {
    /// Its name on the command line and in the table.
    pub name: &'static str,
    /// What it does, for the table.
    pub about: &'static str,
    /// Whether it belongs to the short form.
    pub is_short: bool,
    /// Whether the listeners speak TLS.
    pub is_tls: bool,
    /// The second listener.
    pub second: Second,
    /// An innocent client may be answered 503: the attack takes all of something that is counted.
    pub may_refuse: bool,
    /// How many exchanges at IMS it may cause; none is any number.
    pub exchanges_max: Option<usize>,
    /// How many lines of the log it may cause; none is any number.
    pub log_lines_max: Option<usize>,
    /// The process may have no more threads than before the attack.
    pub limits_threads: bool,
    /// What the proxy is started with.
    pub setup: fn(&mut Launch),
    /// Attacks until the target's end.
    pub run: fn(Arc<Target>) -> Running,
}

macro_rules! attack {
    ($name:literal, $about:literal, $run:expr $(, $field:ident = $value:expr)* $(,)?) => {
        Attack {
            $($field: $value,)*
            ..Attack::plain($name, $about, |target| Box::pin($run(target)))
        }
    };
}

impl Attack {
    const fn plain(name: &'static str, about: &'static str, run: fn(Arc<Target>) -> Running) -> Self {
        Self {
            name,
            about,
            is_short: false,
            is_tls: false,
            second: Second::None,
            may_refuse: false,
            exchanges_max: None,
            log_lines_max: None,
            limits_threads: false,
            setup: |_| {},
            run,
        }
    }

    /// All of them, in the order of the table.
    pub fn all() -> Vec<Self> {
        let mut all = http1();
        all.extend(http2());
        all.extend(answers());
        all.extend(counts());
        all.extend(process_wide());
        all
    }
}

fn http1() -> Vec<Attack> {
    use client_http1 as http1;
    vec![
        attack!(
            "half-heads",
            "2,000 heads of 60 KiB that do not end",
            |t| http1::half_heads(t, 2000),
            is_short = true
        ),
        attack!("half-heads-fields", "1,000 heads of 12,000 short fields that do not end", |t| {
            http1::half_heads_of_fields(t, 1000)
        }),
        attack!(
            "half-heads-dripped",
            "500 heads of 30 KiB that grow by a byte at a time",
            http1::dripped_heads
        ),
        attack!("h1-unread", "500 connections that do not read an answer of 16 MiB", |t| {
            http1::unread(t, 500, "/large")
        }),
        attack!("h1-unread-1000", "1,000 of them", |t| http1::unread(t, 1000, "/large")),
        attack!("h1-unread-json", "500 that do not read JSON whose links are rewritten", |t| {
            http1::unread(t, 500, "/api/assets/large.json")
        }),
        attack!("h1-slow-readers", "500 that read 300 bytes in a second", http1::slow_readers),
        attack!("h1-pipelined", "100 connections with 1,000 requests each, no answer read", http1::pipelined),
        attack!(
            "h1-kept-bodies",
            "2,000 POSTs of 60 KiB that AEM does not answer",
            |t| http1::kept_bodies(t, 2000),
            is_short = true
        ),
        attack!(
            "h1-stalled-uploads",
            "300 uploads without end to an AEM that does not read",
            |t| http1::endless_uploads(t, 300, "/no-read"),
            // The end of such a client cannot be seen: its FIN stands behind what is not read. This limit ends it.
            setup = |launch| launch.set("timeouts.idle", "20s")
        ),
        attack!(
            "h1-chunk-extensions",
            "50 uploads whose chunk extension does not end",
            http1::chunk_extensions
        ),
        attack!("h1-trailers", "50 uploads whose trailers do not end", http1::trailers),
        attack!("h1-tiny-chunks", "50 uploads in chunks of one byte", http1::tiny_chunks),
        attack!("h1-churn", "50 clients that connect, send a head and reset", http1::churn),
        attack!(
            "tls-unread",
            "200 TLS connections that do not read an answer of 16 MiB",
            |t| { http1::unread(t, 200, "/large") },
            is_tls = true
        ),
        attack!(
            "tls-half-hello",
            "500 TLS handshakes that stop in the ClientHello",
            http1::half_hello,
            is_tls = true
        ),
        attack!(
            "tls-unfinished",
            "500 TLS handshakes that stop after the ServerHello",
            http1::unfinished_handshakes,
            is_tls = true,
            is_short = true
        ),
        attack!(
            "tls-handshakes",
            "50 clients that finish handshakes and leave",
            http1::handshakes,
            is_tls = true
        ),
        attack!("websockets-unread", "500 upgraded connections that do not read", http1::websockets),
        attack!(
            "long-connection-field",
            "50 clients with heads of 31,000 Connection members",
            http1::connection_members
        ),
    ]
}

fn http2() -> Vec<Attack> {
    use client_http2 as http2;
    const REFERENCES: &str = "GET";
    vec![
        attack!(
            "h2-references",
            "24 connections x 128 heads of 1-byte references to 4 KB entries",
            |t| { http2::references(t, 24, http2::References::Dynamic, REFERENCES) },
            is_short = true
        ),
        attack!("h2-references-100", "100 such connections", |t| {
            http2::references(t, 100, http2::References::Dynamic, REFERENCES)
        }),
        attack!("h2-references-static", "24 x 128 heads of 1,300 references to an empty static field", |t| {
            http2::references(t, 24, http2::References::Static, REFERENCES)
        }),
        attack!("h2-references-small", "24 x 128 heads of 1,800 references to a 1-byte field", |t| {
            http2::references(t, 24, http2::References::Small, REFERENCES)
        }),
        attack!("h2-references-over", "24 x 128 heads of references beyond any limit", |t| {
            http2::references(t, 24, http2::References::Beyond, REFERENCES)
        }),
        attack!("h2-references-continued", "the same, each head in three frames", |t| {
            http2::references(t, 24, http2::References::Continued, REFERENCES)
        }),
        attack!("h2-cookie-crumbs", "24 x 128 heads with 1,300 Cookie fields", |t| {
            http2::references(t, 24, http2::References::Cookies, REFERENCES)
        }),
        attack!(
            "h2-trailers",
            "24 x 128 uploads whose trailers are references to 4 KB entries",
            http2::trailers
        ),
        attack!(
            "h2-unfinished-heads",
            "300 connections whose field block of 60 KiB does not end",
            http2::unfinished_heads
        ),
        attack!("h2-endless-continuation", "20 connections whose CONTINUATION frames do not end", |t| {
            http2::continuation(t, 16_000)
        }),
        attack!("h2-empty-continuation", "20 connections with empty CONTINUATION frames", |t| {
            http2::continuation(t, 0)
        }),
        attack!(
            "h2-unread-40",
            "40 connections x 128 answers of 16 MiB, windows open, none read",
            |t| { http2::unread(t, 40, "/large") },
            is_short = true
        ),
        attack!("h2-unread-60", "60 such connections", |t| http2::unread(t, 60, "/large")),
        attack!("h2-unread-small-window", "40 x 128 answers behind windows of 0", |t| {
            http2::unread_window(t, 40, "/large", 0)
        }),
        attack!("h2-unread-own-errors", "100 x 128 refused requests, answers not read", |t| {
            http2::unread(t, 100, "/etc/../x")
        }),
        attack!("tls-h2-unread", "40 x 128 over TLS", |t| http2::unread(t, 40, "/large"), is_tls = true),
        attack!("h2-waiting", "100 connections x 128 GETs that AEM does not answer", |t| http2::waiting(
            t, 100
        )),
        attack!("h2-stalled-uploads", "40 connections x 128 uploads that AEM does not read", |t| {
            http2::uploads(t, 40, "/no-read", 1 << 14)
        }),
        attack!("h2-kept-bodies", "40 connections x 128 POSTs that AEM reads and does not answer", |t| {
            http2::uploads(t, 40, "/sink", 1 << 14)
        }),
        attack!("h2-tiny-data", "8 connections x 128 uploads in DATA frames of one byte", |t| {
            http2::tiny_data(t, false)
        }),
        attack!("h2-tiny-data-stalled", "the same to an AEM that does not read", |t| {
            http2::uploads(t, 8, "/no-read", 1)
        }),
        attack!("h2-tiny-data-unknown", "the same with unknown frames of 16 KiB between them", |t| {
            http2::tiny_data(t, true)
        }),
        attack!("h2-empty-data", "8 connections with empty DATA frames", http2::empty_data),
        attack!("h2-padded-data", "8 x 128 uploads of DATA frames that are padding alone", http2::padding),
        attack!("h2-rapid-reset", "8 connections that open and reset streams", http2::rapid_reset),
        attack!(
            "h2-rapid-reset-batched",
            "8 connections that open 100 streams, then reset them",
            http2::batched_reset
        ),
        attack!("h2-ping", "8 connections that flood PING and read nothing", |t| http2::control(
            t,
            http2::Control::Ping
        )),
        attack!("h2-settings", "8 connections that flood SETTINGS and read nothing", |t| {
            http2::control(t, http2::Control::Settings)
        }),
        attack!("h2-settings-windows", "8 connections that move 128 windows by SETTINGS", |t| {
            http2::control(t, http2::Control::Windows)
        }),
        attack!("h2-priority", "8 connections that flood PRIORITY", |t| http2::control(
            t,
            http2::Control::Priority
        )),
        attack!("h2-window-update", "8 connections that flood WINDOW_UPDATE of one byte", |t| {
            http2::control(t, http2::Control::WindowUpdate)
        }),
        attack!(
            "h2-churn",
            "20 clients that open 128 streams, reset the connection and come again",
            http2::churn
        ),
        attack!("h2-idle", "2,000 HTTP/2 connections without a stream", http2::idle),
        attack!(
            "h2-long-paths",
            "52 GETs of long ambiguous paths on one connection",
            |t| { http2::long_paths(t, "1.") },
            is_short = true
        ),
        attack!("h2-long-paths-letters", "the same, /etc.a.a.a", |t| http2::long_paths(t, "a.")),
        attack!("h2-long-paths-quotes", "the same, ='...;", |t| http2::long_paths(t, "=';")),
        attack!("h2-long-paths-brackets", "the same, [[[...]]]", |t| http2::long_paths(t, "[")),
        attack!("h2-long-paths-coded", "the same, coded several times", |t| http2::long_paths(
            t,
            "%252e%252e%252f;"
        )),
        attack!("h2-long-queries", "the same, a query of parameters", |t| http2::long_paths(
            t,
            "x.html?a=%2fetc&"
        )),
    ]
}

fn answers() -> Vec<Attack> {
    vec![
        attack!(
            "upstream-h2-unread",
            "40 x 128 answers of 16 MiB over HTTP/2 on both sides, none read",
            |t| { upstream::unread(t, 40, "/large") },
            second = Second::Http2,
            is_short = true
        ),
        attack!(
            "upstream-h2-unread-h1",
            "500 HTTP/1.1 connections, AEM over HTTP/2",
            |t| { upstream::unread_http1(t, 500) },
            second = Second::Http2
        ),
        attack!(
            "upstream-h2-fields",
            "40 x 128 answers of 200 fields over HTTP/2",
            |t| { upstream::unread(t, 40, "/many-fields") },
            second = Second::Http2
        ),
        attack!(
            "upstream-h2-references",
            "24 x 128 answers over HTTP/2 with 14 fields of 4 KB, not read",
            |t| { upstream::unread(t, 24, "/large-fields") },
            second = Second::Http2
        ),
        attack!(
            "gzip-bombs",
            "500 answers of gzip that become 64 MiB, not read",
            |t| { client_http1::unread(t, 500, "/api/assets/gzip.json") },
            is_short = true,
            setup = |_| origin::make_bombs()
        ),
        attack!(
            "gzip-bombs-read",
            "50 clients that read them",
            |t| client_http1::read(t, 50, "/api/assets/gzip.json"),
            setup = |_| origin::make_bombs()
        ),
        attack!(
            "deflate-bombs",
            "500 answers of deflate that become 64 MiB, not read",
            |t| { client_http1::unread(t, 500, "/api/assets/deflate.json") },
            setup = |_| origin::make_bombs()
        ),
        attack!(
            "brotli-unasked",
            "100 answers of brotli, which was not asked for",
            |t| { client_http1::unread(t, 100, "/api/assets/brotli.json") },
            is_short = true,
            setup = |_| origin::make_bombs()
        ),
        attack!(
            "brotli-unasked-h2",
            "8 x 128 such answers over HTTP/2",
            |t| { client_http2::unread(t, 8, "/api/assets/brotli.json") },
            setup = |_| origin::make_bombs()
        ),
        attack!("aem-half-heads", "1,000 answers whose head of 60 KiB does not end", |t| {
            client_http1::unread(t, 1000, "/half-head")
        }),
        attack!("aem-half-heads-h2", "24 x 128 of them over HTTP/2", |t| client_http2::unread(
            t,
            24,
            "/half-head"
        )),
        attack!("aem-many-fields", "500 answers with 15,000 fields, not read", |t| {
            client_http1::unread(t, 500, "/many-fields")
        }),
        attack!("aem-many-fields-h2", "24 x 128 of them over HTTP/2", |t| client_http2::unread(
            t,
            24,
            "/many-fields"
        )),
        attack!("aem-endless-head", "50 answers whose head does not end", |t| {
            client_http1::read(t, 50, "/endless-head")
        }),
        attack!("aem-endless-interim", "50 answers of interim heads without end", |t| {
            client_http1::read(t, 50, "/endless-interim")
        }),
        attack!("aem-endless-trailers", "50 answers whose trailers do not end", |t| {
            client_http1::read(t, 50, "/endless-trailers")
        }),
        attack!("aem-endless-extension", "50 answers whose chunk extension does not end", |t| {
            client_http1::read(t, 50, "/endless-extension")
        }),
        attack!("aem-tiny-chunks", "50 answers in chunks of one byte", |t| client_http1::read(
            t,
            50,
            "/tiny-chunks"
        )),
        attack!("aem-tiny-chunks-h2", "8 x 128 of them over HTTP/2, not read", |t| {
            client_http2::unread(t, 8, "/tiny-chunks")
        }),
    ]
}

fn counts() -> Vec<Attack> {
    vec![
        attack!(
            "descriptors-1024",
            "10 HTTP/2 connections x 128 waiting GETs, 1,024 descriptors",
            |t| { client_http2::waiting(t, 10) },
            may_refuse = true,
            setup = |launch| launch.open_files = Some((1024, 1024)),
            is_short = true
        ),
        attack!(
            "descriptors-256",
            "the same with 256 descriptors",
            |t| client_http2::waiting(t, 10),
            may_refuse = true,
            setup = |launch| launch.open_files = Some((256, 256))
        ),
        attack!(
            "descriptors-idle",
            "1,500 idle connections, 1,024 descriptors",
            |t| client_http1::idle(t, 1500),
            setup = |launch| launch.open_files = Some((1024, 1024))
        ),
        attack!(
            "descriptors-waiting",
            "1,500 waiting GETs over HTTP/1.1, 1,024 descriptors",
            client_http1::waiting,
            may_refuse = true,
            setup = |launch| launch.open_files = Some((1024, 1024))
        ),
        attack!(
            "descriptors-admin",
            "1,500 idle connections at the admin listener, 1,024 descriptors",
            |t| { admin::idle(t, 1500) },
            setup = |launch| launch.open_files = Some((1024, 1024))
        ),
        attack!("idle-10000", "9,900 idle connections", |t| client_http1::idle(t, 9900)),
        attack!(
            "unresolvable",
            "500 requests at once for a name that does not resolve",
            upstream::unresolvable,
            second = Second::Unresolvable
        ),
        attack!(
            "unresolvable-threads",
            "the same in a control group with no thread more than when idle",
            upstream::unresolvable,
            second = Second::Unresolvable,
            limits_threads = true
        ),
        attack!(
            "admin-half-heads",
            "1,000 half heads of 60 KiB at the admin listener",
            |t| { admin::half_heads(t, 1000) },
            is_short = true
        ),
        attack!("admin-unread", "200 admin connections that ask for metrics and do not read", admin::unread),
        attack!("admin-idle", "2,000 idle connections at the admin listener", |t| admin::idle(t, 2000)),
    ]
}

/// One account holds for all kinds of memory together.
async fn combined(target: Arc<Target>) {
    tokio::join!(
        client_http1::half_heads(Arc::clone(&target), 500),
        client_http1::unread(Arc::clone(&target), 200, "/large"),
        client_http1::unread(Arc::clone(&target), 200, "/api/assets/gzip.json"),
        client_http1::kept_bodies(Arc::clone(&target), 500),
        client_http2::references(Arc::clone(&target), 10, client_http2::References::Dynamic, "GET"),
        client_http2::unread(Arc::clone(&target), 20, "/large"),
        admin::half_heads(target, 200),
    );
}

fn process_wide() -> Vec<Attack> {
    fn debug(launch: &mut Launch, output: Output) {
        launch.output = output;
        launch.set("log.level", "debug");
    }
    vec![
        attack!(
            "combined",
            "half heads, unread answers, bombs, kept bodies and HTTP/2 at the same time",
            combined,
            is_short = true,
            setup = |_| origin::make_bombs()
        ),
        attack!(
            "log-reader-gone",
            "failing requests while the log's reader is gone",
            process::failing,
            setup = |launch| debug(launch, Output::ReaderGone),
            is_short = true
        ),
        attack!(
            "log-unread",
            "failing requests while the log's pipe is full",
            process::failing,
            setup = |launch| debug(launch, Output::Unread),
            is_short = true
        ),
        attack!(
            "log-full",
            "failing requests while the log is /dev/full",
            process::failing,
            setup = |launch| debug(launch, Output::Full)
        ),
        attack!(
            "log-lines",
            "failing requests, a log that works",
            process::failing,
            log_lines_max = Some(1000)
        ),
        attack!("sighup", "1,000 times SIGHUP", process::sighup, exchanges_max = Some(5), is_short = true),
        attack!("other-signals", "SIGUSR1, SIGUSR2, SIGALRM, SIGPIPE", process::other_signals),
    ]
}
