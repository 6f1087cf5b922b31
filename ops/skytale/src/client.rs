//! Clients of the API, and what to say when it cannot be reached.

use crate::config::Loaded;
use crate::output::{Failure, Outcome};
use skytale_proto::Code;
use skytale_sdk::{ApiClient, ApiError, ApiKey};

/// Returns a client with the account's API key.
pub(crate) fn account(loaded: &Loaded) -> Outcome<ApiClient> {
    ApiClient::new(&loaded.config.api_url, api_key(loaded)?).map_err(failed(loaded))
}

/// The API key in force.
pub(crate) fn api_key(loaded: &Loaded) -> Outcome<ApiKey> {
    let key = loaded.config.api_key.as_ref().ok_or_else(|| {
        Failure::new(Code::Config, "an API key is needed (`api_key`)").help(
            "Run `skytale login --api URL`, or set SKYTALE_API_KEY. `skytale dev` makes a profile of its own (`--profile dev`); \
             `skytale profiles` lists what there is. An account's keys are made by `skytale account create` and `skytale key \
             create`.",
        )
    })?;
    let text = key.reveal("api_key")?;
    ApiKey::new(text.as_str()).map_err(|error| {
        Failure::new(
            Code::Config,
            format!("`api_key` ({}) is no API key", loaded.source("api_key")),
        )
        .because(&error)
        .help("Set SKYTALE_API_KEY to a key as it was shown when it was made: sk_live_...")
    })
}

/// Returns a client with the operator's secret.
pub(crate) fn operator(loaded: &Loaded) -> Outcome<ApiClient> {
    let secret = loaded.config.admin_secret.as_ref().ok_or_else(|| {
        Failure::new(Code::Config, "the operator's secret is needed (`admin_secret`)")
            .help("Set SKYTALE_ADMIN_SECRET to what the API has as `api.admin_secret`, or to `file:` and its path.")
    })?;
    let secret = ApiKey::operator(secret.reveal("admin_secret")?.as_str()).map_err(failed(loaded))?;
    ApiClient::new(&loaded.config.api_url, secret).map_err(failed(loaded))
}

/// Returns the report of a request that failed.
pub(crate) fn failed(loaded: &Loaded) -> impl Fn(ApiError) -> Failure {
    failed_at(&loaded.config.api_url, &loaded.source("api_url"))
}

/// The same, of an API at an address, which `source` gave.
pub(crate) fn failed_at(url: &str, source: &str) -> impl Fn(ApiError) -> Failure + use<> {
    let (url, source) = (url.to_owned(), source.to_owned());
    move |error| match &error {
        ApiError::Unreachable { reason, .. } => Failure::new(Code::Offline, format!("cannot reach the API at {url}"))
            .since(reason.clone())
            .help(format!(
                "Is it running? `skytale dev` starts one on this machine. The address is `api_url` ({source}); set \
                 SKYTALE_API_URL for another."
            )),
        ApiError::Config { problem } => {
            Failure::new(Code::Config, format!("the API at {url} cannot be used ({source})")).since(problem.clone())
        }
        ApiError::Refused {
            code,
            detail,
            retry_after,
            ..
        } => {
            let failure = Failure::new(*code, format!("the API at {url} refused")).since(detail.clone());
            let failure = match code {
                Code::KeyExpired | Code::KeyRevoked | Code::KeyUnknown => failure.help(
                    "Get another key (`skytale key create`, by one that is in force), then `skytale login`, or set \
                     SKYTALE_API_KEY.",
                ),
                Code::KeyScope => failure.help(
                    "Use a key with that scope: an account's first key has all of them, `skytale key create --scope SCOPE` \
                     makes one with some.",
                ),
                _ => failure,
            };
            match retry_after {
                Some(wait) => failure.help(format!("Try again in {} s.", wait.as_secs().max(1))),
                None => failure,
            }
        }
        _ => Failure::new(error.code(), format!("{url} does not answer as the API does"))
            .because(&error)
            .help(format!("Is `api_url` ({source}) the API's address?")),
    }
}
