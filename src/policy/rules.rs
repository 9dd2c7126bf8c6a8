//! Rules as an operator writes them: `allow GET POST /content/dam/*`.

use std::{fmt, str::FromStr};

use super::{
    decode,
    methods::is_read,
    normal::{Path, Reading, segments},
    words,
};

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    /// Empty for all.
    methods: Vec<String>,
    pattern: Pattern,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Neither an `allow` nor a `deny`.
    #[error("begins with neither allow nor deny")]
    Verb,
    /// No method, or no path.
    #[error("has no method, or no path")]
    Parts,
    /// What should be a method is none.
    #[error("has a method that is none")]
    Method,
    /// `*` beside other methods.
    #[error("names methods beside *")]
    AllAndSome,
    /// No path.
    #[error("has a path that does not begin with /")]
    NoPath,
    /// `*` within a path, a query, or something behind the path.
    #[error("has a path with a * that does not stand alone at its end, or with a query")]
    Pattern,
    /// A path that is itself one of those that are refused.
    #[error("has a path that can be read in more than one way")]
    Ambiguous,
}

impl RuleError {
    /// What to do.
    pub fn mend(self) -> &'static str {
        match self {
            Self::Verb | Self::Parts => "write it as allow GET /content/* or deny * /content/secret/*",
            Self::Method => {
                "write methods in capitals with spaces between them, as in allow GET POST /x, or * for all"
            }
            Self::AllAndSome => "write * alone for all methods, or name them",
            Self::NoPath => "the path comes last and begins with /, as in /content/dam/*",
            Self::Pattern => "write /x for a resource, or /x/* for it and all below, without a query",
            Self::Ambiguous => {
                "write it plainly, without ., .., //, ; and \\; only what needs it is percent-encoded, and once"
            }
        }
    }
}

impl Rule {
    /// Whether it allows, rather than denies.
    pub fn is_allow(&self) -> bool {
        self.allow
    }

    /// Whether it decides about this. An allowing rule wants everything exactly as it says, a denying one does not.
    pub(super) fn covers(&self, method: &str, reading: Reading<'_>) -> bool {
        if !self.is_for(method) {
            return false;
        }
        let own = if reading.folded { &self.pattern.folded } else { &self.pattern.segments };
        if self.allow { self.pattern.allows(own, reading) } else { self.pattern.denies(own, reading) }
    }

    /// Whether it denies a path of which nobody knows more than its words.
    pub(super) fn may_deny(&self, method: &str, words: &[u8]) -> bool {
        !self.allow && self.is_for(method) && words::in_order(&self.pattern.folded.join(&b'/'), words)
    }

    /// Who may `GET` may `HEAD`. A denied method is denied in any case.
    fn is_for(&self, method: &str) -> bool {
        let same = |own: &String| {
            let method = if method == "HEAD" && own == "GET" { "GET" } else { method };
            own == method || !self.allow && own.eq_ignore_ascii_case(method)
        };
        self.methods.is_empty() || self.methods.iter().any(same)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        let (allow, rest) = match words.split_first() {
            Some((&"allow", rest)) => (true, rest),
            Some((&"deny", rest)) => (false, rest),
            _ => return Err(RuleError::Verb),
        };
        let Some((path, methods)) = rest.split_last().filter(|(_, methods)| !methods.is_empty()) else {
            return Err(RuleError::Parts);
        };
        if !path.starts_with('/') {
            return Err(RuleError::NoPath);
        }
        Ok(Self { allow, methods: methods_of(methods)?, pattern: path.parse()? })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allow { "allow " } else { "deny " })?;
        let methods = self.methods.join(" ");
        write!(f, "{} {}", if methods.is_empty() { "*" } else { &methods }, self.pattern.text)
    }
}

fn methods_of(words: &[&str]) -> Result<Vec<String>, RuleError> {
    match words {
        ["*"] => return Ok(Vec::new()),
        words if words.contains(&"*") => return Err(RuleError::AllAndSome),
        _ => {}
    }
    let plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if !words.iter().all(plain) {
        return Err(RuleError::Method);
    }
    Ok(words.iter().map(|word| (*word).to_owned()).collect())
}

