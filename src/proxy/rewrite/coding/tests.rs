use std::{io::Write, sync::Arc};

use flate2::{
    Compression, GzBuilder,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use proptest::prelude::*;

use super::*;
use crate::proxy::rewrite::{
    Members,
    tests::{
        documents::{LOCAL, UPSTREAM},
        origin, settings,
    },
};

const BUDGET: usize = 4096;

fn rewriter(coding: Coding) -> Rewriter {
    Rewriter::new(coding, Links::new(Members::ALL, Arc::new(origin(UPSTREAM)), LOCAL.as_bytes()))
}

/// All that comes out when `chunks` go in, with never more out at a time than was asked for, and what is held.
fn rewrite<'c>(
    coding: Coding,
    chunks: impl IntoIterator<Item = &'c [u8]>,
    budget: usize,
) -> Result<Vec<u8>, CodingError> {
    let mut rewriter = rewriter(coding);
    let mut out = Vec::new();
    for chunk in chunks {
        rewriter.push(chunk);
        assert_eq!(run(&mut rewriter, budget, &mut out)?, Progress::Starved);
        assert!(rewriter.pending.is_empty());
    }
    rewriter.end();
    assert_eq!(run(&mut rewriter, budget, &mut out)?, Progress::Done);
    Ok(out)
}

fn run(rewriter: &mut Rewriter, budget: usize, out: &mut Vec<u8>) -> Result<Progress, CodingError> {
    loop {
        let before = out.len();
        let progress = rewriter.advance(budget, &mut |bytes| out.extend_from_slice(bytes))?;
        // What was held, and local origins that are longer than AEM's.
        assert!(out.len() - before <= 2 * budget + 100, "{} bytes at once", out.len() - before);
        if progress != Progress::More {
            return Ok(progress);
        }
    }
}

/// How a body can be coded.
#[derive(Debug, Clone, Copy)]
enum Coder {
    Identity,
    Gzip,
    GzipMembers,
    GzipHeader,
    Zlib,
    Raw,
}

const CODERS: &[Coder] =
    &[Coder::Identity, Coder::Gzip, Coder::GzipMembers, Coder::GzipHeader, Coder::Zlib, Coder::Raw];

impl Coder {
    fn coding(self) -> Coding {
        match self {
            Self::Identity => Coding::Identity,
            Self::Gzip | Self::GzipMembers | Self::GzipHeader => Coding::Gzip,
            Self::Zlib | Self::Raw => Coding::Deflate,
        }
    }

    fn code(self, body: &[u8]) -> Vec<u8> {
        let level = Compression::default();
        match self {
            Self::Identity => body.to_vec(),
            Self::Gzip => written(GzEncoder::new(Vec::new(), level), body, GzEncoder::finish),
            Self::GzipMembers => {
                let (first, second) = body.split_at(body.len() / 2);
                [Self::Gzip.code(first), Self::Gzip.code(b""), Self::GzipHeader.code(second)].concat()
            }
            Self::GzipHeader => {
                let header = GzBuilder::new().filename("a.json").comment("c").extra(&b"extra"[..]);
                with_header_sum(&written(header.write(Vec::new(), level), body, GzEncoder::finish))
            }
            Self::Zlib => written(ZlibEncoder::new(Vec::new(), level), body, ZlibEncoder::finish),
            Self::Raw => written(DeflateEncoder::new(Vec::new(), level), body, DeflateEncoder::finish),
        }
    }
}

