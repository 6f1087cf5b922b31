//! Traces: sent to a collector that is named, by OTLP, and without secrets.

use crate::node::text;
use crate::process::{Place, Running};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use std::sync::mpsc;
use std::time::Duration;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A collector: it gives on what it gets.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let sent = self.0.send(request.into_inner());
        sent.map(|()| Response::new(ExportTraceServiceResponse::default()))
            .map_err(|_| Status::unavailable("the test is over"))
    }
}

#[test]
fn a_collector_gets_the_requests_of_an_api_and_no_secret() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (sender, received) = mpsc::channel();
    let entered = runtime.enter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = incoming.local_addr().expect("an address");
    let server = Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    runtime.spawn(server.serve_with_incoming(incoming));
    drop(entered);

    let mut place = Place::new();
    let (admin, relay, kek) = ("a7".repeat(16), "b8".repeat(16), "c3".repeat(32));
    place.write(
        "skytale.toml",
        &format!(
            "otlp_url = 'http://{address}'\n[api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:0'\n\
             url = 'http://127.0.0.1:7600'\ndatabase = 'sqlite:api.db'\nadmin_secret = '{admin}'\n\
             relay_secret = '{relay}'\nkey_encryption_key = '{kek}'\n"
        ),
    );
    let mut api = Running::start(place.command(["--json", "api"]), &place.path("api.log"));
    place.set("SKYTALE_API_URL", format!("http://{}", text(&api.json()["address"])));
    place.set("SKYTALE_ADMIN_SECRET", admin.as_str());
    let made = place.json(&["account", "create", "acme"]);
    let key = text(&made["key"]["secret"]);
    place.set("SKYTALE_API_KEY", key.as_str());
    place.json(&["key", "list"]);
    assert_eq!(api.stop("TERM").0, 0);

    // The rest is sent before the end.
    let mut spans = Vec::new();
    while let Ok(request) = received.recv_timeout(Duration::from_secs(if spans.is_empty() { 60 } else { 0 })) {
        let told = format!("{request:?}");
        for secret in [&admin, &relay, &kek, &key] {
            assert!(!told.contains(secret.as_str()), "a secret is in a trace");
        }
        assert!(
            told.contains("service.version") && told.contains("\"skytale\""),
            "{told}"
        );
        let resources = request.resource_spans.into_iter();
        spans.extend(
            resources
                .flat_map(|resource| resource.scope_spans)
                .flat_map(|scope| scope.spans),
        );
    }
    let of = |path: &str| {
        spans
            .iter()
            .any(|span| span.name == "request" && format!("{span:?}").contains(path))
    };
    assert!(of("/v1/accounts") && of("/v1/keys"), "{spans:?}");
}

#[test]
fn without_a_collector_nothing_is_sent_and_a_wrong_url_is_refused() {
    let place = Place::new();
    place.write("skytale.toml", "otlp_url = 'https://collector.example.org'\n");
    let ran = place.run(["--json", "api"]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (3, Some("SKY-6001")),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("otlp_url"), "{}", ran.stderr);
    // Commands that are no servers send nothing, and do not mind.
    assert_eq!(place.run(["config", "print"]).code, 0);
}