/// A resource, or one and all below.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// As it was written.
    text: String,
    /// Decoded.
    segments: Vec<Vec<u8>>,
    /// The same with ASCII in place of what looks like it.
    folded: Vec<Vec<u8>>,
    /// Whether it is for what is below, too.
    below: bool,
}

impl Pattern {
    /// `/x` is the resource `/x`, with selectors and an extension or without; `/x/*` is that, and all below.
    fn allows(&self, own: &[Vec<u8>], reading: Reading<'_>) -> bool {
        let mut rest = reading.segments().peekable();
        for (at, name) in own.iter().enumerate() {
            let Some(segment) = rest.next() else { return false };
            let is_last = at + 1 == own.len() && rest.peek().is_none();
            let is_resource = |dot: Option<&u8>| is_last && dot == Some(&b'.');
            if segment != name
                && !segment.strip_prefix(name.as_slice()).is_some_and(|behind| is_resource(behind.first()))
            {
                return false;
            }
        }
        self.below || rest.next().is_none()
    }

    /// The same in whatever case; a name ends at its first dot, whatever stands behind it, a suffix too. A dump of what is above
    /// shows what is below.
    fn denies(&self, own: &[Vec<u8>], reading: Reading<'_>) -> bool {
        let mut rest = reading.segments();
        let mut has_suffix = false;
        for (at, name) in own.iter().enumerate() {
            let Some(segment) = rest.next() else { return false };
            if at == 0 && dumps(segment) && segment.starts_with(b".") {
                return true;
            }
            if !words::begins_with_name(segment, name) {
                return false;
            }
            if at + 1 < own.len() && dumps(segment) && !words::same(segment, name) {
                return true;
            }
            has_suffix = !words::same(segment, name);
        }
        self.below || has_suffix || rest.next().is_none()
    }
}

/// Whether Sling answers with what is below, too: `.infinity.json`, `.3.json`, and all XML.
fn dumps(segment: &[u8]) -> bool {
    let mut parts = segment.split(|byte| *byte == b'.');
    let (Some(_), Some(extension)) = (parts.next(), parts.next_back()) else { return false };
    let deep = |selector: &[u8]| {
        let number = selector.strip_prefix(b"-").unwrap_or(selector);
        let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        is_number || DEEP.iter().any(|deep| selector.eq_ignore_ascii_case(deep))
    };
    extension.eq_ignore_ascii_case(b"xml") || extension.eq_ignore_ascii_case(b"json") && parts.any(deep)
}

const DEEP: [&[u8]; 3] = [b"infinity", b"sysview", b"docview"];

impl FromStr for Pattern {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (path, below) = match text.strip_suffix("/*") {
            Some("") => ("/", true),
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.contains(['*', '?', '#']) {
            return Err(RuleError::Pattern);
        }
        let read = Path::of(path.as_bytes());
        let normal = read.normal_form().ok_or(RuleError::Ambiguous)?;
        let plainly = decode::once(path.as_bytes()).ok_or(RuleError::Ambiguous)?;
        if normal != plainly {
            return Err(RuleError::Ambiguous);
        }
        let fold = |segment: &[u8]| {
            let folded = str::from_utf8(segment).ok().and_then(decode::folded);
            folded.unwrap_or_else(|| segment.to_vec())
        };
        let folded = segments(normal).map(fold).collect();
        let segments = segments(normal).map(<[u8]>::to_vec).collect();
        Ok(Self { text: text.to_owned(), segments, folded, below })
    }
}

/// Whether a path is `place`, with selectors and an extension or without, or below it: as `place/*` in an allowing rule.
pub(super) fn is_within(path: &[u8], place: &str) -> bool {
    match path.strip_prefix(place.as_bytes()) {
        Some(b"" | [b'/', ..]) => true,
        Some([b'.', rest @ ..]) => !rest.contains(&b'/'),
        _ => false,
    }
}

