//! In which bodies URLs of AEM's are renamed, and where in them.

use memchr::{memchr2, memrchr};

use super::strip;

/// Whose values are renamed: the members of JSON objects in which AEM hands out absolute URLs. None by default.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Members {
    /// `completeURI`: where a direct binary upload is completed. The `uploadURIs` beside it are the blob storage's own,
    /// signed, and never touched.
    complete_uri: bool,
    /// `href` of each of `links`: the Assets HTTP API's (Siren).
    link_href: bool,
    /// `_publishUrl` and `_authorUrl`: GraphQL's.
    graphql: bool,
}

/// What the name of a member means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Its value is renamed.
    Renamed,
    /// Its value is a link, or a list of links.
    Links,
    /// Its value is renamed, if the object is a link.
    Href,
    Other,
}

impl Members {
    #[cfg(test)]
    pub(super) const ALL: Self = Self { complete_uri: true, link_href: true, graphql: true };

    /// What is renamed in an answer to a request for `path`, as the client wrote it. GraphQL's URLs may be meant for
    /// others than the client: they are renamed if `graphql` asks for it.
    ///
    /// Sources: Adobe, "Developer references for Assets" (direct binary upload), "Adobe Experience Manager Assets HTTP
    /// API", "AEM GraphQL API for use with Content Fragments".
    pub(in crate::proxy) fn of(path: &[u8], graphql: bool) -> Self {
        let path = &path[..memchr2(b'?', b'#', path).unwrap_or(path.len())];
        let assets = path.strip_prefix(ASSETS).is_some_and(|rest| until(rest, b"./;").is_empty());
        let resource = &path[memrchr(b'/', path).map_or(0, |slash| slash + 1)..];
        Self {
            complete_uri: assets || until(resource, b";").ends_with(INITIATE_UPLOAD),
            link_href: assets,
            graphql: graphql && GRAPHQL.iter().any(|endpoint| path.starts_with(endpoint)),
        }
    }

    /// Nothing is renamed.
    pub(in crate::proxy) fn is_empty(self) -> bool {
        self == Self::default()
    }

    pub(super) fn name(self, name: &[u8]) -> Name {
        match name {
            b"completeURI" if self.complete_uri => Name::Renamed,
            b"_publishUrl" | b"_authorUrl" if self.graphql => Name::Renamed,
            b"links" if self.link_href => Name::Links,
            b"href" if self.link_href => Name::Href,
            _ => Name::Other,
        }
    }
}

/// Whether a body of this `Content-Type` is JSON in UTF-8: no other has its quotes where they are looked for.
///
/// Parameters are split at every `;`, also between quotes, where none would be one: then a charset is seen at worst
/// where none is, and the body stays as it is.
pub(in crate::proxy) fn is_json(content_type: &[u8]) -> bool {
    let mut parts = content_type.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let essence = parts.next().unwrap_or_default();
    let subtype = strip(essence, b"application/").unwrap_or_default();
    let suffix = subtype.rsplit(|byte| *byte == b'+').next().unwrap_or_default();
    suffix.eq_ignore_ascii_case(b"json") && parts.all(is_utf8)
}

/// Whether a parameter is another one than `charset`, or one whose bytes are UTF-8.
fn is_utf8(parameter: &[u8]) -> bool {
    let (name, value) = parameter.split_at(until(parameter, b"=").len());
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    !name.trim_ascii().eq_ignore_ascii_case(b"charset")
        || UTF8.iter().any(|charset| value.eq_ignore_ascii_case(charset))
}

/// What stands before the first of `ends`.
fn until<'t>(text: &'t [u8], ends: &[u8]) -> &'t [u8] {
    let end = text.iter().position(|byte| ends.contains(byte)).unwrap_or(text.len());
    &text[..end]
}

const ASSETS: &[u8] = b"/api/assets";

const INITIATE_UPLOAD: &[u8] = b".initiateUpload.json";

/// Persisted queries, and endpoints in every spelling of `cq:graphql`.
const GRAPHQL: [&[u8]; 6] = [
    b"/graphql/execute.json/",
    b"/content/graphql/",
    b"/content/cq:graphql/",
    b"/content/cq%3Agraphql/",
    b"/content/cq%3agraphql/",
    b"/content/_cq_graphql/",
];

