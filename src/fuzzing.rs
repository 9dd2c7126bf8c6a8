//! The readers of what others send, without sockets and files, for `fuzz/` and `tests/fuzz_corpus.rs`. Not an interface: it
//! changes with what it opens. What has to hold is said there; here nothing is checked.

pub use crate::{
    config::fuzzing::{Loaded, Told, load},
    ims::fuzzing::answer,
    proxy::fuzzing::{
        Answered, Forwarded, Framed, Question, Route, Unchunked, answered, forwarded, names, renamed,
        trailers, unchunked,
    },
    steps::of as steps,
};