/// Whether a reading method asks for a path that is `place` itself.
pub(super) fn reads(method: &str, path: &[u8], place: &str) -> bool {
    is_read(method) && path == place.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: &str, method: &str, path: &str, covered: bool) {
        let rule: Rule = rule.parse().unwrap();
        let read = Path::of(path.as_bytes());
        let any = read.readings().any(|reading| rule.covers(method, reading));
        assert_eq!(any, covered, "{rule}: {method} {path}");
    }

    #[test]
    fn an_allowing_rule_is_for_what_it_says_and_nothing_else() {
        for (path, covered) in [
            ("/content/site", true),
            ("/content/site/", true),
            ("/content/site.html", true),
            ("/content/site.a.b.json", true),
            ("/content/site.html/suffix", false),
            ("/content/site/page", false),
            ("/content/sites", false),
            ("/Content/site", false),
            ("/content", false),
        ] {
            check("allow GET /content/site", "GET", path, covered);
            check("allow GET /content/site", "POST", path, false);
        }
        for (path, covered) in [
            ("/content/site", true),
            ("/content/site.html", true),
            ("/content/site/page.html/suffix", true),
            ("/content/site.html/suffix", false),
            ("/content/sites/x", false),
        ] {
            check("allow * /content/site/*", "POST", path, covered);
        }
        check("allow * /*", "X", "/anything", true);
        check("allow GET /", "GET", "/", true);
        check("allow GET /", "HEAD", "/", true);
        check("allow GET /", "GET", "/x", false);
        check("allow POST /x", "post", "/x", false);
        check("allow GET /a%20b/%C3%BC/*", "GET", "/a%20b/\u{fc}/c", true);
    }

    #[test]
    fn a_denying_rule_is_for_all_that_may_be_meant() {
        for (path, covered) in [
            ("/content/secret", true),
            ("/content/secret/", true),
            ("/Content/SECRET", true),
            ("/content/secret.html", true),
            ("/content/secret.html/suffix", true),
            ("/content//secret", true),
            ("/content/x/../secret", true),
            ("/content/secret/../x", true),
            ("/content/%73ecret;v=1", true),
            ("/content;v=1/secret", true),
            ("/content/\u{ff53}ecret", true),
            ("/content.infinity.json", true),
            ("/content.3.json", true),
            ("/content.tidy.-1.json", true),
            ("/content.xml", true),
            ("/.5.json", true),
            ("/content.json", false),
            ("/content.html", false),
            ("/content/secret/page", false),
            ("/content/secrets", false),
            ("/x/content/secret", false),
        ] {
            check("deny * /content/secret", "GET", path, covered);
        }
        check("deny * /content/secret/*", "GET", "/content/secret/page", true);
        check("deny POST /content/secret", "post", "/content/secret", true);
        check("deny GET /content/secret", "HEAD", "/content/secret", true);
        check("deny * /content/page/jcr:content", "GET", "/content/page/_jcr_content.json", true);
        check("deny * /content/\u{ff21}", "GET", "/content/a", false);
        check("deny * /content/\u{ff21}", "GET", "/content/\u{ff41}", true);
    }

    #[test]
    fn what_is_no_rule_says_what_to_do() {
        for (text, error) in [
            ("", RuleError::Verb),
            ("GET /x", RuleError::Verb),
            ("Allow GET /x", RuleError::Verb),
            ("allow", RuleError::Parts),
            ("allow /x", RuleError::Parts),
            ("allow GET", RuleError::Parts),
            ("allow GET,POST /x", RuleError::Method),
            ("allow get /x", RuleError::Method),
            ("allow GET * /x", RuleError::AllAndSome),
            ("allow GET x", RuleError::NoPath),
            ("allow GET /a*b", RuleError::Pattern),
            ("allow GET /a*", RuleError::Pattern),
            ("allow GET /a?b", RuleError::Pattern),
            ("allow GET /a/../b", RuleError::Ambiguous),
            ("allow GET //a", RuleError::Ambiguous),
            ("allow GET /a;b", RuleError::Ambiguous),
            ("allow GET /a%2Fb", RuleError::Ambiguous),
            ("allow GET /a%zz", RuleError::Ambiguous),
        ] {
            assert_eq!(text.parse::<Rule>(), Err(error), "{text}");
            assert!(!error.mend().is_empty());
        }
        for text in ["allow GET POST /x", "deny * /x/*", "allow * /*"] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
    }
}
