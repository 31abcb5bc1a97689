//! The certificates that this host trusts, for upstreams without a root of their own.

use std::sync::Arc;

use agentlane_link::tls::RootCertStore;

/// Reads them from where the host keeps them; `SSL_CERT_FILE` and `SSL_CERT_DIR` name other places. Without any, every
/// handshake that needs them fails, and the log says why.
pub fn of_system() -> Arc<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "roots of the system");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        tracing::warn!("the system trusts nobody: https upstreams need a root of their own (package ca-certificates)");
    }
    tracing::debug!(added, ignored, "roots of the system");
    Arc::new(roots)
}
