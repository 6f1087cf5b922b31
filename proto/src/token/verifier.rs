//! The side that checks tokens.

use super::{Claims, JWKS_KEYS_MAX, TokenError, provider};
use crate::Code;
use crate::limits::{CLOCK_SKEW_MAX, TOKEN_BYTES_MAX, TOKEN_LIFETIME_MAX, TOKEN_SCOPES_MAX};
use crate::rest::{Jwk, Jwks};
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::VerifyingKey;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use std::collections::HashMap;

/// Checks tokens against a key set, an issuer and an audience.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    keys: HashMap<String, DecodingKey>,
    issuer: String,
    audience: String,
    validation: Validation,
}

/// The header that a token may have. Any other member (`crit`, `jku`, `jwk`, `x5c`...) asks for something
/// that is not done here, and is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
}

/// Just enough of a header to tell another algorithm from garbage.
#[derive(Deserialize)]
struct AlgorithmOnly {
    alg: String,
}

impl TokenVerifier {
    /// A verifier for the tokens of one issuer, meant for one audience.
    ///
    /// Keys of another type than Ed25519 are skipped (RFC 7517 section 5). Refused are a key set
    /// with more than [`JWKS_KEYS_MAX`] keys, with none that can be used, with a bad or weak
    /// Ed25519 key, or with one id for two keys; and an empty issuer or audience.
    pub fn new(jwks: &Jwks, issuer: &str, audience: &str) -> Result<Self, TokenError> {
        let refuse = |reason: String| Err(TokenError::new(Code::TokenSignature, reason));
        if !provider::install() {
            return refuse("another JWT provider is installed in this process; it must not be".to_owned());
        }
        if issuer.is_empty() {
            return Err(TokenError::new(Code::TokenIssuer, "no issuer is set"));
        }
        if audience.is_empty() {
            return Err(TokenError::new(Code::TokenAudience, "no audience is set"));
        }
        if jwks.keys.len() > JWKS_KEYS_MAX {
            return refuse(format!(
                "{} keys in the key set, {JWKS_KEYS_MAX} at most",
                jwks.keys.len()
            ));
        }
        let mut keys = HashMap::new();
        for jwk in jwks.keys.iter().filter(|jwk| is_ed25519(jwk)) {
            let key = decoding_key(jwk)?;
            if keys.insert(jwk.kid.clone(), key).is_some() {
                return refuse("two keys in the key set have one id".to_owned());
            }
        }
        if keys.is_empty() {
            return refuse("the key set has no Ed25519 key".to_owned());
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Times, issuer and audience are checked below: against the time given, each with its own code.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Ok(Self {
            keys,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            validation,
        })
    }

    /// The claims of a token that is in force at `now_s` (unix seconds).
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Claims, TokenError> {
        let header = parse_header(token)?;
        let no_kid = || TokenError::new(Code::TokenSignature, "the token names no key");
        let kid = header.kid.ok_or_else(no_kid)?;
        let Some(key) = self.keys.get(&kid) else {
            return Err(self.unknown_key(token, now_s));
        };
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => TokenError::new(Code::TokenSignature, "the signature does not verify"),
                ErrorKind::InvalidAlgorithm => TokenError::new(Code::TokenAlgorithm, "not an EdDSA token"),
                _ => malformed("not a token with the claims that a token has"),
            })?
            .claims;
        self.check_names(&claims)?;
        check_times(&claims, now_s)?;
        if claims.scope.split_ascii_whitespace().count() > TOKEN_SCOPES_MAX {
            return Err(malformed("more scopes than a token may have"));
        }
        Ok(claims)
    }

    /// Whether the key set has the key that a token names. Where it has not, a newer key set may.
    pub fn knows_kid(&self, token: &str) -> bool {
        let kid = parse_header(token).ok().and_then(|header| header.kid);
        kid.is_some_and(|kid| self.keys.contains_key(&kid))
    }

    /// Returns the reason why a token is refused whose key is not in the key set. Its claims are not proven; they can
    /// only add a reason to refuse it: a token for somebody else, or one that has ended, is worth no newer key set.
    fn unknown_key(&self, token: &str, now_s: u64) -> TokenError {
        let Some(claims) = unproven_claims(token) else {
            return malformed("not a token with the claims that a token has");
        };
        match self.check_names(&claims).and_then(|()| check_times(&claims, now_s)) {
            Ok(()) => TokenError::new(Code::TokenKeyUnknown, "the token's key is not in the key set"),
            Err(error) => error,
        }
    }

    fn check_names(&self, claims: &Claims) -> Result<(), TokenError> {
        if claims.iss != self.issuer {
            return Err(TokenError::new(Code::TokenIssuer, "the token is from another issuer"));
        }
        if claims.aud != self.audience {
            return Err(TokenError::new(
                Code::TokenAudience,
                "the token is for another audience",
            ));
        }
        Ok(())
    }
}

