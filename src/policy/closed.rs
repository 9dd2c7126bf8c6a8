//! What is closed under every preset, unless a rule of the operator's opens it: consoles, package managers, the machinery
//! of users and replication, queries about everything, and servlets that fetch what they are told to.
//!
//! Sources: Adobe, "Dispatcher Security Checklist", "Testing Dispatcher Security" and "Security Checklist" of AEM 6.5; Apache
//! Sling's and ACS AEM Commons' documentation; shinesolutions/swagger-aem, `conf/api.yml`; CVE-2018-5006, CVE-2018-12809
//! (servlets that fetch). docs/policies.md has the source of each place, and what stays open.

use std::sync::LazyLock;

use memchr::memchr;

use super::{
    methods::is_read, normal::segments, pattern::is_within, presets::PERSISTED, selectors,
    sequences::Sequences, words,
};
use crate::steps;

/// Whether a reading of a path is closed.
pub(super) fn covers(method: &str, path: &[u8]) -> bool {
    let mut names = segments(path);
    let Some(root) = names.next().map(<[u8]>::trim_ascii_start) else { return false };
    let below = || Names::of(names.clone());
    let covered = match root.first().map_or(0, |first| first | 0x20) {
        b'a' => is_named(root, "apps") && (!is_read(method) || any_below(LIBS, below().all())),
        b'b' => is_named(root, "bin") && any_below(BIN, below().all()),
        b'c' => ["crx", "crxde"].iter().any(|own| is_named(root, own)),
        b'd' => is_named(root, "dav"),
        b'e' => is_named(root, "etc") && any_below(ETC, below().all()),
        b'h' => is_named(root, "home"),
        b'j' | b'o' | b'r' | UNDERSCORE => is_of_repository(root),
        b'l' => is_named(root, "libs") && (replaces(method) || any_below(LIBS, below().all())),
        b'm' => is_named(root, "miscadmin") || is_named(root, "mnt") && mounted(method, below().all()),
        b's' => {
            is_named(root, "system") && any_below(SYSTEM, below().all())
                || is_named(root, "security") && any_below(SECURITY, below().all())
                || is_named(root, "services") && any_below(SERVICES, below().all())
                || is_named(root, "server")
        }
        b'u' => is_named(root, "useradmin"),
        _ => false,
    };
    steps::over(path);
    covered || shows(root, path) || selects(method, root, path)
}

/// Whether a selector is closed, or a servlet at its mount point. In a persisted query's values anything may stand.
fn selects(method: &str, root: &[u8], path: &[u8]) -> bool {
    if root.starts_with(b"graphql") && is_within(path, PERSISTED) {
        return false;
    }
    let has_scripts = ["apps", "libs", "mnt"].iter().any(|own| is_named(root, own));
    selectors::closes(method, path, has_scripts)
}

/// What the repository keeps of itself: versions, node types, indexes, rights. Sling writes `jcr:` as `_jcr_`, too.
fn is_of_repository(root: &[u8]) -> bool {
    let begins =
        |own: &str| root.get(..own.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(own.as_bytes()));
    ["jcr:system", "_jcr_system", "oak:index", "_oak_index"].iter().any(|own| is_named(root, own))
        || begins("rep:")
        || begins("_rep_")
}

/// Whether a method writes or removes what is at the path itself. A POST may be for a servlet there.
fn replaces(method: &str) -> bool {
    !is_read(method) && method != "POST"
}

/// `_`, as a first letter without its case.
const UNDERSCORE: u8 = b'_' | 0x20;

/// What of it may stand in a path of which nobody knows more than its words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Possible {
    /// Something that is closed for every method.
    always: bool,
    /// Something that is closed for methods that read, for the others, and for those but POST.
    reading: bool,
    writing: bool,
    replacing: bool,
}

impl Possible {
    pub(super) fn of(text: &[u8]) -> Self {
        let found = PLACES.find(text);
        let always = (SOMETIMES.len()..PLACES.len()).any(|number| found.holds(number));
        let [writing, reading, replacing] = [0, 1, 2].map(|number| found.holds(number));
        Self { always: always || words::may_dump(text), reading, writing, replacing }
    }

    /// Whether what is closed for this method may be in it.
    pub(super) fn covers(self, method: &str) -> bool {
        let by_method = if is_read(method) { self.reading } else { self.writing };
        self.always || by_method || self.replacing && replaces(method)
    }
}

/// Whether what may be one of them stands in a path of which nobody knows more than its words.
#[cfg(test)]
fn may_cover(method: &str, text: &[u8]) -> bool {
    Possible::of(text).covers(method)
}

/// The first names below the root, without the space before each.
struct Names<'p> {
    names: [&'p [u8]; DEEPEST],
    count: usize,
}

impl<'p> Names<'p> {
    fn of(names: impl Iterator<Item = &'p [u8]>) -> Self {
        let mut first = Self { names: [b""; DEEPEST], count: 0 };
        for (place, name) in first.names.iter_mut().zip(names) {
            *place = name.trim_ascii_start();
            first.count += 1;
        }
        first
    }

    fn all(&self) -> &[&'p [u8]] {
        &self.names[..self.count]
    }
}

/// What `/mnt/overlay/x` and `/mnt/override/libs/x` show is what is at `/libs/x` and `/apps/x`.
fn mounted(method: &str, names: &[&[u8]]) -> bool {
    match names {
        [mount, names @ ..] if is_named(mount, "overlay") => any_below(LIBS, names),
        [mount, root, names @ ..] if is_named(mount, "override") => {
            // What an application lays over `/libs/x` is at `/apps/x`.
            is_named(root, "apps") && !is_read(method)
                || (is_named(root, "apps") || is_named(root, "libs")) && any_below(LIBS, names)
        }
        _ => false,
    }
}

