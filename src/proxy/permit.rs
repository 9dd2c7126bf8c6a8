//! Whether a request may pass, and on which route. What is judged is what AEM may take the request for: every reading of its path,
//! the method that a field names beside its own, the place where a `MOVE` would write.

use std::cell::LazyCell;

use super::{Proxy, Route, error::ProxyError, fields::Field, request::RequestHead};
use crate::policy::{self, Asks, Case, Path, Policy, Preset, Reading, Refused};

impl Proxy {
    /// The route of a request that its policy lets through.
    pub(super) fn permit(&self, head: &RequestHead<'_, '_>) -> Result<&Route, ProxyError> {
        let target = head.path();
        self.check_length(policy::without_query(target))?;
        let path = Path::of(target);
        let route = self.route(&path);
        let case = LazyCell::new(|| self.case(&path));
        // The usual case, before it is looked at more closely.
        let passes = |path| route.policy.judge(head.method, Reading { path, folded: false }).is_ok();
        if !matches!(path, Path::Plain(path) if passes(path)) {
            case.judge(head.method)?;
        }
        // Where everything passes but what is closed, only what writes elsewhere has more to say.
        if !route.policy.is_default() || matches!(head.method.as_bytes(), [b'C' | b'M', ..]) {
            self.judge_fields(head, route, &|method| case.judge(method))?;
        }
        let asks = Asks::of(head.query());
        if asks.user {
            return Err(Refused::User.into());
        }
        if asks.operation && route.policy.preset() != Preset::Full {
            return Err(Refused::Override.into());
        }
        Ok(route)
    }

    /// Checks the length of a path before anything judges it.
    fn check_length(&self, path: &[u8]) -> Result<(), ProxyError> {
        if path.len() > self.limits.path { Err(ProxyError::PathTooLong) } else { Ok(()) }
    }

    /// The route that has a path: by what the path says, however it is spelled. What can be read in two ways passes only where no
    /// route keeps anything back, and goes where it seems to; a persisted query goes where its values do not matter.
    fn route(&self, path: &Path<'_>) -> &Route {
        match (path.normal_form(), path) {
            _ if self.routes.is_empty() => &self.otherwise,
            (Some(normal), _) => self.route_of(normal),
            (None, Path::Ambiguous { persisted: Some(readings), .. }) => self.route_of(readings.query()),
            (None, Path::Ambiguous { raw, .. }) => self.first(|route| route.path.covers(raw)),
            (None, _) => &self.otherwise,
        }
    }

    fn route_of(&self, reading: &[u8]) -> &Route {
        self.first(|route| route.path.covers_reading(reading))
    }

    fn first(&self, is_for: impl Fn(&Route) -> bool) -> &Route {
        self.routes.iter().find(|route| is_for(route)).unwrap_or(&self.otherwise)
    }

    /// A path with the policies of the routes that may have it.
    fn case<'c>(&self, path: &'c Path<'_>) -> Case<'c, '_> {
        let of = |reading: &[u8]| -> &Policy { &self.route_of(reading).policy };
        Case::of(path, of, || self.all_routes().map(|route| -> &Policy { &route.policy }))
    }

    /// Fields that change what a request does. `judge` tells whether its path passes for another method.
    fn judge_fields(
        &self,
        head: &RequestHead<'_, '_>,
        route: &Route,
        judge: &dyn Fn(&str) -> Result<(), Refused>,
    ) -> Result<(), ProxyError> {
        for (name, field, value) in head.fields() {
            if field == Field::Destination {
                self.judge_destination(head.method, route, value)?;
            } else if OVERRIDES.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                judge_override(head.method, route, value, judge)?;
            }
        }
        Ok(())
    }

    fn judge_destination(&self, method: &str, route: &Route, value: &[u8]) -> Result<(), ProxyError> {
        let destination = destination(value);
        self.check_length(destination.map_or(value, policy::without_query))?;
        let path = destination.map_or_else(|| Path::in_doubt(value), Path::of);
        // It is written by the upstream and the credential of this route.
        let own = Case::of(&path, |_| &*route.policy, || [&*route.policy].into_iter());
        let judged = own.judge(method).and_then(|()| self.case(&path).judge(method));
        judged.map_err(|_| Refused::Destination.into())
    }
}

/// A method beside the request's own. Whatever AEM's applications make of it, both have to pass.
fn judge_override(
    method: &str,
    route: &Route,
    value: &[u8],
    judge: &dyn Fn(&str) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let value = value.trim_ascii();
    if value.eq_ignore_ascii_case(method.as_bytes()) {
        return Ok(());
    }
    match str::from_utf8(value).map(str::to_ascii_uppercase) {
        Ok(method) if route.policy.preset() == Preset::Full => judge(&method).map_err(|_| Refused::Override),
        _ => Err(Refused::Override),
    }
}

/// The path of a `Destination`, which is a URL or a path (RFC 4918, section 10.3); `None` for what names another host without a
/// scheme, and for what is neither.
fn destination(value: &[u8]) -> Option<&[u8]> {
    let behind = |scheme: &[u8]| {
        let (begin, rest) = value.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let path = match behind(b"http://").or_else(|| behind(b"https://")) {
        Some(rest) => &rest[rest.iter().position(|byte| *byte == b'/')?..],
        None => value,
    };
    let is_path = path.starts_with(b"/") && (path.len() < value.len() || !path.starts_with(b"//"));
    (is_path && !path.contains(&b'#')).then_some(path)
}

/// Fields that frameworks take for the method (Apache Sling does not; what is installed in AEM may).
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_path_wherever_it_begins() {
        for (value, expected) in [
            ("/api/assets/x", Some("/api/assets/x")),
            ("http://localhost:8080/api/assets/x", Some("/api/assets/x")),
            ("HTTPS://author.example/crx", Some("/crx")),
            ("//host/crx", None),
            ("api/assets/x", None),
            ("", None),
            ("*", None),
            ("?x", None),
            ("ftp://host/crx", None),
            ("/a#b", None),
        ] {
            assert_eq!(destination(value.as_bytes()), expected.map(str::as_bytes), "{value}");
        }
    }
}