const UTF8: [&[u8]; 2] = [b"utf-8", b"us-ascii"];

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Members = Members { complete_uri: false, link_href: false, graphql: false };
    const UPLOAD: Members = Members { complete_uri: true, ..NONE };
    const ASSETS: Members = Members { complete_uri: true, link_href: true, ..NONE };
    const GRAPHQL: Members = Members { graphql: true, ..NONE };

    #[test]
    fn what_is_renamed_depends_on_the_path() {
        for (path, members) in [
            ("/content/dam/a.initiateUpload.json", UPLOAD),
            ("/content/dam/a.initiateUpload.json?x=1", UPLOAD),
            ("/content/dam/a.initiateUpload.json;v=1", UPLOAD),
            ("/content/dam;v=1/a.initiateUpload.json", UPLOAD),
            ("/content/dam/a.initiateupload.json", NONE),
            ("/content/dam/a.initiateUpload.json/x", NONE),
            ("/content/dam/a.completeUpload.json", NONE),
            ("/content/dam/a.json?x=.initiateUpload.json", NONE),
            ("/api/assets", ASSETS),
            ("/api/assets.json", ASSETS),
            ("/api/assets/", ASSETS),
            ("/api/assets/a/b.json?limit=1", ASSETS),
            ("/api/assets;v=1/a", ASSETS),
            ("/api/assets?x", ASSETS),
            ("/api/assetstore/a", NONE),
            ("/x/api/assets", NONE),
            ("/graphql/execute.json/wknd/all;x=1", GRAPHQL),
            ("/content/graphql/global/endpoint.json", GRAPHQL),
            ("/content/cq:graphql/global/endpoint.json", GRAPHQL),
            ("/content/cq%3Agraphql/global/endpoint.json", GRAPHQL),
            ("/content/cq%3agraphql/global/endpoint.json", GRAPHQL),
            ("/content/_cq_graphql/global/endpoint.json", GRAPHQL),
            ("/graphql/execute.jsonx/a", NONE),
            ("/content/dam/graphql/a", NONE),
            ("/", NONE),
            ("", NONE),
            ("*", NONE),
        ] {
            assert_eq!(Members::of(path.as_bytes(), true), members, "{path}");
            let without = Members { graphql: false, ..members };
            assert_eq!(Members::of(path.as_bytes(), false), without, "{path}, without GraphQL");
            assert_eq!(without.is_empty(), without == NONE);
        }
    }

    #[test]
    fn a_name_means_nothing_where_it_was_not_asked_for() {
        for (members, name, meaning) in [
            (UPLOAD, "completeURI", Name::Renamed),
            (UPLOAD, "href", Name::Other),
            (UPLOAD, "uploadURIs", Name::Other),
            (UPLOAD, "completeUri", Name::Other),
            (ASSETS, "links", Name::Links),
            (ASSETS, "href", Name::Href),
            (ASSETS, "_publishUrl", Name::Other),
            (GRAPHQL, "_publishUrl", Name::Renamed),
            (GRAPHQL, "_authorUrl", Name::Renamed),
            (GRAPHQL, "completeURI", Name::Other),
            (NONE, "links", Name::Other),
        ] {
            assert_eq!(members.name(name.as_bytes()), meaning, "{name}");
        }
    }

    #[test]
    fn json_is_known_by_its_type_and_charset() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON", true),
            ("application/json;charset=utf-8", true),
            ("application/json ; Charset = \"UTF-8\"", true),
            ("application/json;charset=us-ascii", true),
            ("application/vnd.siren+json; profile=\"x\"", true),
            ("application/graphql-response+json", true),
            ("application/json; profile=\"a;b\"", true),
            ("application/json;", true),
            ("application/json; profile=\"a;charset=x\"", false),
            ("application/json;charset=iso-8859-1", false),
            ("application/json;charset=utf-16", false),
            ("application/json;charset=", false),
            ("application/json;charset=utf-8;charset=utf-16", false),
            ("application/json; profile=\";\"; charset=utf-16", false),
            ("application/jsonp", false),
            ("application/json-seq", false),
            ("application/octet-stream", false),
            ("application/x+jsonx", false),
            ("text/html", false),
            ("text/json", false),
            ("json", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type.as_bytes()), expected, "{content_type}");
        }
    }
}
