//! The OpenAPI document.

use crate::routes;
use skytale_proto::rest::Problem;
use std::collections::BTreeMap;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi as _, ToSchema as _};

/// The API's OpenAPI document, as `/openapi.json` serves it.
pub fn document() -> OpenApi {
    routes::documented().split_for_parts().1
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Skytale API",
        description = "Accounts, API keys, tokens, agents, channel names, and the directory of relay nodes. Every \
                       error is `application/problem+json` (RFC 9457) with a `SKY-` code, a sentence and whether to \
                       try again."
    ),
    components(schemas(Problem)),
    modifiers(&Schemes)
)]
struct Base;

/// What the routes are added to.
pub(crate) fn base() -> OpenApi {
    Base::openapi()
}

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        for (name, description) in [
            ("api_key", "An account's API key: `sk_live_...`."),
            ("operator", "The operator's secret."),
            ("relay", "The relay nodes' secret."),
            ("enrolment", "An enrolled relay node's key: `rk_live_...`."),
        ] {
            let mut scheme = Http::new(HttpAuthScheme::Bearer);
            scheme.description = Some(description.to_owned());
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

/// Every route may refuse.
pub(crate) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let response = |description: &str| {
            ResponseBuilder::new()
                .description(description)
                .content(
                    "application/problem+json",
                    Content::new(Some(Ref::from_schema_name(Problem::name()))),
                )
                .build()
        };
        BTreeMap::from([
            ("4XX".to_owned(), response("Refused; 429 has `Retry-After`.").into()),
            (
                "5XX".to_owned(),
                response("Failed, or too busy; 503 has `Retry-After`.").into(),
            ),
        ])
    }
}
