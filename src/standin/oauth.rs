//! An OAuth Server-to-Server credential as the Adobe Developer Console hands it out, in all shapes of its document.

use std::fmt;

use serde_json::{Value, json};

use super::random_hex;
use crate::secret::SecretString;

/// A credential with two secrets, as it has while one takes the place of the other.
#[derive(Clone)]
pub struct OAuthCredential {
    ims_endpoint: String,
    client_id: String,
    client_secrets: Vec<SecretString>,
    org: String,
    technical_account_id: String,
    email: String,
}

impl OAuthCredential {
    /// A new credential at this IMS, with made-up names and secrets.
    pub fn generate(ims_endpoint: &str) -> Self {
        let account = random_hex(12).to_uppercase();
        Self {
            ims_endpoint: ims_endpoint.to_owned(),
            client_id: random_hex(16),
            client_secrets: vec![secret("p8e"), secret("s8e")],
            org: format!("{}@AdobeOrg", random_hex(12).to_uppercase()),
            email: format!("{}@techacct.adobe.com", account.to_lowercase()),
            technical_account_id: format!("{account}@techacct.adobe.com"),
        }
    }

    /// The same credential at another IMS.
    #[must_use]
    pub fn at(mut self, ims_endpoint: &str) -> Self {
        ims_endpoint.clone_into(&mut self.ims_endpoint);
        self
    }

    /// The same credential with other secrets in its documents. Which of them live is for the stand-in IMS to say.
    #[must_use]
    pub fn with_secrets(mut self, client_secrets: Vec<SecretString>) -> Self {
        self.client_secrets = client_secrets;
        self
    }

    /// The download of a project, in which it is one of several credentials, and the second one of its type. The first
    /// is [`OTHER_NAME`].
    pub fn project_document(&self) -> Value {
        let other = Self::generate(&self.ims_endpoint);
        let credentials = json!([
            {"id": "1", "name": "Old", "integration_type": "service", "jwt": {"client_id": random_hex(16)}},
            other.project_entry("2", OTHER_NAME),
            {"id": "3", "name": "Web", "integration_type": "oauth_web", "oauth2": {"client_id": random_hex(16)}},
            self.project_entry("4", NAME),
        ]);
        self.project(&credentials)
    }

    /// The download of a project in which it is the only credential of its type.
    pub fn lone_project_document(&self) -> Value {
        let credentials = json!([
            {"id": "3", "name": "Web", "integration_type": "oauth_web", "oauth2": {"client_id": random_hex(16)}},
            self.project_entry("4", NAME),
        ]);
        self.project(&credentials)
    }

    fn project(&self, credentials: &Value) -> Value {
        json!({
            "project": {
                "id": "4566206088344",
                "name": "Stand-in",
                "title": "Stand-in",
                "org": {"id": "1", "name": "Stand-in Ltd", "ims_org_id": self.org},
                "workspace": {
                    "id": "4566206088345",
                    "name": "Production",
                    "details": {"credentials": credentials, "services": [], "runtime": {"namespaces": []}},
                },
            },
        })
    }

    fn project_entry(&self, id: &str, name: &str) -> Value {
        let mut details = self.aio_document();
        if let Some(details) = details.as_object_mut() {
            details.remove("ims_org_id");
            details.remove("oauth_enabled");
        }
        json!({
            "id": id,
            "name": name,
            "integration_type": "oauth_server_to_server",
            "oauth_server_to_server": details,
        })
    }

    /// As the `aio` command line keeps it: flat, in lower case.
    pub fn aio_document(&self) -> Value {
        json!({
            "client_id": self.client_id,
            "client_secrets": self.exposed(),
            "technical_account_id": self.technical_account_id,
            "technical_account_email": self.email,
            "ims_org_id": self.org,
            "scopes": SCOPES,
            "oauth_enabled": true,
            "ims_endpoint": self.ims_endpoint,
        })
    }

    /// The download of one credential: flat, in upper case.
    pub fn upper_case_document(&self) -> Value {
        json!({
            "CLIENT_ID": self.client_id,
            "CLIENT_SECRETS": self.exposed(),
            "TECHNICAL_ACCOUNT_ID": self.technical_account_id,
            "TECHNICAL_ACCOUNT_EMAIL": self.email,
            "IMS_ORG_ID": self.org,
            "SCOPES": SCOPES,
            "IMS_ENDPOINT": self.ims_endpoint,
        })
    }

    /// Parameters of Adobe's library for App Builder, which know one secret.
    pub fn camel_case_document(&self) -> Value {
        json!({
            "clientId": self.client_id,
            "clientSecret": self.client_secrets.first().map(SecretString::expose_secret),
            "orgId": self.org,
            "scopes": SCOPES,
            "imsEndpoint": self.ims_endpoint,
        })
    }

    fn exposed(&self) -> Vec<&str> {
        self.client_secrets.iter().map(SecretString::expose_secret).collect()
    }

    /// `client_id`.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// `client_secrets`, in their order.
    pub fn client_secrets(&self) -> &[SecretString] {
        &self.client_secrets
    }

    /// `technical_account_id`: as whom AEM sees the bearer of a token.
    pub fn technical_account_id(&self) -> &str {
        &self.technical_account_id
    }

    /// `scopes`.
    pub fn scopes(&self) -> &'static [&'static str] {
        SCOPES
    }
}

impl fmt::Debug for OAuthCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthCredential")
            .field("ims_endpoint", &self.ims_endpoint)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// The form of current secrets; both prefixes are looked for in logs.
fn secret(prefix: &str) -> SecretString {
    format!("{prefix}-{}", random_hex(16)).into()
}

/// What the credential is called in a project.
pub const NAME: &str = "Stand-in OAuth Server-to-Server";
/// What the other one of its type is called.
pub const OTHER_NAME: &str = "Another OAuth Server-to-Server";

/// As usual for AEM.
const SCOPES: &[&str] = &[
    "openid",
    "AdobeID",
    "read_organizations",
    "additional_info.projectedProductContext",
    "additional_info.roles",
    "read_pc.dma_aem_cloud",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;

    #[test]
    fn every_document_is_one_of_adobe_s_and_names_this_client_and_this_ims() {
        let credential = OAuthCredential::generate("elsewhere").at("ims.example:8443");
        for (document, name, secrets) in [
            (credential.project_document(), Some(NAME), 2),
            (credential.lone_project_document(), None, 2),
            (credential.aio_document(), None, 2),
            (credential.upper_case_document(), None, 2),
            (credential.camel_case_document(), None, 1),
        ] {
            let parsed = Credentials::parse(document.to_string().as_bytes(), name).unwrap();
            let Credentials::OAuth(parsed) = parsed else { panic!("another kind") };
            assert_eq!(
                (parsed.client_id.as_str(), parsed.client_secrets.len()),
                (credential.client_id(), secrets)
            );
            assert_eq!(parsed.scopes, SCOPES);
            assert_eq!(parsed.ims_endpoint.as_deref(), Some("ims.example:8443"));
            assert_eq!(parsed.org.as_deref(), Some(credential.org.as_str()));
        }
        assert!(Credentials::parse(credential.project_document().to_string().as_bytes(), None).is_err());
    }

    #[test]
    fn no_secret_is_shown() {
        let credential = OAuthCredential::generate("ims.example");
        let shown = format!("{credential:?}");
        assert!(!shown.contains("p8e-") && !shown.contains("s8e-"), "{shown}");
    }
}
