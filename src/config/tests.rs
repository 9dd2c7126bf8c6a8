use super::*;

const UPSTREAM: (&str, &str) = ("AEM_PROXY_UPSTREAM", "https://author-p1-e2.adobeaemcloud.com");
const FILE: (&str, &str) = ("AEM_PROXY_CREDENTIALS_FILE", "token.json");

fn sources(
    toml: Option<&str>,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> (Sources, Option<tempfile::NamedTempFile>) {
    let file = toml.map(|toml| {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), toml).unwrap();
        file
    });
    let sources = Sources {
        file: file.as_ref().map(|file| file.path().to_owned()),
        variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    };
    (sources, file)
}

#[track_caller]
fn load(toml: Option<&str>, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Config {
    let (sources, _file) = sources(toml, variables, flags);
    Config::load(&sources).unwrap_or_else(|error| panic!("{error}"))
}

/// The error, with the temporary file's name shortened to `FILE`.
#[track_caller]
fn refuse(toml: Option<&str>, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    let (sources, file) = sources(toml, variables, flags);
    let error = Config::load(&sources).unwrap_err().to_string();
    match file {
        Some(file) => error.replace(&file.path().display().to_string(), "FILE"),
        None => error,
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = load(None, &[UPSTREAM, FILE], &[]);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.on().unwrap().to_string(), "127.0.0.1:8081");
    assert_eq!(config.token.refresh_at, 0.75);
    assert_eq!(config.log.level, "info");
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(config.shutdown.delay, Duration::ZERO);
    assert_eq!(config.shutdown.grace, Duration::from_secs(25));
    assert!(config.guard.allowed_hosts.is_empty() && config.guard.allowed_origins.is_empty());
    assert!(config.token.cache_file.is_none() && config.ca_file.is_none() && config.ims_endpoint.is_none());
}

#[test]
fn flags_stand_above_variables_above_the_file_above_defaults() {
    let toml = "listen = '127.0.0.1:1'\n[admin]\nlisten = 'off'\n[log]\nlevel = 'warn'\nformat = 'json'";
    let config = load(
        Some(toml),
        &[
            UPSTREAM,
            FILE,
            ("AEM_PROXY_LISTEN", "127.0.0.1:2"),
            ("AEM_PROXY_LOG__LEVEL", "debug"),
            ("RUST_LOG", "error"),
        ],
        &[("listen", "127.0.0.1:3")],
    );
    assert_eq!(config.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.admin.listen, Optional::Off);
}

#[test]
fn every_key_can_be_given_in_the_file_and_in_the_environment() {
    for key in KEYS {
        let value = match key.name {
            "upstream" => UPSTREAM.1,
            "auth" => "bearer",
            _ => key.default.filter(|default| !default.is_empty()).unwrap_or("x"),
        };
        let (sources, _) = sources(None, &[(&key.variable(), value)], &[]);
        let settings = sources.settings().unwrap();
        let set = sources::effective(&settings, key.name).unwrap();
        assert_eq!(set.source, Source::Variable(key.variable()), "{}", key.name);

        let toml = match key.kind {
            keys::Kind::Text => format!("{} = '{value}'", key.name),
            keys::Kind::List => format!("{} = ['{value}']", key.name),
            keys::Kind::Share => format!("{} = {value}", key.name),
        };
        let (sources, _file) = self::sources(Some(&toml), &[], &[]);
        let settings = sources.settings().unwrap();
        assert!(matches!(sources::effective(&settings, key.name).unwrap().source, Source::File(_, Some(1))));
    }
}

#[test]
fn lists_are_comma_separated_in_the_environment() {
    let config =
        load(None, &[UPSTREAM, FILE, ("AEM_PROXY_GUARD__ALLOWED_HOSTS", "proxy, proxy.local:8080")], &[]);
    assert_eq!(config.guard.allowed_hosts, ["proxy", "proxy.local:8080"]);
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let config = load(None, &[UPSTREAM, FILE, ("AEM_PROXY_CA_FILE", ""), ("AEM_PROXY_CONFIG", "")], &[]);
    assert!(config.ca_file.is_none());
}

#[test]
fn variables_that_kubernetes_makes_of_a_service_are_none_of_ours() {
    load(
        None,
        &[
            UPSTREAM,
            FILE,
            ("AEM_PROXY_SERVICE_HOST", "10.0.0.1"),
            ("AEM_PROXY_SERVICE_PORT_HTTP", "80"),
            ("AEM_PROXY_PORT", "tcp://10.0.0.1:80"),
            ("AEM_PROXY_PORT_80_TCP_ADDR", "10.0.0.1"),
        ],
        &[],
    );
}

#[test]
fn unknown_keys_are_all_named_with_their_place_and_the_nearest_key() {
    let toml = "\nupsteam = 'x'\n[admin]\nlisen = 'off'\n[tokens]\nrefresh_at = 0.5\n";
    let error = refuse(Some(toml), &[("AEM_PROXY_CREDENTIAL_FILE", "x")], &[]);
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "`upsteam` (FILE:2) is not a key: did you mean `upstream`?",
            "`admin.lisen` (FILE:4) is not a key: did you mean `admin.listen`?",
            "`tokens` (FILE:5) is not a key: did you mean `token.refresh_at`?",
            "`credential_file` (AEM_PROXY_CREDENTIAL_FILE) is not a key: did you mean `AEM_PROXY_CREDENTIALS_FILE`?",
        ]
    );
}

