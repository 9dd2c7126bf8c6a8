//! Our answers for handshakes that failed because of what AEM shows.

use http::StatusCode;

use crate::network::Cause;

/// Status, RFC 9209 error, the problem's name and what to do.
pub(super) fn problem(cause: Cause) -> (StatusCode, &'static str, &'static str, &'static str) {
    let (name, detail) = match cause {
        Cause::CertificateExpired => (
            "tls-certificate-expired",
            "AEM's certificate has expired. Have it renewed; or set the clock of the proxy's machine right, if that is ahead.",
        ),
        Cause::CertificateNotYetValid => (
            "tls-certificate-not-yet-valid",
            "AEM's certificate is not valid yet. Set the clock of the proxy's machine right, if that is behind.",
        ),
        Cause::CertificateName => (
            "tls-certificate-name",
            "AEM's certificate is for another name. Is `upstream` right? A certificate has to list its host in subjectAltName.",
        ),
        Cause::CertificateIssuer => (
            "tls-certificate-issuer",
            "The issuer of its certificate is not trusted: AEM's, or that of a TLS-inspecting proxy. Give the issuer's certificate with ca_file.",
        ),
        Cause::CertificateCommonName => (
            "tls-certificate-common-name",
            "AEM's certificate has no subjectAltName, and a common name does not count. Issue it with its host in subjectAltName.",
        ),
        Cause::CertificateAuthority => (
            "tls-certificate-authority",
            "AEM's certificate is an authority's. Give the server one of its own (basicConstraints CA:FALSE), and its issuer as ca_file.",
        ),
        Cause::CertificatePurpose => (
            "tls-certificate-purpose",
            "AEM's certificate is not for servers. Issue it with serverAuth in extendedKeyUsage.",
        ),
        Cause::NotTls => {
            let detail = "What answers at AEM's address does not speak TLS. Is its port one for plain HTTP? That is http://, and for loopback only.";
            return (StatusCode::BAD_GATEWAY, "tls_protocol_error", "tls-none", detail);
        }
        _ => ("tls-certificate", "AEM's certificate is not accepted. The proxy's log says why."),
    };
    (StatusCode::BAD_GATEWAY, "tls_certificate_error", name, detail)
}
