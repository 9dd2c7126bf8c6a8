//! One stream of requests has one reading, here and at AEM: an independent reader says which that is, and an AEM that writes
//! down every byte says what came of it.

mod answers;
mod mutations;
mod oracle;
pub mod origin;
mod requests;
mod responses;

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use self::{
    answers::{Answer, answers},
    oracle::{End, Request, read},
    origin::Origin,
    requests::corpus,
};
use crate::harness::{Proxy, Setup};

/// Longer than anything takes here that does not hang.
const BOUND: Duration = Duration::from_secs(15);

const GOOD: &[u8] = b"PUT /good HTTP/1.1\r\nhost: localhost\r\nx-good: yes\r\ncontent-length: 2\r\n\r\nok";

struct Strict {
    proxy: Proxy,
    origin: Origin,
    random: fastrand::Rng,
}

/// How a stream is sent.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    Bytes,
    Random,
}

impl Strict {
    async fn start() -> Self {
        let origin = Origin::start().await;
        // What is read is the subject here, and not what is judged.
        let setup = Setup::default().set("TIMEOUTS__REQUEST_HEAD", "5s").set("LIMITS__PATH", "64 KiB");
        let proxy = setup.upstream(format!("http://{}", origin.addr)).start().await;
        Self { proxy, origin, random: fastrand::Rng::with_seed(9112) }
    }

    /// Sends a stream, and compares what AEM saw with what a strict reading allows; the statuses of the answers.
    async fn check(&mut self, stream: &[u8], cut: Cut) -> Vec<u16> {
        let shown = stream[..stream.len().min(400)].escape_ascii();
        let context = format!("{cut:?}: {shown}");
        let reading = read(stream);
        let before = self.origin.count();
        let talk = self.talk(stream, cut, &reading.requests, reading.end);
        let (answers, closed) = timeout(BOUND, talk).await.unwrap_or_else(|_| panic!("hangs: {context}"));
        let mut seen = self.origin.since(before).into_iter();
        let mut allowed = reading.requests.iter();
        let (mut refused, mut ended, mut number) = (false, false, before);
        for answer in &answers {
            assert!(!refused && !ended, "answered after a refusal: {context}");
            match answer.status {
                200 => {
                    let (expected, _) =
                        allowed.next().unwrap_or_else(|| panic!("an answer to nothing: {context}"));
                    assert_eq!(seen.next().as_ref(), Some(expected), "{context}");
                    number += 1;
                    let own = format!("request {number}");
                    let is_own = expected.method == "HEAD" || answer.body == own.as_bytes();
                    assert!(is_own, "another's answer: {context}");
                }
                // Where its end is known, and has come, the connection stays.
                403 => {
                    assert!(allowed.next().is_none_or(|(_, odd)| *odd), "forbidden: {context}");
                    ended = answer.closes;
                }
                400..=431 | 501 => {
                    assert!(answer.is_problem && answer.closes && closed, "{answer:?} {context}");
                    refused = true;
                }
                other => panic!("{other}: {context}"),
            }
        }
        assert_eq!(seen.next(), None, "AEM saw what nobody sent: {context}");
        assert!(!ended || closed, "still open: {context}");
        match (refused, allowed.next(), reading.end) {
            _ if ended => {}
            (true, Some((_, false)), _) => panic!("a plain request was refused: {answers:?} {context}"),
            (true, None, End::Whole) => panic!("nothing was refused: {answers:?} {context}"),
            (false, Some(_), _) => panic!("not answered: {answers:?} {context}"),
            (false, None, End::Broken(why)) => panic!("{why} was not refused: {answers:?} {context}"),
            _ => {}
        }
        answers.iter().map(|answer| answer.status).collect()
    }

