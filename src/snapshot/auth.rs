//! Authentication of the configuration as policies have it. What comes from other servers is kept over reloads by its URLs.

use std::sync::Arc;

use agentlane_config as config;
use bytes::Bytes;
use serde_json::Value;

use super::kept::Kept;
use super::matching::{PathMatch, RouteMatch};
use crate::policy::Policy;
use crate::policy::auth::api_key::{ApiKeys, KnownKey};
use crate::policy::auth::basic::{BasicAuth, Users};
use crate::policy::auth::jwt::{Issuer, JwtAuth, Keys, Tokens};
use crate::policy::auth::keys::KeySet;
use crate::policy::auth::mcp::{self, Adapted, McpAuthentication, Resource};
use crate::policy::auth::token::Rules;
use crate::policy::auth::{Location, Mode};
use crate::request::HeaderEdit;

/// The authentication of a route. What it has itself takes the place of its listener's.
pub fn policies(listener: &config::ListenerPolicies, route: &config::RoutePolicies, kept: &mut Kept) -> Vec<Policy> {
    let mut policies = Vec::new();
    if let Some(policy) = route.jwt.as_ref().or(listener.jwt.as_ref()) {
        let issuers = policy.providers().into_iter().map(|provider| {
            let rules = rules(&provider.issuer, &provider.audiences, &provider.validation, provider.leeway);
            Issuer { rules, keys: keys(&provider.jwks, kept) }
        });
        let tokens = Arc::new(Tokens::new(location(&policy.location), issuers.collect()));
        policies.push(Policy::JwtAuth(JwtAuth { mode: mode(policy.mode), tokens }));
    }
    if let Some(policy) = route.basic.as_ref().or(listener.basic.as_ref()) {
        policies.push(Policy::BasicAuth(BasicAuth {
            mode: match policy.mode {
                config::BasicAuthMode::Strict => Mode::Strict,
                config::BasicAuthMode::Optional => Mode::Optional,
            },
            location: location(&policy.location),
            challenge: Bytes::from(format!("Basic realm=\"{}\", charset=\"UTF-8\"", policy.realm)),
            users: Arc::new(Users::new(policy.htpasswd.iter().cloned())),
        }));
    }
    if let Some(policy) = route.api_key.as_ref().or(listener.api_key.as_ref()) {
        policies.push(Policy::ApiKeys(api_keys(policy)));
    }
    if let Some(policy) = &route.mcp_authentication {
        policies.push(Policy::McpAuthentication(mcp_authentication(policy, kept)));
    }
    policies
}

fn api_keys(policy: &config::ApiKeyAuth) -> ApiKeys {
    let keys = policy.keys.iter().filter_map(|key| {
        let metadata = key.metadata.clone();
        match (&key.key, &key.key_hash) {
            (Some(text), _) => Some(KnownKey::new(text.expose(), metadata)),
            (None, Some(hash)) => Some(KnownKey { hash: hash.0, metadata: Arc::new(metadata) }),
            (None, None) => None,
        }
    });
    ApiKeys { mode: mode(policy.mode), location: location(&policy.location), keys: keys.collect() }
}

fn mcp_authentication(policy: &config::McpAuthentication, kept: &mut Kept) -> McpAuthentication {
    let issuers = policy.jwks().map(|jwks| {
        let rules = rules(&policy.issuer, &policy.audiences, &policy.validation, policy.leeway);
        Issuer { rules, keys: keys(&jwks, kept) }
    });
    let mut metadata = policy.metadata.clone();
    let url = metadata.shift_remove("resource").and_then(|url| url.as_str().map(str::to_owned));
    let adapted = policy.provider.as_ref().map(|provider| Adapted {
        audience: match provider {
            config::Provider::Auth0(_) | config::Provider::Okta(_) => policy.audiences.first().cloned(),
            config::Provider::Keycloak(_) | config::Provider::Descope(_) | config::Provider::Authentik(_) => None,
        },
    });
    let resource = Resource {
        issuer: policy.issuer.clone(),
        url,
        metadata,
        scopes: policy.required_scopes.clone(),
        server: kept.remote(server_urls(&policy.issuer), false),
        adapted,
    };
    McpAuthentication {
        mode: mode(policy.mode),
        tokens: Arc::new(Tokens::new(location(&policy.location), issuers.into_iter().collect())),
        resource: Arc::new(resource),
    }
}

