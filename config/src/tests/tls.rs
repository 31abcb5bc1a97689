//! TLS: what files must hold, and what is told of those that do not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};

use super::{env, good, printed, read};
use crate::{BackendKind, CipherSuite, LoadOptions, Protocol, TlsVersion, parse};

/// A folder with what the example names, and some files that are wrong in one way each.
pub(super) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("agentlane-config-certs-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
        write("root.pem", root.self_signed(&root_key).unwrap().pem());
        let issuer = Issuer::new(root, root_key);
        for name in ["agents", "ops", "gateway"] {
            let (certificate, key) = issue(&issuer, 2000..2100);
            write(&format!("{name}.pem"), certificate.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        for (name, years) in [("past", 2000..2001), ("future", 2090..2100)] {
            let (certificate, key) = issue(&issuer, years);
            write(&format!("{name}.pem"), certificate.pem() + &key.serialize_pem());
        }
        write("text.pem", "no certificate\n".to_owned());
        write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned());
        write("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned());
        folder
    })
}

fn issue(issuer: &Issuer<'_, KeyPair>, years: std::ops::Range<i32>) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap(), key)
}

/// The faults of a listener's `tls`, without their place in the document and the folder.
fn faults(tls: &str) -> Vec<String> {
    let text =
        format!("binds: [{{port: 3000, listeners: [{{tls: {{{tls}}}, routes: [{{backends: [{{host: 'a:1'}}]}}]}}]}}]");
    told(&text, "binds[0].listeners[0].tls.")
}

fn told(text: &str, prefix: &str) -> Vec<String> {
    let faults = parse(text, "t.yaml", &LoadOptions { lenient: false, env: &env })
        .map_or_else(|faults| faults, |loaded| loaded.warnings);
    let certs = format!("{}/", folder().display());
    printed(&faults)
        .into_iter()
        .map(|fault| {
            let (_, rest) = fault.split_once(prefix).unwrap_or(("", &fault));
            rest.replace(&certs, "")
        })
        .collect()
}

#[test]
fn files_are_looked_into() {
    let cases = [
        ("cert: $CERTS/agents.pem, key: $CERTS/agents.key, root: $CERTS/root.pem", &[][..]),
        ("cert: $CERTS/agents.pem, key: $CERTS/ops.key", &["key: does not belong to the certificate"][..]),
        ("cert: $CERTS/text.pem, key: $CERTS/agents.key", &["cert: text.pem: holds no PEM certificate"]),
        (
            "cert: $CERTS/agents.pem, key: $CERTS/text.pem",
            &["key: text.pem: holds no PEM private key, or an encrypted one"],
        ),
        (
            "cert: $CERTS/none.pem, key: $CERTS/agents.key",
            &["cert: cannot read none.pem: No such file or directory (os error 2)"],
        ),
        (
            "cert: $CERTS/agents.pem, key: $CERTS/agents.key, root: $CERTS/text.pem",
            &["root: text.pem: holds no PEM certificate"],
        ),
        ("key: $CERTS/agents.key", &["cert: missing"]),
    ];
    for (tls, expected) in cases {
        assert_eq!(faults(tls), expected, "{tls}");
    }
    let broken = faults("cert: $CERTS/cut.pem, key: $CERTS/agents.key");
    assert!(broken.len() == 1 && broken[0].starts_with("cert: cut.pem: not PEM:"), "{broken:?}");
    let broken = faults("cert: $CERTS/odd.pem, key: $CERTS/agents.key");
    assert!(broken.len() == 1 && broken[0].starts_with("key: cannot be used with the certificate:"), "{broken:?}");
    let broken = faults("cert: $CERTS/agents.pem, key: $CERTS/agents.key, root: $CERTS/odd.pem");
    assert!(
        broken.len() == 1 && broken[0].starts_with("root: odd.pem: holds a certificate that cannot be a root:"),
        "{broken:?}"
    );
    // Of one file, which holds both.
    for (name, words) in
        [("past", "has expired (2001-01-01T00:00:00Z)"), ("future", "is not valid yet (2090-01-01T00:00:00Z)")]
    {
        let told = faults(&format!("cert: $CERTS/{name}.pem, key: $CERTS/{name}.pem"));
        assert_eq!(told, [format!("cert: {name}.pem: the certificate {words}")]);
    }
}

#[test]
fn files_are_watched_and_keys_are_not_shown() {
    let text = "binds: [{port: 3000, listeners: [{tls: {cert: $CERTS/agents.pem, key: $CERTS/agents.key}}]}]";
    let loaded = read(text, false).unwrap();
    assert_eq!(loaded.files, [folder().join("agents.pem"), folder().join("agents.key")]);
    let listener = &loaded.document.binds[0].listeners[0];
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!(
        (listener.protocol, tls.min_version, tls.max_version),
        (Protocol::Https, TlsVersion::V12, TlsVersion::V13)
    );
    let shown = format!("{:?}", tls.key);
    assert!(shown.len() < 100, "{shown}");
    assert_eq!(read(text, false).unwrap().document, loaded.document);
}

