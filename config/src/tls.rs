//! What may be written of TLS: certificates, keys and roots in PEM files, versions, cipher suites, and how far an upstream is
//! trusted. Files are read and checked here, so that what is wrong with them is told with its place. Must not know who
//! shakes hands.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, InconsistentKeys, RootCertStore};
use serde_json::{Value as Json, json};
use x509_cert::der::Decode;

use crate::context::{Context, Place, Table};
use crate::fault::FaultKind;
use crate::form::{Form, record, words};
use crate::scalar::{FilePath, Host};
use crate::schema::Definitions;
use crate::tree::Node;

/// Longest file of certificates, in bytes: the roots of a whole system fit.
const PEM_BYTES_MAX: u64 = 2 << 20;

record! {
    /// How a listener speaks TLS.
    pub struct ListenerTls {
        /// A PEM file with the certificate, and behind it the ones between it and a root. Read again when it changes.
        pub cert: Certificates = must "cert" as ChainFile;
        /// A PEM file with the certificate's private key. Read again when it changes.
        pub key: PrivateKey = must "key" as KeyFile;
        /// A PEM file with the roots of client certificates. With it, a client without a certificate of theirs is refused.
        pub root: Option<Certificates> = opt "root" as Option<RootFile>;
        /// The lowest version. Default: TLS_V1_2.
        pub min_version: TlsVersion = or(TlsVersion::V12) "minTLSVersion";
        /// The highest version. Default: TLS_V1_3.
        pub max_version: TlsVersion = or(TlsVersion::V13) "maxTLSVersion";
        /// Allowed cipher suites, the best first. Default: every one that is built in, as the client prefers.
        pub cipher_suites: Vec<CipherSuite> = opt "cipherSuites" as Vec<SuiteName>;
    }
    later "keyExchangeGroups";
    check listener_fits;
}

record! {
    /// How an upstream is spoken to over TLS.
    #[derive(Default)]
    pub struct BackendTls {
        /// A PEM file with the roots of the server's certificate. Default: the roots of the system.
        pub root: Option<Certificates> = opt "root" as Option<RootFile>;
        /// A PEM file with the gateway's own certificate, for a server that asks for one.
        pub cert: Option<Certificates> = opt "cert" as Option<ChainFile>;
        /// A PEM file with that certificate's private key.
        pub key: Option<PrivateKey> = opt "key" as Option<KeyFile>;
        /// The name that the server's certificate must be for, and that is asked for (SNI). Default: the host.
        pub hostname: Option<Host> = opt "hostname";
        /// Accepts any certificate: whoever is in between can read and change everything. Default: false.
        pub insecure: bool = or(false) "insecure";
        /// Accepts a certificate for any name, if it is valid otherwise. Default: false.
        pub insecure_host: bool = or(false) "insecureHost";
        /// Application protocols to offer, h2 and http/1.1 among them. Default: the one that `http.version` says.
        pub alpn: Vec<String> = opt "alpn" as Vec<Alpn>;
    }
    later "keyExchangeGroups";
    guard "subjectAltNames";
    check backend_fits;
}

words! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// TLS 1.2.
        V12 = "TLS_V1_2",
        /// TLS 1.3.
        V13 = "TLS_V1_3",
    }
    later "TLS_V1_0", "TLS_V1_1";
}