    /// Sends a stream, and reads what comes back; and whether the connection has ended.
    async fn talk(
        &mut self,
        stream: &[u8],
        cut: Cut,
        allowed: &[(Request, bool)],
        end: End,
    ) -> (Vec<Answer>, bool) {
        let connection = self.proxy.connect().await.0;
        connection.set_nodelay(true).unwrap();
        let (mut read, mut write) = connection.into_split();
        let pieces = self.cut(stream, cut);
        let sending = tokio::spawn(async move {
            for piece in pieces {
                // Whoever was refused is not listened to.
                if write.write_all(&piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            write
        });
        let is_head =
            |number: usize| allowed.get(number).is_some_and(|(request, _)| request.method == "HEAD");
        let (mut bytes, mut closed) = (Vec::new(), false);
        while !closed && answers(&bytes, is_head).len() < allowed.len() {
            closed = !matches!(read.read_buf(&mut bytes).await, Ok(1..));
        }
        if !closed && end != End::Whole {
            let mut write = sending.await.unwrap();
            if end == End::Partial {
                let _ = write.shutdown().await;
            }
            closed = read.read_to_end(&mut bytes).await.is_ok();
        } else if !closed && answers(&bytes, is_head).last().is_some_and(|answer| answer.closes) {
            closed = read.read_to_end(&mut bytes).await.is_ok();
        }
        (answers(&bytes, is_head), closed)
    }

    fn cut(&mut self, stream: &[u8], cut: Cut) -> Vec<Vec<u8>> {
        match cut {
            Cut::Whole => vec![stream.to_vec()],
            Cut::Bytes if stream.len() < 2000 => stream.chunks(1).map(<[u8]>::to_vec).collect(),
            Cut::Bytes | Cut::Random => {
                let mut pieces = Vec::new();
                let mut rest = stream;
                while !rest.is_empty() {
                    let most = rest.len().min(40 + stream.len() / 20);
                    let (piece, behind) = rest.split_at(self.random.usize(1..=most));
                    pieces.push(piece.to_vec());
                    rest = behind;
                }
                pieces
            }
        }
    }
}

/// Whether these are the answers. Where a request is forbidden before its body has come, they end with that.
fn fits(answers: &[u16], expected: &[u16]) -> bool {
    answers == expected || (answers.ends_with(&[403]) && expected.starts_with(answers))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_of_the_corpus_has_one_reading_however_it_is_cut() {
    let mut strict = Strict::start().await;
    let cases = corpus();
    let bad = cases.iter().filter(|case| case.answers.iter().any(|status| *status != 200)).count();
    assert!(bad >= 200, "{bad}");
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for case in &cases {
        let shown = case.stream[..case.stream.len().min(400)].escape_ascii();
        for cut in [Cut::Whole, Cut::Bytes, Cut::Random] {
            let answers = strict.check(&case.stream, cut).await;
            assert!(fits(&answers, &case.answers), "{answers:?}, not {:?}, {cut:?}: {shown}", case.answers);
        }
        case.answers.iter().for_each(|status| *statuses.entry(*status).or_default() += 1);
    }
    let requests = strict.origin.assert_strict();
    println!(
        "{} streams, {bad} of them bad, each in three cuts: {statuses:?}; {requests} requests at AEM",
        cases.len()
    );
    strict.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_request_before_a_bad_stream_is_answered_and_none_behind_it() {
    let mut strict = Strict::start().await;
    for case in corpus() {
        let shown = case.stream[..case.stream.len().min(400)].escape_ascii();
        for cut in [Cut::Whole, Cut::Random] {
            let answers = strict.check(&[GOOD, &case.stream, GOOD].concat(), cut).await;
            // Behind a refusal nothing is read; what a good request becomes behind the others is known to the reader.
            let last = case.answers.last().is_some_and(|status| *status != 200);
            let expected = [&[200], &case.answers[..]].concat();
            let begun = &answers[..answers.len().min(expected.len())];
            assert!(fits(begun, &expected), "{answers:?} {cut:?}: {shown}");
            assert!(!last || begun == answers, "{answers:?} {cut:?}: {shown}");
        }
    }
    strict.origin.assert_strict();
    strict.proxy.stop().await;
}

#[tokio::test]
async fn a_request_that_ends_early_is_none() {
    let mut strict = Strict::start().await;
    let whole = [
        &b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello"[..],
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\ndigest: 1\r\n\r\n",
    ];
    for stream in whole {
        for end in 1..stream.len() {
            strict.check(&stream[..end], Cut::Whole).await;
        }
        assert_eq!(strict.check(stream, Cut::Whole).await, [200]);
    }
    assert_eq!(strict.origin.assert_strict(), 2);
    strict.proxy.stop().await;
}
