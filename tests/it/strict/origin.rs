//! An AEM that writes down every byte it gets, and answers what the strict reading finds in them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::oracle::{End, Request, read};

pub struct Origin {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The bytes of each connection.
    connections: Vec<Vec<u8>>,
    /// Every whole request, in the order of their coming.
    requests: Vec<Request>,
}

impl Origin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&all)));
            }
        });
        Self { addr, seen }
    }

    /// How many requests there were.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().requests.len()
    }

    /// Those from the one with this number on.
    pub fn since(&self, number: usize) -> Vec<Request> {
        self.seen.lock().unwrap().requests[number..].to_vec()
    }

    /// Reads all connections once more: whole requests, and at the end a part of one at most. How many there were.
    pub fn assert_strict(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        let mut requests = 0;
        for bytes in &seen.connections {
            let reading = read(bytes);
            assert!(!matches!(reading.end, End::Broken(_)), "{:?}: {}", reading.end, bytes.escape_ascii());
            requests += reading.requests.len();
        }
        assert_eq!(requests, seen.requests.len());
        requests
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.connections.push(Vec::new());
        seen.connections.len() - 1
    };
    let (mut bytes, mut answered, mut continued) = (Vec::new(), 0, 0);
    loop {
        let before = bytes.len();
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
        seen.lock().unwrap().connections[number].extend_from_slice(&bytes[before..]);
        let reading = read(&bytes);
        if reading.expects && continued <= answered {
            continued = answered + 1;
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        while let Some((request, _)) = reading.requests.get(answered) {
            let count = {
                let mut seen = seen.lock().unwrap();
                seen.requests.push(request.clone());
                seen.requests.len()
            };
            answered += 1;
            // Each answer tells which request it is for.
            let text = format!("request {count}");
            let body = if request.method == "HEAD" { "" } else { &text };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", text.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
