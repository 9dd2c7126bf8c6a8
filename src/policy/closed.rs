//! What is closed under every preset, unless a rule of the operator's opens it: consoles, package managers, the machinery
//! of users and replication, queries about everything, and servlets that fetch what they are told to.
//!
//! Sources: Adobe, "Dispatcher Security Checklist", "Testing Dispatcher Security" and "Security Checklist" of AEM 6.5; Apache
//! Sling's and ACS AEM Commons' documentation; CVE-2018-5006, CVE-2018-12809 (servlets that fetch).

use memchr::memchr_iter;

use super::{methods::is_read, normal::segments, pattern::is_within, presets::PERSISTED, words};

/// Whether a reading of a path is closed.
pub(super) fn covers(method: &str, path: &[u8]) -> bool {
    let mut names = segments(path);
    let Some(root) = names.next().map(<[u8]>::trim_ascii_start) else { return false };
    let covered = match root.first().map_or(0, |first| first | 0x20) {
        b'a' => is_named(root, "apps") && (!is_read(method) || libraries(names)),
        b'b' => is_named(root, "bin") && any_below(BIN, names),
        b'c' => ["crx", "crxde"].iter().any(|own| is_named(root, own)),
        b'd' => is_named(root, "dav"),
        b'e' => is_named(root, "etc") && any_below(ETC, names),
        b'l' => is_named(root, "libs") && libraries(names),
        b'm' => is_named(root, "miscadmin") || is_named(root, "mnt") && mounted(method, names),
        b's' => {
            is_named(root, "system") && any_below(SYSTEM, names.clone())
                || is_named(root, "security") && any_below(SECURITY, names)
        }
        b'u' => is_named(root, "useradmin"),
        _ => false,
    };
    covered || is_read(method) && queries(path) && !is_within(path, PERSISTED) || shows(root, path)
}

/// Whether what may be one of them stands in a path of which nobody knows more than its words.
pub(super) fn may_cover(method: &str, text: &[u8]) -> bool {
    let below = |root: &str, places: &[&str]| {
        places.iter().any(|place| words::in_order(format!("/{root}/{place}").as_bytes(), text))
    };
    let whole = ["/crx", "/crxde", "/dav", "/miscadmin", "/useradmin"];
    whole.iter().any(|place| words::in_order(place.as_bytes(), text))
        || below("system", SYSTEM)
        || below("bin", BIN)
        || below("etc", ETC)
        || below("security", SECURITY)
        || ["libs", "apps", "mnt"].iter().any(|root| below(root, LIBS))
        || !is_read(method) && words::in_order(b"/apps", text)
        || is_read(method) && words::in_order(b"/query/json", text)
        || words::may_dump(text)
}

/// What `/mnt/overlay/x` and `/mnt/override/libs/x` show is what is at `/libs/x` and `/apps/x`.
fn mounted<'p>(method: &str, mut names: impl Iterator<Item = &'p [u8]> + Clone) -> bool {
    match names.next() {
        Some(mount) if is_named(mount, "overlay") => libraries(names),
        Some(mount) if is_named(mount, "override") => match names.next() {
            Some(root) if is_named(root, "apps") => !is_read(method) || libraries(names),
            Some(root) => is_named(root, "libs") && libraries(names),
            None => false,
        },
        _ => false,
    }
}

/// What an application lays over `/libs/x` is at `/apps/x`.
fn libraries<'p>(names: impl Iterator<Item = &'p [u8]> + Clone) -> bool {
    any_below(LIBS, names)
}

fn any_below<'p>(places: &[&str], names: impl Iterator<Item = &'p [u8]> + Clone) -> bool {
    let is_below = |place: &&str| {
        let mut names = names.clone();
        place.split('/').all(|own| names.next().is_some_and(|name| is_named(name, own)))
    };
    places.iter().any(is_below)
}

/// Whether it is a dump of what stands above something that is closed, which is in it then. `root` is its first name.
fn shows(root: &[u8], path: &[u8]) -> bool {
    if !root.starts_with(b".") && !ROOTS.iter().any(|own| is_named(root, own)) {
        return false;
    }
    let Some(dump) = segments(path).find(|name| words::dumps(name)) else { return false };
    let resource = dump.split(|byte| *byte == b'.').next().unwrap_or_default();
    let above = segments(path).take_while(|name| !words::dumps(name));
    let above = above.chain(Some(resource).filter(|name| !name.is_empty()));
    let is_above = |root: &str, place: &str| {
        let mut own = root.split('/').chain(place.split('/'));
        above.clone().all(|name| own.next().is_some_and(|own| is_named(name, own))) && own.next().is_some()
    };
    TREES.iter().any(|(root, places)| places.iter().any(|place| is_above(root, place)))
}

/// As [`words::begins_with_name`], for names that are plain ASCII: every request passes here.
fn is_named(segment: &[u8], name: &str) -> bool {
    let segment = segment.trim_ascii_start();
    segment.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()))
        && segment.get(name.len()).is_none_or(|byte| words::ends_name(*byte))
}

