//! The papers keep their word: every sample loads, and every key, variable, flag, metric and link in them is real.

#![expect(clippy::unwrap_used, reason = "clippy does not take the helpers of tests for tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aem_auth_proxy::{
    config::{
        Config, Sources, describe,
        keys::{self, KEYS, Key},
    },
    metrics::Metrics,
    policy::{self, Policy},
    token::Observer,
};

#[test]
fn every_sample_is_accepted() {
    let samples = files("config", "toml");
    for sample in &samples {
        let sources = Sources { file: Some(sample.clone()), ..Sources::default() };
        if let Err(error) = Config::load(&sources) {
            panic!("{error}");
        }
    }
    assert!(samples.len() >= 20, "found {samples:?}");
}

#[test]
fn every_configuration_within_the_papers_is_accepted() {
    let mut found = 0;
    for paper in papers() {
        let text = read(&paper);
        for toml in
            text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(toml, _)| toml)
        {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), toml).unwrap();
            let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
            if let Err(error) = Config::load(&sources) {
                panic!("{}: {error}", paper.display());
            }
            found += 1;
        }
    }
    assert!(found >= 5, "found {found}");
}

#[test]
fn the_complete_sample_has_every_key_with_its_default() {
    let path = root().join("config/complete.toml");
    let paths = values(&read(&path)).into_keys();
    let named: BTreeSet<_> =
        paths.map(|path| keys::find(&path).unwrap_or_else(|| panic!("{path} is no key")).name).collect();
    assert_eq!(named, KEYS.iter().map(|key| key.name).collect());

    let effective = |sources: Sources| values(&describe(&sources).unwrap_or_else(|error| panic!("{error}")));
    let defaults = effective(Sources::default());
    let sample = effective(Sources { file: Some(path), ..Sources::default() });
    for key in KEYS.iter().filter(|key| key.default.is_some()) {
        assert_eq!(sample[key.name], defaults[key.name], "{}", key.name);
    }
}

#[test]
fn the_documentation_has_every_key_and_no_other() {
    let help = help(&[]);
    let mut documented = BTreeSet::new();
    for row in key_rows("docs/configuration.md") {
        let key = check_row(&row, &help);
        let default = match key.default {
            Some("") => "`[]`".to_owned(),
            Some(default) => format!("`{default}`"),
            None if key.name == "upstream" => "required".to_owned(),
            None => "none".to_owned(),
        };
        assert_eq!(row[3], default, "{}", key.name);
        assert!(documented.insert(key.name), "{} stands there twice", key.name);
    }
    assert_eq!(documented, KEYS.iter().map(|key| key.name).collect());
}

#[test]
fn the_simple_form_of_the_readme_is_right() {
    let help = help(&[]);
    let rows = key_rows("README.md");
    rows.iter().for_each(|row| {
        check_row(row, &help);
    });
    assert!(rows.len() >= 10, "found {} rows", rows.len());
}

#[test]
fn every_variable_in_the_papers_is_one_that_the_program_reads() {
    let mut found = 0;
    for paper in papers() {
        let text = read(&paper);
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        for word in words.filter(|word| word.starts_with(keys::PREFIX) && !NO_KEYS.contains(word)) {
            let is_pattern = KEYS.iter().any(|key| key.variable() == word);
            let variables = [(word.into(), "x".into())].into_iter().collect();
            let is_read = || describe(&Sources { variables, ..Sources::default() }).is_ok();
            assert!(is_pattern || is_read(), "{}: {word}", paper.display());
            found += 1;
        }
    }
    assert!(found >= 40, "found {found}");
}

#[test]
fn every_flag_in_the_papers_is_one_that_the_program_has() {
    let known: String = COMMANDS.iter().map(|command| help(command)).collect();
    let mut found = 0;
    for paper in papers() {
        let is_markdown = paper.extension().is_some_and(|extension| extension == "md");
        let text = read(&paper);
        for line in text.lines().filter(|line| is_markdown || !line.trim_start().starts_with('#')) {
            // In Markdown other programs have flags, too; in YAML and in the Dockerfile's lists all are ours.
            let ours = match line.split_once("aem-auth-proxy ") {
                Some((_, arguments)) => arguments,
                None if is_markdown
                    || line.contains("COPY")
                    || line.contains("cargo")
                    || line.contains(".ci/release") =>
                {
                    continue;
                }
                None if line.trim_start().starts_with("HEALTHCHECK") => {
                    line.split_once("CMD").unwrap_or_default().1
                }
                None => line,
            };
            let words = ours.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
            for flag in words.filter(|word| {
                word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic))
            }) {
                assert!(
                    known.contains(&format!("{flag} ")) || known.contains(&format!("{flag}\n")),
                    "{line}"
                );
                found += 1;
            }
        }
    }
    assert!(found >= 20, "found {found}");
}