#[test]
fn versions_and_suites() {
    let pair = "cert: $CERTS/agents.pem, key: $CERTS/agents.key";
    let cases = [
        ("minTLSVersion: TLS_V1_3, maxTLSVersion: TLS_V1_2", "maxTLSVersion: is below minTLSVersion"),
        ("minTLSVersion: TLS_V1_1", "minTLSVersion: \"TLS_V1_1\" is known, but not built in this version"),
        ("minTLSVersion: '1.2'", "minTLSVersion: expected one of TLS_V1_2, TLS_V1_3, got \"1.2\""),
        (
            "cipherSuites: [TLS_RSA_WITH_RC4_128_SHA]",
            "cipherSuites[0]: expected the name of a cipher suite that is built in, like TLS_AES_256_GCM_SHA384, got \
             \"TLS_RSA_WITH_RC4_128_SHA\"",
        ),
        (
            "maxTLSVersion: TLS_V1_2, cipherSuites: [TLS_AES_128_GCM_SHA256]",
            "cipherSuites: holds none that the allowed versions can use",
        ),
    ];
    for (more, expected) in cases {
        assert_eq!(faults(&format!("{pair}, {more}")), [expected]);
    }
    let suites = "[TLS_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]";
    let document = good(&format!("binds: [{{port: 3000, listeners: [{{tls: {{{pair}, cipherSuites: {suites}}}}}]}}]"));
    let expected = [
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    assert_eq!(document.binds[0].listeners[0].tls.as_ref().unwrap().cipher_suites, expected);
}

#[test]
fn protocol_and_certificate_go_together() {
    let tls = "tls: {cert: $CERTS/agents.pem, key: $CERTS/agents.key}";
    let cases = [
        ("{protocol: HTTPS}".to_owned(), "tls: missing beside protocol HTTPS"),
        (format!("{{protocol: HTTP, {tls}}}"), "protocol: cannot be HTTP beside tls"),
    ];
    for (listener, expected) in cases {
        let text = format!("binds: [{{port: 3000, listeners: [{listener}]}}]");
        assert_eq!(told(&text, "binds[0].listeners[0]."), [expected]);
        let text = format!("gateways: {{g: {{port: 3000, listeners: [{listener}]}}}}");
        assert_eq!(told(&text, "gateways.g.listeners[0]."), [expected]);
        let gateway = listener.trim_matches(['{', '}']).replace("agents.key", "agents.key}").replace("}}", "}");
        let text = format!("gateways: {{g: {{port: 3000, {gateway}}}}}");
        assert_eq!(told(&text, "gateways.g."), [expected], "{text}");
    }
    let mixed = format!("binds: [{{port: 3000, listeners: [{{name: a, {tls}}}, {{name: b, hostname: b.example}}]}}]");
    assert_eq!(told(&mixed, "binds[0].listeners[1]"), [": speaks HTTP, and a on the same port HTTPS"]);
}

#[test]
fn upstreams() {
    let of_target = |tls: &str| {
        let text = format!(
            "mcp: {{port: 3000, targets: [{{name: a, mcp: {{host: 'https://a'}}, policies: {{backendTLS: {{{tls}}}}}}}]}}"
        );
        told(&text, "mcp.targets[0].policies.backendTLS.")
    };
    let cases = [
        ("", &[][..]),
        ("root: $CERTS/root.pem, hostname: a.example, alpn: [http/1.1]", &[]),
        ("cert: $CERTS/gateway.pem, key: $CERTS/gateway.key", &[]),
        ("cert: $CERTS/gateway.pem", &["cert: needs a key beside it"]),
        ("key: $CERTS/gateway.key", &["key: needs a cert beside it"]),
        ("cert: $CERTS/gateway.pem, key: $CERTS/ops.key", &["key: does not belong to the certificate"]),
        ("insecure: true, root: $CERTS/root.pem", &["root: has no effect beside insecure"]),
        ("alpn: [h2, http/1.1]", &[]),
        ("alpn: ['']", &["alpn[0]: expected the name of an application protocol, like http/1.1, got \"\""]),
        ("subjectAltNames: [a]", &["subjectAltNames: known, but not built in this version"]),
    ];
    for (tls, expected) in cases {
        assert_eq!(of_target(tls), expected, "{tls}");
    }
    // Of a federation that several routes share there is one way to each target.
    let text = "binds: [{port: 3000, listeners: [{routes: [{backends: [{backend: m, policies: {backendTLS: {}}}]}]}]}]
backends: [{name: m, mcp: {targets: [{name: a, mcp: {host: 'https://a'}}]}}]";
    let faults = told(text, "backends[0].policies");
    assert_eq!(faults, [": backendTLS of a named MCP backend stands in its own definition, or at its targets"]);
    let document = good(
        "binds: [{port: 3000, listeners: [{routes: [{backends: [{backend: h}]}]}]}]
backends: [{name: h, host: 'a:443', policies: {backendTLS: {insecure: true}}}]",
    );
    let backend = &document.binds[0].listeners[0].routes[0].backends[0];
    assert!(backend.policies.tls.as_ref().unwrap().insecure);
    assert!(matches!(document.backend(backend.backend).kind, BackendKind::Http(_)));
}
