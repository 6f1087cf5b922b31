//! The OpenAPI document.

use crate::routes;
use skytale_proto::rest::Problem;
use skytale_proto::rest::schema::{NamePart, Sequence};
use std::collections::BTreeMap;
use utoipa::Number;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{ArrayItems, KnownFormat, SchemaFormat};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, Modify, OpenApi as _, ToSchema as _};

/// The API's OpenAPI document, as `/openapi.json` serves it.
pub fn document() -> OpenApi {
    routes::parts().1
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Skytale API",
        description = "Accounts, API keys, tokens, agents, channel names, and the directory of relay nodes. Every \
                       error is `application/problem+json` (RFC 9457) with a `SKY-` code, a sentence and whether to \
                       try again. Numbers are integers, written without a fraction or an exponent; ids are taken in \
                       either case and given in lower case."
    ),
    components(schemas(Problem, NamePart, Sequence)),
    modifiers(&Schemes)
)]
struct Base;

/// Returns the document to which the routes are added.
pub(crate) fn base() -> OpenApi {
    Base::openapi()
}

/// Gives each unsigned integer the bounds of its type, which its format names: a schema with a format alone takes any number.
pub(crate) fn bound_integers(document: &mut OpenApi) {
    for schema in document
        .components
        .iter_mut()
        .flat_map(|components| components.schemas.values_mut())
    {
        bound(schema);
    }
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let parameters = operation.parameters.iter_mut().flatten();
            for parameter in parameters {
                if let RefOr::T(Parameter {
                    schema: Some(schema), ..
                }) = parameter
                {
                    bound(schema);
                }
            }
        }
    }
}

fn bound(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            object.properties.values_mut().for_each(bound);
            let (name, max) = match &object.format {
                Some(SchemaFormat::KnownFormat(KnownFormat::UInt8)) => ("uint8", u64::from(u8::MAX)),
                Some(SchemaFormat::KnownFormat(KnownFormat::UInt16)) => ("uint16", u64::from(u16::MAX)),
                Some(SchemaFormat::KnownFormat(KnownFormat::UInt32)) => ("uint32", u64::from(u32::MAX)),
                Some(SchemaFormat::KnownFormat(KnownFormat::UInt64)) => ("uint64", u64::MAX),
                _ => return,
            };
            // utoipa writes `u-int8`; OpenAPI's registry of formats has `uint8`.
            object.format = Some(SchemaFormat::Custom(name.to_owned()));
            object.minimum.get_or_insert(Number::UInt(0));
            object.maximum.get_or_insert(Number::UInt(max as usize));
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                bound(items);
            }
        }
        Schema::OneOf(one) => one.items.iter_mut().for_each(bound),
        Schema::AllOf(all) => all.items.iter_mut().for_each(bound),
        Schema::AnyOf(any) => any.items.iter_mut().for_each(bound),
        _ => {}
    }
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