#[test]
fn the_documentation_has_every_metric_and_no_other() {
    let metrics = Metrics::new(aem_auth_proxy::memory::Memory::default()).unwrap();
    let proxy = metrics.proxy("default");
    drop(proxy.start("GET", tokio::time::Instant::now()));
    proxy.denied("host");
    metrics.upstream("default");
    let credential = metrics.credential("default", Some("other"));
    credential.certificate_expires_at(Some(1));
    credential.attempted("success");
    let rendered = metrics.render();
    let types = rendered.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let real: BTreeSet<_> = types.filter_map(|line| line.split_once(' ')).collect();

    let text = read(&root().join("docs/operations.md"));
    let rows: Vec<_> = rows(&text, "| name |").collect();
    let documented: BTreeSet<_> = rows.iter().map(|row| (row[0].trim_matches('`'), row[1])).collect();
    assert_eq!(documented, real);
    for row in &rows {
        for label in row[2].split(", ") {
            let label = format!("{}=\"", label.trim_matches('`'));
            assert!(rendered.contains(&label), "{}: {label}", row[0]);
        }
    }
}

#[test]
fn every_problem_in_the_documentation_is_one_of_ours() {
    let source = ["error.rs", "error/handshake.rs", "error/no_request.rs"]
        .map(|file| read(&root().join("src/proxy").join(file)));
    let source = source.concat();
    let text = read(&root().join("docs/troubleshooting.md"));
    let problems: Vec<_> = rows(&text, "| problem |").map(|row| row[0].trim_matches('`')).collect();
    for problem in &problems {
        assert!(source.contains(&format!("\"{problem}\"")), "{problem}");
    }
    assert!(problems.len() >= 20, "found {problems:?}");
}

#[test]
fn what_the_documentation_calls_closed_is_closed() {
    let text = read(&root().join("docs/policies.md"));
    let (_, closed) = text.split_once("## What is closed").unwrap();
    let (closed, _) = closed.split_once("\n#").unwrap();
    let policy = Policy::default();
    let judged = |path: &str| {
        policy::judge("POST", &policy::Path::of(path.as_bytes()), |_| &policy, || std::iter::once(&policy))
    };
    let mut found = 0;
    for row in rows(closed, "| path |") {
        // Every second piece stands in backticks.
        let names = row[0].split('`').skip(1).step_by(2);
        for name in names.filter(|name| name.starts_with('/') || name.starts_with("...")) {
            let path = name.replacen("...", "/libs/granite", 1);
            assert!(judged(&path).is_err() && judged(&format!("{path}/x")).is_err(), "{path}");
            found += 1;
        }
    }
    assert!(found >= 40, "found {found}");
    for open in ["/libs/granite/csrf/token.json", "/libs/granite/security/currentuser.json", "/system/health"]
    {
        assert_eq!(judged(open), Ok(()), "{open}");
    }
}

#[test]
fn every_message_in_the_documentation_is_one_that_the_program_logs() {
    let source: String = sources_below(&root().join("src")).iter().map(|file| read(file)).collect();
    let text = read(&root().join("docs/operations.md"));
    let mut found = 0;
    for row in rows(&text, "| message |") {
        for message in row[0].split("`, `") {
            let message = message.trim_matches('`');
            // The words of some messages end in others that are not always the same.
            let begin = message.strip_suffix(" ...").unwrap_or(message);
            assert!(source.contains(&format!("\"{begin}")), "{message}");
            found += 1;
        }
    }
    assert!(found >= 30, "found {found}");
}

