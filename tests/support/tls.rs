//! Certificates of the test's own, and two tunnels that make any plain peer speak TLS: `front` stands before a plain server,
//! `Dial` before a TLS server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};

use super::PATIENCE;
use super::gateway::Folder;

/// An authority whose files are in a folder of their own.
pub struct Authority {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of a certificate and of its key.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let (key, folder) = (KeyPair::generate().expect("a key"), Folder::new());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        let root = params.self_signed(&key).expect("a root");
        std::fs::write(folder.path().join("root.pem"), root.pem()).expect("a file");
        Authority { folder, issuer: Issuer::new(params, key) }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of its root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// A certificate for these names; its subject is the first.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2100)
    }

    /// One that expired long ago.
    pub fn issue_expired(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2001)
    }

    fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = |end| self.folder.path().join(format!("{number}.{end}"));
        let pair = Pair { cert: file("pem"), key: file("key") };
        let (cert, key) = self.sign(names, year);
        std::fs::write(&pair.cert, cert).expect("a file");
        std::fs::write(&pair.key, key).expect("a file");
        pair
    }

    /// A new certificate and key, as PEM.
    pub fn sign(&self, names: &[&str], year: i32) -> (String, String) {
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect("names");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

impl Pair {
    /// As `tls` of a listener.
    pub fn listener(&self) -> Value {
        json!({ "cert": self.cert, "key": self.key })
    }

    fn load(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_file_iter(&self.cert).expect("a file").map(|each| each.expect("PEM"));
        (chain.collect(), PrivateKeyDer::from_pem_file(&self.key).expect("a key"))
    }
}

fn roots(file: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).expect("a root")).expect("a root");
    Arc::new(roots)
}

/// The settings of a client that trusts a root.
pub fn client(root: &Path, identity: Option<&Pair>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots(root));
    Arc::new(match identity.map(Pair::load) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a pair"),
        None => builder.with_no_client_auth(),
    })
}

/// A TLS server before a plain one; `client_root`: whose clients it takes, if it asks at all.
pub fn front(plain: SocketAddr, pair: &Pair, client_root: Option<&Path>) -> SocketAddr {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = match client_root {
        Some(root) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(root), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a root"))
        }
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = pair.load();
    let config = Arc::new(builder.with_single_cert(chain, key).expect("a pair"));
    tunnel(move |stream| {
        let tls = ServerConnection::new(config.clone()).expect("a connection");
        Some((tls.into(), stream, TcpStream::connect(plain).ok()?))
    })
}

/// A plain port that leads to a TLS server, by this name.
pub fn dial(tls: SocketAddr, name: &'static str, config: Arc<ClientConfig>) -> SocketAddr {
    tunnel(move |stream| {
        let name = ServerName::try_from(name).expect("a name");
        let connection = ClientConnection::new(config.clone(), name).expect("a connection");
        Some((connection.into(), TcpStream::connect(tls).ok()?, stream))
    })
}

/// Listens; `make` gives the TLS side, its socket and the plain socket of each connection.
fn tunnel(
    make: impl Fn(TcpStream) -> Option<(Connection, TcpStream, TcpStream)> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let make = Arc::new(make);
    // Ends with the process: it waits on sockets of the test alone.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let make = make.clone();
            std::thread::spawn(move || {
                if let Some((tls, sealed, plain)) = make(stream) {
                    let _ = relay(tls, sealed, plain);
                }
            });
        }
    });
    address
}

/// Moves bytes until both directions have ended.
fn relay(mut tls: Connection, mut sealed: TcpStream, mut plain: TcpStream) -> std::io::Result<()> {
    for socket in [&sealed, &plain] {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
    }
    let (mut up_ended, mut down_ended, mut piece) = (false, false, [0; 16 * 1024]);
    let mut last = Instant::now();
    let idle = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
    while last.elapsed() < 4 * PATIENCE {
        let mut moved = false;
        if !up_ended && !tls.is_handshaking() {
            match plain.read(&mut piece) {
                Ok(0) => {
                    up_ended = true;
                    tls.send_close_notify();
                }
                Ok(count) => tls.writer().write_all(&piece[..count])?,
                Err(error) if idle(&error) => {}
                Err(error) => return Err(error),
            }
        }
        while tls.wants_write() {
            match tls.write_tls(&mut sealed) {
                Ok(_) => moved = true,
                Err(error) if idle(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if !down_ended {
            match tls.read_tls(&mut sealed) {
                Ok(0) => {
                    down_ended = true;
                    let _ = plain.shutdown(std::net::Shutdown::Write);
                }
                Ok(_) => moved = true,
                Err(error) if idle(&error) => {}
                Err(error) => return Err(error),
            }
            let state = tls.process_new_packets().inspect_err(|_| drop(tls.write_tls(&mut sealed)));
            let state = state.map_err(std::io::Error::other)?;
            let mut bytes = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut bytes)?;
            plain.set_nonblocking(false)?;
            plain.write_all(&bytes)?;
            plain.set_nonblocking(true)?;
            if state.peer_has_closed() && !down_ended {
                down_ended = true;
                let _ = plain.shutdown(std::net::Shutdown::Write);
            }
        }
        if up_ended && down_ended && !tls.wants_write() {
            return Ok(());
        }
        if moved {
            last = Instant::now();
        } else {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    Ok(())
}
