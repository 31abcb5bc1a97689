//! Who may come in, and with what the gateway itself comes to others: tokens, keys, passwords. Files are read and checked
//! here, so that what is wrong with them is told with its place. Must not know how anything is verified.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::context::{Context, KeyRule, Table};
use crate::fault::FaultKind;
use crate::form::{Form, record, union, words};
use crate::http::HeaderName;
use crate::mcp::url_parts;
use crate::scalar::{Secret, secret_text};
use crate::schema::{Definitions, single};
use crate::tree::{Node, Value};

/// Longest file of keys or users, in bytes.
const LIST_BYTES_MAX: u64 = 1 << 20;
/// How far clocks may be apart, where nothing says.
const LEEWAY: Duration = Duration::from_secs(60);

record! {
    /// Tokens (JWT) of one issuer or of several.
    pub struct JwtAuth {
        /// What becomes of requests without a valid token. Default: optional.
        pub mode: AuthMode = or(AuthMode::Optional) "mode";
        /// Where the token stands. Default: the header authorization, after `Bearer `.
        pub location: Location = or(Location::after("Bearer ")) "location";
        /// Several issuers, in the place of issuer, audiences and jwks.
        providers: Vec<JwtProvider> = opt "providers";
        /// The issuer of the tokens, the claim iss letter by letter.
        issuer: Option<String> = opt "issuer";
        /// For whom tokens must be issued: one of these stands in the claim aud. Default: anybody.
        audiences: Vec<String> = opt "audiences";
        /// The keys that the tokens are signed with.
        jwks: Option<Jwks> = opt "jwks";
        /// Which claims must be there.
        validation: JwtValidation = or(JwtValidation::default()) "jwtValidationOptions";
        /// How far the issuer's clock may be from ours. Default: 1m.
        leeway: Duration = or(LEEWAY) "leeway";
    }
    check one_issuer_or_several;
}

record! {
    /// One issuer of tokens.
    pub struct JwtProvider {
        /// The issuer of the tokens, the claim iss letter by letter.
        pub issuer: String = must "issuer";
        /// For whom tokens must be issued: one of these stands in the claim aud. Default: anybody.
        pub audiences: Vec<String> = opt "audiences";
        /// The keys that the tokens are signed with.
        pub jwks: Jwks = must "jwks";
        /// Which claims must be there.
        pub validation: JwtValidation = or(JwtValidation::default()) "jwtValidationOptions";
        /// How far the issuer's clock may be from ours. Default: 1m.
        pub leeway: Duration = or(LEEWAY) "leeway";
    }
}

impl JwtAuth {
    /// Whose tokens are taken; at least one.
    pub fn providers(&self) -> Vec<JwtProvider> {
        let Some((issuer, jwks)) = self.issuer.clone().zip(self.jwks.clone()) else { return self.providers.clone() };
        let (audiences, validation, leeway) = (self.audiences.clone(), self.validation.clone(), self.leeway);
        vec![JwtProvider { issuer, audiences, jwks, validation, leeway }]
    }
}

fn one_issuer_or_several(jwt: &JwtAuth, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    let single = ["issuer", "audiences", "jwks", "jwtValidationOptions", "leeway"];
    if table.entry(&["providers"]).is_some() {
        if let Some(entry) = table.entry(&single) {
            let message = "cannot stand beside providers; it belongs to one of them".to_owned();
            cx.at_key(&entry.key, |cx| cx.fault_at(entry.mark, FaultKind::Conflict, message));
            return false;
        }
        if jwt.providers.is_empty() {
            cx.at_key("providers", |cx| cx.fault_at(table.mark, FaultKind::Missing, "names no issuer".to_owned()));
        }
        return !jwt.providers.is_empty();
    }
    for (key, is_there) in [("issuer", jwt.issuer.is_some()), ("jwks", jwt.jwks.is_some())] {
        if !is_there {
            cx.at_key(key, |cx| cx.fault_at(table.mark, FaultKind::Missing, "missing".to_owned()));
            return false;
        }
    }
    true
}

