//! Signing keys change, and no token that was given out stops working for it.

use crate::agent::TestAgent;
use crate::database::Backend;
use crate::harness::{ADMIN, AUDIENCE, TestApi, URL, on_both};
use reqwest::StatusCode;
use serde_json::json;
use skytale_api::{Api, KeyEncryptionKey};
use skytale_proto::Code;
use skytale_proto::rest::Jwks;
use skytale_proto::token::TokenVerifier;
use std::time::Duration;
use zeroize::Zeroizing;

on_both! {
    async fn old_tokens_verify_until_they_end_and_their_key_leaves_then(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let agent = TestAgent::new();
        let old = api.token(&key, &agent).await;
        let before = api.jwks().await;

        let answer = api.post("/v1/signing-keys", ADMIN, &json!({})).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        let after: Jwks = answer.ok();
        assert_eq!(after.keys.len(), 2);
        assert_eq!(after.keys[1], before.keys[0]);
        assert_ne!(after.keys[0].kid, before.keys[0].kid);
        assert_eq!(api.jwks().await, after);

        let new = api.token(&key, &agent).await;
        let verifier = api.verifier().await;
        assert!(verifier.verify(&old.token, api.now_s()).is_ok());
        assert!(verifier.verify(&new.token, api.now_s()).is_ok());
        let stale = TokenVerifier::new(&before, URL, AUDIENCE).unwrap();
        assert!(!stale.knows_kid(&new.token), "relay nodes see that they must fetch the key set again");

        api.advance(Duration::from_secs(3_500));
        assert!(api.another().await.verifier().await.verify(&old.token, api.now_s()).is_ok());
        api.advance(Duration::from_secs(400));
        let late = api.another().await;
        assert_eq!(late.jwks().await.keys, after.keys[..1]);
        let expired = late.verifier().await.verify(&old.token, api.now_s()).unwrap_err();
        assert_eq!(expired.code, Code::TokenExpired);
        late.token(&key, &agent).await;
        late.stop().await;
        api.stop().await;
    }

    async fn another_process_signs_with_the_new_key_soon(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let key = api.account("acme").await.key.secret;
        let agent = TestAgent::new();
        other.token(&key, &agent).await;
        let after: Jwks = api.post("/v1/signing-keys", ADMIN, &json!({})).await.ok();
        let mut new_alone = after.clone();
        new_alone.keys.truncate(1);
        let new_alone = TokenVerifier::new(&new_alone, URL, AUDIENCE).unwrap();
        loop {
            let token = other.token(&key, &agent).await.token;
            // By the old key or the new one: it verifies at every moment.
            assert!(api.verifier().await.verify(&token, api.now_s()).is_ok());
            if new_alone.knows_kid(&token) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(other.jwks().await, after);
        other.stop().await;
        api.stop().await;
    }

    async fn keys_rotate_by_themselves_when_they_are_old(backend: Backend) {
        let lifetime = Duration::from_secs(30 * 24 * 3_600);
        let api = TestApi::start_with(backend, |config| config.signing_key_lifetime = Some(lifetime)).await;
        let before = api.jwks().await;
        api.advance(lifetime);
        // Its upkeep begins as it starts.
        let next = api.another_with(|config| config.signing_key_lifetime = Some(lifetime)).await;
        loop {
            let now = next.jwks().await;
            if now.keys[0].kid != before.keys[0].kid {
                assert_eq!(now.keys.len(), 2);
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        next.stop().await;
        api.stop().await;
    }

    async fn the_key_set_is_bounded(backend: Backend) {
        let api = TestApi::start(backend).await;
        for keys in 2..=16 {
            let set: Jwks = api.post("/v1/signing-keys", ADMIN, &json!({})).await.ok();
            assert_eq!(set.keys.len(), keys);
        }
        api.post("/v1/signing-keys", ADMIN, &json!({})).await.refused(Code::Conflict);
        api.verifier().await;
        api.stop().await;
    }

    async fn a_wrong_key_encryption_key_starts_nothing(backend: Backend) {
        let api = TestApi::start(backend).await;
        let mut config = crate::harness::config(&api.database);
        config.key_encryption_key = Some(KeyEncryptionKey::from_bytes(Zeroizing::new([1; 32])));
        let error = Api::start(config).await.unwrap_err();
        assert!(error.to_string().contains("`api.key_encryption_key` does not fit"), "{error}");
        assert_eq!(error.code(), Code::Config);
        api.stop().await;
    }
}