/// Sling's query servlet answers at every resource: `/content.query.json?statement=...`.
fn queries(path: &[u8]) -> bool {
    memchr_iter(b'.', path).any(|dot| {
        let rest = &path[dot + 1..];
        let segment = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
        let mut parts = segment.split(|byte| *byte == b'.');
        parts.next().is_some_and(|part| part.eq_ignore_ascii_case(b"query"))
            && parts.next_back().is_some_and(|part| is_named(part, "json"))
    })
}

/// What has something closed below it.
const ROOTS: [&str; 7] = ["apps", "bin", "etc", "libs", "mnt", "security", "system"];

/// Where the closed places below a root are.
const TREES: [(&str, &[&str]); 9] = [
    ("system", SYSTEM),
    ("bin", BIN),
    ("etc", ETC),
    ("security", SECURITY),
    ("libs", LIBS),
    ("apps", LIBS),
    ("mnt/overlay", LIBS),
    ("mnt/override/libs", LIBS),
    ("mnt/override/apps", LIBS),
];

/// Below `/system`: the web console; Sling's users and groups, and its background servlets.
const SYSTEM: &[&str] = &["console", "userManager", "bgservlets"];

/// Below `/bin`: queries, both ends of replication, packages, CRXDE's logs, users, and a shell.
const BIN: &[&str] = &[
    "querybuilder",
    "wcm/search/gql",
    "receive",
    "replicate",
    "cpm",
    "crxde",
    "security/authorizables",
    "groovyconsole",
];

/// Below `/etc`: packages; agents with their passwords; keys; shells.
const ETC: &[&str] =
    &["packages", "replication", "key", "truststore", "groovyconsole", "acs-tools/aem-fiddle"];

/// Below `/security`: short ways to consoles of users and rights.
const SECURITY: &[&str] = &["users", "groups", "permissions"];

/// Below `/libs`, and what is laid over it.
const LIBS: &[&str] = &[
    // Users, rights, keys.
    "granite/security/post",
    "granite/security/content",
    "cq/security/authorizables",
    "cq/security/content",
    // Operation: backup, replication, distribution, jobs, workflows.
    "granite/backup",
    "granite/operations",
    "granite/offloading",
    "granite/replication",
    "granite/distribution",
    "cq/replication",
    "sling/distribution",
    "cq/workflow/admin",
    "cq/workflow/content/console",
    // Development.
    "crx",
    "granite/packaging",
    "granite/ui/content/dumplibs",
    "cq/ui/content/dumplibs",
    "cq/search/content/querydebug",
    "groovyconsole",
    // They fetch any address that they are told.
    "opensocial",
    "shindig",
    "mcm/salesforce/customer",
    "cq/contentinsight",
    "cq/cloudservicesprovisioning",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_closed_and_what_is_beside_them_is_not() {
        for (path, closed) in [
            ("/crx", true),
            ("/crx/de/index.jsp", true),
            ("/crxde", true),
            ("/crxs", false),
            ("/ crx/de", true),
            ("/ ", false),
            ("/system/console", true),
            ("/system/console.html/x", true),
            ("/SYSTEM/Console/bundles.json", true),
            ("/system/consoles", false),
            ("/system/sling/info.sessionInfo.json", false),
            ("/bin/querybuilder.json", true),
            ("/bin/querybuilder.feed.xml", true),
            ("/bin/wcm/search/gql.servlet.json", true),
            ("/bin/wcm/search", false),
            ("/bin/app", false),
            ("/etc/packages/my_packages/x.zip", true),
            ("/etc.clientlibs/app/site.js", false),
            ("/libs/granite/security/post/authorizables", true),
            ("/libs/granite/security/currentuser.json", false),
            ("/libs/granite/csrf/token.json", false),
            ("/mnt/overlay/granite/security/content/useradmin.html", true),
            ("/mnt/override/libs/crx/x", true),
            ("/mnt/overlay/dam/gui/content/assets.html", false),
            ("/apps/granite/backup", true),
            ("/apps/site/clientlib.js", false),
            ("/content.query.json", true),
            ("/content.tidy.query.2.json", true),
            ("/content/x.query.json/suffix", true),
            ("/content/query.json", false),
            ("/graphql/execute.json/s/q;file=report.query.json", false),
            ("/bin/crxde/logs", true),
            ("/etc.infinity.json", true),
            ("/etc.4.json", true),
            ("/etc.xml", true),
            ("/etc/.infinity.json", true),
            ("/.5.json", true),
            ("/LIBS.infinity.json", true),
            ("/libs/granite/security.infinity.json", true),
            ("/mnt/overlay/granite.5.json", true),
            ("/etc.json", false),
            ("/etc/designs.infinity.json", false),
            ("/libs/granite/core.infinity.json", false),
            ("/content.infinity.json", false),
            ("/content/etc.infinity.json", false),
            ("/content/x.queryset.json", false),
            ("/content/x.json/system/console", false),
            ("/", false),
        ] {
            assert_eq!(covers("GET", path.as_bytes()), closed, "{path}");
            assert!(!closed || may_cover("GET", path.as_bytes()), "{path}");
        }
        assert!(covers("POST", b"/apps/site/components/page"));
        assert!(covers("MOVE", b"/mnt/override/apps/site"));
        assert!(!covers("POST", b"/libs/dam/x"));
        assert!(!covers("POST", b"/content/dam/x.query.jpg.initiateUpload.json"));
    }
}