words! {
    /// What becomes of a request without valid credentials.
    pub enum AuthMode {
        /// It is refused.
        Strict = "strict",
        /// Without any it passes, and counts as nobody's; with wrong ones it is refused.
        Optional = "optional",
        /// It passes, and counts as nobody's.
        Permissive = "permissive",
    }
}

record! {
    /// Which claims must be there, whatever they say.
    pub struct JwtValidation {
        /// Of exp, nbf, aud, iss and sub. Default: exp.
        pub required: Vec<RequiredClaim> = or(vec![RequiredClaim::Exp]) "requiredClaims" as Vec<RequiredClaim>;
    }
}

impl Default for JwtValidation {
    fn default() -> Self {
        JwtValidation { required: vec![RequiredClaim::Exp] }
    }
}

words! {
    /// A claim of RFC 7519.
    pub enum RequiredClaim {
        /// When the token ends.
        Exp = "exp",
        /// When it begins.
        Nbf = "nbf",
        /// For whom it is.
        Aud = "aud",
        /// Who issued it.
        Iss = "iss",
        /// Whom it speaks of.
        Sub = "sub",
    }
}

union! {
    /// Where a credential stands in a request.
    pub enum Location {
        /// In a header.
        Header(HeaderLocation) = "header";
    }
    later "queryParameter", "cookie", "expression";
}

record! {
    /// A header with a credential.
    #[derive(Eq)]
    pub struct HeaderLocation {
        /// The header.
        pub name: HeaderName = must "name";
        /// What stands before the credential; its case does not count. Default: nothing.
        pub prefix: String = or(String::new()) "prefix";
    }
}

impl Location {
    /// The header authorization, after a scheme.
    pub(crate) fn after(prefix: &str) -> Self {
        Location::Header(HeaderLocation { name: HeaderName::authorization(), prefix: prefix.to_owned() })
    }
}

/// Keys that tokens are signed with (RFC 7517).
#[derive(Debug, Clone, PartialEq)]
pub enum Jwks {
    /// The key set: written here, or out of a file.
    Here(Json),
    /// Fetched from there, and again from time to time.
    Url(Url),
}

impl Form for Jwks {
    type Out = Jwks;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Jwks> {
        if let Value::Mapping(entries) = &node.value
            && entries.iter().any(|entry| entry.key == "url")
        {
            let table = cx.table(node, &[KeyRule::built("url")])?;
            return table.must::<Url>(cx, &["url"]).map(Jwks::Url);
        }
        let text = list_text(node, cx, "a key set as text, or a mapping with one of the keys file, url")?;
        match serde_json::from_str::<Json>(&text) {
            Ok(set) if set.get("keys").is_some_and(Json::is_array) => Some(Jwks::Here(set)),
            Ok(_) => wrong(node, cx, "a key set: a JSON object with a list of keys (RFC 7517, 5)"),
            Err(error) => wrong(node, cx, &format!("a key set in JSON ({error})")),
        }
    }

    fn schema(defs: &mut Definitions) -> Json {
        let description = "A key set (RFC 7517) as text, the file that holds it, or the URL that it is fetched from.";
        defs.define("Jwks", description, |defs| {
            let url =
                single("url", Url::schema(defs), "Where the key set is fetched from, and again from time to time.");
            json!({"oneOf": [{"type": "string"}, file_schema(), url]})
        })
    }
}

/// An absolute URL without user and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// As written.
    pub text: String,
    /// `https`.
    pub secure: bool,
    /// A name in lowercase or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// With query, if one was written. Begins with `/`.
    pub path: String,
}

impl Url {
    /// `None`: not one that can be fetched.
    pub fn parse(text: &str) -> Option<Url> {
        let is_absolute = text.starts_with("http://") || text.starts_with("https://");
        let parts = is_absolute.then(|| url_parts(text)).flatten()?;
        Some(Url { text: text.to_owned(), secure: parts.secure, host: parts.host, port: parts.port, path: parts.path })
    }
}

