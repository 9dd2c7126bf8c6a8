//! What fuzzing has found worth keeping still holds: every file of `fuzz/corpus-kept/`, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library of its own")]
mod fuzz;

use std::{fs, path::Path};

#[test]
fn documents_are_read_or_refused_and_never_shown() {
    replay("credentials", fuzz::credentials::check);
}

#[test]
fn answers_of_ims_bring_a_grant_or_say_what_to_do() {
    replay("ims", fuzz::ims::check);
}

#[test]
fn a_configuration_that_is_printed_says_the_same_when_it_is_read() {
    replay("config", fuzz::config::check);
}

#[test]
fn requests_reach_aem_with_one_meaning() {
    replay("requests", fuzz::requests::check);
}

#[test]
fn responses_reach_the_client_with_one_meaning() {
    replay("responses", fuzz::responses::check);
}

#[test]
fn links_in_json_are_renamed_as_the_plainest_reader_would() {
    replay("links", fuzz::links::check);
}

#[test]
fn no_spelling_of_a_path_gets_past_a_policy() {
    replay("paths", fuzz::paths::check);
}

#[expect(clippy::print_stderr, clippy::unwrap_used, reason = "this is a test")]
fn replay(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus-kept").join(target);
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in &files {
        let input = fs::read(file).unwrap();
        // The name of the file that fails stands before the panic's message.
        eprintln!("{}", file.display());
        check(&input);
    }
    assert!(files.len() >= 10, "found {files:?}");
}
