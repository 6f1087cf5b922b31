//! `/`: what this is, and where it says more.

use crate::openapi::Refusals;
use axum::Json;
use serde::Serialize;

/// The API's name and version, and links to its descriptions.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Index {
    /// `skytale-api`.
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// The OpenAPI document.
    openapi: &'static str,
    /// The same, for people.
    docs: &'static str,
    /// The keys that verify tokens.
    jwks: &'static str,
    /// Whether it can do its work.
    ready: &'static str,
}

/// Says what this is, and where it says more.
#[utoipa::path(
    get,
    path = "/",
    tag = "health",
    operation_id = "get_index",
    responses((status = 200, description = "Its name, its version, and paths to go on from.", body = Index), Refusals)
)]
pub(super) async fn get() -> Json<Index> {
    Json(Index {
        name: "skytale-api",
        version: env!("CARGO_PKG_VERSION"),
        openapi: "/openapi.json",
        docs: "/docs/",
        jwks: "/.well-known/jwks.json",
        ready: "/readyz",
    })
}