impl Form for Url {
    type Out = Url;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Url> {
        let expected = "a URL, like https://example.com/path";
        let text = cx.string(node, expected)?;
        let url = Url::parse(&text);
        if url.is_none() {
            cx.invalid(node, expected);
        }
        url
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "pattern": "^https?://|\\$"})
    }
}

record! {
    /// Keys that clients are given.
    pub struct ApiKeyAuth {
        /// The keys.
        pub keys: Vec<ApiKey> = must "keys";
        /// What becomes of requests without a known key. Default: optional.
        pub mode: AuthMode = or(AuthMode::Optional) "mode";
        /// Where the key stands. Default: the header authorization, after `Bearer `.
        pub location: Location = or(Location::after("Bearer ")) "location";
    }
}

record! {
    /// A key that is accepted: itself, or its hash.
    pub struct ApiKey {
        /// The key.
        pub key: Option<Secret> = opt "key" as Option<KeyText>;
        /// The hash of the key, as `sha256:` and 64 hexadecimal digits.
        pub key_hash: Option<KeyHash> = opt "keyHash";
        /// What rules and logs may know of whoever has the key.
        pub metadata: Json = or(Json::Null) "metadata" as Free;
    }
    one of "key", "keyHash";
    guard "allowedModels";
}

/// A secret with something in it.
struct KeyText;

impl Form for KeyText {
    type Out = Secret;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Secret> {
        let secret = Secret::decode(node, cx)?;
        if secret.expose().is_empty() {
            return wrong(node, cx, "a key that is not empty");
        }
        Some(secret)
    }

    fn schema(defs: &mut Definitions) -> Json {
        Secret::schema(defs)
    }
}

/// SHA-256 of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl Form for KeyHash {
    type Out = KeyHash;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<KeyHash> {
        let expected = "sha256: and 64 hexadecimal digits";
        let text = cx.string(node, expected)?;
        let hash = text.strip_prefix("sha256:").and_then(crate::scalar::from_hex);
        match hash.and_then(|hash| hash.try_into().ok()) {
            Some(hash) => Some(KeyHash(hash)),
            None => wrong(node, cx, expected),
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$|\\$"})
    }
}

/// Anything, as it is written.
struct Free;

