//! The routes, and what surrounds all of them.

mod accounts;
mod agents;
mod audit;
mod channels;
mod enrolments;
mod fleet;
mod front;
pub(crate) mod health;
mod heartbeat;
mod index;
mod keys;
mod relays;
mod revocations;
mod signing_keys;
mod tokens;

use crate::openapi;
use crate::problem::Refusal;
use crate::service::Service;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::middleware::{from_fn, from_fn_with_state};
use skytale_proto::Code;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// The routes, with their documentation.
fn documented() -> OpenApiRouter<Service> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(index::get))
        .routes(routes!(accounts::create))
        .routes(routes!(accounts::create_key))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
        .routes(routes!(tokens::nonce))
        .routes(routes!(tokens::token))
        .routes(routes!(signing_keys::jwks))
        .routes(routes!(signing_keys::rotate))
        .routes(routes!(agents::list))
        .routes(routes!(agents::end))
        .routes(routes!(channels::create, channels::list))
        .routes(routes!(channels::get, channels::remove))
        .routes(routes!(relays::list))
        .routes(routes!(relays::put, relays::remove))
        .routes(routes!(heartbeat::put))
        .routes(routes!(enrolments::create, enrolments::list))
        .routes(routes!(enrolments::revoke))
        .routes(routes!(fleet::list))
        .routes(routes!(revocations::list))
        .routes(routes!(audit::list))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
}

/// The routes, and their document.
pub(crate) fn parts() -> (Router<Service>, OpenApi) {
    let (routes, mut document) = documented().split_for_parts();
    openapi::bound_integers(&mut document);
    (routes, document)
}

/// The routes, bounded, observed, and ready to be served.
pub(crate) fn router(service: &Service) -> Router {
    let (routes, document) = parts();
    let no_validator = Config::default().validator_url("none");
    routes
        .merge(
            SwaggerUi::new("/docs")
                .url("/openapi.json", document)
                .config(no_validator),
        )
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(service.inner().config.limits.body_bytes_max))
        .layer(from_fn_with_state(service.clone(), front::check_head))
        // From here on outwards: the last added is the first that a request meets.
        .layer(from_fn_with_state(service.clone(), front::limit_address))
        .layer(from_fn_with_state(service.clone(), front::limit_time))
        .layer(CatchPanicLayer::custom(front::panicked))
        .layer(from_fn(front::complete))
        .layer(from_fn(front::harden))
        .layer(from_fn_with_state(service.clone(), front::observe))
        .with_state(service.clone())
}

async fn no_route(uri: Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("no such path: {}", uri.path()))
}

async fn no_method() -> Refusal {
    Refusal::new(Code::MethodNotAllowed, "the path exists, but not with this method")
}
