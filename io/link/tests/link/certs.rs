//! A certificate authority of the test's own, and the plain blocking TLS peers that trust it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use agentlane_link::tls::{ClientSettings, ClientTls, RootCertStore, ServerSettings, ServerTls, Trust, Version};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::PATIENCE;

/// Both versions, to run a test in each.
pub const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
}

/// A certificate with its key.
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test root {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), root }
    }

    /// For these names, as server and as client.
    pub fn issue(&self, common_name: &str, names: &[&str]) -> Issued {
        self.issue_until(common_name, names, 2100)
    }

    /// The same, expired at the end of a year.
    pub fn issue_until(&self, common_name: &str, names: &[&str], year: i32) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Issued { chain: vec![certificate.der().clone()], key }
    }

    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        Arc::new(roots)
    }

    /// A listener's side, for `localhost`. `client_roots`: whose clients it takes.
    pub fn server(&self, versions: (Version, Version), client_roots: &[CertificateDer<'static>]) -> ServerTls {
        let Issued { chain, key } = self.issue("server", &["localhost"]);
        ServerTls::new(&ServerSettings { chain: &chain, key: &key, client_roots, versions, suites: &[] }).unwrap()
    }

    /// Our side towards an upstream whose certificate must be for `name`.
    pub fn client(&self, name: &'static str, trust: Trust, identity: Option<&Issued>) -> ClientTls {
        let identity = identity.map(|issued| (&issued.chain[..], &issued.key));
        let settings =
            ClientSettings { name: name.try_into().unwrap(), roots: self.roots(), trust, identity, alpn: &[] };
        ClientTls::new(settings).unwrap()
    }

    /// The settings of a blocking client.
    pub fn peer_config(&self, version: Version, identity: Option<&Issued>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[supported(version)]).unwrap();
        let builder = builder.with_root_certificates(self.roots());
        match identity {
            Some(Issued { chain, key }) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }

    /// The settings of a blocking server.
    pub fn upstream_config(&self, version: Version, issued: &Issued) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[supported(version)]).unwrap().with_no_client_auth();
        builder.with_single_cert(issued.chain.clone(), issued.key.clone_key()).unwrap()
    }
}

fn supported(version: Version) -> &'static rustls::SupportedProtocolVersion {
    match version {
        Version::Tls12 => &rustls::version::TLS12,
        Version::Tls13 => &rustls::version::TLS13,
    }
}

/// A blocking client.
pub type TlsPeer = StreamOwned<ClientConnection, TcpStream>;

pub fn peer(addr: SocketAddr, config: &Arc<ClientConfig>) -> TlsPeer {
    let connection = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, socket(TcpStream::connect(addr).unwrap()))
}

/// A blocking server's connection.
pub type TlsUpstream = StreamOwned<ServerConnection, TcpStream>;

pub fn upstream_peer(stream: TcpStream, config: &Arc<ServerConfig>) -> TlsUpstream {
    StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket(stream))
}

pub fn socket(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads until `text` has come.
#[track_caller]
pub fn expect(from: &mut impl Read, text: &str) {
    let mut got = vec![0; text.len()];
    let mut len = 0;
    while len < got.len() {
        match from.read(&mut got[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&got[..len])),
        }
    }
    assert_eq!(String::from_utf8_lossy(&got[..len]), text);
}

/// Reads a head.
#[track_caller]
pub fn head(from: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        let read = from.read_exact(&mut byte);
        read.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&text)));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

pub fn send(to: &mut impl Write, text: impl AsRef<[u8]>) {
    to.write_all(text.as_ref()).unwrap();
    to.flush().unwrap();
}
