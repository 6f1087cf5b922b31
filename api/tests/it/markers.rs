//! No secret is in the log at TRACE, in the database, or in the audit.

use crate::agent::TestAgent;
use crate::child::Process;
use crate::database::{Backend, Database};
use crate::harness::{ADMIN, KEK, RELAY, on_both};
use crate::relay::TestRelay;
use data_encoding::HEXLOWER;
use serde_json::json;
use skytale_proto::Code;
use skytale_proto::rest::TokenResponse;

fn assert_absent(place: &str, bytes: &[u8], secrets: &[(&str, String)]) {
    assert!(!bytes.is_empty(), "{place} has something to search");
    for (what, secret) in secrets {
        assert!(secret.len() >= 16, "{what} is long enough to be found by no chance");
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{what} is in {place}");
    }
}

on_both! {
    async fn no_secret_is_logged_or_stored(backend: Backend) {
        let database = Database::new(backend).await;
        let process = Process::start(&database, 64).await;
        let client = &process.client;
        let account = client.account("acme").await;
        let key = account.key.secret.clone();
        let second = client.key(&key, &["relay:append"]).await;
        let agent = TestAgent::new();
        let nonce = client.nonce(&second.secret, &agent).await;
        let request = agent.request(&nonce);
        let token: TokenResponse = client.post("/v1/token", &second.secret, &request).await.ok();
        client.post("/v1/token", &second.secret, &request).await.refused(Code::NonceInvalid);
        let unused = client.nonce(&key, &agent).await;
        // Refused on every path, with secrets in wrong places too.
        let wrong = json!({ "label": key, "scopes": [token.token] });
        client.post("/v1/keys", &key, &wrong).await.refused(Code::BadRequest);
        client.get(&format!("/v1/keys/{key}"), &key).await.refused(Code::MethodNotAllowed);
        client.get(&format!("/v1/channels?after={key}"), &key).await.refused(Code::BadRequest);
        client.get("/v1/agents", &token.token).await.refused(Code::KeyUnknown);
        client.get(&format!("/nowhere/{ADMIN}"), ADMIN).await.refused(Code::NotFound);
        client.post("/v1/accounts", RELAY, &json!({})).await.refused(Code::AdminUnauthorized);
        client.post("/v1/signing-keys", ADMIN, &json!({})).await.ok::<skytale_proto::rest::Jwks>();
        client.delete(&format!("/v1/keys/{}", second.key.id), &key).await.done();
        client.get("/v1/agents", &second.secret).await.refused(Code::KeyRevoked);
        let node = TestRelay::start(client, "node", |_| {}).await;
        let mut forged = node.heartbeat.clone();
        forged.proof = "00".repeat(64);
        client.put(&node.path(), node.key(), &forged).await.refused(Code::RegistrationProof);
        client.delete(&format!("/v1/enrolments/{}", node.key()), ADMIN).await.refused(Code::NotFound);
        let audit = client.get("/v1/audit?limit=200", &key).await;
        assert!(audit.status.is_success());

        let tail = |key: &str| key.rsplit('_').next().unwrap().to_owned();
        let secrets = [
            ("the first key", tail(&key)),
            ("the second key", tail(&second.secret)),
            ("the enrolment's key", tail(node.key())),
            ("the endpoint's proof", node.heartbeat.proof.clone()),
            ("the token", token.token.clone()),
            ("the token's signature", token.token.rsplit('.').next().unwrap().to_owned()),
            ("the used nonce", nonce),
            ("the unused nonce", unused),
            ("the proof", request.signature),
            ("the agent's identity key", agent.secret_hex()),
            ("the operator's secret", ADMIN.to_owned()),
            ("the relay nodes' secret", RELAY.to_owned()),
            ("the key encryption key", HEXLOWER.encode(&KEK)),
            ("the database's password", "database-password-marker".to_owned()),
        ];
        assert_absent("the audit", &audit.body, &secrets);
        assert_absent("the open database", &database.dump(), &secrets);
        let log = process.log.clone();
        process.stop();
        let log = std::fs::read(log).unwrap();
        let lines = String::from_utf8_lossy(&log);
        assert!(lines.contains("DEBUG sqlx::query") && lines.contains("/v1/token"), "the log is a whole one");
        assert_absent("the log", &log, &secrets);
        let dump = database.dump();
        assert!(dump.windows(10).any(|window| window == b"$argon2id$"), "the dump is a whole one");
        assert_absent("the database", &dump, &secrets);
    }
}
