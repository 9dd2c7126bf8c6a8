//! `/`: the status as a page for people.

use std::fmt::Write;

use super::status::{CredentialStatus, Status};

/// One page without scripts, styles from elsewhere or anything to click that changes something.
pub(super) fn render(status: &Status) -> String {
    let mut page = String::from(HEAD);
    let (class, word) = match (status.ready, status.draining) {
        (_, true) => ("no", "draining"),
        (true, _) => ("yes", "ready"),
        (false, _) => ("no", "not ready"),
    };
    let _ = write!(
        page,
        "<h1>aem-auth-proxy <span class={class}>{word}</span></h1><p>Version {}, commit {}, up {} s.</p>",
        escape(status.version),
        escape(status.commit),
        status.uptime_seconds
    );
    for proxy in &status.proxies {
        let auth = |auth: &str, name: &Option<String>| match name {
            Some(name) => format!("{auth} ({name})"),
            None => auth.to_owned(),
        };
        let policy = |policy: &str, rules: &[String]| match rules {
            [] => policy.to_owned(),
            rules => format!("{}, then {policy}", rules.join(", ")),
        };
        let mut rows = vec![
            ("listens at", proxy.listen.join(", ") + if proxy.tls { " with TLS" } else { "" }),
            ("forwards to", proxy.upstream.clone()),
            ("auth", auth(proxy.auth, &proxy.credentials)),
            ("policy", policy(proxy.policy, &proxy.rules)),
        ];
        rows.extend(proxy.routes.iter().map(|route| {
            let auth = auth(route.auth, &route.credentials);
            let policy = policy(route.policy, &route.rules);
            ("route", format!("{} to {}, {auth}; policy: {policy}", route.path, route.upstream))
        }));
        table(&mut page, &format!("Proxy {}", proxy.name), &rows);
    }
    for credential in &status.credentials {
        table(&mut page, &format!("Credential {}", credential.name), &rows(credential));
    }
    page.push_str("<p><a href=/status>status as JSON</a> <a href=/metrics>metrics</a></p>");
    page
}

fn rows(credential: &CredentialStatus) -> Vec<(&'static str, String)> {
    let token = &credential.token;
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![
        ("token", if token.valid { "valid" } else { "none" }.to_owned()),
        ("expires", text(&token.expires_at)),
        ("next refresh", text(&token.next_refresh)),
        ("generation", token.generation.to_string()),
        ("scopes", token.scopes.join(", ")),
    ];
    rows.extend(credential.facts.rows());
    if let Some(fallback) = &credential.fallback {
        let state = if fallback.active { "has taken over" } else { "stands by" };
        rows.push(("fallback", format!("{} {state}", fallback.name)));
    }
    if let Some(error) = &token.last_error {
        rows.push(("last error", format!("{}: {}", error.at, error.message)));
        rows.push(("what to do", text(&error.hint)));
    }
    rows
}

fn table(page: &mut String, title: &str, rows: &[(&str, String)]) {
    let _ = write!(page, "<h2>{}</h2><table>", escape(title));
    for (name, value) in rows {
        let _ = write!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(value));
    }
    page.push_str("</table>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: &str = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>\
<meta http-equiv=refresh content=10><title>aem-auth-proxy</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
th{text-align:left;font-weight:normal;color:#555;padding-right:2rem;vertical-align:top;white-space:nowrap}\
td{overflow-wrap:anywhere}h1 span{font-size:1rem;padding:.2rem .6rem;border-radius:1rem;color:#fff;vertical-align:middle}\
.yes{background:#18794e}.no{background:#c62a2f}a{margin-right:1rem}</style>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_says_cannot_become_markup() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
    }
}
