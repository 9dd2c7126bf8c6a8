//! What lies under `/content/dam`: folders, and what is known of binaries.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::standin::blob::Part;

/// The tree, as a list of paths without `/content/dam/` before them.
#[derive(Debug)]
pub(super) struct Dam(Mutex<Vec<(String, Node)>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Folder { title: String },
    Asset(Asset),
}

/// A binary without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asset {
    pub(super) title: String,
    pub(super) mime_type: String,
    pub(super) parts: Vec<Part>,
}

impl Default for Dam {
    /// A little of Adobe's sample site.
    fn default() -> Self {
        let folder = |title: &str| Node::Folder { title: title.to_owned() };
        let surfing = Asset {
            title: "Surfing in the evening".to_owned(),
            mime_type: "image/jpeg".to_owned(),
            parts: Vec::new(),
        };
        Self(Mutex::new(vec![
            ("wknd".to_owned(), folder("WKND")),
            ("campaigns".to_owned(), folder("Campaigns")),
            ("surfing.jpg".to_owned(), Node::Asset(surfing)),
        ]))
    }
}

impl Dam {
    /// The top folder, whose path is empty, is always there.
    pub(super) fn has_folder(&self, path: &str) -> bool {
        path.is_empty() || matches!(self.node(path), Some(Node::Folder { .. }))
    }

    pub(super) fn node(&self, path: &str) -> Option<Node> {
        self.nodes().iter().find(|(at, _)| at == path).map(|(_, node)| node.clone())
    }

    /// Puts it there, in place of what was.
    pub(super) fn set(&self, path: &str, node: Node) {
        let mut nodes = self.nodes();
        match nodes.iter().position(|(at, _)| at == path) {
            Some(index) => nodes[index].1 = node,
            None if nodes.len() < NODES_MAX => nodes.push((path.to_owned(), node)),
            None => {}
        }
    }

    /// With their whole paths.
    pub(super) fn children(&self, folder: &str) -> Vec<(String, Node)> {
        let is_child = |path: &str| match path.rsplit_once('/') {
            Some((parent, _)) => parent == folder,
            None => folder.is_empty(),
        };
        self.nodes().iter().filter(|(path, _)| is_child(path)).cloned().collect()
    }

    /// Takes it away, with all below it; whether there was anything.
    pub(super) fn remove(&self, path: &str) -> bool {
        let mut nodes = self.nodes();
        let before = nodes.len();
        nodes.retain(|(at, _)| below(at, path).is_none());
        nodes.len() < before
    }

    /// Puts it, with all below it, in a second place.
    pub(super) fn copy(&self, from: &str, to: &str) {
        let tree = self.nodes().clone();
        for (path, node) in tree {
            if let Some(rest) = below(&path, from) {
                self.set(&format!("{to}{rest}"), node);
            }
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<(String, Node)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes after `top` in the path of a node that is it, or below it.
fn below<'a>(path: &'a str, top: &str) -> Option<&'a str> {
    path.strip_prefix(top).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A bound for a demo that runs for days: what comes on top of it is not kept.
const NODES_MAX: usize = 10_000;
