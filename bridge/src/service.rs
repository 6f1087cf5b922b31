//! `dataplane.proto.v1.DataPlaneService`, as a tower service.

use crate::auth::{Auth, Shown};
use crate::codec::BytesCodec;
use crate::error::Refusal;
use crate::hub::Hub;
use crate::link_task::{self, Caller};
use crate::metrics;
use crate::queue::{Bounds, Outbound, queue};
use crate::transport::Peer;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

const PATH: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";

#[derive(Clone, Debug)]
pub(crate) struct DataPlane {
    pub(crate) hub: Arc<Hub>,
    pub(crate) auth: Arc<Auth>,
}

impl NamedService for DataPlane {
    const NAME: &'static str = "dataplane.proto.v1.DataPlaneService";
}

impl tower::Service<http::Request<Body>> for DataPlane {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let service = self.clone();
        Box::pin(async move {
            let most = service.hub.config.limits.message_bytes_max;
            let mut grpc = Grpc::new(BytesCodec)
                .max_decoding_message_size(most)
                .max_encoding_message_size(usize::MAX);
            Ok(grpc.streaming(OpenChannel(service), request).await)
        })
    }
}

struct OpenChannel(DataPlane);

impl StreamingService<Bytes> for OpenChannel {
    type Response = Bytes;
    type ResponseStream = Outbound;
    type Future = BoxFuture<'static, Result<Response<Outbound>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let DataPlane { hub, auth } = self.0.clone();
        Box::pin(async move {
            let caller = admit(&hub, &auth, &request).await.map_err(|refusal| {
                tracing::info!(code = %refusal.code(), %refusal, "no link");
                metrics::refused(refusal.code());
                refusal.status()
            })?;
            let limits = &hub.config.limits;
            // The link's task says goodbye first when the bridge stops.
            let link = tokio_util::sync::CancellationToken::new();
            let bounds = Bounds {
                messages: limits.queue_messages_max,
                bytes: limits.queue_bytes_max,
                stalled: hub.config.times.stalled(),
            };
            let (queue, outbound) = queue(bounds, &link, Some(Arc::clone(&caller.place)));
            hub.tasks.spawn(link_task::run(
                Arc::clone(&hub),
                caller,
                request.into_inner(),
                queue,
                link,
            ));
            // The headers go out now: the client sends nothing before it has them.
            Ok(Response::new(outbound))
        })
    }
}

async fn admit(hub: &Hub, auth: &Auth, request: &Request<Streaming<Bytes>>) -> Result<Caller, Refusal> {
    if hub.stop.is_cancelled() {
        return Err(Refusal::new(
            skytale_proto::Code::BridgeStopping,
            "the bridge is about to stop",
        ));
    }
    let peer = request.extensions().get::<Peer>();
    let shown = peer.map_or_else(Shown::default, |peer| peer.shown.clone());
    let authorization = request.metadata().get("authorization").map(|value| value.as_bytes());
    let admitted = auth.account(authorization, &shown).await?;
    let mut place = hub.accounts.enter(&admitted.usage, &hub.config.limits)?;
    place.of_connection(peer.map(Peer::admitted));
    Ok(Caller {
        admitted,
        place: Arc::new(place),
    })
}
