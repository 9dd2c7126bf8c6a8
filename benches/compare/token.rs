//! Access tokens that look like those of Adobe IMS: JWTs of about 1.1 KiB. Nobody verifies them.

use std::time::Duration;

use aem_auth_proxy::clock::Clock;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

/// The `number`th token, which lives for `lifetime`.
pub fn issue(number: u64, lifetime: Duration) -> String {
    let created_at = Clock::system().unix_seconds() * 1000;
    let header =
        json!({ "alg": "RS256", "x5u": "ims_na1-key-at-1.cer", "kid": "ims_na1-key-at-1", "itt": "at" });
    let claims = json!({
        "id": format!("{created_at}_{number:08x}-0000-4000-8000-000000000000_ue1"),
        "type": "access_token",
        "client_id": "cm-p12345-e67890-integration-0",
        "user_id": "0123456789ABCDEF01234567@techacct.adobe.com",
        "as": "ims-na1",
        "aa_id": "0123456789ABCDEF01234567@techacct.adobe.com",
        "ctp": 0,
        "fg": "ABCDEFGHIJKLMNOPQRSTUVWXYZ======",
        "moi": "12ab34cd",
        "expires_in": lifetime.as_millis().to_string(),
        "created_at": created_at.to_string(),
        "scope": "openid,AdobeID,read_organizations,additional_info.projectedProductContext,read_pc.dma_aem_ams",
    });
    // As long as the signature of a 2048-bit key.
    let signature = URL_SAFE_NO_PAD.encode([0x5a; 256]);
    let encode = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.{signature}", encode(header), encode(claims))
}
