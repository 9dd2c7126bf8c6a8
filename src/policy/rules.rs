//! Rules as an operator writes them: `allow GET POST /content/dam/*`.

use std::{fmt, str::FromStr};

use super::{outline::Outline, pattern::Pattern};

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
    pub(super) fn covers(&self, method: &str, outline: &Outline<'_>) -> bool {
        if !self.is_for(method) {
            return false;
        }
        if self.allow { self.pattern.allows(outline) } else { self.pattern.denies(outline) }
    }

    /// Whether it denies something for this method.
    pub(super) fn may_deny(&self, method: &str) -> bool {
        !self.allow && self.is_for(method)
    }

    /// The words that a path has which can be read in several ways, if this rule may deny it.
    pub(super) fn denied_words(&self) -> Vec<u8> {
        if self.allow { Vec::new() } else { self.pattern.words() }
    }

    /// How many names of a path it looks at.
    pub(super) fn depth(&self) -> usize {
        self.pattern.depth()
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
        write!(f, "{} {}", if methods.is_empty() { "*" } else { &methods }, self.pattern)
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

#[cfg(test)]
mod tests {
    use super::{super::Path, *};

    #[track_caller]
    fn check(rule: &str, method: &str, path: &str, covered: bool) {
        let rule: Rule = rule.parse().unwrap();
        let read = Path::of(path.as_bytes());
        let any = read.readings().any(|reading| rule.covers(method, &Outline::of(reading, rule.depth())));
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
            ("/content/.infinity.json", true),
            ("/content/.xml", true),
            ("/content/secret/.json", true),
            ("/content/secret//.html/suffix", true),
            ("/content/secret[1]", true),
            ("/content%5B1%5D/secret.json", true),
            ("/content/{}secret", true),
            ("/content/.html", false),
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
        check("deny * /content/page/jcr:content", "GET", "/content/page/jcr%3Acontent[1].json", true);
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
