//! The caller: taken from a request's head, and checked before anything else of it is read.

use crate::auth::{Asking, Caller, Enrolled, KeyHasher, KeyName, KeyText, SharedSecret};
use crate::problem::Refusal;
use crate::request::{Meta, account_rate_limited, rate_limited};
use crate::service::{Inner, Service};
use crate::store;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use skytale_http::addresses::network;
use skytale_proto::rest::ENROLMENT_KEY_PREFIX;
use skytale_proto::{AccountId, Code, EnrolmentId, KeyId};
use std::time::{Duration, UNIX_EPOCH};

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Whether a key's text fits its hash, or did a moment ago. Without a hash it takes as long, and does not.
///
/// Wrong keys alone count as attempts. A network that has tried too many is refused before anything is computed, except for keys whose
/// ids are known: one in a second of each of those may be the right one.
async fn fits<I: KeyName>(
    inner: &Inner,
    hasher: &KeyHasher,
    meta: &Meta,
    key: &KeyText<'_, I>,
    known: Option<(&str, Option<AccountId>)>,
) -> Result<bool, Refusal> {
    if inner.verified.contains(key) {
        return Ok(known.is_some());
    }
    let (hash, account) = known.unzip();
    let asking = Asking {
        network: network(meta.address),
        account: account.flatten(),
    };
    if let Some(wait) = inner.rates.suspended(meta.address) {
        let again = hash.map_or(Err(wait), |_| inner.rates.attempt_of(meta.address, *key.id.as_bytes()));
        again.map_err(rate_limited)?;
    }
    let is_cached = || inner.verified.contains(key);
    if !hasher.verify(asking, key.secret, hash, is_cached).await? {
        inner.rates.attempt(meta.address).map_err(rate_limited)?;
        return Ok(false);
    }
    inner.verified.insert(key);
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
        if let Some(wait) = inner.rates.over(key.id) {
            // The holder of the key got this answer a moment ago: nothing is computed to give it again.
            return Err(rate_limited(wait));
        }
        let known = stored
            .as_ref()
            .map(|stored| (stored.hash.as_str(), Some(stored.account)));
        if !fits(inner, &inner.hasher, &meta, &key, known).await? {
            return Err(unknown());
        }
        let stored = stored.ok_or_else(unknown)?;
        if stored.revoked_s.is_some() {
            return Err(Refusal::new(Code::KeyRevoked, "the API key was revoked"));
        }
        if let Some(expires_s) = stored.expires_s.filter(|expires_s| *expires_s <= inner.now_s()) {
            let expired = UNIX_EPOCH
                .checked_add(Duration::from_secs(expires_s))
                .map(httpdate::fmt_http_date);
            let expired = expired.unwrap_or_default();
            return Err(Refusal::new(
                Code::KeyExpired,
                format!("the API key expired on {expired}"),
            ));
        }
        inner.rates.key(stored.id).map_err(rate_limited)?;
        inner.rates.account(stored.account).map_err(account_rate_limited)?;
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
        // No hash for an id that is not known: ids of enrolments are no secret, and a caller that knows none must not
        // keep relay nodes from theirs.
        let Some(stored) = stored else {
            inner.rates.attempt(meta.address).map_err(rate_limited)?;
            return Err(unknown());
        };
        if !fits(inner, &inner.relay_hasher, &meta, &key, Some((&stored.hash, None))).await? {
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
