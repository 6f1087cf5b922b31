//! Tokens that nobody should take.

use data_encoding::BASE64URL_NOPAD;
use skytale_proto::token::{Claims, TokenSigner};

fn part(json: &str) -> String {
    BASE64URL_NOPAD.encode(json.as_bytes())
}

fn message(header: &str, claims: &Claims) -> String {
    let claims = serde_json::to_string(claims).expect("claims are JSON");
    format!("{}.{}", part(header), part(&claims))
}

/// `alg: none`, without a signature.
pub(crate) fn unsigned(claims: &Claims) -> String {
    format!("{}.", message(r#"{"alg":"none","typ":"JWT"}"#, claims))
}

/// HS256 with the public key, which everybody has, as the secret.
pub(crate) fn hs256_with_public_key(signer: &TokenSigner, claims: &Claims) -> String {
    let public = BASE64URL_NOPAD.decode(signer.jwk().x.as_bytes()).expect("base64url");
    let header = format!(r#"{{"alg":"HS256","kid":"{}","typ":"JWT"}}"#, signer.kid());
    let message = message(&header, claims);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public);
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}