/// Where an authorization server may have its metadata (MCP specification, "Authorization Server Metadata Discovery").
fn server_urls(issuer: &str) -> Vec<config::Url> {
    let (origin, path) = mcp::split_path(issuer);
    let [oauth, openid] = mcp::SERVERS;
    let places =
        [format!("{origin}{oauth}{path}"), format!("{origin}{openid}{path}"), format!("{origin}{path}{openid}")];
    let mut urls: Vec<config::Url> = places.iter().filter_map(|place| config::Url::parse(place)).collect();
    urls.dedup();
    urls
}

/// The other paths that a route is reached by, for what is told of it: those of metadata of each of its own.
pub fn well_known(policies: &config::RoutePolicies, matches: &[config::Match]) -> Vec<RouteMatch> {
    let Some(policy) = &policies.mcp_authentication else { return Vec::new() };
    let mut paths = vec![String::new()];
    let own = matches.iter().filter_map(|one| match &one.path {
        config::PathMatch::Exact(path) | config::PathMatch::Prefix(path) => {
            Some(path.0.trim_end_matches('/').to_owned())
        }
        config::PathMatch::Regex(_) => None,
    });
    paths.extend(own);
    let public = policy.metadata.get("resource").and_then(Value::as_str).map(mcp::split_path);
    paths.extend(public.map(|(_, path)| path.to_owned()));
    paths.sort();
    paths.dedup();
    let prefixes = [mcp::RESOURCE, mcp::SERVERS[0], mcp::SERVERS[1]];
    let all = paths.iter().flat_map(|path| prefixes.iter().map(move |prefix| format!("{prefix}{path}")));
    all.map(|path| RouteMatch { path: PathMatch::Exact(path), method: None, headers: Vec::new(), query: Vec::new() })
        .collect()
}

fn rules(issuer: &str, audiences: &[String], validation: &config::JwtValidation, leeway: std::time::Duration) -> Rules {
    let required = validation.required.iter().map(|claim| match claim {
        config::RequiredClaim::Exp => "exp",
        config::RequiredClaim::Nbf => "nbf",
        config::RequiredClaim::Aud => "aud",
        config::RequiredClaim::Iss => "iss",
        config::RequiredClaim::Sub => "sub",
    });
    Rules { issuer: issuer.to_owned(), audiences: audiences.to_vec(), required: required.collect(), leeway }
}

fn keys(jwks: &config::Jwks, kept: &mut Kept) -> Keys {
    match jwks {
        config::Jwks::Here(set) => Keys::Here(Arc::new(KeySet::read(set))),
        config::Jwks::Url(url) => Keys::Remote(kept.remote(vec![url.clone()], true)),
    }
}

fn mode(mode: config::AuthMode) -> Mode {
    match mode {
        config::AuthMode::Strict => Mode::Strict,
        config::AuthMode::Optional => Mode::Optional,
        config::AuthMode::Permissive => Mode::Permissive,
    }
}

fn location(location: &config::Location) -> Location {
    let config::Location::Header(header) = location;
    Location { header: Bytes::copy_from_slice(header.name.as_str().as_bytes()), prefix: header.prefix.clone() }
}

/// The header that a secret of the gateway's own is written in.
pub fn backend_key(auth: Option<&config::BackendAuth>) -> Option<HeaderEdit> {
    let config::BackendAuth::Key(key) = auth? else { return None };
    let Location { header, prefix } = location(&key.location);
    Some(HeaderEdit::Set(header, Bytes::from(format!("{prefix}{}", key.value.expose()))))
}

/// Whether the client's own credential is passed on.
pub fn passes(auth: Option<&config::BackendAuth>) -> bool {
    matches!(auth, Some(config::BackendAuth::Passthrough(_)))
}
