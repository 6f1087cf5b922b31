//! Any request that fails before a route sees it gets a problem with a code.

use crate::database::Backend;
use crate::harness::{ADMIN, Answer, RELAY, TestApi, on_both};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use skytale_proto::Code;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Returns the API's answer to these bytes, until it closes the connection.
async fn raw(api: &TestApi, request: impl AsRef<[u8]>) -> Answer {
    let mut stream = TcpStream::connect(api.base.trim_start_matches("http://"))
        .await
        .unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (
            name.parse::<HeaderName>().unwrap(),
            value.parse::<HeaderValue>().unwrap(),
        )
    };
    Answer {
        status,
        headers: lines.map(header).collect::<HeaderMap>(),
        body: answer[end + 4..].to_vec(),
    }
}

fn request(line: &str, bearer: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {bearer}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_no_text_is_refused_with_a_code_on_every_route_that_has_parameters() {
    let api = TestApi::start(Backend::Sqlite).await;
    let key = api.account("acme").await.key.secret;
    let document = serde_json::to_value(skytale_api::openapi_document()).unwrap();
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if !path.contains('{') {
            continue;
        }
        let parameter = |text: &str| {
            path.split('/')
                .map(|part| if part.starts_with('{') { text } else { part })
                .collect::<Vec<_>>()
                .join("/")
        };
        for (method, operation) in methods.as_object().unwrap() {
            let bearer = match operation["security"][0]
                .as_object()
                .unwrap()
                .keys()
                .next()
                .unwrap()
                .as_str()
            {
                "api_key" => key.clone(),
                "operator" => ADMIN.to_owned(),
                "relay" => RELAY.to_owned(),
                "enrolment" => crate::relay::TestRelay::enrol(&api, "node").await.key().to_owned(),
                other => panic!("{other}"),
            };
            let line = format!("{} {}", method.to_uppercase(), parameter("%ff"));
            let answer = raw(&api, request(&line, &bearer)).await.refused(Code::BadRequest);
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{line}");
            // A text that is no id is an id that nobody has.
            for text in ["%00", "..%2f..", "%e2%82%ac", "a%20b"] {
                let line = format!("{} {}", method.to_uppercase(), parameter(text));
                let answer = raw(&api, request(&line, &bearer)).await;
                let code = if answer.status == StatusCode::NOT_FOUND {
                    Code::NotFound
                } else {
                    Code::BadRequest
                };
                answer.refused(code);
            }
            tried += 1;
        }
    }
    assert!(tried >= 8, "{tried}");
    for path in [
        "/%ff",
        "/v1/%ff",
        "/docs/nothing",
        "/v1/channels/a/b/c/d",
        "//",
        "/v1/keys/",
    ] {
        raw(&api, request(&format!("GET {path}"), &key))
            .await
            .refused(Code::NotFound);
    }
    raw(&api, request("GET /docs/%ff", &key))
        .await
        .refused(Code::BadRequest);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_that_is_none_is_refused_with_a_code() {
    let api = TestApi::start(Backend::Sqlite).await;
    let key = api.account("acme").await.key.secret;
    for (path, bearer) in [
        ("/v1/keys", key.as_str()),
        ("/v1/agents", &key),
        ("/v1/channels", &key),
        ("/v1/audit", &key),
        ("/v1/relays", &key),
        ("/v1/enrolments", ADMIN),
        ("/v1/fleet", ADMIN),
        ("/v1/revocations", RELAY),
    ] {
        for query in [
            "limit=",
            "limit=%ff",
            "limit=1&limit=2",
            "limit=1e1",
            "limit=+1.0",
            "nothing=1",
            "=",
            "limit=99999999999",
        ] {
            raw(&api, request(&format!("GET {path}?{query}"), bearer))
                .await
                .refused(Code::BadRequest);
        }
    }
    for number in [
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
    ] {
        for name in ["after", "agents_after"] {
            raw(&api, request(&format!("GET /v1/revocations?{name}={number}"), RELAY))
                .await
                .refused(Code::BadRequest);
        }
    }
    let most = raw(
        &api,
        request("GET /v1/revocations?agents_after=9223372036854775807", RELAY),
    )
    .await;
    assert_eq!(most.status, StatusCode::OK);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_of_http_is_refused_with_a_code() {
    let api = TestApi::start(Backend::Sqlite).await;
    let key = api.account("acme").await.key.secret;
    let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = "a".repeat(20_000);
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /livez HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            "GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
            400,
        ),
        (
            "GET /livez HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n".to_owned(),
            400,
        ),
        (
            "POST /v1/keys HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_owned(),
            400,
        ),
        (
            "POST /v1/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            400,
        ),
        (format!("GET /livez HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET /livez HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 431),
    ] {
        let answer = raw(&api, &request).await;
        assert_eq!(answer.status, status, "{}", &request[..request.len().min(100)]);
        answer.refused(if status == 400 {
            Code::BadRequest
        } else {
            Code::BodyTooLarge
        });
    }
    let old = raw(&api, "GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, StatusCode::OK, "HTTP/1.0 knows no Host");
    for method in ["OPTIONS", "PATCH", "TRACE", "BREW"] {
        let answer = raw(&api, request(&format!("{method} /v1/keys"), &key)).await;
        let allow = answer.headers["allow"].to_str().unwrap();
        assert!(
            ["GET", "HEAD", "POST"].iter().all(|method| allow.contains(method)),
            "{method}: {allow}"
        );
        answer.refused(Code::MethodNotAllowed);
    }
    raw(&api, request("OPTIONS *", &key)).await.refused(Code::NotFound);
    raw(&api, request("CONNECT example.org:443", &key))
        .await
        .refused(Code::NotFound);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_announced_too_long_is_refused_before_it_is_sent() {
    // An API that waited for the body would wait for an hour.
    let hour = Duration::from_secs(3_600);
    let api = TestApi::start_with(Backend::Sqlite, |config| config.limits.request_timeout = hour).await;
    let key = api.account("acme").await.key.secret;
    let limit = skytale_api::Limits::default().body_bytes_max;
    for (method, path) in [
        ("POST", "/v1/keys"),
        ("POST", "/v1/accounts"),
        ("GET", "/livez"),
        ("POST", "/nothing"),
    ] {
        for length in [10_000_000_000, limit + 1] {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n"
            );
            let answer = raw(&api, head).await.refused(Code::BodyTooLarge);
            assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        }
    }
    // One that is not announced is refused when it is too long.
    let chunk = format!(
        "{limit:x}\r\n{}\r\n10\r\n{}\r\n0\r\n\r\n",
        "a".repeat(limit),
        "a".repeat(16)
    );
    let head = format!(
        "POST /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
    );
    raw(&api, head).await.refused(Code::BodyTooLarge);
    api.stop().await;
}

on_both! {
    async fn a_body_that_is_no_json_is_refused_with_a_code(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let send = |kind: &'static str, body: Vec<u8>| {
            let request = api.http.post(format!("{}/v1/keys", api.base)).bearer_auth(&key);
            async move {
                let response = request.header(CONTENT_TYPE, kind).body(body).send().await.unwrap();
                Answer {
                    status: response.status(),
                    headers: response.headers().clone(),
                    body: response.bytes().await.unwrap().to_vec(),
                }
            }
        };
        let label = |label: &[u8]| [b"{\"scopes\":[\"relay:append\"],\"label\":\"", label, b"\"}"].concat();
        for body in [b"\xff\xfe".to_vec(), label(b"\xff"), label(b"\\ud800"), Vec::new()] {
            send("application/json", body).await.refused(Code::BadRequest);
        }
        for kind in ["text/plain", "application/jsonp", "multipart/form-data; boundary=x", "json"] {
            let answer = send(kind, label(b"a")).await.refused(Code::BadRequest);
            assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        }
        assert_eq!(send("application/json; charset=utf-8", label(b"a")).await.status, StatusCode::CREATED);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_says_where_to_go_on() {
    let api = TestApi::start(Backend::Sqlite).await;
    let index: Value = api
        .try_call(Method::GET, "/", None, crate::harness::NOTHING)
        .await
        .unwrap()
        .ok();
    assert_eq!(index["name"], json!("skytale-api"));
    assert_eq!(index["version"], json!(env!("CARGO_PKG_VERSION")));
    for link in ["openapi", "docs", "jwks", "ready"] {
        let path = index[link].as_str().unwrap();
        let answer = api
            .try_call(Method::GET, path, None, crate::harness::NOTHING)
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{link}");
    }
    api.stop().await;
}
