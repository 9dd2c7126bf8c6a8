//! The shape of the sources, before the checks that concern more than one key.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::{
    Admin, Guard, HttpVersion, Limits, Listen, Log, Retry, Rewrite, Secrecy, Shutdown, Timeouts, TlsVersion,
    Token, Watch, values,
};
use crate::secret::SecretString;

/// All of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) upstream: Option<String>,
    pub(super) listen: Listen,
    pub(super) listen_reuse_port: bool,
    pub(super) credentials_file: Option<PathBuf>,
    pub(super) credentials_json: Option<SecretString>,
    pub(super) credentials_name: Option<String>,
    pub(super) auth: AuthKind,
    pub(super) basic: RawBasic,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) ims_endpoint: Option<String>,
    pub(super) policy: String,
    pub(super) rules: Vec<String>,
    pub(super) http2: bool,
    pub(super) admin: Admin,
    pub(super) guard: Guard,
    #[serde(default)]
    pub(super) tls: RawTls,
    pub(super) log: Log,
    pub(super) token: Token,
    pub(super) watch: Watch,
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
    pub(super) rewrite: Rewrite,
    pub(super) retry: Retry,
    #[serde(default)]
    pub(super) egress: RawEgress,
    pub(super) secrets: Secrecy,
    pub(super) shutdown: Shutdown,
    #[serde(default)]
    pub(super) credentials: BTreeMap<String, RawCredential>,
    #[serde(default)]
    pub(super) upstreams: BTreeMap<String, RawUpstream>,
    #[serde(default)]
    pub(super) proxies: BTreeMap<String, RawProxy>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCredential {
    pub(super) file: Option<PathBuf>,
    pub(super) json: Option<SecretString>,
    pub(super) name: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Vec<SecretString>>,
    pub(super) client_secret_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    pub(super) org_id: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) ims_endpoint: Option<String>,
    pub(super) fallback: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) http: HttpVersion,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) client_certificate_file: Option<PathBuf>,
    pub(super) client_key_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) min_tls: TlsVersion,
    #[serde(default, deserialize_with = "values::count")]
    pub(super) max_in_flight: Option<usize>,
    #[serde(default, deserialize_with = "values::count")]
    pub(super) max_queued: Option<usize>,
    #[serde(default, deserialize_with = "values::count")]
    pub(super) max_connections: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) client_ca_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEgress {
    pub(super) aem_proxy: Option<SecretString>,
    pub(super) ims_proxy: Option<SecretString>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProxy {
    pub(super) listen: Option<Listen>,
    pub(super) http2: Option<bool>,
    pub(super) upstream: Option<String>,
    pub(super) credentials: Option<String>,
    pub(super) policy: Option<String>,
    #[serde(default)]
    pub(super) rules: Vec<String>,
    pub(super) x_api_key: Option<bool>,
    pub(super) x_gw_ims_org_id: Option<bool>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, SecretString>,
    #[serde(default)]
    pub(super) header_files: BTreeMap<String, PathBuf>,
    /// By their numbers, as text.
    #[serde(default)]
    pub(super) routes: BTreeMap<String, RawRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) path: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) credentials: Option<String>,
    pub(super) policy: Option<String>,
    #[serde(default)]
    pub(super) rules: Vec<String>,
    pub(super) x_api_key: Option<bool>,
    pub(super) x_gw_ims_org_id: Option<bool>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, SecretString>,
    #[serde(default)]
    pub(super) header_files: BTreeMap<String, PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AuthKind {
    Bearer,
    Basic,
    None,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBasic {
    pub(super) user: String,
    pub(super) password: Option<SecretString>,
    pub(super) password_file: Option<PathBuf>,
}