/// Certificates out of one file, at least one.
pub type Certificates = Arc<[CertificateDer<'static>]>;

/// A private key. `Debug` does not show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateKey(pub Arc<PrivateKeyDer<'static>>);

/// Reads the PEM file that a node names. `parse` gives what is in it, or what is wrong with it.
fn from_file<T>(
    node: &Node,
    cx: &mut Context<'_>,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Option<(T, String)> {
    let path = FilePath::decode(node, cx)?.display().to_string();
    let text = cx.read_within(node, &path, PEM_BYTES_MAX)?;
    match parse(text.as_bytes()) {
        Ok(parsed) => Some((parsed, path)),
        Err(what) => {
            cx.fault_at(node.mark, FaultKind::Invalid, format!("{path}: {what}"));
            None
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("holds no PEM certificate".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

fn file_schema() -> Json {
    json!({"type": "string", "minLength": 1})
}

/// A certificate with what leads to its root.
struct ChainFile;

impl Form for ChainFile {
    type Out = Certificates;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Certificates> {
        let (chain, path) = from_file(node, cx, certificates)?;
        warn_of_validity(&chain[0], &path, cx.place(node.mark), cx);
        Some(chain.into())
    }

    fn schema(_: &mut Definitions) -> Json {
        file_schema()
    }
}

/// An expired certificate is served all the same: clients refuse it, and say so, where a gateway that does not start says
/// nothing.
fn warn_of_validity(certificate: &CertificateDer<'_>, path: &str, place: Place, cx: &mut Context<'_>) {
    let Ok(parsed) = x509_cert::Certificate::from_der(certificate) else { return };
    let validity = parsed.tbs_certificate.validity;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    if validity.not_after.to_unix_duration() < now {
        cx.warn(place, FaultKind::Invalid, format!("{path}: the certificate has expired ({})", validity.not_after));
    } else if validity.not_before.to_unix_duration() > now {
        cx.warn(
            place,
            FaultKind::Invalid,
            format!("{path}: the certificate is not valid yet ({})", validity.not_before),
        );
    }
}

/// A private key.
struct KeyFile;

impl Form for KeyFile {
    type Out = PrivateKey;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<PrivateKey> {
        let parse = |pem: &[u8]| {
            PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no PEM private key, or an encrypted one".to_owned())
        };
        let (key, _) = from_file(node, cx, parse)?;
        Some(PrivateKey(Arc::new(key)))
    }

    fn schema(_: &mut Definitions) -> Json {
        file_schema()
    }
}

/// Certificates that others are traced back to.
struct RootFile;

impl Form for RootFile {
    type Out = Certificates;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Certificates> {
        let parse = |pem: &[u8]| {
            let roots = certificates(pem)?;
            let mut store = RootCertStore::empty();
            let added = roots.iter().try_for_each(|root| store.add(root.clone()));
            added.map_err(|error| format!("holds a certificate that cannot be a root: {error}"))?;
            Ok(roots)
        };
        from_file(node, cx, parse).map(|(roots, _)| roots.into())
    }

    fn schema(_: &mut Definitions) -> Json {
        file_schema()
    }
}

/// The name of a cipher suite, as IANA writes it; TLS 1.3's may begin with `TLS13_` as well.
struct SuiteName;

impl SuiteName {
    fn all() -> impl Iterator<Item = (String, CipherSuite)> {
        ring::ALL_CIPHER_SUITES.iter().map(|suite| suite.suite()).map(|suite| {
            let name = format!("{suite:?}").replace("TLS13_", "TLS_");
            (name, suite)
        })
    }
}

impl Form for SuiteName {
    type Out = CipherSuite;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<CipherSuite> {
        let expected = "the name of a cipher suite that is built in, like TLS_AES_256_GCM_SHA384";
        let text = cx.string(node, expected)?;
        let wanted = text.replace("TLS13_", "TLS_");
        let found = Self::all().find(|(name, _)| *name == wanted);
        if found.is_none() {
            cx.invalid(node, expected);
        }
        found.map(|(_, suite)| suite)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

/// An application protocol that may be offered to an upstream.
struct Alpn;

impl Form for Alpn {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let expected = "the name of an application protocol, like http/1.1";
        let text = cx.string(node, expected)?;
        if text.is_empty() || text.len() > 255 {
            cx.invalid(node, expected);
            return None;
        }
        Some(text.into_owned())
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1, "maxLength": 255})
    }
}

fn listener_fits(tls: &ListenerTls, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    check_pair(&tls.cert, &tls.key, table, cx);
    if tls.min_version == TlsVersion::V13 && tls.max_version == TlsVersion::V12 {
        conflict("maxTLSVersion", "is below minTLSVersion", table, cx);
    }
    let usable = |version: TlsVersion| {
        let mut suites = ring::ALL_CIPHER_SUITES.iter().filter(|suite| tls.cipher_suites.contains(&suite.suite()));
        suites.any(|suite| suite.tls13().is_some() == (version == TlsVersion::V13))
    };
    let versions = [TlsVersion::V12, TlsVersion::V13];
    let mut allowed = versions.into_iter().filter(|version| match version {
        TlsVersion::V12 => tls.min_version == TlsVersion::V12,
        TlsVersion::V13 => tls.max_version == TlsVersion::V13,
    });
    if !tls.cipher_suites.is_empty() && !allowed.any(usable) {
        conflict("cipherSuites", "holds none that the allowed versions can use", table, cx);
    }
    true
}

fn backend_fits(tls: &BackendTls, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => check_pair(cert, key, table, cx),
        (Some(_), None) => conflict("cert", "needs a key beside it", table, cx),
        (None, Some(_)) => conflict("key", "needs a cert beside it", table, cx),
        (None, None) => {}
    }
    if tls.insecure && tls.root.is_some() {
        conflict("root", "has no effect beside insecure", table, cx);
    }
    true
}

/// The key must be the certificate's.
fn check_pair(cert: &Certificates, key: &PrivateKey, table: &Table<'_>, cx: &mut Context<'_>) {
    let pair = CertifiedKey::from_der(cert.to_vec(), key.0.clone_key(), &ring::default_provider());
    match pair {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            conflict("key", "does not belong to the certificate", table, cx);
        }
        Err(error) => conflict("key", &format!("cannot be used with the certificate: {error}"), table, cx),
    }
}

fn conflict(key: &str, message: &str, table: &Table<'_>, cx: &mut Context<'_>) {
    let mark = table.entry(&[key]).map_or(table.mark, |entry| entry.node.mark);
    cx.at_key(key, |cx| cx.fault_at(mark, FaultKind::Conflict, message.to_owned()));
}