fn check_times(claims: &Claims, now_s: u64) -> Result<(), TokenError> {
    let skew_s = CLOCK_SKEW_MAX.as_secs();
    let lifetime_s = claims.exp.checked_sub(claims.iat).filter(|&lifetime_s| lifetime_s > 0);
    let Some(lifetime_s) = lifetime_s else {
        return Err(malformed("the token ends before it begins"));
    };
    if lifetime_s > TOKEN_LIFETIME_MAX.as_secs() {
        return Err(TokenError::new(
            Code::TokenLifetime,
            format!(
                "the token lives {lifetime_s} s, {} s at most",
                TOKEN_LIFETIME_MAX.as_secs()
            ),
        ));
    }
    if now_s >= claims.exp.saturating_add(skew_s) {
        return Err(TokenError::new(
            Code::TokenExpired,
            format!("the token ended at {} s, it is {now_s} s", claims.exp),
        ));
    }
    if claims.iat > now_s.saturating_add(skew_s) {
        return Err(TokenError::new(
            Code::TokenNotYet,
            format!("the token begins at {} s, it is {now_s} s", claims.iat),
        ));
    }
    Ok(())
}

fn parse_header(token: &str) -> Result<TokenHeader, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(malformed(format!(
            "a token of {} bytes, {TOKEN_BYTES_MAX} at most",
            token.len()
        )));
    }
    let not_jwt = || malformed("not three base64url parts (RFC 7515 section 7.1)");
    let (header, rest) = token.split_once('.').ok_or_else(not_jwt)?;
    if rest.split('.').count() != 2 {
        return Err(not_jwt());
    }
    let json = BASE64URL_NOPAD.decode(header.as_bytes()).map_err(|_| not_jwt())?;
    let alg = serde_json::from_slice::<AlgorithmOnly>(&json)
        .map_err(|_| malformed("the header is not one"))?
        .alg;
    if alg != "EdDSA" {
        return Err(TokenError::new(Code::TokenAlgorithm, "not an EdDSA token"));
    }
    let header: TokenHeader =
        serde_json::from_slice(&json).map_err(|_| malformed("the header asks for what is not supported"))?;
    debug_assert_eq!(header.alg, alg);
    if header.typ.as_deref().is_some_and(|typ| typ != "JWT") {
        return Err(malformed("not of type JWT"));
    }
    Ok(header)
}

/// The claims of a token whose signature was not checked.
fn unproven_claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?).ok()
}

fn malformed(reason: impl Into<String>) -> TokenError {
    TokenError::new(Code::TokenMalformed, reason)
}

fn is_ed25519(jwk: &Jwk) -> bool {
    jwk.kty == "OKP" && jwk.crv == "Ed25519" && jwk.alg == "EdDSA" && jwk.use_ == "sig"
}

fn decoding_key(jwk: &Jwk) -> Result<DecodingKey, TokenError> {
    let refuse = || TokenError::new(Code::TokenSignature, "a key of the key set is not an Ed25519 key");
    let bytes = BASE64URL_NOPAD.decode(jwk.x.as_bytes()).map_err(|_| refuse())?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| refuse())?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| refuse())?;
    if key.is_weak() {
        return Err(refuse());
    }
    Ok(DecodingKey::from_ed_der(&bytes))
}
