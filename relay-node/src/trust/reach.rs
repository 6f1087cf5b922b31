//! Whether the API answers a relay node, before one is started.

use super::{Api, ApiError, ApiUrlError, RelaySecret};
use crate::clock::Clock;
use crate::config::TrustConfig;
use skytale_proto::Code;
use std::sync::Arc;

/// An API that a relay node cannot use.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] ApiUrlError),
    /// Nobody answers, or not as the API does.
    #[error("{0}")]
    Unreachable(String),
    /// It answers, and refuses: as a rule the secret.
    #[error("{0}")]
    Refused(String),
}

impl ReachError {
    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Url(_) | Self::Refused(_) => Code::Config,
            Self::Unreachable(_) => Code::Offline,
        }
    }
}

/// Asks an API for revocations once, as a relay node does: so its URL and the secret are both tried.
pub async fn reach_api(api_url: &str, secret: &RelaySecret, config: &TrustConfig) -> Result<(), ReachError> {
    let tls = iroh::tls::CaTlsConfig::default().client_config(iroh::tls::default_provider());
    let tls = tls.map_err(|error| ReachError::Unreachable(format!("TLS: {error}")))?;
    let api = Api::new(api_url, secret.clone(), tls, config, Arc::new(Clock::default()))?;
    match api.revocations(0, 0).await {
        Ok(_) => Ok(()),
        Err(error @ ApiError::Status { retryable: false, .. }) => Err(ReachError::Refused(error.to_string())),
        Err(error) => Err(ReachError::Unreachable(error.to_string())),
    }
}
