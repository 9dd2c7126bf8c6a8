//! Documents of JSON, and what they are to become.

use proptest::prelude::*;

pub(in crate::proxy::rewrite) const UPSTREAM: &str = "https://aem.example";

pub(in crate::proxy::rewrite) const LOCAL: &str = "http://localhost:8080";

/// A document, and the same renamed.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy::rewrite) struct Document {
    pub(in crate::proxy::rewrite) text: String,
    pub(in crate::proxy::rewrite) expected: String,
}

/// Any document.
pub(in crate::proxy::rewrite) fn document() -> impl Strategy<Value = Document> {
    let leaf = prop_oneof![
        prop::sample::select(SCALARS).prop_map(Node::Scalar),
        prop::sample::select(TEXTS).prop_map(Node::Text),
        (prop::sample::select(ORIGINS), prop::sample::select(TAILS))
            .prop_map(|((origin, local), tail)| Node::Url { origin, local, tail }),
    ];
    let node = leaf.prop_recursive(5, 60, 6, |inside| {
        prop_oneof![
            prop::collection::vec(inside.clone(), 0..6).prop_map(Node::Array),
            prop::collection::vec((prop::sample::select(NAMES), inside), 0..6).prop_map(Node::Object),
        ]
    });
    (node, prop::sample::select(SPACES)).prop_map(|(node, space)| {
        let mut document = Document::default();
        document.write(&node, space, Around::Other, false);
        document
    })
}

#[derive(Debug, Clone)]
enum Node {
    Scalar(&'static str),
    Text(&'static str),
    Url { origin: &'static str, local: &'static str, tail: &'static str },
    Array(Vec<Node>),
    Object(Vec<(&'static str, Node)>),
}

#[derive(Clone, Copy, PartialEq)]
enum Around {
    /// The value of `links`, or an element of it.
    Links,
    Other,
}

impl Document {
    fn write(&mut self, node: &Node, space: &str, around: Around, renamed: bool) {
        match node {
            Node::Scalar(text) => self.push(text),
            Node::Text(text) => self.push(&format!("\"{text}\"")),
            Node::Url { origin, local, tail } => {
                self.text += &format!("\"{origin}{tail}\"");
                self.expected += &format!("\"{}{tail}\"", if renamed { local } else { origin });
            }
            Node::Array(nodes) => self.list("[", "]", space, nodes, |document, node| {
                let around = if matches!(node, Node::Object(_)) { around } else { Around::Other };
                document.write(node, space, around, false);
            }),
            Node::Object(members) => self.list("{", "}", space, members, |document, (name, node)| {
                document.push(&format!("\"{name}\"{space}:{space}"));
                let inside = if *name == "links" { Around::Links } else { Around::Other };
                let renamed = RENAMED.contains(name) || *name == "href" && around == Around::Links;
                document.write(node, space, inside, renamed);
            }),
        }
    }

    fn list<T>(&mut self, open: &str, close: &str, space: &str, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.push(open);
        for (number, item) in items.iter().enumerate() {
            self.push(if number > 0 { "," } else { "" });
            self.push(space);
            write(self, item);
        }
        self.push(space);
        self.push(close);
    }

    fn push(&mut self, text: &str) {
        self.text += text;
        self.expected += text;
    }
}

const SCALARS: &[&str] = &["0", "-1.5e+3", "true", "false", "null"];

const SPACES: &[&str] = &["", " ", "\r\n\t"];

const RENAMED: &[&str] = &["completeURI", r"complete\u0055RI", "_publishUrl", "_authorUrl"];

const NAMES: &[&str] = &[
    "completeURI",
    r"complete\u0055RI",
    "_publishUrl",
    "_authorUrl",
    "links",
    "href",
    "uploadURIs",
    "completeUri",
    "",
    "a name that is longer than any of ours, completeURI",
    r#"\"completeURI\\"#,
    "https://aem.example/",
    "\u{e9}",
];

const TEXTS: &[&str] = &[
    "",
    "/content/dam/a",
    "https",
    "https://",
    "https://aem.exampl",
    "https://aem.example.evil.com/",
    "https://aem.example@evil.com/",
    "https://aem.example:8443/",
    "http://aem.example/",
    "https://AEM.example/",
    r"https:\\/\\/aem.example/",
    r#"https:\/\/aem.example\"/"#,
    r"https://aem.example\u005c/",
    "https://other.example/?https://aem.example/",
    " https://aem.example/",
    r#"\"completeURI\":\"https://aem.example/\""#,
    r"\\",
    r"\ud83d\ude00",
    "\u{1f600}",
];

/// Spellings of the upstream's origin, and the local one in the same style.
const ORIGINS: &[(&str, &str)] = &[
    ("https://aem.example", "http://localhost:8080"),
    ("https://aem.example:443", "http://localhost:8080"),
    ("HTTPS://aem.example", "http://localhost:8080"),
    (r"https:\/\/aem.example", r"http:\/\/localhost:8080"),
    (r"https\u003a\u002f\u002faem.example", r"http\u003a\u002f\u002flocalhost\u003a8080"),
    (r"https\u003A\u002F\u002Faem.example\u003a443", r"http\u003A\u002F\u002Flocalhost\u003A8080"),
];

const TAILS: &[&str] = &[
    "",
    "/",
    r"\/content\/dam\/a",
    r"\u002fcontent",
    "/a?b=https://aem.example/",
    "?a",
    "#a",
    r#"/\"https://aem.example/\\"#,
    "/\u{e9}",
];
