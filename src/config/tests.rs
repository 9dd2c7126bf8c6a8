use super::{
    keys::{KEYS, Key},
    *,
};

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
    assert_eq!(config.proxies[0].listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.on().unwrap().to_string(), "127.0.0.1:8081");
    assert_eq!(config.token.refresh_at, 0.75);
    assert_eq!(config.log.level, "info");
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(config.shutdown.delay, Duration::ZERO);
    assert_eq!(config.shutdown.grace, Duration::from_secs(25));
    assert!(config.guard.allowed_hosts.is_empty() && config.guard.allowed_origins.is_empty());
    assert!(
        config.token.cache_file.is_none()
            && config.ca_file.is_none()
            && config.credentials[0].ims_endpoint.is_none()
    );
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
    assert_eq!(config.proxies[0].listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.admin.listen, Optional::Off);
}

/// A key's path with names in place of its placeholders.
fn example(key: &Key) -> String {
    key.name.replace("NAME", "main").replace(".N.", ".0.").replace("FIELD", "x-tenant")
}

#[test]
fn every_key_can_be_given_in_the_file_and_in_the_environment() {
    for key in KEYS {
        let path = example(key);
        let value = match key.name {
            "upstream" => UPSTREAM.1,
            "auth" => "bearer",
            _ if key.kind == keys::Kind::Flag => "true",
            _ => key.default.filter(|default| !default.is_empty()).unwrap_or("x"),
        };
        let (sources, _) = sources(None, &[(&keys::variable(&path), value)], &[]);
        let settings = sources.settings().unwrap_or_else(|error| panic!("{error}"));
        let set = sources::effective(&settings, &path).unwrap_or_else(|| panic!("{path} is not set"));
        assert_eq!(set.source, Source::Variable(keys::variable(&path)), "{path}");

        let value = match key.kind {
            keys::Kind::Text => format!("'{value}'"),
            keys::Kind::List => format!("['{value}']"),
            keys::Kind::Share | keys::Kind::Flag => value.to_owned(),
        };
        let (toml, line) = match path.split_once(".routes.0.") {
            Some((proxy, last)) => (format!("[[{proxy}.routes]]\n{last} = {value}"), 2),
            None => (format!("{path} = {value}"), 1),
        };
        let (sources, _file) = self::sources(Some(&toml), &[], &[]);
        let settings = sources.settings().unwrap_or_else(|error| panic!("{toml}: {error}"));
        let set = sources::effective(&settings, &path).unwrap_or_else(|| panic!("{toml}: {path} is not set"));
        assert!(
            matches!(set.source, Source::File(_, Some(found)) if found == line),
            "{toml}: {}",
            set.source
        );
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
fn flags_of_the_environment_are_read_as_people_write_them() {
    for (text, flag) in [
        ("true", true),
        ("True", true),
        ("TRUE", true),
        ("1", true),
        ("false", false),
        ("FALSE", false),
        ("False", false),
        ("0", false),
    ] {
        let config = load(None, &[UPSTREAM, FILE, ("AEM_PROXY_LISTEN_REUSE_PORT", text)], &[]);
        assert_eq!(config.listen_reuse_port, flag, "{text}");
    }
    for text in ["yes", "2", "t", " "] {
        refuse(None, &[UPSTREAM, FILE, ("AEM_PROXY_LISTEN_REUSE_PORT", text)], &[]);
    }
}

/// `docker run --env-file` takes both for a part of the value.
#[test]
fn quotes_and_carriage_returns_of_environment_files_are_named() {
    for (name, value, words) in [
        ("AEM_PROXY_LISTEN", "\"127.0.0.1:8080\"", "stands in quotes"),
        ("AEM_PROXY_LISTEN", "'127.0.0.1:8080'", "stands in quotes"),
        ("AEM_PROXY_UPSTREAM", "'https://a.example'", "stands in quotes"),
        ("AEM_PROXY_CA_FILE", "\"/ca.pem\"", "stands in quotes"),
        ("AEM_PROXY_POLICY", "\"\"", "stands in quotes"),
        ("AEM_PROXY_LISTEN", "127.0.0.1:8080\r", "ends with a carriage return"),
        ("AEM_PROXY_CA_FILE", "/ca.pem\r", "ends with a carriage return"),
        ("AEM_PROXY_BASIC__PASSWORD", "p8e-do-not-show-me\r", "ends with a carriage return"),
        ("AEM_PROXY_CONFIG", "/proxy.toml\r", "ends with a carriage return"),
        ("AEM_PROXY_CONFIG", "'/proxy.toml'", "stands in quotes"),
    ] {
        let error = refuse(None, &[UPSTREAM, FILE, (name, value)], &[]);
        assert!(error.contains(name) && error.contains(words), "{name} {value:?}: {error}");
        assert!(!error.contains("do-not-show-me"), "{error}");
    }
    // A password may have quotes, and a document may have line ends.
    let basic = [UPSTREAM, ("AEM_PROXY_AUTH", "basic"), ("AEM_PROXY_BASIC__PASSWORD", "\"pw\"")];
    load(None, &basic, &[]);
    load(None, &[UPSTREAM, ("AEM_PROXY_CREDENTIALS_JSON", "{}\r")], &[]);
}

/// What the kubelet sets for a Service of that name (its `pkg/kubelet/envvars`).
fn service_variables(service: &str, port_name: &str, port: u16, protocol: &str) -> Vec<(String, String)> {
    let name = service.to_uppercase().replace('-', "_");
    let lower = protocol.to_lowercase();
    let port_variable = format!("{name}_PORT_{port}_{protocol}");
    vec![
        (format!("{name}_SERVICE_HOST"), "10.0.0.1".to_owned()),
        (format!("{name}_SERVICE_PORT"), port.to_string()),
        (format!("{name}_SERVICE_PORT_{}", port_name.to_uppercase().replace('-', "_")), port.to_string()),
        (format!("{name}_PORT"), format!("{lower}://10.0.0.1:{port}")),
        (port_variable.clone(), format!("{lower}://10.0.0.1:{port}")),
        (format!("{port_variable}_PROTO"), lower),
        (format!("{port_variable}_PORT"), port.to_string()),
        (format!("{port_variable}_ADDR"), "10.0.0.1".to_owned()),
    ]
}

fn check_service(service: &str, port_name: &str, port: u16, protocol: &str) {
    let made = service_variables(service, port_name, port, protocol);
    let made = made.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    load(None, &[UPSTREAM, FILE].into_iter().chain(made).collect::<Vec<_>>(), &[]);
}

#[test]
fn variables_that_kubernetes_makes_of_a_service_are_none_of_ours() {
    for service in
        ["aem-proxy", "aem-proxy-metrics", "aem-proxy-admin", "aem-proxy-admin-listen", "aem-proxy-2"]
    {
        for protocol in ["TCP", "UDP", "SCTP"] {
            check_service(service, "http-admin", 9090, protocol);
        }
    }
}

#[test]
fn a_typing_error_that_looks_like_a_variable_of_kubernetes_stays_an_error() {
    for (name, value) in [
        ("AEM_PROXY_PORT", "8080"),
        ("AEM_PROXY_ADMIN_PORT", "8081"),
        ("AEM_PROXY_PORTS", "tcp://10.0.0.1:80"),
        ("AEM_PROXY_PORT_HTTP", "80"),
        ("AEM_PROXY_PORT_80", "80"),
        ("AEM_PROXY_PORT_X_TCP", "80"),
        ("AEM_PROXY_SERVICE_HOSTS", "a"),
        ("AEM_PROXY_SERVICE", "a"),
        ("AEM_PROXY_MYSERVICE_PORTS", "a"),
    ] {
        let error = refuse(None, &[UPSTREAM, FILE, (name, value)], &[]);
        assert!(error.contains(name), "{name}: {error}");
    }
}

/// A field may have such a name, and then the variable is ours.
#[test]
fn a_key_that_is_known_is_read_whatever_it_ends_in() {
    let variables = [
        UPSTREAM,
        FILE,
        ("AEM_PROXY_PROXIES__DEFAULT__HEADERS__X_SERVICE_HOST", "a"),
        ("AEM_PROXY_PROXIES__DEFAULT__HEADERS__X_PORT", "tcp://10.0.0.1:80"),
    ];
    assert_eq!(load(None, &variables, &[]).proxies[0].otherwise.headers.len(), 2);
}

proptest::proptest! {
    #[test]
    fn no_service_keeps_the_proxy_from_starting(
        service in "aem-proxy(-[a-z0-9]{1,8}){0,3}",
        port_name in "[a-z][a-z0-9]{0,4}(-[a-z0-9]{1,4})?",
        port in 1_u16..,
        protocol in proptest::sample::select(vec!["TCP", "UDP", "SCTP"]),
    ) {
        check_service(&service, &port_name, port, protocol);
    }
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
        (
            "[limits]\nfields = 'many'",
            None,
            "`limits.fields` (FILE:2) is not a number of fields from 100 to 1000",
        ),
        ("[limits]\nfields = '99'", None, "`limits.fields` (FILE:2) is not a number of fields"),
        ("[limits]\nfields = '1001'", None, "`limits.fields` (FILE:2) is not a number of fields"),
        ("[limits]\npath = 'long'", None, "`limits.path` (FILE:2) is not a size"),
        ("[limits]\npath = '65 KiB'", None, "`limits.path` (FILE:2) is more than limits.head"),
        ("[limits]\nhead = '4 KiB'", None, "`limits.path` (default) is more than limits.head"),
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
        (
            "[token]\nrefresh_at = 1\nrefresh_at = 2",
            None,
            "FILE:3 is not TOML: duplicate key `refresh_at` in table `token`",
        ),
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
fn what_is_not_toml_is_not_quoted_unless_it_is_a_name_of_ours() {
    let error = refuse(Some("[proxies.hunter2]\nlisten = 1\nlisten = 2"), &[UPSTREAM, FILE], &[]);
    assert!(error.starts_with("FILE:3 is not TOML: duplicate key `listen` in table `...`: mend"), "{error}");
    let error = refuse(Some("'-`hunter2`' = 1\n'-`hunter2`' = 2"), &[UPSTREAM, FILE], &[]);
    assert!(error.starts_with("FILE:2 is not TOML: duplicate key ...: mend"), "{error}");
    let error = refuse(Some("hunter2"), &[UPSTREAM, FILE], &[]);
    assert!(error.starts_with("FILE:1 is not TOML: expected `.`, `=`: mend"), "{error}");
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
fn web_origins_are_given_as_browsers_write_them() {
    for origin in [
        "http://localhost:3000",
        "http://LOCALHOST:3000/",
        "https://app.example",
        "http://[::1]:3000",
        "capacitor://localhost",
    ] {
        load(None, &[UPSTREAM, FILE, ("AEM_PROXY_GUARD__ALLOWED_ORIGINS", origin)], &[]);
    }
    for origin in [
        "*",
        "null",
        "localhost:3000",
        "http://",
        "http://*.example",
        "http://a.example/x",
        "http://u@a.example",
    ] {
        let error = refuse(None, &[UPSTREAM, FILE, ("AEM_PROXY_GUARD__ALLOWED_ORIGINS", origin)], &[]);
        assert!(error.contains("has what is no web origin: give scheme, host and port"), "{origin}: {error}");
    }
    let error =
        refuse(None, &[UPSTREAM, FILE, ("AEM_PROXY_GUARD__ALLOWED_ORIGINS", "http://a.example:80")], &[]);
    assert!(error.contains("has an origin that no browser writes so: write http://a.example"), "{error}");
}

#[test]
fn a_local_sdk_needs_no_token() {
    let sdk = ("AEM_PROXY_UPSTREAM", "http://localhost:4502");
    let none = load(None, &[sdk, ("AEM_PROXY_AUTH", "none")], &[]);
    assert!(none.credentials.is_empty() && none.proxies[0].otherwise.credential.is_none());
    let basic = load(None, &[sdk, ("AEM_PROXY_AUTH", "basic"), ("AEM_PROXY_BASIC__PASSWORD", "pw")], &[]);
    assert!(matches!(&basic.credentials[0].source, CredentialSource::Basic { user, .. } if user == "admin"));
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

/// Each line is a key: that of its problem.
fn keys_of(error: &str) -> Vec<&str> {
    error.lines().map(|line| line.split('`').nth(1).unwrap_or(line)).collect()
}

#[test]
fn all_problems_are_reported_at_once_and_nothing_that_only_follows() {
    let toml = "upsteam = 'x'\nauth = 'bearr'\npolicy = 'read_only'\nlisten = '8080'\n\
                [log]\nlevel = 'lout'\nformat = 'xml'\n[timeouts]\nconnect = 5\n[limits]\nhead = '1'\n\
                [proxies.a]\nlisten = '1'\nupstream = 'ftp://a'\n";
    let error = refuse(Some(toml), &[UPSTREAM, ("AEM_PROXY_TOKEN__REFRESH_AT", "2")], &[]);
    let mut keys = keys_of(&error);
    keys.sort_unstable();
    let mut expected = vec![
        "upsteam",
        "auth",
        "policy",
        "listen",
        "log.level",
        "log.format",
        "timeouts.connect",
        "limits.head",
        "proxies.a.listen",
        "proxies.a.upstream",
        "token.refresh_at",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected, "{error}");
    // What is wrong in one place is not reported again in another.
    for (variables, keys) in [
        (&[UPSTREAM, ("AEM_PROXY_AUTH", "bearr")][..], &["auth"][..]),
        (&[FILE, ("AEM_PROXY_UPSTRAEM", "https://a.example")], &["upstraem"]),
        (&[UPSTREAM, FILE, ("AEM_PROXY_ADMIN__LISTEN", "8080")], &["admin.listen"]),
        (
            &[UPSTREAM, FILE, ("AEM_PROXY_LISTEN", "x"), ("AEM_PROXY_ADMIN__LISTEN", "127.0.0.1:8080")],
            &["listen"],
        ),
        (&[FILE], &["upstream"]),
    ] {
        let error = refuse(None, variables, &[]);
        assert_eq!(keys_of(&error), keys, "{error}");
    }
}

#[test]
fn the_dot_of_the_root_is_no_part_of_an_upstream() {
    for (url, origin) in [
        ("https://author-p1-e2.adobeaemcloud.com.", "https://author-p1-e2.adobeaemcloud.com"),
        ("https://Author-p1-e2.adobeaemcloud.com.:8443/", "https://author-p1-e2.adobeaemcloud.com:8443"),
        ("http://localhost.:4502", "http://localhost:4502"),
    ] {
        let config = load(None, &[("AEM_PROXY_UPSTREAM", url), ("AEM_PROXY_AUTH", "none")], &[]);
        assert_eq!(config.upstreams[0].url.origin().ascii_serialization(), origin);
        let toml =
            format!("proxies.a = {{ listen = '127.0.0.1:1', upstream = '{url}', credentials = 'none' }}");
        let config = load(Some(&toml), &[], &[]);
        assert_eq!(config.upstreams[0].url.origin().ascii_serialization(), origin);
    }
    for url in ["https://author-p1-e2.adobeaemcloud.com..", "https://.", "https://.."] {
        let error = refuse(None, &[("AEM_PROXY_UPSTREAM", url), ("AEM_PROXY_AUTH", "none")], &[]);
        assert!(error.contains("`upstream`"), "{url}: {error}");
    }
}

#[test]
fn no_form_of_user_information_is_shown() {
    let secret = "p8e-do-not-show-me";
    let aem = ("AEM_PROXY_UPSTREAM", "https://author-p1-e2.adobeaemcloud.com");
    for url in [
        format!("http://jane@corp.example:{secret}@one:1"),
        format!("http://jane:a#{secret}@one:1"),
        format!("http://jane:1/{secret}@one:1"),
        format!("http://jane:a?{secret}@one:1"),
        format!("jane:a://{secret}@one:1"),
        format!("jane:{secret}@one:1"),
        format!("http://jane:{secret}"),
        format!("http://jane:{secret}@"),
        format!("http://jane:1/{secret}@one:1/path"),
        format!("socks5://jane:a@{secret}@one:1"),
    ] {
        for variable in [
            "AEM_PROXY_UPSTREAM",
            "AEM_PROXY_IMS_ENDPOINT",
            "AEM_PROXY_CREDENTIALS__MAIN__IMS_ENDPOINT",
            "AEM_PROXY_UPSTREAMS__A__URL",
            "AEM_PROXY_GUARD__ALLOWED_ORIGINS",
            "AEM_PROXY_GUARD__ALLOWED_HOSTS",
            "AEM_PROXY_EGRESS__AEM_PROXY",
            "AEM_PROXY_EGRESS__IMS_PROXY",
        ] {
            let (sources, _file) = sources(None, &[aem, ("AEM_PROXY_AUTH", "none"), (variable, &url)], &[]);
            let described = describe(&sources).unwrap();
            assert!(!described.contains(secret), "{variable} {url}: {described}");
            match Config::load(&sources) {
                Ok(config) => {
                    assert!(!format!("{config:?}").contains(secret), "{variable} {url}: {config:?}");
                }
                Err(error) => assert!(!error.to_string().contains(secret), "{variable} {url}: {error}"),
            }
        }
    }
}

/// Two names that differ in one word, and paths are shown.
#[test]
fn a_document_in_place_of_its_path_is_refused_and_not_shown() {
    let document = r#"{"ok": true, "integration": {"privateKey": "p8e-do-not-show-me"}}"#;
    let token = format!("eyJ{}.p8e-do-not-show-me.c2ln", "a".repeat(300));
    let key = "-----BEGIN RSA PRIVATE KEY-----\np8e-do-not-show-me\n";
    let proxy = "proxies.a.listen = '127.0.0.1:1'\nproxies.a.upstream = 'https://a.example'\n";
    for (name, value, instead) in [
        ("credentials_file", document, "as `credentials_json`"),
        ("credentials_file", &token, "as `credentials_json`"),
        ("credentials.my_file.file", document, "as `credentials.my_file.json`"),
        (
            "credentials.main.client_secret_file",
            "p8e-do-not-show-me\nb",
            "as `credentials.main.client_secret`",
        ),
        ("basic.password_file", "p8e-do-not-show-me\r\nb", "as `basic.password`"),
        ("proxies.a.header_files.X-A", "p8e-do-not-show-me\nb", "as `proxies.a.headers.X-A`"),
        ("ca_file", key, "give its path"),
    ] {
        let toml = format!("{name} = '''{value}'''\n{proxy}");
        let error = refuse(Some(&toml), &[], &[]);
        let expected = format!("`{name}` (FILE:1) is not the path of a file, but what should be in it: ");
        assert!(error.contains(&expected) && error.contains(instead), "{name}: {error}");
        let (sources, _file) = sources(Some(&toml), &[], &[]);
        let shown = describe(&sources).unwrap();
        assert!(!shown.contains("do-not-show-me") && !error.contains("do-not-show-me"), "{error}\n{shown}");
    }
    let nested = format!("/{}.json", ["a"; 200].join("/"));
    for path in ["service_token.json", "/run/secrets/aem token", r"C:\keys\token.json", &nested] {
        load(None, &[UPSTREAM, ("AEM_PROXY_CREDENTIALS_FILE", path)], &[]);
    }
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
    assert_eq!(again.proxies[0].listen.to_string(), "localhost:9");
    assert_eq!(again.guard.allowed_hosts, ["a", "b"]);
}

#[test]
fn what_config_prints_is_toml_whatever_a_number_is() {
    for (number, printed) in [("nan", "nan"), ("-inf", "-inf"), ("1e-7", "0.0000001"), ("2", "2")] {
        let (sources, _file) = sources(Some(&format!("token.refresh_at = {number}")), &[], &[]);
        let text = describe(&sources).unwrap();
        assert!(text.contains(&format!("refresh_at = {printed} #")), "{text}");
        assert!(text.parse::<toml_edit::DocumentMut>().is_ok(), "{text}");
    }
}

#[test]
fn where_a_value_stands_is_told_in_one_line() {
    let name = "AEM_PROXY_CREDENTIALS__A\nlisten = 'evil'\u{c}__CLIENT_ID";
    let (sources, _) = sources(None, &[UPSTREAM, FILE, (name, "x")], &[]);
    let text = describe(&sources).unwrap();
    assert!(text.contains("# AEM_PROXY_CREDENTIALS__A\\nlisten = 'evil'\\u{c}__CLIENT_ID"), "{text}");
    let document: toml_edit::DocumentMut = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(document["listen"].as_str(), Some("127.0.0.1:8080"));
}

/// Author, publish and an open API, the way that the documentation shows it.
const FULL: &str = "
[credentials.main]
file = 'service_token.json'
fallback = 'open-api'

[credentials.open-api]
client_id = 'abc'
client_secret = ['one', 'two']
scopes = ['openid', 'AdobeID']

[upstreams.author]
url = 'https://author-p1-e2.adobeaemcloud.com'

[proxies.author]
listen = '127.0.0.1:8080'
upstream = 'author'
headers = { X-Tenant = 'blue' }

[[proxies.author.routes]]
path = '/adobe/*'
credentials = 'open-api'
x_api_key = true

[[proxies.author.routes]]
path = '/public'
credentials = 'none'
upstream = 'https://publish-p1-e2.adobeaemcloud.com'

[proxies.publish]
listen = '127.0.0.1:8082'
upstream = 'https://publish-p1-e2.adobeaemcloud.com'
";

#[test]
fn the_full_form_names_things_once_and_refers_to_them() {
    let config = load(Some(FULL), &[], &[]);
    let names = |credentials: &[Credential]| credentials.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&config.credentials), ["main", "open-api"]);
    assert_eq!(config.credential("main").unwrap().fallback.as_deref(), Some("open-api"));
    assert!(matches!(
        &config.credential("open-api").unwrap().source,
        CredentialSource::Client { secrets: Secrets::Given(secrets), .. } if secrets.len() == 2
    ));

    let [author, publish] = &config.proxies[..] else { panic!("{config:?}") };
    let route = |route: &Route| {
        (
            route.path.to_string(),
            config.upstream(&route.upstream).unwrap().url.to_string(),
            route.credential.clone(),
        )
    };
    let origin = |tier: &str| format!("https://{tier}-p1-e2.adobeaemcloud.com/");
    assert_eq!(author.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(route(&author.otherwise), ("/".to_owned(), origin("author"), Some("main".to_owned())));
    assert_eq!(
        route(&author.routes[0]),
        ("/adobe/".to_owned(), origin("author"), Some("open-api".to_owned()))
    );
    assert_eq!(route(&author.routes[1]), ("/public".to_owned(), origin("publish"), None));
    assert!(author.routes[0].x_api_key && !author.otherwise.x_api_key);
    // One AEM is one upstream, however it is named; and the only credential that is no fallback needs no name.
    assert_eq!(config.upstreams.len(), 2);
    assert_eq!(route(&publish.otherwise), ("/".to_owned(), origin("publish"), Some("main".to_owned())));
    assert_eq!(author.routes[0].headers[0].name, "x-tenant");
}

#[test]
fn variables_reach_what_the_file_has_named() {
    let variables = [
        ("AEM_PROXY_CREDENTIALS__OPEN_API__CLIENT_ID", "def"),
        ("AEM_PROXY_CREDENTIALS__OPEN_API__CLIENT_SECRET", "three, four"),
        ("AEM_PROXY_PROXIES__AUTHOR__ROUTES__0__PATH", "/adobe/sites/"),
        ("AEM_PROXY_PROXIES__AUTHOR__HEADERS__X_TENANT", "green"),
        ("AEM_PROXY_PROXIES__AUTHOR__HEADERS__X_OTHER_ONE", "1"),
        ("AEM_PROXY_PROXIES__PREVIEW__LISTEN", "127.0.0.1:8083"),
        ("AEM_PROXY_PROXIES__PREVIEW__UPSTREAM", "author"),
    ];
    let config = load(Some(FULL), &variables, &[]);
    assert_eq!(config.credentials.len(), 2);
    assert!(matches!(
        &config.credential("open-api").unwrap().source,
        CredentialSource::Client { id, secrets: Secrets::Given(secrets), .. } if id == "def" && secrets.len() == 2
    ));
    assert_eq!(config.proxies.len(), 3);
    assert_eq!(config.proxies[0].routes[0].path.to_string(), "/adobe/sites/");
    let headers: Vec<_> =
        config.proxies[0].otherwise.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(headers, ["x-tenant", "x-other-one"]);
    assert_eq!(config.proxies[1].name, "preview");
}

#[test]
fn variables_alone_make_a_whole_configuration() {
    let config = load(
        None,
        &[
            UPSTREAM,
            ("AEM_PROXY_CREDENTIALS__MAIN__CLIENT_ID", "abc"),
            ("AEM_PROXY_CREDENTIALS__MAIN__CLIENT_SECRET_FILE", "/run/secrets/aem"),
            ("AEM_PROXY_CREDENTIALS__MAIN__SCOPES", "openid,AdobeID"),
        ],
        &[],
    );
    assert_eq!(config.proxies[0].otherwise.credential.as_deref(), Some("main"));
    assert_eq!(config.credentials[0].scopes, ["openid", "AdobeID"]);
}

/// A console shows scopes with commas, an OAuth server with spaces; IMS takes commas alone.
#[test]
fn scopes_are_separated_by_whatever_people_write_between_them() {
    let given = |scopes: &str, secret: &str| {
        let toml = format!(
            "upstream = 'https://a.example'\n[credentials.main]\nclient_id = 'abc'\n\
             client_secret = {secret}\nscopes = {scopes}"
        );
        (load(Some(&toml), &[], &[]).credentials.remove(0), toml)
    };
    for scopes in ["'openid AdobeID'", "'openid, AdobeID'", "['openid, AdobeID']", "['openid AdobeID', '']"] {
        assert_eq!(given(scopes, "'x'").0.scopes, ["openid", "AdobeID"], "{scopes}");
    }
    let CredentialSource::Client { secrets: Secrets::Given(secrets), .. } =
        given("'a'", "['', 'x', ' ']").0.source
    else {
        panic!("not given")
    };
    assert_eq!(secrets.len(), 1);
    for (scopes, secret, expected) in [
        ("[' ']", "'x'", "`credentials.main.scopes` (FILE:5) is not set"),
        ("'a'", "['', ' ']", "`credentials.main.client_secret` (FILE:4) is not set"),
    ] {
        let toml = given("'a'", "'x'").1.replace("scopes = 'a'", &format!("scopes = {scopes}"));
        let toml = toml.replace("client_secret = 'x'", &format!("client_secret = {secret}"));
        let error = refuse(Some(&toml), &[], &[]);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_does_not_fit_together_is_told_with_its_place() {
    for (change, expected) in [
        ("[credentials.third]\nfile = 'x'", "`proxies.author.credentials` is not set, and there are several"),
        (
            "[credentials.third]\nuser = 'x'",
            "`credentials.third.password` is not set: set AEM_PROXY_CREDENTIALS__THIRD__PASSWORD",
        ),
        (
            "[credentials.third]\nname = 'x'",
            "`credentials.third` (FILE:33) says nothing that could authenticate",
        ),
        (
            "[credentials.third]\nfile = 'x'\njson = 'x'",
            "`credentials.third` (FILE:33) is made of file and json at once",
        ),
        (
            "[credentials.third]\nuser = 'x'\npassword = 'y'\nfallback = 'main'",
            "`credentials.third.fallback` (FILE:35) does not go with user",
        ),
        (
            "[credentials.third]\nclient_id = 'x'\nscopes = 'a'",
            "`credentials.third.client_secret` is not set",
        ),
        (
            "[credentials.third]\nclient_id = 'x'\nclient_secret = 'y'",
            "`credentials.third.scopes` is not set, and IMS gives no token",
        ),
        (
            "[credentials.third]\nfile = 'x'\nfallback = 'nobody'",
            "`credentials.third.fallback` (FILE:34) names a credential that there is not",
        ),
        ("[credentials.third]\nfile = 'x'\nfallback = 'third'", "names the credential itself"),
        (
            "[credentials.third]\nfile = 'x'\nfallback = 'main'",
            "names a credential that has a fallback itself",
        ),
        ("[credentials.none]\nfile = 'x'", "`credentials.none` (FILE:33) is not a name that can be used"),
        ("[credentials.'a b']\nfile = 'x'", "is not a name that can be used"),
        ("[credentials.'a.b']\nfile = 'x'", "holds a name that is empty or has a dot in it"),
        (
            "[credentials.third]\nflie = 'x'",
            "`credentials.third.flie` (FILE:33) is not a key: did you mean `credentials.third.file`?",
        ),
        (
            "[proxies.third]\nlisten = '127.0.0.1:8080'\nupstream = 'author'",
            "`proxies.third.listen` (FILE:33) is the address of `proxies.author.listen` too",
        ),
        (
            "[proxies.third]\nlisten = 'localhost:8081'\nupstream = 'author'",
            "`admin.listen` (default) is the address of `proxies.third.listen` too",
        ),
        (
            "[proxies.third]\nlisten = '127.0.0.1:1'\nupstream = 'autor'",
            "`proxies.third.upstream` (FILE:34) names an upstream that there is not",
        ),
        ("[proxies.third]\nlisten = '127.0.0.1:1'", "`proxies.third.upstream` is not set"),
        ("[proxies.third]\nupstream = 'author'", "`proxies.third.listen` is not set"),
        ("[[proxies.publish.routes]]\ncredentials = 'main'", "`proxies.publish.routes.0.path` is not set"),
        (
            "[[proxies.publish.routes]]\npath = 'adobe'",
            "`proxies.publish.routes.0.path` (FILE:33) is not the prefix of a path",
        ),
        (
            "[[proxies.publish.routes]]\npath = '/a'\n[[proxies.publish.routes]]\npath = '/a/b'",
            "`proxies.publish.routes.1.path` (FILE:35) is never asked",
        ),
        (
            "[[proxies.publish.routes]]\npath = '/a'\ncredentials = 'none'\nx_api_key = true",
            "`proxies.publish.routes.0.x_api_key` (FILE:35) is set, but the credential has no client id",
        ),
        (
            "[proxies.publish.headers]\nAuthorization = 'x'",
            "`proxies.publish.headers.Authorization` (FILE:33) is a field that the proxy itself looks after",
        ),
        ("[proxies.publish.headers]\nX-Forwarded-For = 'x'", "is a field that the proxy itself looks after"),
        ("[proxies.publish.headers]\n'X Y' = 'x'", "is not the name of a field"),
        ("[proxies.publish.headers]\nX-Y = \"a\\nb\"", "is not a value that a field can have"),
        ("[proxies.publish]\nheaders = { X-Y = 'a' }\nheader_files = { x-y = 'b' }", "is given twice"),
        ("listen = '127.0.0.1:1'", "`listen` (FILE:1) is set, but the proxy that it is for has no upstream"),
        (
            "upstream = 'https://a.example'\nlisten = '[::1]:1'\n[proxies.default]\nlisten = '127.0.0.1:1'",
            "`proxies.default.listen` (FILE:4) is set beside listen (FILE:2)",
        ),
        ("credentials_name = 'x'", "`credentials_name` (FILE:1) is set, but there is no document"),
        (
            "policy = 'readonly'",
            "`policy` (FILE:1) names a policy that there is not: did you mean read-only?",
        ),
        ("policy = '?'", "give one of read-only, graphql-persisted, assets-read, assets-write, full"),
        (
            "rules = ['deny * /x', 'allow GET,POST /y']",
            "`rules` (FILE:1) has a line, the 2nd, that has a method that is none: write methods in capitals",
        ),
        (
            "[[proxies.publish.routes]]\npath = '/a'\nrules = ['allow GET /a/../b']",
            "`proxies.publish.routes.0.rules` (FILE:34) has a line, the 1st, that has a path that can be read in more",
        ),
        ("[proxies.publish]\npolicy = 'none'", "`proxies.publish.policy` (FILE:30) names a policy"),
    ] {
        let is_table = change.starts_with('[');
        let repeats = change.contains("[proxies.publish]");
        let full = if repeats { FULL.replace("[proxies.publish]", change) } else { FULL.to_owned() };
        let toml = match (is_table, repeats) {
            (_, true) => full,
            (true, _) => format!("{full}{change}"),
            (false, _) => format!("{change}\n{full}"),
        };
        let error = refuse(Some(&toml), &[], &[]);
        assert!(error.contains(expected), "{change}: {error}");
    }
}

#[test]
fn a_policy_holds_for_all_below_that_name_none_and_rules_add_up() {
    let toml = "
upstream = 'https://author-p1-e2.adobeaemcloud.com'
credentials_file = 'service_token.json'
policy = 'read-only'
rules = ['deny * /top']
[proxies.default]
rules = ['deny * /proxy']
[[proxies.default.routes]]
path = '/a/'
rules = ['deny * /route']
[[proxies.default.routes]]
path = '/b/'
policy = 'full'
[proxies.publish]
listen = '127.0.0.1:8082'
upstream = 'https://publish-p1-e2.adobeaemcloud.com'
policy = 'assets-read'
";
    let config = load(Some(toml), &[], &[]);
    let shown = |route: &Route| {
        let rules = route.policy.rules().iter().map(ToString::to_string).collect::<Vec<_>>();
        format!("{} {}", rules.join(", "), route.policy.preset())
    };
    let shown: Vec<_> = config.routes().map(shown).collect();
    assert_eq!(
        shown,
        [
            "deny * /route, deny * /proxy, deny * /top read-only",
            "deny * /proxy, deny * /top full",
            "deny * /proxy, deny * /top read-only",
            "deny * /top assets-read",
        ]
    );
    assert!(load(None, &[UPSTREAM, FILE], &[]).proxies[0].otherwise.policy.is_default());
}

#[test]
fn what_config_prints_of_the_full_form_can_be_read_again_and_holds_no_secret() {
    let full = FULL.replace("'one'", "'p8e-one'").replace("'blue'", "'p8e-blue'");
    let (sources, _file) = sources(Some(&full), &[("AEM_PROXY_PROXIES__PUBLISH__CREDENTIALS", "none")], &[]);
    let text = describe(&sources).unwrap();
    assert!(!text.contains("p8e-"), "{text}");
    for line in [
        "[credentials.main]",
        "[[proxies.author.routes]]\npath = \"/adobe/*\"",
        "client_secret = \"(redacted)\"",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let again = load(Some(&text), &[], &[]);
    assert_eq!(again.proxies.len(), 2);
    assert_eq!(again.proxies[0].routes.len(), 2);
    assert_eq!(again.proxies[1].otherwise.credential, None);
}

#[test]
fn the_full_form_can_say_more_of_what_the_simple_form_names() {
    let toml = "
upstream = 'https://author-p1-e2.adobeaemcloud.com'
credentials_file = 'service_token.json'
[credentials.default]
fallback = 'other'
[credentials.other]
file = 'oauth.json'
[proxies.default]
x_api_key = true
[[proxies.default.routes]]
path = '/adobe/'
credentials = 'other'
[proxies.publish]
listen = '127.0.0.1:8082'
upstream = 'https://publish-p1-e2.adobeaemcloud.com'
";
    let config = load(Some(toml), &[], &[]);
    assert_eq!(config.credential("default").unwrap().fallback.as_deref(), Some("other"));
    let [default, publish] = &config.proxies[..] else { panic!("{config:?}") };
    assert!(default.otherwise.x_api_key && default.routes[0].x_api_key && !publish.otherwise.x_api_key);
    assert_eq!(default.listen_key, "listen");
    assert_eq!(publish.otherwise.credential.as_deref(), Some("default"));
}
