//! What handshakes are done with, made once for each configuration that is written: a reload that leaves it as it is keeps
//! the keys of session tickets, and the connections of pools. No I/O: whoever asks gives the system's roots.

use std::fmt;
use std::sync::{Arc, OnceLock};

use agentlane_config as config;
use agentlane_link::tls::pki_types::ServerName;
use agentlane_link::tls::{ClientSettings, ClientTls, RootCertStore, ServerSettings, ServerTls, Trust, Version};

/// Why there is no such side of a handshake. Files were checked before; what is left is a name that none is.
#[derive(Debug)]
pub struct TlsFault {
    /// The listener's or the upstream's name.
    subject: String,
    reason: String,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS of {}: {}", self.subject, self.reason)
    }
}

/// The sides of handshakes that the last configuration asked for.
pub struct TlsMaker {
    system_roots: OnceLock<Arc<RootCertStore>>,
    load_roots: fn() -> Arc<RootCertStore>,
    servers: Made<config::ListenerTls, ServerTls>,
    clients: Made<Upstream, ClientTls>,
}

/// What was made of which configuration.
struct Made<C, T> {
    entries: Vec<Entry<C, T>>,
}

struct Entry<C, T> {
    config: C,
    made: T,
    /// Asked for by the configuration that is being compiled.
    used: bool,
}

/// What tells one upstream from another.
#[derive(Clone, PartialEq)]
struct Upstream {
    host: String,
    tls: config::BackendTls,
}

impl TlsMaker {
    /// `load_roots` is called when the first configuration needs the system's roots, and never again.
    pub fn new(load_roots: fn() -> Arc<RootCertStore>) -> Self {
        TlsMaker {
            system_roots: OnceLock::new(),
            load_roots,
            servers: Made { entries: Vec::new() },
            clients: Made { entries: Vec::new() },
        }
    }

    /// A listener's side.
    pub(super) fn server(&mut self, name: &str, tls: &config::ListenerTls) -> Result<ServerTls, TlsFault> {
        self.servers.get(tls, || {
            let version = |version| match version {
                config::TlsVersion::V12 => Version::Tls12,
                config::TlsVersion::V13 => Version::Tls13,
            };
            let settings = ServerSettings {
                chain: &tls.cert,
                key: &tls.key.0,
                client_roots: tls.root.as_deref().unwrap_or_default(),
                versions: (version(tls.min_version), version(tls.max_version)),
                suites: &tls.cipher_suites,
            };
            ServerTls::new(&settings)
                .map_err(|error| TlsFault { subject: format!("listener {name}"), reason: error.to_string() })
        })
    }

    /// Our side towards an upstream.
    pub(super) fn client(&mut self, host: &str, tls: &config::BackendTls) -> Result<ClientTls, TlsFault> {
        let (system_roots, load_roots) = (&self.system_roots, self.load_roots);
        let upstream = Upstream { host: host.to_owned(), tls: tls.clone() };
        self.clients.get(&upstream, || {
            let fault = |reason: String| TlsFault { subject: host.to_owned(), reason };
            let name = tls.hostname.as_ref().map_or(host, |hostname| &hostname.0);
            let name = ServerName::try_from(name.to_owned()).map_err(|error| fault(error.to_string()))?;
            let roots = match &tls.root {
                Some(roots) => {
                    let mut store = RootCertStore::empty();
                    let added = roots.iter().try_for_each(|root| store.add(root.clone()));
                    added.map_err(|error| fault(error.to_string()))?;
                    Arc::new(store)
                }
                None if tls.insecure => Arc::new(RootCertStore::empty()),
                None => system_roots.get_or_init(load_roots).clone(),
            };
            let trust = match (tls.insecure, tls.insecure_host) {
                (true, _) => Trust::Anything,
                // Without a root nobody is trusted, whatever the name.
                (false, true) if !roots.is_empty() => Trust::AnyName,
                (false, _) => Trust::Verify,
            };
            let identity = tls.cert.as_deref().zip(tls.key.as_ref()).map(|(chain, key)| (chain, &*key.0));
            let settings = ClientSettings { name, roots, trust, identity, alpn: &tls.alpn };
            ClientTls::new(settings).map_err(|error| fault(error.to_string()))
        })
    }

    /// Forgets what the configuration that was just compiled does not need.
    pub(super) fn tidy(&mut self) {
        self.servers.tidy();
        self.clients.tidy();
    }
}

impl<C: PartialEq + Clone, T: Clone> Made<C, T> {
    fn get(&mut self, config: &C, make: impl FnOnce() -> Result<T, TlsFault>) -> Result<T, TlsFault> {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.config == *config) {
            entry.used = true;
            return Ok(entry.made.clone());
        }
        let made = make()?;
        self.entries.push(Entry { config: config.clone(), made: made.clone(), used: true });
        Ok(made)
    }
}

impl<C, T> Made<C, T> {
    fn tidy(&mut self) {
        self.entries.retain_mut(|entry| std::mem::take(&mut entry.used));
    }
}