impl Form for Free {
    type Out = Json;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Json> {
        match &node.value {
            Value::Sequence(items) => items.iter().map(|item| Free::decode(item, cx)).collect(),
            Value::Mapping(entries) => {
                let mut object = Map::new();
                for entry in entries {
                    let value = cx.at_key(&entry.key, |cx| Free::decode(&entry.node, cx))?;
                    object.insert(entry.key.clone(), value);
                }
                Some(Json::Object(object))
            }
            Value::Scalar(_) if node.is_null() => Some(Json::Null),
            Value::Scalar(scalar) => {
                let (text, _) = cx.scalar(node, "a value")?;
                let bare = scalar.plain.then(|| serde_json::from_str::<Json>(&text).ok()).flatten();
                Some(bare.filter(|value| !value.is_object() && !value.is_array()).unwrap_or_else(|| json!(text)))
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({})
    }
}

record! {
    /// Users with passwords (RFC 7617).
    pub struct BasicAuth {
        /// The users: lines of `name:hash`, as htpasswd writes them. Hashes are of bcrypt, or SHA-1 (`{SHA}`).
        pub htpasswd: Vec<(String, PasswordHash)> = must "htpasswd" as Htpasswd;
        /// What a client is told that it logs in to. Default: agentlane.
        pub realm: String = or("agentlane".to_owned()) "realm" as Realm;
        /// What becomes of requests without a password. Default: optional.
        pub mode: BasicAuthMode = or(BasicAuthMode::Optional) "mode";
        /// Where user and password stand. Default: the header authorization, after `Basic `.
        pub location: Location = or(Location::after("Basic ")) "authorizationLocation";
    }
}

words! {
    /// What becomes of a request without a password.
    pub enum BasicAuthMode {
        /// It is refused.
        Strict = "strict",
        /// It passes, and counts as nobody's; with a wrong one it is refused.
        Optional = "optional",
    }
}

/// The hash of a password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// bcrypt, the whole text.
    Bcrypt(String),
    /// SHA-1 without salt.
    Sha1([u8; 20]),
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl PasswordHash {
    fn parse(text: &str) -> Option<Self> {
        if let Some(base64) = text.strip_prefix("{SHA}") {
            return crate::scalar::from_base64(base64)?.try_into().ok().map(PasswordHash::Sha1);
        }
        // $2y$05$ and 53 characters: 22 of salt, 31 of hash.
        let rest = ["$2y$", "$2a$", "$2b$"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
        let (cost, hash) = rest.split_once('$')?;
        let is_cost = cost.len() == 2 && cost.parse::<u8>().is_ok_and(|cost| (4..=16).contains(&cost));
        let is_hash =
            hash.len() == 53 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
        (is_cost && is_hash).then(|| PasswordHash::Bcrypt(text.to_owned()))
    }
}

struct Htpasswd;

impl Form for Htpasswd {
    type Out = Vec<(String, PasswordHash)>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out> {
        let text = list_text(node, cx, "lines of name:hash, or a mapping with the key file")?;
        let mut users: Vec<(String, PasswordHash)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let user = line.split_once(':').filter(|(name, _)| !name.is_empty());
            let parsed = user.and_then(|(name, hash)| Some((name.to_owned(), PasswordHash::parse(hash)?)));
            let Some(user) = parsed else {
                // Not repeated: there is a hash in it.
                let message = format!(
                    "line {number} is not name:hash with a hash of bcrypt (cost 4 to 16, as htpasswd -B writes it) or {{SHA}}"
                );
                cx.fault_at(node.mark, FaultKind::Invalid, message);
                return None;
            };
            if users.iter().any(|(name, _)| *name == user.0) {
                cx.fault_at(node.mark, FaultKind::Duplicate, format!("the user {:?} is there twice", user.0));
                return None;
            }
            users.push(user);
        }
        Some(users)
    }

    fn schema(defs: &mut Definitions) -> Json {
        let description = "Users, each a line of `name:hash`, as text or in a file.";
        defs.define("Htpasswd", description, |_| json!({"oneOf": [{"type": "string"}, file_schema()]}))
    }
}

/// What may stand in a quoted string (RFC 9110, 5.6.4) as it is.
struct Realm;

impl Form for Realm {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let text = cx.string(node, "a string")?;
        let fits = text.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && !b"\"\\".contains(&byte));
        if !fits {
            return wrong(node, cx, "printable ASCII without quotes and backslashes");
        }
        Some(text.into_owned())
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string"})
    }
}

record! {
    /// The MCP endpoint as a protected resource (MCP specification, "Authorization"; RFC 9728).
    pub struct McpAuthentication {
        /// The authorization server, which is the issuer of the tokens: the claim iss letter by letter.
        pub issuer: String = must "issuer" as IssuerUrl;
        /// For whom tokens must be issued: one of these stands in the claim aud.
        pub audiences: Vec<String> = must "audiences" as Audiences;
        /// The keys that the tokens are signed with. Default: where the provider has them, below the issuer.
        pub jwks: Option<Jwks> = opt "jwks";
        /// What kind of authorization server it is: where it has its metadata, and what clients must be told instead of what
        /// it says. Default: one that keeps to the RFCs.
        pub provider: Option<Provider> = opt "provider";
        /// What clients are told of the endpoint (RFC 9728, 2); `resource` is its public URL. Default of that: as the client
        /// has reached it.
        pub metadata: Map<String, Json> = must "resourceMetadata" as Metadata;
        /// What becomes of requests without a valid token. Default: strict.
        pub mode: AuthMode = or(AuthMode::Strict) "mode";
        /// Where the token stands. Default: the header authorization, after `Bearer `.
        pub location: Location = or(Location::after("Bearer ")) "authorizationLocation";
        /// Which claims must be there.
        pub validation: JwtValidation = or(JwtValidation::default()) "jwtValidationOptions";
        /// How far the issuer's clock may be from ours. Default: 1m.
        pub leeway: Duration = or(LEEWAY) "leeway";
        /// Scopes that a token must have, every one of them. Default: none.
        pub required_scopes: Vec<String> = opt "requiredScopes" as Vec<Scope>;
    }
    later "clientId", "clientSecret";
    check has_keys;
}

