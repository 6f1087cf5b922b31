//! TLS: certificates of the bridge and of its clients.

use crate::wire::{Client, open};
use crate::world::{TestBridge, World, soon};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ring::digest;
use skytale_bridge::policy::{Policy, Rules};
use skytale_bridge::{AuthConfig, BridgeConfig, Certificate, TlsConfig};
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for a name: both as PEM, and the certificate's SHA-256.
    fn certificate(&self, name: &str) -> (String, String, [u8; 32]) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let hash = digest::digest(&digest::SHA256, certificate.der());
        (
            certificate.pem(),
            key.serialize_pem(),
            hash.as_ref().try_into().expect("32 bytes"),
        )
    }
}

fn write(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

/// A client that trusts one authority, and shows a certificate. rustls alone: tonic's own TLS is not built in.
async fn connect(bridge: &TestBridge, roots: &str, shown: Option<(&str, &str)>) -> Result<Channel, String> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    let mut store = rustls::RootCertStore::empty();
    store
        .add(CertificateDer::from_pem_slice(roots.as_bytes()).expect("a certificate"))
        .expect("added");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store);
    let mut config = match shown {
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"),
            )
            .expect("a certificate with its key"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let address = bridge.address;
    Endpoint::from_static("http://bridge.test")
        .connect_with_connector(tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let socket = tokio::net::TcpStream::connect(address).await?;
                let name = ServerName::try_from("bridge.test").expect("a name");
                let stream = connector.connect(name, socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        }))
        .await
        .map_err(|error| format!("{error:?}"))
}

/// A bridge with TLS that takes one bearer, and the file with its root.
pub(crate) async fn with_bearer(world: &World, name: &str, bearer: &str) -> (TestBridge, String) {
    let dir = world.dir.path();
    let servers = Authority::new("servers");
    let (certificate, key, _) = servers.certificate(name);
    let tls = TlsConfig {
        certificates: write(dir, "bridge.pem", &certificate),
        key: write(dir, "bridge.key.pem", &key),
        client_roots: None,
        client_required: false,
    };
    let roots = write(dir, "roots.pem", &servers.pem);
    let mut policy = Policy::default();
    policy.accounts.insert("team".into(), Rules::everything());
    let auth = AuthConfig {
        bearers: vec![skytale_bridge::Bearer {
            account: "team".into(),
            secret: bearer.to_owned().into(),
        }],
        policy,
        ..AuthConfig::default()
    };
    let config = BridgeConfig::new(([127, 0, 0, 1], 0).into());
    let bridge = TestBridge::start(config, auth, Some(tls), 1, world).await;
    (bridge, roots.to_string_lossy().into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_an_account_and_the_bridges_own_is_replaced_without_a_restart() {
    let world = World::new().await;
    let dir = world.dir.path();
    let (servers, clients, others) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("others"),
    );
    let (certificate, key, _) = servers.certificate("bridge.test");
    let tls = TlsConfig {
        certificates: write(dir, "bridge.pem", &certificate),
        key: write(dir, "bridge.key.pem", &key),
        client_roots: Some(write(dir, "clients.pem", &clients.pem)),
        client_required: true,
    };
    let (alice, alice_key, sha256) = clients.certificate("alice.test");
    let (stranger, stranger_key, _) = clients.certificate("stranger.test");
    let (forged, forged_key, _) = others.certificate("alice.test");
    let mut policy = Policy::default();
    policy.accounts.insert("alice".into(), Rules::everything());
    let auth = AuthConfig {
        certificates: vec![Certificate {
            account: "alice".into(),
            sha256,
        }],
        policy,
        ..AuthConfig::default()
    };
    let config = BridgeConfig::new(([127, 0, 0, 1], 0).into());
    let bridge = TestBridge::start(config, auth, Some(tls), 1, &world).await;

    let channel = connect(&bridge, &servers.pem, Some((&alice, &alice_key)))
        .await
        .expect("TLS");
    Client::over(channel, None).await.expect("a link");
    // Another one's authority signed it; it has no account; there is none.
    let no_link = async |shown: Option<(&str, &str)>| match connect(&bridge, &servers.pem, shown).await {
        Ok(channel) => {
            // A handshake that the server refuses is seen at the first request (TLS 1.3).
            let opened = tokio::time::timeout(Duration::from_secs(30), async {
                let mut grpc = tonic::client::Grpc::new(channel.clone());
                match grpc.ready().await {
                    Ok(()) => open(channel, None)
                        .await
                        .map(|_| ())
                        .map_err(|status| status.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            });
            opened.await.expect("an answer").is_err()
        }
        Err(_) => true,
    };
    assert!(no_link(Some((&stranger, &stranger_key))).await);
    assert!(no_link(Some((&forged, &forged_key))).await);
    assert!(no_link(None).await);
    // And a client that trusts another authority does not connect to this bridge.
    assert!(connect(&bridge, &others.pem, Some((&alice, &alice_key))).await.is_err());

    let (certificate, key, _) = others.certificate("bridge.test");
    write(dir, "bridge.key.pem", &key);
    write(dir, "bridge.pem", &certificate);
    soon("the new certificate", async {
        while connect(&bridge, &others.pem, Some((&alice, &alice_key))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_open_to_anyone_does_not_start_beyond_loopback() {
    let world = World::new().await;
    let start = async |auth: AuthConfig, address: [u8; 4]| {
        let client = world.client(9).await;
        let config = BridgeConfig::new((address, 0).into());
        let started = skytale_bridge::Bridge::start(config, auth, None, client, None).await;
        started.map(|_| ()).map_err(|error| error.to_string())
    };
    let everyone = AuthConfig {
        everyone: true,
        ..AuthConfig::default()
    };
    let refused = start(everyone, [0, 0, 0, 0]).await.expect_err("refused");
    assert!(refused.contains("tls"), "{refused}");
    let refused = start(AuthConfig::default(), [127, 0, 0, 1]).await.expect_err("refused");
    assert!(refused.contains("no way in"), "{refused}");
}
