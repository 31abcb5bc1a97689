//! The MCP endpoint as a protected resource: its authorization server, and what clients are told of both.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::jwt::{Jwks, JwtValidation, Url};
use super::{AuthMode, Free, LEEWAY, Location, wrong};
use crate::context::{Context, Table};
use crate::fault::FaultKind;
use crate::form::{Form, record, union};
use crate::schema::Definitions;
use crate::tree::Node;

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
