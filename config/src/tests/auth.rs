//! Authentication: what is told of policies that are wrong, and that secrets are not.

use serde_json::json;

use super::{good, printed, read};
use crate::{AuthMode, BackendAuth, Jwks};

fn with_policies(policies: &str) -> String {
    format!(
        "binds: [{{port: 3000, listeners: [{{routes: [{{policies: {{{policies}}}, backends: [{{host: 'a:1'}}]}}]}}]}}]"
    )
}

/// The faults of a route's policies, without their place in the document.
fn faults(policies: &str) -> Vec<String> {
    let told = read(&with_policies(policies), false).err().unwrap_or_default();
    let prefix = "binds[0].listeners[0].routes[0].policies.";
    printed(&told).iter().map(|fault| fault.split_once(prefix).map_or(&**fault, |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let jwks = r#"jwks: '{"keys": []}'"#;
    let mcp = "issuer: https://a.example, audiences: [x]";
    let cases = [
        ("jwtAuth: {issuer: a}".to_owned(), "jwtAuth.jwks: missing"),
        (format!("jwtAuth: {{{jwks}}}"), "jwtAuth.issuer: missing"),
        ("jwtAuth: {providers: []}".to_owned(), "jwtAuth.providers: names no issuer"),
        (
            format!("jwtAuth: {{issuer: a, {jwks}, providers: []}}"),
            "jwtAuth.issuer: cannot stand beside providers; it belongs to one of them",
        ),
        (
            "jwtAuth: {issuer: a, jwks: '{}'}".to_owned(),
            "jwtAuth.jwks: expected a key set: a JSON object with a list of keys (RFC 7517, 5), got something else",
        ),
        (
            "jwtAuth: {issuer: a, jwks: {url: ftp://x}}".to_owned(),
            "jwtAuth.jwks.url: expected a URL, like https://example.com/path, got \"ftp://x\"",
        ),
        (
            format!("jwtAuth: {{issuer: a, {jwks}, mode: lax}}"),
            "jwtAuth.mode: expected one of strict, optional, permissive, got \"lax\"",
        ),
        (
            format!("jwtAuth: {{issuer: a, {jwks}, location: {{cookie: {{name: x}}}}}}"),
            "jwtAuth.location.cookie: known, but not built in this version",
        ),
        (
            "apiKey: {keys: [{key: ''}]}".to_owned(),
            "apiKey.keys[0].key: expected a key that is not empty, got something else",
        ),
        (
            "apiKey: {keys: [{keyHash: 'md5:00'}]}".to_owned(),
            "apiKey.keys[0].keyHash: expected sha256: and 64 hexadecimal digits, got something else",
        ),
        (
            "apiKey: {keys: [{key: x, allowedModels: [a]}]}".to_owned(),
            "apiKey.keys[0].allowedModels: known, but not built in this version",
        ),
        (
            "basicAuth: {htpasswd: 'alice:in the clear'}".to_owned(),
            "basicAuth.htpasswd: line 1 is not name:hash with a hash of bcrypt (cost 4 to 16, as htpasswd -B writes it) or {SHA}",
        ),
        (
            format!("mcpAuthentication: {{{mcp}, resourceMetadata: {{}}}}"),
            "mcpAuthentication.jwks: missing; only with a provider it is known where they are",
        ),
        (
            format!("mcpAuthentication: {{{mcp}, provider: {{entra: {{}}}}, resourceMetadata: {{}}}}"),
            "mcpAuthentication.provider.entra: known, but not built in this version",
        ),
        (
            format!("mcpAuthentication: {{{mcp}, {jwks}, resourceMetadata: {{resource: mcp}}}}"),
            "mcpAuthentication.resourceMetadata.resource: expected a URL, like https://example.com/mcp",
        ),
        ("backendAuth: {gcp: {}}".to_owned(), "backendAuth.gcp: known, but not built in this version"),
        (
            "backendAuth: {key: \"a\\nb\"}".to_owned(),
            "backendAuth.key: expected a secret that can stand in a header: printable ASCII, got something else",
        ),
    ];
    for (policies, expected) in cases {
        assert_eq!(faults(&policies), [expected], "{policies}");
    }
}

#[test]
fn meanings() {
    let policies = "jwtAuth: {issuer: a, jwks: {url: 'https://b.example/keys'}}, backendAuth: {key: $SEARCH_TOKEN}";
    let document = good(&with_policies(policies));
    let policies = &document.binds[0].listeners[0].routes[0].policies;
    let jwt = policies.jwt.as_ref().unwrap();
    assert_eq!(jwt.mode, AuthMode::Optional);
    let [provider] = &jwt.providers()[..] else { panic!("one issuer") };
    assert!(matches!(&provider.jwks, Jwks::Url(url) if url.host == "b.example" && url.port == 443 && url.secure));
    let Some(BackendAuth::Key(key)) = &policies.backend_auth else { panic!("a key") };
    assert_eq!(key.value.expose(), "token-of-search");

    let keycloak = "mcpAuthentication: {issuer: 'https://a.example/realms/r', audiences: [x], provider: {keycloak: {}}, \
                    resourceMetadata: {scopesSupported: [read]}}";
    let document = good(&with_policies(keycloak));
    let policy = document.binds[0].listeners[0].routes[0].policies.mcp_authentication.as_ref().unwrap();
    let Some(Jwks::Url(url)) = policy.jwks() else { panic!("a URL") };
    assert_eq!(url.text, "https://a.example/realms/r/protocol/openid-connect/certs");
    assert_eq!(policy.metadata["scopes_supported"], json!(["read"]));
    assert_eq!(policy.mode, AuthMode::Strict);
}

#[test]
fn secrets_are_not_shown() {
    let hash = "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";
    let policies = format!(
        "apiKey: {{keys: [{{key: first-secret}}]}}, basicAuth: {{htpasswd: 'alice:{hash}'}}, backendAuth: {{key: second-secret}}"
    );
    let shown = format!("{:?}", good(&with_policies(&policies)));
    for secret in ["first-secret", "second-secret", hash] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn a_credential_is_passed_only_where_every_message_can_have_its_own() {
    let target = |kind: &str| {
        format!(
            "mcp: {{port: 3000, targets: [{{name: a, {kind}: {{host: 'http://a:1/x'}}, policies: {{backendAuth: {{passthrough: {{}}}}}}}}]}}"
        )
    };
    good(&target("mcp"));
    let told = printed(&read(&target("sse"), false).err().unwrap_or_default());
    assert!(told[0].ends_with("here one stream serves all that a client sends"), "{told:?}");
    let named = "binds: [{port: 3000, listeners: [{routes: [{policies: {backendAuth: {passthrough: {}}}, backends: [{backend: m}]}]}]}]
backends: [{name: m, mcp: {targets: [{name: a, mcp: {host: 'http://a:1/x'}}]}}]";
    let told = printed(&read(named, false).err().unwrap_or_default());
    assert!(told[0].ends_with("stands in its own definition, or at its targets"), "{told:?}");
}