fn written<W: Write>(mut coder: W, body: &[u8], finish: fn(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    coder.write_all(body).unwrap();
    finish(coder).unwrap()
}

/// Adds the header's sum, which flate2 does not write, behind the comment `c`.
fn with_header_sum(gzip: &[u8]) -> Vec<u8> {
    let end = gzip.windows(3).position(|bytes| bytes == b"\0c\0").unwrap() + 3;
    let mut gzip = gzip.to_vec();
    gzip[3] |= 1 << 1;
    gzip.splice(end..end, [1, 2]);
    gzip
}

/// A body of about `size` bytes with `url` in its middle.
fn body(url: &str, size: usize) -> String {
    let filler: String = (0..size / 2).map(|at| char::from(b'a' + (at * at % 23) as u8)).collect();
    format!(r#"{{"x":"{filler}","completeURI":"{url}/content/dam","y":"{filler}"}}"#)
}

const URLS: &[(&str, &str)] = &[
    (UPSTREAM, LOCAL),
    (r"https:\/\/aem.example", r"http:\/\/localhost:8080"),
    (r"https\u003a\u002f\u002faem.example:443", r"http\u003a\u002f\u002flocalhost\u003a8080"),
    ("https://aem.example.evil.com", "https://aem.example.evil.com"),
];

#[test]
fn a_url_is_renamed_in_every_coding_wherever_it_is_cut() {
    for (coder, (url, local)) in CODERS.iter().flat_map(|coder| URLS.iter().map(move |url| (coder, url))) {
        let coded = coder.code(body(url, 20).as_bytes());
        let expected = body(local, 20);
        for cut in 0..=coded.len() {
            let (start, end) = coded.split_at(cut);
            let renamed = rewrite(coder.coding(), [start, end], BUDGET).unwrap();
            assert_eq!(String::from_utf8(renamed).unwrap(), expected, "{coder:?}, cut at {cut}");
        }
        for budget in 1..=expected.len() {
            let renamed = rewrite(coder.coding(), coded.chunks(7), budget).unwrap();
            assert_eq!(String::from_utf8(renamed).unwrap(), expected, "{coder:?}, {budget} at a time");
        }
    }
}

proptest! {
    #![proptest_config(settings(64))]

    #[test]
    fn a_body_of_any_size_is_renamed_in_every_coding(
        coder in prop::sample::select(CODERS),
        (url, local) in prop::sample::select(URLS),
        size in prop_oneof![0..200_usize, 200..100_000_usize],
        chunk in prop_oneof![1..50_usize, 50..70_000_usize],
        budget in prop_oneof![100..1000_usize, 1000..200_000_usize],
    ) {
        let coded = coder.code(body(url, size).as_bytes());
        let renamed = rewrite(coder.coding(), coded.chunks(chunk), budget).unwrap();
        prop_assert!(renamed == body(local, size).as_bytes());
    }

    #[test]
    fn any_bytes_are_refused_or_decoded_in_portions(
        coding in prop::sample::select(&[Coding::Gzip, Coding::Deflate]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = rewrite(coding, [&bytes[..]], BUDGET);
    }
}

#[test]
fn one_wrong_bit_is_noticed_where_there_is_a_sum() {
    let body = body(UPSTREAM, 100);
    let whole = body.replace(UPSTREAM, LOCAL).into_bytes();
    for coder in [Coder::Gzip, Coder::GzipMembers, Coder::Zlib] {
        let coded = coder.code(body.as_bytes());
        for bit in 0..8 * coded.len() {
            let mut wrong = coded.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            // Some bits of a header say nothing that matters: then nothing is lost.
            let renamed = rewrite(coder.coding(), [&wrong[..]], BUDGET);
            assert!(renamed.as_ref().map_or(true, |renamed| *renamed == whole), "{coder:?}, bit {bit}");
        }
    }
}

#[test]
fn a_body_that_breaks_off_is_never_whole() {
    for coder in CODERS.iter().filter(|coder| !matches!(coder, Coder::Identity)) {
        let coded = coder.code(body(UPSTREAM, 200).as_bytes());
        for length in 1..coded.len() {
            let broken = rewrite(coder.coding(), [&coded[..length]], BUDGET);
            if matches!(coder, Coder::GzipMembers) && broken.is_ok() {
                // Between two members nobody can tell.
                assert!(coded[length..].starts_with(&[0x1f, 0x8b]), "{length}");
            } else {
                assert_eq!(broken, Err(CodingError::Truncated), "{coder:?}, {length} bytes");
            }
        }
    }
}

#[test]
fn something_behind_the_end_is_refused() {
    for coder in CODERS.iter().filter(|coder| !matches!(coder, Coder::Identity)) {
        let coded = coder.code(b"{}");
        for behind in [&b"\0"[..], b"garbage"] {
            let together = [&coded[..], behind].concat();
            assert_eq!(
                rewrite(coder.coding(), [&together[..]], BUDGET),
                Err(CodingError::Broken),
                "{coder:?}"
            );
            assert_eq!(
                rewrite(coder.coding(), [&coded[..], behind], BUDGET),
                Err(CodingError::Broken),
                "{coder:?}"
            );
        }
    }
}

#[test]
fn wrong_sums_sizes_and_headers_are_refused() {
    let coded = Coder::Gzip.code(b"{}");
    for at in [0, 1, 2, coded.len() - 8, coded.len() - 1] {
        let mut broken = coded.clone();
        broken[at] ^= 0x10;
        assert_eq!(rewrite(Coding::Gzip, [&broken[..]], BUDGET), Err(CodingError::Broken), "byte {at}");
    }
    let mut reserved = coded;
    reserved[3] = 0x20;
    assert_eq!(rewrite(Coding::Gzip, [&reserved[..]], BUDGET), Err(CodingError::Broken));
}

#[test]
fn no_bytes_are_an_empty_body() {
    for coder in CODERS {
        assert_eq!(rewrite(coder.coding(), [], BUDGET), Ok(Vec::new()), "{coder:?}");
        assert_eq!(rewrite(coder.coding(), [&coder.code(b"")[..]], BUDGET), Ok(Vec::new()), "{coder:?}");
    }
}

#[test]
fn what_has_come_goes_out_before_more_comes() {
    let body = body(UPSTREAM, 100_000);
    let mut coder = GzEncoder::new(Vec::new(), Compression::default());
    coder.write_all(body.as_bytes()).unwrap();
    coder.flush().unwrap();
    let mut rewriter = rewriter(Coding::Gzip);
    let mut out = Vec::new();
    rewriter.push(coder.get_ref());
    assert_eq!(run(&mut rewriter, BUDGET, &mut out), Ok(Progress::Starved));
    assert_eq!(out, body.replace(UPSTREAM, LOCAL).as_bytes());
}

#[test]
fn a_bomb_goes_off_in_small_portions() {
    for (coder, size_mib) in [(Coder::Gzip, 64), (Coder::Zlib, 4)] {
        let mut bomb = vec![b'x'; size_mib * 1024 * 1024];
        bomb[0] = b'"';
        let coded = coder.code(&bomb);
        assert!(coded.len() < 80 * 1024, "{}", coded.len());
        let mut rewriter = rewriter(coder.coding());
        rewriter.push(&coded);
        rewriter.end();
        let (mut total, mut portions) = (0, 0);
        loop {
            let mut portion = 0;
            let progress = rewriter.advance(BUDGET, &mut |bytes| portion += bytes.len()).unwrap();
            assert!(portion <= BUDGET);
            total += portion;
            portions += 1;
            if progress == Progress::Done {
                break;
            }
        }
        assert_eq!((total, portions), (bomb.len(), bomb.len() / BUDGET + 1), "{coder:?}");
    }
}

#[test]
fn codings_are_known_by_name() {
    for (value, coding) in [
        ("", Some(Coding::Identity)),
        ("identity", Some(Coding::Identity)),
        ("gzip", Some(Coding::Gzip)),
        ("GZip ", Some(Coding::Gzip)),
        ("x-gzip", Some(Coding::Gzip)),
        ("deflate", Some(Coding::Deflate)),
        ("br", None),
        ("zstd", None),
        ("compress", None),
        ("gzip, br", None),
        ("gzip,", None),
        ("identity, gzip", None),
    ] {
        assert_eq!(Coding::of(value.as_bytes()), coding, "{value}");
    }
}
