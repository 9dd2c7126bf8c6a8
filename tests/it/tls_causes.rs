//! A failed handshake names its cause: in the answer, in the log and in `check`, to AEM and to IMS, each with its own next step.

use std::{sync::Arc, time::Duration};

use aem_auth_proxy::clock::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    commands::{self, run, text},
    harness::{Setup, file},
    log,
};

/// What is wrong with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Expired,
    NotYetValid,
    OtherName,
    UnknownIssuer,
    CommonNameOnly,
    Authority,
    NotForServers,
    PlainHttp,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The fault, the problem's name, the error of RFC 9209, what is said of it, and the next step.
const CASES: [(Fault, &str, &str, &str, &str); 8] = [
    (Fault::Expired, "tls-certificate-expired", CERTIFICATE, "certificate has expired", "clock"),
    (
        Fault::NotYetValid,
        "tls-certificate-not-yet-valid",
        CERTIFICATE,
        "certificate is not valid yet",
        "clock",
    ),
    (
        Fault::OtherName,
        "tls-certificate-name",
        CERTIFICATE,
        "certificate is for another name",
        "subjectAltName",
    ),
    (
        Fault::UnknownIssuer,
        "tls-certificate-issuer",
        CERTIFICATE,
        "issuer of its certificate is not trusted",
        "ca_file",
    ),
    (
        Fault::CommonNameOnly,
        "tls-certificate-common-name",
        CERTIFICATE,
        "certificate has no subjectAltName",
        "common name",
    ),
    (Fault::Authority, "tls-certificate-authority", CERTIFICATE, "certificate is an authority's", "CA:FALSE"),
    (
        Fault::NotForServers,
        "tls-certificate-purpose",
        CERTIFICATE,
        "certificate is not for servers",
        "serverAuth",
    ),
    (Fault::PlainHttp, "tls-none", "tls_protocol_error", "does not speak TLS", "port"),
];

const CERTIFICATE: &str = "tls_certificate_error";

/// A server with that fault: its port, and what is to be trusted.
async fn start(fault: Fault) -> (u16, tempfile::NamedTempFile) {
    let now = Clock::system().now();
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name = name("an authority");
    let names = if fault == Fault::OtherName { "other.example" } else { "localhost" };
    if fault == Fault::Authority {
        authority.subject_alt_names = CertificateParams::new([names.to_owned()]).unwrap().subject_alt_names;
    }
    let certificate = authority.self_signed(&authority_key).unwrap();
    let trusted = file(&certificate.pem());
    let mut other = CertificateParams::default();
    other.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    other.distinguished_name = name("another authority");
    let other = Issuer::new(other, KeyPair::generate().unwrap());
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new([names.to_owned()]).unwrap();
    leaf.distinguished_name = name("localhost");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (leaf.not_before, leaf.not_after) = ((now - DAY).into(), (now + DAY).into());
    match fault {
        Fault::Expired => (leaf.not_before, leaf.not_after) = ((now - 2 * DAY).into(), (now - DAY).into()),
        Fault::NotYetValid => {
            (leaf.not_before, leaf.not_after) = ((now + DAY).into(), (now + 2 * DAY).into());
        }
        Fault::CommonNameOnly => leaf.subject_alt_names.clear(),
        Fault::NotForServers => leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        _ => {}
    }
    let (chain, key) = if fault == Fault::Authority {
        (certificate.der().clone(), authority_key)
    } else if fault == Fault::UnknownIssuer {
        (leaf.signed_by(&key, &other).unwrap().der().clone(), key)
    } else {
        (leaf.signed_by(&key, &Issuer::new(authority, &authority_key)).unwrap().der().clone(), key)
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![chain], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if fault == Fault::PlainHttp {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
                    let _ = stream.read(&mut [0; 1024]).await;
                } else {
                    let _ = acceptor.accept(stream).await;
                }
            });
        }
    });
    (port, trusted)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

#[tokio::test]
async fn the_answer_and_the_log_name_it() {
    for (fault, problem, error, words, step) in CASES {
        let (port, trusted) = start(fault).await;
        let setup = Setup::default().upstream(format!("https://localhost:{port}"));
        let setup = setup.set("CA_FILE", commands::path(trusted.path())).set("AUTH", "none");
        let proxy = setup.start().await;
        let before = log::count(words);
        let response = proxy.get("/").await;
        assert_eq!(response.status(), 502, "{fault:?}");
        assert_eq!(response.headers()["proxy-status"], format!("aem-auth-proxy; error={error}"), "{fault:?}");
        let found: serde_json::Value = response.json().await.unwrap();
        assert_eq!(found["type"], format!("urn:aem-auth-proxy:problem:{problem}"));
        let detail = found["detail"].as_str().unwrap();
        assert!(detail.contains(words) && detail.contains(step), "{fault:?}: {detail}");
        assert!(log::count(words) > before, "{fault:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn check_names_it_for_aem_and_for_ims() {
    let credentials = Setup::default().start_standins().await.credentials_document.to_string();
    for (fault, _, _, words, step) in CASES {
        let (port, trusted) = start(fault).await;
        let (origin, endpoint) = (format!("https://localhost:{port}"), format!("localhost:{port}"));
        let of_all =
            [("AEM_PROXY_UPSTREAM", origin.as_str()), ("AEM_PROXY_CA_FILE", commands::path(trusted.path()))];
        let of_ims =
            [("AEM_PROXY_CREDENTIALS_JSON", credentials.as_str()), ("AEM_PROXY_IMS_ENDPOINT", &endpoint)];
        for more in [&[("AEM_PROXY_AUTH", "none")][..], &of_ims] {
            let (code, out, err) = text(&run(&["check"], &[&of_all[..], more].concat()).await);
            assert_eq!(code, 1, "{fault:?}: {out}{err}");
            assert!(out.contains(words) && out.contains(step), "{fault:?} {}: {out}", more.len());
        }
    }
}