union! {
    /// A kind of authorization server.
    pub enum Provider {
        /// Auth0.
        Auth0(Nothing) = "auth0";
        /// Keycloak.
        Keycloak(Nothing) = "keycloak";
        /// Okta.
        Okta(Nothing) = "okta";
        /// Descope.
        Descope(Nothing) = "descope";
        /// authentik.
        Authentik(Nothing) = "authentik";
    }
    later "entra";
}

/// A mapping without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nothing;

impl Form for Nothing {
    type Out = Nothing;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Nothing> {
        cx.table(node, &[]).map(|_| Nothing)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "object", "additionalProperties": false})
    }
}

impl Provider {
    /// Where its keys are, below the issuer.
    fn jwks_path(&self) -> &'static str {
        match self {
            Provider::Auth0(_) | Provider::Descope(_) => "/.well-known/jwks.json",
            Provider::Keycloak(_) => "/protocol/openid-connect/certs",
            Provider::Okta(_) => "/v1/keys",
            Provider::Authentik(_) => "/jwks/",
        }
    }
}

impl McpAuthentication {
    /// The keys, wherever they are.
    pub fn jwks(&self) -> Option<Jwks> {
        self.jwks.clone().or_else(|| {
            let path = self.provider.as_ref()?.jwks_path();
            Url::parse(&format!("{}{path}", self.issuer.trim_end_matches('/'))).map(Jwks::Url)
        })
    }
}

fn has_keys(auth: &McpAuthentication, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    let found = auth.jwks().is_some();
    if !found {
        let message = "missing; only with a provider it is known where they are".to_owned();
        cx.at_key("jwks", |cx| cx.fault_at(table.mark, FaultKind::Missing, message));
    }
    found
}

/// The URL of an authorization server, as text: tokens have it letter by letter.
struct IssuerUrl;

impl Form for IssuerUrl {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        Url::decode(node, cx).map(|url| url.text)
    }

    fn schema(defs: &mut Definitions) -> Json {
        Url::schema(defs)
    }
}

/// At least one: a resource server takes no tokens that are for others.
struct Audiences;

impl Form for Audiences {
    type Out = Vec<String>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Vec<String>> {
        let all = Vec::<String>::decode(node, cx)?;
        if all.is_empty() {
            return wrong(node, cx, "at least one audience");
        }
        Some(all)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "array", "items": {"type": "string"}})
    }
}

/// A scope (RFC 6749, 3.3).
struct Scope;

impl Form for Scope {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let expected = "a scope: printable ASCII without spaces, quotes and backslashes";
        let text = cx.string(node, expected)?;
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
        if !fits {
            return wrong(node, cx, expected);
        }
        Some(text.into_owned())
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

struct Metadata;

impl Form for Metadata {
    type Out = Map<String, Json>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out> {
        cx.mapping(node)?;
        let Some(Json::Object(mut metadata)) = Free::decode(node, cx) else { return None };
        // The vocabulary writes names of its own kind; what clients read is RFC 9728's.
        let camel = [
            ("scopesSupported", "scopes_supported"),
            ("bearerMethodsSupported", "bearer_methods_supported"),
            ("resourceDocumentation", "resource_documentation"),
            ("resourcePolicyUri", "resource_policy_uri"),
            ("resourceName", "resource_name"),
            ("authorizationServers", "authorization_servers"),
            ("jwksUri", "jwks_uri"),
        ];
        for (written, told) in camel {
            if let Some(value) = metadata.shift_remove(written) {
                metadata.insert(told.to_owned(), value);
            }
        }
        if let Some(resource) = metadata.get("resource")
            && resource.as_str().and_then(Url::parse).is_none()
        {
            let message = "expected a URL, like https://example.com/mcp".to_owned();
            cx.at_key("resource", |cx| cx.fault_at(node.mark, FaultKind::Invalid, message));
            return None;
        }
        Some(metadata)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "object"})
    }
}

