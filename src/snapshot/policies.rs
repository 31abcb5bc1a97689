//! The policies of a route as they are asked, each out of what is written of it. Those of identity, rules and limits have
//! places of their own.

use std::time::Duration;

use agentlane_config as config;
use bytes::Bytes;

use super::rules;
use crate::policy::Policy;
use crate::policy::cors::{Cors, OriginPattern};
use crate::policy::csrf::Csrf;
use crate::policy::direct_response::DirectResponse;
use crate::policy::header_modifier::{RequestHeaderModifier, ResponseHeaderModifier};
use crate::policy::request_redirect::RequestRedirect;
use crate::policy::url_rewrite::{AuthorityRewrite, PathRewrite, UrlRewrite};
use crate::request::HeaderEdit;

/// In no order: the registry has it.
pub(super) fn chain(listener: &config::ListenerPolicies, route: &config::RoutePolicies) -> Vec<Policy> {
    let mut policies = Vec::new();
    if let Some(policy) = route.cors.as_ref().or(listener.cors.as_ref()) {
        policies.push(Policy::Cors(cors(policy)));
    }
    if let Some(policy) = &route.csrf {
        let origins = policy.additional_origins.iter().map(|origin| origin.0.clone());
        policies.push(Policy::Csrf(Csrf { additional_origins: origins.collect() }));
    }
    policies.extend(rules::authorization(listener, route));
    if let Some(policy) = &route.redirect {
        policies.push(Policy::RequestRedirect(redirect(policy)));
    }
    if let Some(policy) = &route.direct_response {
        policies.push(Policy::DirectResponse(DirectResponse {
            status: policy.status,
            headers: policy.headers.iter().map(|(name, value)| (bytes(name.as_str()), bytes(value.as_str()))).collect(),
            body: Bytes::from(policy.body.clone()),
        }));
    }
    if let Some(policy) = &route.request_headers {
        policies.push(Policy::RequestHeaderModifier(RequestHeaderModifier(edits(Some(policy)))));
    }
    if let Some(policy) = &route.rewrite {
        let authority = policy.authority.as_ref().and_then(authority);
        policies.push(Policy::UrlRewrite(UrlRewrite { path: policy.path.as_ref().map(path), authority }));
    }
    if let Some(policy) = &route.response_headers {
        policies.push(Policy::ResponseHeaderModifier(ResponseHeaderModifier(edits(Some(policy)))));
    }
    policies
}

fn cors(policy: &config::Cors) -> Cors {
    fn joined<T>(items: &[config::AnyOr<T>], text: impl Fn(&T) -> &str) -> Bytes {
        if items.iter().any(|item| matches!(item, config::AnyOr::Any)) {
            return Bytes::from_static(b"*");
        }
        let items: Vec<&str> = items
            .iter()
            .filter_map(|item| match item {
                config::AnyOr::Only(item) => Some(text(item)),
                config::AnyOr::Any => None,
            })
            .collect();
        Bytes::from(items.join(", "))
    }
    let origins = policy.allow_origins.iter().map(|origin| match origin {
        config::AnyOr::Any => OriginPattern::Any,
        config::AnyOr::Only(origin) => OriginPattern::parse(&origin.0),
    });
    Cors {
        allow_origins: origins.collect(),
        allow_methods: joined(&policy.allow_methods, |method| &method.0),
        allow_headers: joined(&policy.allow_headers, |name| name.as_str()),
        expose_headers: joined(&policy.expose_headers, |name| name.as_str()),
        allow_credentials: policy.allow_credentials,
        max_age_seconds: policy.max_age.as_ref().map(Duration::as_secs),
    }
}

pub(super) fn redirect(policy: &config::RequestRedirect) -> RequestRedirect {
    RequestRedirect {
        scheme: policy.scheme.as_ref().map(|scheme| match scheme {
            config::Scheme::Http => "http".to_owned(),
            config::Scheme::Https => "https".to_owned(),
        }),
        authority: policy.authority.as_ref().and_then(authority),
        path: policy.path.as_ref().map(path),
        status: policy.status,
    }
}

fn authority(authority: &config::Authority) -> Option<AuthorityRewrite> {
    match authority {
        config::Authority::Full(full) => Some(AuthorityRewrite::Full(full.to_string())),
        config::Authority::Host(host) if host.0.contains(':') => Some(AuthorityRewrite::Host(format!("[{}]", host.0))),
        config::Authority::Host(host) => Some(AuthorityRewrite::Host(host.0.clone())),
        config::Authority::Port(port) => Some(AuthorityRewrite::Port(*port)),
        config::Authority::Auto => Some(AuthorityRewrite::Backend),
        config::Authority::Keep => None,
    }
}

fn path(path: &config::PathRewrite) -> PathRewrite {
    match path {
        config::PathRewrite::Full(full) => PathRewrite::Full(full.0.clone()),
        config::PathRewrite::Prefix(prefix) => PathRewrite::Prefix(prefix.0.clone()),
    }
}

/// In the order that the vocabulary defines: remove, set, add.
pub(super) fn edits(modifier: Option<&config::HeaderModifier>) -> Vec<HeaderEdit> {
    let Some(modifier) = modifier else { return Vec::new() };
    let remove = modifier.remove.iter().map(|name| HeaderEdit::Remove(bytes(name.as_str())));
    let set = modifier.set.iter().map(|(name, value)| HeaderEdit::Set(bytes(name.as_str()), bytes(value.as_str())));
    let add = modifier.add.iter().map(|(name, value)| HeaderEdit::Add(bytes(name.as_str()), bytes(value.as_str())));
    remove.chain(set).chain(add).collect()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