fn any_below(places: &[&str], names: &[&[u8]]) -> bool {
    let is_below = |place: &&str| {
        let mut names = names.iter();
        place.split('/').all(|own| names.next().is_some_and(|name| is_named(name, own)))
    };
    places.iter().any(is_below)
}

/// Whether it is a dump of what stands above something that is closed, which is in it then. `root` is its first name.
fn shows(root: &[u8], path: &[u8]) -> bool {
    if !root.starts_with(b".") && !ROOTS.iter().any(|own| is_named(root, own)) {
        return false;
    }
    let mut above: [&[u8]; DEEPEST] = [b""; DEEPEST];
    let mut count = 0;
    for name in segments(path) {
        let is_dump = words::dumps(name);
        // Of what dumps, what stands before the first dot.
        let name = if is_dump { &name[..memchr(b'.', name).unwrap_or(name.len())] } else { name };
        if !is_dump || !name.is_empty() {
            // Nothing closed is so deep.
            let Some(place) = above.get_mut(count) else { return false };
            *place = name.trim_ascii_start();
            count += 1;
        }
        if is_dump {
            return is_above(&above[..count]);
        }
    }
    false
}

/// Whether something that is closed is below these names.
fn is_above(names: &[&[u8]]) -> bool {
    let is_above = |root: &str, place: &str| {
        let mut own = root.split('/').chain(place.split('/'));
        names.iter().all(|name| own.next().is_some_and(|own| is_named(name, own))) && own.next().is_some()
    };
    TREES.iter().any(|(root, places)| places.iter().any(|place| is_above(root, place)))
}

/// As [`words::begins_with_name`], for names that are plain ASCII: every request passes here. No space stands before `segment`.
fn is_named(segment: &[u8], name: &str) -> bool {
    steps::add(name.len().min(segment.len()));
    segment.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()))
        && segment.get(name.len()).is_none_or(|byte| words::ends_name(*byte))
}

/// Names of the deepest place that is closed, below its root: those of `/mnt/override/libs/granite/ui/content/dumplibs`.
const DEEPEST: usize = 6;

/// The words of everything that is closed: first what is closed for some methods, then the rest.
static PLACES: LazyLock<Sequences> = LazyLock::new(|| {
    let whole = WHOLE.iter().chain(&selectors::WORDS).map(|place| (*place).to_owned());
    let below = |root: &'static str, places: &'static [&str]| {
        places.iter().map(move |place| format!("/{root}/{place}"))
    };
    let below =
        [("system", SYSTEM), ("bin", BIN), ("etc", ETC), ("security", SECURITY), ("services", SERVICES)]
            .into_iter()
            .chain(["libs", "apps", "mnt"].map(|root| (root, LIBS)))
            .flat_map(|(root, places)| below(root, places));
    Sequences::new(SOMETIMES.iter().map(|place| (*place).to_owned()).chain(whole).chain(below))
});

/// Closed for methods that write, for those that read, and for those that write but POST.
const SOMETIMES: [&str; 3] = ["/apps", "/query/json", "/libs"];

/// Closed with all that is below. `/home` alone is a word of many names: what is in it are users and groups.
const WHOLE: [&str; 13] = [
    "/crx",
    "/crxde",
    "/dav",
    "/server",
    "/miscadmin",
    "/useradmin",
    "/home/users",
    "/home/groups",
    "/jcr:system",
    "/oak:index",
    "/rep:security",
    "/rep:policy",
    "/rep:repoPolicy",
];

/// What has something closed below it.
const ROOTS: [&str; 8] = ["apps", "bin", "etc", "libs", "mnt", "security", "services", "system"];

/// Where the closed places below a root are.
const TREES: [(&str, &[&str]); 10] = [
    ("system", SYSTEM),
    ("bin", BIN),
    ("etc", ETC),
    ("security", SECURITY),
    ("services", SERVICES),
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

/// Below `/etc`: packages; agents and other services with their passwords; keys; shells; what fetches addresses; a report
/// that reads the whole repository.
const ETC: &[&str] = &[
    "packages",
    "replication",
    "cloudservices",
    "key",
    "truststore",
    "groovyconsole",
    "acs-tools/aem-fiddle",
    "importers",
    "reports/diskusage",
];

/// Below `/security`: short ways to consoles of users and rights.
const SECURITY: &[&str] = &["users", "groups", "permissions"];

/// Below `/services`: it fetches the address that a request names.
const SERVICES: &[&str] = &["accesstoken"];

/// Below `/libs`, and what is laid over it.
const LIBS: &[&str] = &[
    // Users, rights, keys.
    "granite/security/post",
    "granite/security/content",
    "granite/security/search",
    "granite/security/truststore",
    "cq/security/authorizables",
    "cq/security/content",
    // Operation: backup, replication, distribution, jobs, workflows.
    "granite/backup",
    "granite/operations",
    "granite/offloading",
    "granite/replication",
    "granite/distribution",
    "cq/replication",
    "replication",
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
    "acs-tools/content/aem-fiddle",
    // They fetch any address that they are told.
    "opensocial",
    "shindig",
    "mcm/salesforce/customer",
    "cq/contentinsight",
    "cq/cloudservicesprovisioning",
    "dam/cloud",
];

#[cfg(test)]
mod tests;
