//! Selectors that are closed at every resource, and servlets at their mount point.
//!
//! Sources: Apache Sling, `org.apache.sling.jcr.jackrabbit.accessmanager` (`ModifyAceServlet` and the other servlets of its
//! package `post`), `org.apache.sling.jcr.resource` (`JsonQueryServlet`), `org.apache.sling.servlets.resolver` (servlets
//! are resources whose names end in `.servlet`); shinesolutions/swagger-aem, `conf/api.yml` (`.cqactions.html`,
//! `.rw.html`, `.ks.html`, `.ks.json`).

use memchr::{memchr, memchr_iter};

use super::{methods::is_read, words};
use crate::steps;

/// Whether a selector in `path` is closed for `method`. `has_scripts` tells that servlets are mounted below the root
/// of the path.
pub(super) fn closes(method: &str, path: &[u8], has_scripts: bool) -> bool {
    let (mut wanted, mut seen) = (Wanted::default(), 0);
    for at in memchr_iter(b'.', steps::over(path)) {
        let rest = &path[at + 1..];
        if wanted.is_any() && memchr(b'/', steps::over(&path[seen..at])).is_some() {
            wanted = Wanted::default();
        }
        seen = at;
        let first = rest.first().map_or(0, |first| first | 0x20);
        if !b"acdehjkmpqrs".contains(&first) {
            continue;
        }
        let is_end = |byte: &u8| *byte == b'/' || words::ends_name(*byte);
        let word = &rest[..rest.iter().position(is_end).unwrap_or(rest.len())];
        steps::over(word);
        if has_scripts && word.eq_ignore_ascii_case(b"servlet") || wanted.is_met_by(word) {
            return true;
        }
        // A selector has an extension behind it.
        if rest.get(word.len()).is_none_or(|byte| *byte == b'/') {
            continue;
        }
        match Selector::of(word) {
            Some(Selector::Always) => return true,
            Some(Selector::Json) => wanted.json = true,
            Some(Selector::Query) => wanted.json |= is_read(method),
            Some(Selector::JsonOrHtml) => (wanted.json, wanted.html) = (true, true),
            None => {}
        }
    }
    false
}

/// The extensions with which the selectors of a segment are closed.
#[derive(Default)]
struct Wanted {
    json: bool,
    html: bool,
}

impl Wanted {
    fn is_any(&self) -> bool {
        self.json || self.html
    }

    fn is_met_by(&self, word: &[u8]) -> bool {
        self.json && word.eq_ignore_ascii_case(b"json") || self.html && word.eq_ignore_ascii_case(b"html")
    }
}

/// What a selector is closed with.
enum Selector {
    /// Any extension.
    Always,
    Json,
    JsonOrHtml,
    /// `json`, for methods that read.
    Query,
}

impl Selector {
    fn of(word: &[u8]) -> Option<Self> {
        let is = |own: &str| word.eq_ignore_ascii_case(own.as_bytes());
        let begins = |own: &[u8]| word.get(..own.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(own));
        let ends = |own: &[u8]| word.last_chunk::<3>().is_some_and(|end| end.eq_ignore_ascii_case(own));
        match word.first()? | 0x20 {
            b'c' if is("cqactions") => Some(Self::Always),
            // `modifyAce`, `deleteAce`, `modifyPrincipalAce`, `deletePrincipalAce`, and those to come.
            b'm' | b'd' if (begins(b"modify") || begins(b"delete")) && ends(b"ace") => Some(Self::Always),
            b'k' if is("ks") => Some(Self::JsonOrHtml),
            b'r' if is("rw") => Some(Self::JsonOrHtml),
            b'q' if is("query") => Some(Self::Query),
            // `acl`, `ace` and what begins with letters of its own: `eacl`, `pace`.
            b'a' | b'e' | b'p' if word.len() <= 5 && (ends(b"acl") || ends(b"ace")) => Some(Self::Json),
            _ => None,
        }
    }
}

/// The same as sequences of words, for paths of which no more is known: those of [`Selector::Query`] are not in it.
pub(super) const WORDS: [&str; 18] = [
    "/cqactions",
    "/modifyAce",
    "/deleteAce",
    "/modifyPrincipalAce",
    "/deletePrincipalAce",
    "/ks/json",
    "/ks/html",
    "/rw/json",
    "/rw/html",
    "/acl/json",
    "/ace/json",
    "/eacl/json",
    "/eace/json",
    "/pacl/json",
    "/pace/json",
    "/apps/servlet",
    "/libs/servlet",
    "/mnt/servlet",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_rights_or_shows_keys_is_closed_at_every_resource() {
        for (path, closed) in [
            ("/content.query.json", true),
            ("/content.tidy.query.2.json", true),
            ("/content/x.query.json/suffix", true),
            ("/content/query.json", false),
            ("/content/x.query.html/y.json", false),
            ("/content/x.queryset.json", false),
            ("/.cqactions.html", true),
            ("/content.CqActions.json", true),
            ("/content/dam.modifyAce.html", true),
            ("/content/dam.x.modifyace.html/suffix", true),
            ("/content/dam.modifyPrincipalAce.css", true),
            ("/content/dam.deletePrincipalAce.html", true),
            ("/content/dam.deleteAce.html", true),
            ("/content/dam.modifyAce .html", true),
            ("/content/dam.modifyAce#.html", true),
            ("/content/dam/modifyAce.html", false),
            ("/content/x.acl.json", true),
            ("/content/x.tidy.eacl.json", true),
            ("/content/x.pace.json?pid=x", true),
            ("/content/x.acl.json#.css", true),
            ("/content/x.acl", false),
            ("/content/x.acl.txt", false),
            ("/content/x.palace.json", false),
            ("/home/users/x.ks.json", true),
            ("/content/x.ks.html", true),
            ("/content/x.ks.jpg", false),
            ("/content/x.rw.html", true),
            ("/content/x.rw.userprops.html", true),
            ("/content/x.rw.pdf", false),
            ("/content/surface.html", false),
            ("/content/x.marketplace.json", false),
        ] {
            assert_eq!(closes("GET", path.as_bytes(), false), closed, "{path}");
        }
        assert!(!closes("POST", b"/content.query.json", false));
    }

    #[test]
    fn servlets_are_closed_where_they_are_mounted() {
        for (path, closed) in [
            ("/libs/sling/servlet/default/GET.servlet", true),
            ("/libs/sling/servlet/default/GET.SERVLET.json/a.css", true),
            ("/apps/x/json.POST.servlet;v=1", true),
            ("/libs/sling/servlet/default.html", false),
            ("/libs/x.servlets", false),
        ] {
            assert_eq!(closes("GET", path.as_bytes(), true), closed, "{path}");
            assert!(!closes("GET", path.as_bytes(), false), "{path}");
        }
    }
}
