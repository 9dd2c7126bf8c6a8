//! The system's roots.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};

/// Whom the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured.
pub(super) fn roots() -> CertificateResult {
    let is_told = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| env::var_os(name).is_some());
    let bundle = Path::new(BUNDLE);
    match bundle.parent().filter(|_| !is_told && bundle.is_file()) {
        Some(dir) => bundled(bundle, dir),
        None => load_native_certs(),
    }
}

/// The certificates of a bundle, and those beside it that are not in it. To read some 150 others once more, one by one, takes as
/// long as everything else until a request is served.
fn bundled(bundle: &Path, dir: &Path) -> CertificateResult {
    let mut all = load_certs_from_paths(Some(bundle), None);
    for path in apart(bundle, dir) {
        let more = load_certs_from_paths(Some(&path), None);
        all.certs.extend(more.certs);
        all.errors.extend(more.errors);
    }
    all
}

/// What somebody has put into `dir` by hand. Everything else is a link that leads to the sources of the bundle, or to its
/// neighbour in the directory.
fn apart(bundle: &Path, dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let entries = entries.flatten().map(|entry| entry.path()).filter(|path| path != bundle);
    let is_apart = |path: &PathBuf| match fs::read_link(path) {
        Ok(target) => {
            let is_neighbour = target.parent() == Some(Path::new(""));
            !is_neighbour && !SOURCES.iter().any(|source| target.starts_with(source)) && path.is_file()
        }
        Err(_) => path.is_file(),
    };
    entries.filter(is_apart).collect()
}

/// What `update-ca-certificates` of Debian, Alpine and others makes, of all that it links to.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

const SOURCES: [&str; 2] = ["/usr/share/ca-certificates", "/usr/local/share/ca-certificates"];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn fixture(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_is_beside_the_bundle_is_trusted_too_and_nothing_is_read_twice() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| dir.path().join(name);
        fs::write(at("ca-certificates.crt"), fixture("certificate.pem")).unwrap();
        symlink(Path::new("/usr/share/ca-certificates/mozilla/Root.crt"), at("Root.pem")).unwrap();
        symlink(Path::new("Root.pem"), at("0123abcd.0")).unwrap();
        symlink(Path::new("/nowhere/gone.pem"), at("gone.pem")).unwrap();
        fs::create_dir(at("java")).unwrap();
        assert_eq!(apart(&at("ca-certificates.crt"), dir.path()), Vec::<PathBuf>::new());
        assert_eq!(bundled(&at("ca-certificates.crt"), dir.path()).certs.len(), 1);

        fs::write(elsewhere.path().join("own.pem"), fixture("ec_certificate.pem")).unwrap();
        symlink(elsewhere.path().join("own.pem"), at("linked.pem")).unwrap();
        fs::write(at("copied.pem"), fixture("ec_certificate.pem")).unwrap();
        let mut found = apart(&at("ca-certificates.crt"), dir.path());
        found.sort();
        assert_eq!(found, [at("copied.pem"), at("linked.pem")]);
        let all = bundled(&at("ca-certificates.crt"), dir.path());
        assert_eq!((all.certs.len(), all.errors.len()), (3, 0));
    }

    #[test]
    fn they_are_those_that_the_library_finds() {
        let of = |found: CertificateResult| {
            let mut certs = found.certs;
            certs.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
            certs.dedup();
            certs
        };
        assert_eq!(of(roots()), of(load_native_certs()));
    }
}
