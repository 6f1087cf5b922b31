//! The API's client against a scripted HTTP peer.

use super::peer::within;
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey, Verifier};
use futures_util::future::BoxFuture;
use skytale_proto::{AgentId, Code, EndpointId, Region, rest};
use skytale_sdk::internals::net::ProofSigner;
use skytale_sdk::{ApiClient, ApiKey, TokenError, TokenProvider, TokenSource, TokenSubject};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

struct Request {
    line: String,
    headers: String,
    body: Vec<u8>,
}

struct Answer {
    status: &'static str,
    headers: &'static str,
    body: Vec<u8>,
}

type Respond = Box<dyn FnOnce(&Request) -> Answer + Send>;

/// Answers one request per connection, each with the next of `answers`, and returns the requests.
async fn serve(answers: Vec<Respond>) -> (String, tokio::task::JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut bytes = Vec::new();
            let end = loop {
                if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end + 4;
                }
                let read = stream.read_buf(&mut bytes).await.expect("a request");
                assert!(read > 0);
            };
            let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| {
                    line.strip_prefix("content-length:")
                        .map(|value| value.trim().to_owned())
                })
                .map_or(0, |value| value.parse::<usize>().expect("a number"));
            while bytes.len() < end + length {
                stream.read_buf(&mut bytes).await.expect("a body");
            }
            let (line, headers) = head.split_once("\r\n").expect("a request line");
            let request = Request {
                line: line.to_owned(),
                headers: headers.to_owned(),
                body: bytes[end..].to_vec(),
            };
            let Answer { status, headers, body } = answer(&request);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.expect("a head");
            // A client that has seen enough hangs up.
            let _ = stream.write_all(&body).await;
            requests.push(request);
        }
        requests
    });
    (base, task)
}

struct Identity(SigningKey);

impl ProofSigner for Identity {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>> {
        Box::pin(async move { Ok(self.0.sign(message).to_bytes()) })
    }
}

fn subject(key: &SigningKey) -> TokenSubject {
    TokenSubject::new(
        AgentId::from_bytes(key.verifying_key().to_bytes()),
        EndpointId::from_bytes([5; 32]),
        Arc::new(Identity(key.clone())),
    )
}

fn client(base: &str) -> ApiClient {
    ApiClient::new(base, ApiKey::new("sk_live_test").expect("a key")).expect("a client")
}

fn fine(body: &impl serde::Serialize) -> Answer {
    Answer {
        status: "200 OK",
        headers: "content-type: application/json\r\n",
        body: serde_json::to_vec(body).expect("JSON"),
    }
}

#[tokio::test]
async fn a_token_is_given_for_a_key_and_a_signed_nonce() {
    let key = SigningKey::from_bytes(&[3; 32]);
    let nonce = [9; 32];
    let (base, served) = serve(vec![
        Box::new(move |_| {
            fine(&rest::NonceResponse {
                nonce: HEXLOWER.encode(&nonce),
                expires_s: 1,
            })
        }),
        Box::new(|_| {
            fine(&rest::TokenResponse {
                token: "a.b.c".into(),
                expires_s: 77,
                relays: vec![],
            })
        }),
    ])
    .await;
    let provider = TokenSource::new(client(&base));
    let mut subject = subject(&key);
    subject.region = Some(Region(3));
    let token = within(provider.token(&subject)).await.expect("a token");
    assert_eq!(token.expires_s(), 77);
    assert!(!format!("{token:?}").contains("a.b.c"));

    let requests = within(served).await.expect("the requests");
    assert_eq!(requests[0].line, "POST /v1/nonce HTTP/1.1");
    assert_eq!(requests[1].line, "POST /v1/token HTTP/1.1");
    assert!(requests[1].headers.contains("authorization: Bearer sk_live_test"));
    let asked: rest::TokenRequest = serde_json::from_slice(&requests[1].body).expect("a token request");
    assert_eq!(asked.region, Some(3));
    let proof = rest::proof_message(&nonce, &asked.agent, &asked.endpoint);
    let signature: [u8; 64] = HEXLOWER
        .decode(asked.signature.as_bytes())
        .expect("hex")
        .try_into()
        .expect("64 bytes");
    key.verifying_key()
        .verify(&proof, &signature.into())
        .expect("a proof that verifies");
}

#[tokio::test]
async fn a_problem_gives_its_code_and_its_wait() {
    let (base, _served) = serve(vec![Box::new(|_| Answer {
        status: "429 Too Many Requests",
        headers: "content-type: application/problem+json\r\nretry-after: 7\r\n",
        body: serde_json::to_vec(&rest::Problem::new(Code::ApiRateLimited, 429, "slow down")).expect("JSON"),
    })])
    .await;
    let error = within(client(&base).nonce(AgentId::from_bytes([1; 32])))
        .await
        .expect_err("a refusal");
    assert_eq!(error.code(), Code::ApiRateLimited);
    assert!(error.is_retryable());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let token = TokenError::from(error);
    assert_eq!(
        (token.code(), token.retry_after()),
        (Code::ApiRateLimited, Some(Duration::from_secs(7)))
    );
}

#[tokio::test]
async fn an_answer_that_is_no_problem_document_has_a_code_all_the_same() {
    let (base, _served) = serve(vec![Box::new(|_| Answer {
        status: "503 Service Unavailable",
        headers: "",
        body: b"<html>proxy</html>".to_vec(),
    })])
    .await;
    let error = within(client(&base).nonce(AgentId::from_bytes([1; 32])))
        .await
        .expect_err("a refusal");
    assert_eq!(error.code(), Code::ApiBusy);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let (base, _served) = serve(vec![Box::new(|_| Answer {
        status: "200 OK",
        headers: "",
        body: vec![b' '; 4 * 1024 * 1024],
    })])
    .await;
    let error = within(client(&base).nonce(AgentId::from_bytes([1; 32])))
        .await
        .expect_err("too much");
    assert_eq!(error.code(), Code::ApiInternal);
}

#[tokio::test]
async fn a_redirect_does_not_take_the_key_elsewhere() {
    let (base, served) = serve(vec![Box::new(|_| Answer {
        status: "307 Temporary Redirect",
        headers: "location: http://127.0.0.1:1/\r\n",
        body: vec![],
    })])
    .await;
    let error = within(client(&base).nonce(AgentId::from_bytes([1; 32])))
        .await
        .expect_err("no answer");
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(within(served).await.expect("requests").len(), 1);
}

#[tokio::test]
async fn an_api_that_is_not_there_can_be_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = within(client(&base).nonce(AgentId::from_bytes([1; 32])))
        .await
        .expect_err("nobody");
    assert_eq!(error.code(), Code::Offline);
    assert!(error.is_retryable());
}