#[test]
fn wrong_values_are_named_with_their_place_and_the_mend() {
    for (toml, variable, expected) in [
        ("listen = '8080'", None, "`listen` (FILE:1) is not an address: write IP:PORT"),
        ("listen = true", None, "`listen` (FILE:1) has the wrong type: give a string"),
        (
            "[timeouts]\nconnect = 5",
            None,
            "`timeouts.connect` (FILE:2) is not a duration: write a number with its unit",
        ),
        ("[limits]\nhead = 'big'", None, "`limits.head` (FILE:2) is not a size"),
        ("[limits]\nhead = '0'", None, "`limits.head` (FILE:2) is too small"),
        ("[limits]\nhead = '1 GiB'", None, "`limits.head` (FILE:2) is more than any head needs"),
        ("[timeouts]\nresponse_head = '0s'", None, "`timeouts.response_head` (FILE:2) is zero"),
        (
            "[log]\nformat = 'xml'",
            None,
            "`log.format` (FILE:2) is not one of its values: give one of auto, text, json",
        ),
        (
            "auth = 'digest'",
            None,
            "`auth` (FILE:1) is not one of its values: give one of bearer, basic, none",
        ),
        ("[token]\nrefresh_at = 7", None, "`token.refresh_at` (FILE:2) is not a share"),
        (
            "",
            Some(("AEM_PROXY_TOKEN__REFRESH_AT", "soon")),
            "`token.refresh_at` (AEM_PROXY_TOKEN__REFRESH_AT) is a text, not",
        ),
        (
            "",
            Some(("AEM_PROXY_ADMIN__LISTEN", "nowhere")),
            "`admin.listen` (AEM_PROXY_ADMIN__LISTEN) is not an address",
        ),
        ("upstream = 'author.example.com'", None, "`upstream` (FILE:1) is not a URL"),
        ("upstream = 'http://author-p1-e2.adobeaemcloud.com'", None, "`upstream` (FILE:1) is plain http"),
        ("upstream = 'https://a.example/content'", None, "`upstream` (FILE:1) has a path"),
        ("upstream = 'ftp://a.example'", None, "`upstream` (FILE:1) has a scheme"),
        ("listen = 'x", None, "FILE:1 is not TOML"),
    ] {
        let mut variables = vec![FILE];
        variables.extend(variable);
        if !toml.contains("upstream") {
            variables.push(UPSTREAM);
        }
        let error = refuse(Some(toml), &variables, &[]);
        assert!(error.starts_with(expected), "{toml}: {error}");
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let error = refuse(None, &[], &[]);
    assert!(error.contains("`upstream` is not set: give AEM's address"), "{error}");
    assert!(error.contains("`credentials_file` is not set"), "{error}");
    let error = refuse(None, &[UPSTREAM, ("AEM_PROXY_CONFIG", "/nowhere/x.toml")], &[]);
    assert!(error.starts_with("/nowhere/x.toml cannot be read: entity not found"), "{error}");
}

#[test]
fn credentials_come_from_one_place() {
    let error = refuse(None, &[UPSTREAM, FILE, ("AEM_PROXY_CREDENTIALS_JSON", "{}")], &[]);
    assert!(
        error.contains("is set beside credentials_file (AEM_PROXY_CREDENTIALS_FILE): give one of the two"),
        "{error}"
    );
    let error = refuse(None, &[UPSTREAM, FILE, ("AEM_PROXY_AUTH", "none")], &[]);
    assert!(error.contains("auth is not \"bearer\""), "{error}");
}

#[test]
fn a_local_sdk_needs_no_token() {
    let sdk = ("AEM_PROXY_UPSTREAM", "http://localhost:4502");
    assert!(matches!(load(None, &[sdk, ("AEM_PROXY_AUTH", "none")], &[]).auth, Auth::None));
    let basic = load(None, &[sdk, ("AEM_PROXY_AUTH", "basic"), ("AEM_PROXY_BASIC__PASSWORD", "pw")], &[]);
    assert!(matches!(basic.auth, Auth::Basic { user, .. } if user == "admin"));
    assert!(refuse(None, &[sdk, ("AEM_PROXY_AUTH", "basic")], &[]).contains("`basic.password` is not set"));
}

#[test]
fn no_error_and_no_listing_shows_a_secret() {
    let secret = "p8e-do-not-show-me";
    let toml = format!(
        "upstream = 'https://u:{secret}@a.example'\ncredentials_json = '{secret}'\n[basic]\npassword = '{secret}'\n"
    );
    let json = format!("credentials_json = {{ secret = '{secret}' }}");
    let broken = format!("credentials_json = '{secret}\nlisten = 'x'");
    for toml in [&toml, &json, &broken] {
        assert!(!refuse(Some(toml), &[], &[]).contains(secret), "{toml}");
    }
    let (mistaken, _mistaken) = sources(Some(&toml), &[], &[]);
    let text = describe(&mistaken).unwrap();
    assert!(!text.contains(secret) && text.contains("upstream = \"https://(redacted)@a.example\""), "{text}");
    let (sources, _file) = sources(Some(&toml.replace("u:p8e-do-not-show-me@", "")), &[], &[]);
    let text = describe(&sources).unwrap();
    assert!(!text.contains(secret), "{text}");
    assert!(text.contains("credentials_json = \"(redacted)\" # "), "{text}");
    let config = Config::load(&sources).unwrap();
    assert!(!format!("{config:?}").contains(secret));
}

#[test]
fn what_config_prints_can_be_read_again() {
    let (sources, _) = sources(
        None,
        &[UPSTREAM, FILE, ("AEM_PROXY_GUARD__ALLOWED_HOSTS", "a,b")],
        &[("listen", "localhost:9")],
    );
    let text = describe(&sources).unwrap();
    assert!(text.contains("listen = \"localhost:9\" # --listen"), "{text}");
    assert!(text.contains("[admin]\nlisten = \"127.0.0.1:8081\" # default"), "{text}");
    assert!(text.contains("allowed_hosts = [\"a\", \"b\"] # AEM_PROXY_GUARD__ALLOWED_HOSTS"), "{text}");
    let again = load(Some(&text), &[], &[]);
    assert_eq!(again.listen.to_string(), "localhost:9");
    assert_eq!(again.guard.allowed_hosts, ["a", "b"]);
}
