//! Parts around a request: its id, its address, its body and its page.

use crate::problem::Refusal;
use crate::store::Ask;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{self, ConnectInfo, FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use skytale_proto::Code;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Required, Schema};
use utoipa::{IntoParams, PartialSchema};

/// Rows on a page when the request does not say.
pub(crate) const PAGE_DEFAULT: u32 = 50;
/// Rows on a page, at most.
pub(crate) const PAGE_MAX: u32 = 200;

/// The address that a connection came from; put into each of its requests by the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub SocketAddr);

/// A request's id, and its sender.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    /// A UUIDv7, made here; also the `x-request-id` header of the answer.
    pub request: String,
    /// The client's address.
    pub address: IpAddr,
}

impl Meta {
    /// Makes it for work that no request asked for.
    pub(crate) fn own() -> Self {
        Self {
            request: uuid::Uuid::now_v7().to_string(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// Makes it for a request that has none yet. Behind a proxy the client's address is the last that the proxy wrote.
    pub(crate) fn of(request: &Request, behind_proxy: bool) -> Self {
        let extensions = request.extensions();
        let embedded = extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let peer = extensions.get::<Peer>().map(|peer| peer.0.ip()).or(embedded);
        let forwarded = if behind_proxy {
            forwarded_for(request.headers())
        } else {
            None
        };
        Self {
            request: uuid::Uuid::now_v7().to_string(),
            address: forwarded.or(peer).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }
}

/// The last entry of the last `X-Forwarded-For`: the one that the proxy itself appended. Those before it are
/// whatever the client wrote.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

impl<S: Sync> FromRequestParts<S> for Meta {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let missing = || Refusal::internal("a request came past the front", &"it has no id");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// A JSON body. Unlike axum's own, it refuses with a code.
pub(crate) struct Body<T>(pub T);

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refuse_body(&rejection)),
        }
    }
}

fn refuse_body(rejection: &JsonRejection) -> Refusal {
    let status = rejection.status();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Refusal::new(Code::BodyTooLarge, "the body is over the limit");
    }
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return Refusal::new(Code::BadRequest, "the body must have `Content-Type: application/json`").status(status);
    }
    Refusal::new(Code::BadRequest, rejection.body_text())
}

/// The parameters of a path.
pub(crate) struct Path<T>(pub T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let refuse = |rejection: PathRejection| Refusal::new(Code::BadRequest, rejection.body_text());
        let path = extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|extract::Path(params)| Self(params)).map_err(refuse)
    }
}

/// A query string.
pub(crate) struct Params<T>(pub T);

impl<S, T> FromRequestParts<S> for Params<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let refuse = |rejection: QueryRejection| Refusal::new(Code::BadRequest, rejection.body_text());
        let Query(params) = Query::<T>::from_request_parts(parts, state).await.map_err(refuse)?;
        Ok(Self(params))
    }
}

/// Page of a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page<T> {
    /// Start of the page: `next` of the page before.
    after: Option<String>,
    limit: Option<u32>,
    /// Type of `after`.
    #[serde(skip)]
    of: PhantomData<T>,
}

impl<T: PartialSchema> IntoParams for Page<T> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let query = |name: &str, description: &str, schema: RefOr<Schema>| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(description))
                .schema(Some(schema))
                .build()
        };
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1_usize))
            .maximum(Some(PAGE_MAX as usize))
            .default(Some(PAGE_DEFAULT.into()));
        vec![
            query(
                "after",
                "What the page begins after: `next` of the page before.",
                T::schema(),
            ),
            query("limit", "Rows on the page.", limit.into()),
        ]
    }
}

impl<T: FromStr> Page<T> {
    /// Returns the page as the store takes it.
    pub(crate) fn ask(&self) -> Result<Ask<T>, Refusal> {
        let refuse = |_| Refusal::new(Code::BadRequest, "`after` must be the `next` of the page before");
        Ok(Ask {
            after: self
                .after
                .as_ref()
                .map(|text| text.parse().map_err(refuse))
                .transpose()?,
            limit: limit(self.limit, PAGE_MAX)?,
        })
    }
}

/// Returns the number of rows of a page.
pub(crate) fn limit(asked: Option<u32>, max: u32) -> Result<u32, Refusal> {
    match asked {
        None => Ok(PAGE_DEFAULT.min(max)),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(_) => Err(Refusal::new(
            Code::BadRequest,
            format!("`limit` must be from 1 to {max}"),
        )),
    }
}

/// Returns the refusal of a caller that asks too often.
pub(crate) fn rate_limited(wait: std::time::Duration) -> Refusal {
    Refusal::new(Code::ApiRateLimited, "too many requests").retry_after(wait)
}

/// Agents, keys and channel names of an account, too many in a day.
pub(crate) fn too_many_made(wait: std::time::Duration) -> Refusal {
    let problem = "the account has made as many agents, API keys and channel names as it may in a day";
    Refusal::new(Code::AccountTooMany, problem).retry_after(wait)
}

/// The keys of an account together, too often.
pub(crate) fn account_rate_limited(wait: std::time::Duration) -> Refusal {
    Refusal::new(Code::AccountTooMany, "too many requests with the keys of this account").retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header;

    fn headers(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| {
                (
                    header::HeaderName::from_static("x-forwarded-for"),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_client_cannot_write_its_own_address() {
        let proxy: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(forwarded_for(&headers(&["10.0.0.1, 192.0.2.7"])), Some(proxy));
        assert_eq!(forwarded_for(&headers(&["10.0.0.1", "192.0.2.7"])), Some(proxy));
        assert_eq!(forwarded_for(&headers(&["192.0.2.7, unknown"])), None);
        assert_eq!(forwarded_for(&headers(&[])), None);
    }

    #[test]
    fn a_page_has_as_many_rows_as_it_may() {
        assert!(limit(Some(0), PAGE_MAX).is_err() && limit(Some(201), PAGE_MAX).is_err());
        assert_eq!(limit(None, PAGE_MAX).ok(), Some(PAGE_DEFAULT));
    }
}
