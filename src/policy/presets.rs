//! Ready-made policies, in AEM's words.

use std::{fmt, str::FromStr};

use super::{
    methods::is_read,
    normal::{Reading, segments},
    outline::Outline,
    pattern::{is_within, reads},
    words,
};

/// What passes where no rule says otherwise, and nothing is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Reading, of everything.
    ReadOnly,
    /// GraphQL's persisted queries.
    GraphqlPersisted,
    /// Reading, of assets.
    AssetsRead,
    /// Assets: reading and writing.
    AssetsWrite,
    /// Everything.
    Full,
}

/// There is no preset of that name; the nearest one, if one is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownPreset(pub Option<Preset>);

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 5] =
        [Self::ReadOnly, Self::GraphqlPersisted, Self::AssetsRead, Self::AssetsWrite, Self::Full];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::GraphqlPersisted => "graphql-persisted",
            Self::AssetsRead => "assets-read",
            Self::AssetsWrite => "assets-write",
            Self::Full => "full",
        }
    }

    /// How many names of a path it looks at.
    pub(super) fn depth(self) -> usize {
        if self == Self::ReadOnly { CHANGING_DEPTH } else { 0 }
    }

    /// Whether it lets one reading of a path through.
    pub(super) fn allows(self, method: &str, outline: &Outline<'_>) -> bool {
        let reading = outline.reading;
        let path = reading.path;
        match self {
            Self::Full => true,
            Self::ReadOnly => is_read(method) && !changes(outline),
            Self::GraphqlPersisted => {
                (is_read(method) || method == "POST") && is_within(path, PERSISTED)
                    || reads(method, path, CSRF_TOKEN)
            }
            Self::AssetsRead => reads_assets(method, path),
            Self::AssetsWrite => reads_assets(method, path) || writes_assets(method, reading),
        }
    }
}

fn reads_assets(method: &str, path: &[u8]) -> bool {
    is_read(method) && ASSETS.iter().any(|place| is_within(path, place))
        || method == "POST" && path == SEARCH
        || reads(method, path, CSRF_TOKEN)
}

fn writes_assets(method: &str, reading: Reading<'_>) -> bool {
    let path = reading.path;
    match method {
        "POST" | "PUT" | "PATCH" | "DELETE" => {
            WRITTEN.iter().any(|place| is_within(path, place)) || method == "POST" && is_upload(reading)
        }
        // Of the Assets HTTP API alone.
        "COPY" | "MOVE" => is_within(path, ASSETS_API),
        _ => false,
    }
}

/// A step of a direct upload. Any other POST below `/content/dam` is one to Sling's own servlet, which writes whatever it is
/// told; and so is one behind another extension, which makes the step a suffix. What only looks like a dot begins no extension: a
/// full stop is one in Japanese and Chinese names.
fn is_upload(Reading { path, folded }: Reading<'_>) -> bool {
    let is_step = UPLOAD.iter().any(|step| path.ends_with(step.as_bytes()));
    let above = segments(path).count().saturating_sub(1);
    let mut above = segments(path).take(above);
    is_step && is_within(path, DAM) && (folded || above.all(|name| !name.contains(&b'.')))
}

/// What a GET changes all the same, or may.
fn changes(outline: &Outline<'_>) -> bool {
    CHANGING.iter().any(|place| {
        let is_named = |(at, own): (usize, &str)| {
            outline.name(at).is_some_and(|name| words::begins_with_name(name.trimmed, own.as_bytes()))
        };
        place.split('/').enumerate().all(is_named)
    })
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(text: &str) -> Result<Self, UnknownPreset> {
        if let Some(preset) = Self::ALL.into_iter().find(|preset| preset.name() == text) {
            return Ok(preset);
        }
        let near = |preset: &Self| strsim::jaro_winkler(text, preset.name());
        let nearest = Self::ALL.into_iter().max_by(|a, b| near(a).total_cmp(&near(b)));
        Err(UnknownPreset(nearest.filter(|preset| near(preset) > 0.7)))
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where persisted queries are run. They change nothing; the client sends long variables with POST.
pub(super) const PERSISTED: &str = "/graphql/execute.json";

/// What a browser's write needs (Adobe, "CSRF protection").
const CSRF_TOKEN: &str = "/libs/granite/csrf/token.json";

/// The Assets HTTP API.
const ASSETS_API: &str = "/api/assets";

/// Assets as they lie in the repository.
const DAM: &str = "/content/dam";

/// Where assets are read: both of these, and the OpenAPIs.
const ASSETS: [&str; 5] = [ASSETS_API, DAM, "/adobe/assets", "/adobe/folders", "/adobe/dynamicmedia/deliver"];

/// Where assets are written.
const WRITTEN: [&str; 3] = [ASSETS_API, "/adobe/assets", "/adobe/folders"];

/// A question that is too long for a GET.
const SEARCH: &[u8] = b"/adobe/assets/search";

/// The steps of direct upload, and the older way of AEM 6.5.
const UPLOAD: [&str; 3] = [".initiateUpload.json", ".completeUpload.json", ".createasset.html"];

/// Ends of sessions, and commands that take their orders from the query.
const CHANGING: [&str; 4] = ["system/sling/logout", "bin/wcmcommand", "bin/tagcommand", "bin/asynccommand"];

/// The names of the deepest of them.
const CHANGING_DEPTH: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_known_by_its_name_and_a_slip_by_the_nearest_one() {
        for preset in Preset::ALL {
            assert_eq!(preset.name().parse(), Ok(preset));
        }
        for (text, nearest) in [
            ("readonly", Some(Preset::ReadOnly)),
            ("graphql", Some(Preset::GraphqlPersisted)),
            ("assets", Some(Preset::AssetsRead)),
            ("Full", Some(Preset::Full)),
            ("zzz", None),
        ] {
            assert_eq!(text.parse::<Preset>(), Err(UnknownPreset(nearest)), "{text}");
        }
    }

    #[test]
    fn an_upload_is_one_and_not_a_write_that_ends_like_one() {
        for (path, passes) in [
            ("/content/dam/a.initiateUpload.json", true),
            ("/content/dam.initiateUpload.json", true),
            ("/content/dam/v1.0.completeUpload.json", true),
            ("/content/dam/a.createasset.html", true),
            ("/content/dam/a.html/b.initiateUpload.json", false),
            ("/content/dam/a.initiateUpload.json/b", false),
            ("/content/dam/a.INITIATEUPLOAD.json", false),
            ("/content/dam/a", false),
            ("/content/site/a.initiateUpload.json", false),
            ("/content/damn.initiateUpload.json", false),
        ] {
            let outline = Outline::of(Reading { path: path.as_bytes(), folded: false }, 0);
            assert_eq!(Preset::AssetsWrite.allows("POST", &outline), passes, "{path}");
            assert!(!Preset::AssetsRead.allows("POST", &outline), "{path}");
        }
    }
}
