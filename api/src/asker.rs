//! The caller: taken from a request's head, and checked before anything else of it is read.

use crate::auth::{Caller, Enrolled, KeyHasher, KeyName, KeyText, SharedSecret};
use crate::problem::Refusal;
use crate::request::{Meta, rate_limited};
use crate::service::{Inner, Service};
use crate::store;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use skytale_proto::rest::ENROLMENT_KEY_PREFIX;
use skytale_proto::{Code, EnrolmentId, KeyId};

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Whether a key's text fits its hash, or did a moment ago. Without a hash it takes as long, and does not.
async fn fits<I: KeyName>(
    inner: &Inner,
    hasher: &KeyHasher,
    meta: &Meta,
    text: &str,
    key: &KeyText<'_, I>,
    hash: Option<&str>,
) -> Result<bool, Refusal> {
    if inner.verified.contains(text) {
        return Ok(hash.is_some());
    }
    inner.rates.attempt(meta.address).map_err(rate_limited)?;
    let is_cached = || inner.verified.contains(text);
    if !hasher.verify(key.secret, hash, is_cached).await? {
        return Ok(false);
    }
    inner.verified.insert(text);
    Ok(true)
}

impl FromRequestParts<Service> for Caller {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Refusal> {
        let meta = Meta::from_request_parts(parts, service).await?;
        let unknown = || Refusal::new(Code::KeyUnknown, "no API key, or none that is known");
        let text = bearer(&parts.headers).ok_or_else(unknown)?;
        let key = KeyText::<KeyId>::parse(text).ok_or_else(unknown)?;
        let inner = service.inner();
        let stored = store::keys::get(&mut *inner.store.read().await?, key.id).await?;
        let hash = stored.as_ref().map(|stored| stored.hash.as_str());
        if !fits(inner, &inner.hasher, &meta, text, &key, hash).await? {
            return Err(unknown());
        }
        let stored = stored.ok_or_else(unknown)?;
        if stored.revoked_s.is_some() {
            return Err(Refusal::new(Code::KeyRevoked, "the API key was revoked"));
        }
        if stored.expires_s.is_some_and(|expires_s| expires_s <= inner.now_s()) {
            return Err(Refusal::new(Code::KeyExpired, "the API key's time is over"));
        }
        inner.rates.key(stored.id).map_err(rate_limited)?;
        Ok(Self {
            key: stored.id,
            account: stored.account,
            scopes: stored.scopes,
            expires_s: stored.expires_s,
        })
    }
}

impl FromRequestParts<Service> for Enrolled {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Refusal> {
        let meta = Meta::from_request_parts(parts, service).await?;
        let unknown = || Refusal::new(Code::EnrolmentUnknown, "no enrolment's key, or none that is known");
        let text = bearer(&parts.headers).ok_or_else(unknown)?;
        let key = KeyText::<EnrolmentId>::parse(text).ok_or_else(unknown)?;
        let inner = service.inner();
        let stored = store::enrolments::get(&mut *inner.store.read().await?, key.id).await?;
        // No hash for an id that is not known: ids of enrolments are no secret, and who knows none must not keep relay
        // nodes from theirs.
        let Some(stored) = stored else {
            inner.rates.attempt(meta.address).map_err(rate_limited)?;
            return Err(unknown());
        };
        if !fits(inner, &inner.relay_hasher, &meta, text, &key, Some(&stored.hash)).await? {
            return Err(unknown());
        }
        let enrolment = stored.enrolment;
        if enrolment.revoked_s.is_some() {
            return Err(Refusal::new(Code::EnrolmentRevoked, "the enrolment was revoked"));
        }
        inner.rates.relay(enrolment.id).map_err(rate_limited)?;
        Ok(Self {
            enrolment: enrolment.id,
            endpoint: enrolment.endpoint,
        })
    }
}

/// The operator asks.
pub(crate) struct Operator;

impl FromRequestParts<Service> for Operator {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Refusal> {
        let inner = service.inner();
        shared(parts, service, &inner.admin, Code::AdminUnauthorized, "the operator's").await?;
        Ok(Self)
    }
}

/// A relay node asks: with the secret that they share, or with a key of its own.
pub(crate) enum RelayNode {
    Shared,
    Enrolled(Enrolled),
}

impl FromRequestParts<Service> for RelayNode {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Refusal> {
        if bearer(&parts.headers).is_some_and(|text| text.starts_with(ENROLMENT_KEY_PREFIX)) {
            return Enrolled::from_request_parts(parts, service).await.map(Self::Enrolled);
        }
        let secret = &service.inner().relay;
        shared(parts, service, secret, Code::RelayUnauthorized, "the relay nodes'").await?;
        Ok(Self::Shared)
    }
}

async fn shared(
    parts: &mut Parts,
    service: &Service,
    secret: &SharedSecret,
    code: Code,
    whose: &str,
) -> Result<(), Refusal> {
    let meta = Meta::from_request_parts(parts, service).await?;
    if bearer(&parts.headers).is_some_and(|presented| secret.is(presented)) {
        return Ok(());
    }
    service.inner().rates.attempt(meta.address).map_err(rate_limited)?;
    Err(Refusal::new(code, format!("{whose} secret is missing or wrong")))
}
