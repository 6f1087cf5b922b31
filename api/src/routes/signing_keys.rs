//! The keys that verify tokens, and their rotation.

use crate::asker::Operator;
use crate::audit::Actor;
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::Meta;
use crate::service::Service;
use crate::signing::SigningError;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use skytale_proto::Code;
use skytale_proto::rest::Jwks;

/// The keys that verify tokens (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "tokens",
    operation_id = "get_jwks",
    responses((status = 200, description = "The key set.", body = Jwks), Refusals)
)]
pub(super) async fn jwks(State(service): State<Service>) -> ([(HeaderName, &'static str); 1], Json<Jwks>) {
    let inner = service.inner();
    let keys = inner.ring.key_set(inner.now_s()).await;
    let cache = [(header::CACHE_CONTROL, "public, max-age=15")];
    (cache, Json(Jwks::clone(&keys)))
}

/// Signs tokens with a new key from now on. The old one verifies until its last token has ended.
#[utoipa::path(
    post,
    path = "/v1/signing-keys",
    tag = "tokens",
    operation_id = "rotate_signing_key",
    security(("operator" = [])),
    responses((status = 201, description = "The key set; its first key is the new one.", body = Jwks), Refusals)
)]
pub(super) async fn rotate(
    State(service): State<Service>,
    _: Operator,
    meta: Meta,
) -> Result<(StatusCode, Json<Jwks>), Refusal> {
    let inner = service.inner();
    let rotated = inner.ring.rotate(Actor::Operator, &meta, inner.now_s()).await;
    let view = rotated.map_err(|error| match error {
        SigningError::Contended => Refusal::new(Code::Conflict, error.to_string()),
        SigningError::Seal(_) => Refusal::new(
            Code::Conflict,
            "the signing keys were encrypted under another key encryption key since this process started: start it \
             again with that one",
        ),
        SigningError::Store(error) => error.into(),
        other => Refusal::internal("the signing key was not rotated", &other),
    })?;
    Ok((StatusCode::CREATED, Json(Jwks::clone(&view.jwks))))
}