#[test]
fn every_hint_in_the_documentation_begins_as_the_programs_own() {
    let source = read(&root().join("src/ims/error.rs"));
    let text = read(&root().join("docs/troubleshooting.md"));
    let hints: Vec<_> = rows(&text, "| hint |").map(|row| row[0]).collect();
    for hint in &hints {
        // A number stands within the words.
        for words in hint.trim_end_matches(" ...").split(" N ") {
            assert!(source.contains(words), "{hint}");
        }
    }
    assert!(hints.len() >= 15, "found {hints:?}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = 0;
    for paper in papers().iter().filter(|paper| paper.extension().is_some_and(|name| name == "md")) {
        let text = read(paper);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { paper.clone() } else { paper.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", paper.display());
            assert!(
                anchor.is_empty() || anchors(&read(&target)).contains(anchor),
                "{}: {link}",
                paper.display()
            );
            found += 1;
        }
    }
    assert!(found >= 10, "found {found}");
}

#[test]
fn every_test_that_the_papers_name_is_there() {
    let all = sources_below(&root().join("tests/it"));
    let mut named = 0;
    for paper in papers() {
        let text = read(&paper);
        let words = text.split('`').skip(1).step_by(2);
        let is_name =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        for (file, test) in words.filter_map(|word| word.split_once("::")) {
            // A whole file of tests is named as `slow::*`.
            if !is_name(file) || !(is_name(test) && test.contains('_')) && test != "*" {
                continue;
            }
            let sources = all.iter().filter(|path| path.ends_with(format!("it/{file}.rs")));
            let functions = sources.filter(|path| test == "*" || read(path).contains(&format!("fn {test}(")));
            assert_eq!(functions.count(), 1, "{}: `{file}::{test}`", paper.display());
            named += 1;
        }
    }
    assert!(named > 20, "the threat model names tests: {named}");
}

/// Whoever is started inherits the environment, and with it what secrets are in it.
#[test]
fn the_program_starts_no_other() {
    let is_test = |file: &PathBuf| file.file_name().is_some_and(|name| name == "tests.rs");
    let files: Vec<_> =
        sources_below(&root().join("src")).into_iter().filter(|file| !is_test(file)).collect();
    for file in &files {
        let text = read(file);
        assert!(!text.contains("process::Command") && !text.contains(".exec("), "{}", file.display());
    }
    assert!(files.len() > 100, "found {}", files.len());
}

/// The key of a row, whose variable and flag have to be right.
#[track_caller]
fn check_row(row: &[&str], help: &str) -> &'static Key {
    let name = row[0].trim_matches('`');
    let key = KEYS.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{name} is no key"));
    assert_eq!(row[1], format!("`{}`", key.variable()), "{}", key.name);
    let flag = format!("--{}", key.name.replace(['.', '_'], "-"));
    let has_flag = help.contains(&format!("{flag} <"));
    assert_eq!(row[2], if has_flag { format!("`{flag}`") } else { String::new() }, "{}", key.name);
    key
}

fn key_rows(paper: &str) -> Vec<Vec<&'static str>> {
    let text: &'static str = read(&root().join(paper)).leak();
    rows(text, "| key |").collect()
}

/// The cells of every table whose head begins with `head`.
fn rows<'a>(text: &'a str, head: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
    let mut within = false;
    text.lines().filter_map(move |line| {
        let begins = line.starts_with(head);
        within = begins || within && line.starts_with('|');
        let is_row = within && !begins && !line.starts_with("|---");
        is_row.then(|| line.trim_matches('|').split('|').map(str::trim).collect())
    })
}

/// The values of a TOML text by key, `name = value` behind a `#` too, and "not set" without one. Tables may stand behind a
/// `#` as well; those of a list have their number in the key.
fn values(toml: &str) -> BTreeMap<String, String> {
    let mut table = String::new();
    let mut values = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in toml.lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix("[[").and_then(|line| line.strip_suffix("]]")) {
            let count = counts.entry(name).or_default();
            table = format!("{name}.{count}.");
            *count += 1;
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            // A table of the list's last one.
            let list = counts.iter().find_map(|(list, count)| Some((list, name.strip_prefix(list)?, count)));
            table = match list {
                Some((list, rest, count)) => format!("{list}.{}{rest}.", count - 1),
                None => format!("{name}."),
            };
        }
        let Some((name, value)) = line.split_once(" = ") else { continue };
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
            let value = value.split(" # ").next().unwrap_or_default();
            values.insert(format!("{table}{name}"), value.to_owned());
        }
    }
    values
}

/// What GitHub and others make of headings.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    let plain = |c: &char| c.is_alphanumeric() || *c == ' ' || *c == '-';
    headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            heading.chars().filter(plain).collect::<String>().replace(' ', "-")
        })
        .collect()
}

fn help(command: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_aem-auth-proxy")).args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn papers() -> Vec<PathBuf> {
    let mut papers: Vec<_> =
        [("", "md"), ("docs", "md"), ("deploy/kubernetes", "md"), ("deploy/kubernetes", "yaml")]
            .iter()
            .flat_map(|(directory, extension)| files(directory, extension))
            .collect();
    papers.extend(files("", "yml"));
    papers.extend(files("config", "toml"));
    papers.push(root().join("Dockerfile"));
    papers
}

/// The program's own text.
fn sources_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.into_iter().chain(directories.iter().flat_map(|directory| sources_below(directory))).collect()
}

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Variables of the program and of its image that are no keys, and those of Kubernetes that it ignores.
const NO_KEYS: [&str; 7] = [
    "AEM_PROXY_",
    "AEM_PROXY_CONFIG",
    "AEM_PROXY_COMMIT",
    "AEM_PROXY_PORT",
    "AEM_PROXY_PORT_",
    "AEM_PROXY_SERVICE_HOST",
    "AEM_PROXY_SERVICE_PORT",
];

/// Those that have flags of their own, and the program itself.
const COMMANDS: [&[&str]; 6] = [&[], &["demo"], &["check"], &["token"], &["health"], &["wait"]];
