//! What a handshake is done with: certificates, trust, versions and cipher suites, made from settings that were checked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{CipherSuite, Error, RootCertStore, SupportedProtocolVersion, version};

use super::trust::{AnyName, Anything};

/// What is spoken where nothing else is asked for (RFC 7301).
const ALPN_HTTP: &[u8] = b"http/1.1";
/// HTTP/2 (RFC 9113, 3.2).
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";
/// Sessions that one upstream endpoint of a shard may resume.
const RESUMABLE: usize = 2;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// What a listener needs to take handshakes.
pub struct ServerSettings<'a> {
    /// The certificate, and the ones between it and a root.
    pub chain: &'a [CertificateDer<'static>],
    /// The key of the first certificate.
    pub key: &'a PrivateKeyDer<'static>,
    /// Who may sign client certificates; with any, a client without one is refused.
    pub client_roots: &'a [CertificateDer<'static>],
    /// The lowest and the highest version.
    pub versions: (Version, Version),
    /// Allowed cipher suites, the best first; empty: the library's choice.
    pub suites: &'a [CipherSuite],
}

/// A listener's side of every handshake. Clones share it, with the keys of its session tickets: a session is resumed by the
/// configuration that began it, and by no other.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// # Errors
    /// Key and certificate do not fit, a root cannot be read, or no cipher suite fits the versions.
    pub fn new(settings: &ServerSettings<'_>) -> Result<Self, Error> {
        let provider = Arc::new(provider(settings.suites));
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&versions(settings.versions))?;
        let builder = if settings.client_roots.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            settings.client_roots.iter().try_for_each(|root| roots.add(root.clone()))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| Error::General(error.to_string()))?)
        };
        let mut config = builder.with_single_cert(settings.chain.to_vec(), settings.key.clone_key())?;
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP.to_vec()];
        // Tickets alone: what they hold is the client's, so that any shard may resume and none remembers.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new()?;
        config.ignore_client_order = !settings.suites.is_empty();
        Ok(ServerTls(Arc::new(config)))
    }

    pub(super) fn rustls(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// How far a server's certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Issued by a root, valid now, and for the name.
    Verify,
    /// Issued by a root and valid now, for whatever name.
    AnyName,
    /// Not at all.
    Anything,
}

/// What is needed to speak TLS to an upstream.
pub struct ClientSettings<'a> {
    /// The name that the certificate must be for, and that is sent as SNI unless it is an address.
    pub name: ServerName<'static>,
    /// Who may sign the server's certificate.
    pub roots: Arc<RootCertStore>,
    /// How far it is looked at.
    pub trust: Trust,
    /// This side's own certificate and key, for a server that asks.
    pub identity: Option<(&'a [CertificateDer<'static>], &'a PrivateKeyDer<'static>)>,
    /// Application protocols to offer; empty: `http/1.1`.
    pub alpn: &'a [String],
}

/// This side of every handshake with one upstream. Clones share it and are the same identity: connections of a pool are told
/// apart by it.
#[derive(Clone)]
pub struct ClientTls(Arc<Client>);

struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    id: u64,
}

impl ClientTls {
    /// # Errors
    /// Key and certificate do not fit.
    pub fn new(settings: ClientSettings<'_>) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&versions((Version::Tls12, Version::Tls13)))?;
        let builder = match settings.trust {
            Trust::Verify => builder.with_root_certificates(settings.roots),
            Trust::AnyName => {
                let verifier = WebPkiServerVerifier::builder_with_provider(settings.roots, provider).build();
                let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier)))
            }
            Trust::Anything => {
                let schemes = provider.signature_verification_algorithms;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything(schemes)))
            }
        };
        let mut config = match settings.identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain.to_vec(), key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match settings.alpn {
            [] => vec![ALPN_HTTP.to_vec()],
            names => names.iter().map(|name| name.as_bytes().to_vec()).collect(),
        };
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Relaxed);
        Ok(ClientTls(Arc::new(Client { config: Arc::new(config), name: settings.name, id })))
    }

    /// What tells it from every other of this process.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The same with a memory of sessions of its own: for one endpoint of one shard, so that shards share no lock.
    pub(crate) fn for_endpoint(&self) -> Self {
        let mut config = (*self.0.config).clone();
        config.resumption = Resumption::in_memory_sessions(RESUMABLE);
        ClientTls(Arc::new(Client { config: Arc::new(config), name: self.0.name.clone(), id: self.0.id }))
    }

    pub(super) fn rustls(&self) -> (Arc<ClientConfig>, ServerName<'static>) {
        (self.0.config.clone(), self.0.name.clone())
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({:?})", self.0.name)
    }
}

/// The library's own choice, or these suites in this order.
fn provider(suites: &[CipherSuite]) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !suites.is_empty() {
        let known = provider.cipher_suites;
        provider.cipher_suites =
            suites.iter().filter_map(|wanted| known.iter().find(|suite| suite.suite() == *wanted)).copied().collect();
    }
    provider
}

fn versions((min, max): (Version, Version)) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(Version::Tls12, &version::TLS12), (Version::Tls13, &version::TLS13)];
    all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, supported)| supported).collect()
}
