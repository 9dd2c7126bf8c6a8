//! Which AEM environment a name belongs to.

use std::fmt;

/// Program and environment of AEM as a Cloud Service, as in `author-p1-e2.adobeaemcloud.com` and in the client id
/// `cm-p1-e2-integration-0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Environment {
    program: u64,
    environment: u64,
}

impl Environment {
    /// The environment that `name` tells, if it tells one.
    pub fn of(name: &str) -> Option<Self> {
        let number = |part: &str, letter: char| part.strip_prefix(letter)?.parse().ok();
        let parts: Vec<_> = name.split(['-', '.']).collect();
        parts.windows(2).find_map(|pair| {
            Some(Self { program: number(pair[0], 'p')?, environment: number(pair[1], 'e')? })
        })
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}-e{}", self.program, self.environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_and_hosts_tell_their_environment() {
        let environment = Some(Environment { program: 12, environment: 345 });
        for name in [
            "cm-p12-e345",
            "cm-p12-e345-integration",
            "cm-p12-e345-integration-0",
            "cm-p12-e345-cmstg-integration-0",
            "author-p12-e345.adobeaemcloud.com",
            "publish-p12-e345-cmstg.adobeaemcloud.com",
        ] {
            assert_eq!(Environment::of(name), environment, "{name}");
        }
        for name in ["", "localhost", "0123456789abcdef", "p12", "author-p12.example", "help-eye", "p-e"] {
            assert_eq!(Environment::of(name), None, "{name}");
        }
        assert_ne!(Environment::of("cm-p1-e2"), Environment::of("cm-p1-e3"));
        assert_eq!(environment.map(|known| known.to_string()).as_deref(), Some("p12-e345"));
    }
}