union! {
    /// With which credential the gateway comes to a backend.
    pub enum BackendAuth {
        /// The client's own, as it came in the header authorization. Only for backends that take the same tokens: what a
        /// client gave to the gateway can then be used by the backend.
        Passthrough(Passthrough) = "passthrough";
        /// A secret of the gateway's.
        Key(BackendKey) = "key" as BackendKeyForm;
    }
    later "gcp", "aws", "azure", "copilot", "jwtSign", "oauthTokenExchange", "crossAppAccess", "credentials";
}

/// Passes the client's credential on, without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passthrough;

impl Form for Passthrough {
    type Out = Passthrough;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Passthrough> {
        let table = cx.table(node, &[KeyRule::guard("location")])?;
        (!table.unusable).then_some(Passthrough)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "object", "additionalProperties": false, "properties": {"location": crate::schema::not_built()}})
    }
}

record! {
    /// A secret that a backend wants to see.
    #[derive(Eq)]
    pub struct BackendKey {
        /// The secret.
        pub value: Secret = must "value" as KeyText;
        /// Where it is written. Default: the header authorization, after `Bearer `.
        pub location: Location = or(Location::after("Bearer ")) "location";
    }
}

/// The secret alone, or with its place.
struct BackendKeyForm;

impl Form for BackendKeyForm {
    type Out = BackendKey;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<BackendKey> {
        let key = match &node.value {
            Value::Mapping(entries) if entries.iter().any(|entry| entry.key == "value") => {
                BackendKey::decode(node, cx)?
            }
            _ => BackendKey { value: KeyText::decode(node, cx)?, location: Location::after("Bearer ") },
        };
        let is_a_value = key.value.expose().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !is_a_value {
            return wrong(node, cx, "a secret that can stand in a header: printable ASCII");
        }
        Some(key)
    }

    fn schema(defs: &mut Definitions) -> Json {
        json!({"anyOf": [Secret::schema(defs), BackendKey::schema(defs)]})
    }
}

fn file_schema() -> Json {
    single("file", json!({"type": "string", "minLength": 1}), "A file, relative to the folder of the document.")
}

/// A text that is written here, or in a file. Written here it is read as it is, unless it is one variable: hashes and keys
/// are full of dollars.
fn list_text(node: &Node, cx: &mut Context<'_>, expected: &str) -> Option<String> {
    match &node.value {
        Value::Scalar(scalar) => {
            let name = scalar.text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            let name = name.or_else(|| scalar.text.strip_prefix('$')).unwrap_or_default();
            let is_variable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if is_variable { secret_text(node, cx) } else { Some(scalar.text.clone()) }
        }
        Value::Mapping(_) => {
            let table = cx.table(node, &[KeyRule::built("file")])?;
            let name = table.must::<String>(cx, &["file"])?;
            let file = &table.entry(&["file"])?.node;
            cx.at_key("file", |cx| cx.read_within(file, &name, LIST_BYTES_MAX))
        }
        Value::Sequence(_) => {
            cx.invalid(node, expected);
            None
        }
    }
}

/// A fault that does not repeat what is written: it may be secret.
fn wrong<T>(node: &Node, cx: &mut Context<'_>, expected: &str) -> Option<T> {
    cx.invalid_at(node.mark, expected, "something else");
    None
}
