//! Who a request is from, as far as that was verified: what the policies of a route found, and the certificate of the
//! connection. It travels with the request to the shard of its session and to the MCP side. It knows no policy.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use agentlane_link::tls::ClientIdentity;
use agentlane_wire::h1::Headers;
use bytes::Bytes;
use serde_json::Value;

use crate::protocol::mcp::caller::Caller;

/// Nobody by default. Cheap to clone, and may cross cores.
#[derive(Clone, Default)]
pub struct Principal {
    /// The claims of a verified token.
    pub jwt: Option<Arc<Value>>,
    /// The metadata of a known API key; null where it has none.
    pub api_key: Option<Arc<Value>>,
    /// The user of a verified password.
    pub basic: Option<Arc<str>>,
    /// The client's certificate, where the listener asks for one.
    pub certificate: Option<Arc<ClientIdentity>>,
    /// The value of the header authorization, where a target is to get it as well (`backendAuth`).
    pub credential: Option<Bytes>,
    /// What was verified, in one digest.
    identity: Option<Caller>,
}

impl Principal {
    /// Whoever holds the certificate. Its names count, so that it may be renewed; one without any is itself alone.
    pub fn of_certificate(certificate: Arc<ClientIdentity>) -> Self {
        let names = format!("{} {:?}", certificate.subject, certificate.alt_names);
        let is_nameless = certificate.subject.is_empty() && certificate.alt_names.is_empty();
        let named: &[u8] = if is_nameless { &certificate.fingerprint } else { names.as_bytes() };
        let identity = Some(Caller::verified("certificate", &[named]));
        Principal { certificate: Some(certificate), identity, ..Principal::default() }
    }

    /// `identity`: issuer and subject, made once per token.
    pub fn set_jwt(&mut self, claims: Arc<Value>, identity: Caller) {
        self.jwt = Some(claims);
        self.add(identity);
    }

    pub fn set_api_key(&mut self, metadata: Arc<Value>, identity: Caller) {
        self.api_key = Some(metadata);
        self.add(identity);
    }

    pub fn set_basic(&mut self, user: Arc<str>, identity: Caller) {
        self.basic = Some(user);
        self.add(identity);
    }

    fn add(&mut self, identity: Caller) {
        self.identity = Some(match &self.identity {
            None => identity,
            Some(known) => known.and(&identity),
        });
    }

    /// Who it was verified to be: whoever opened a session must be the same in each of its requests. `None`: nothing was
    /// verified.
    pub fn identity(&self) -> Option<Caller> {
        self.identity
    }

    /// The subject of the client's certificate.
    pub fn subject(&self) -> Option<&str> {
        self.certificate.as_ref().map(|known| known.subject.as_str()).filter(|subject| !subject.is_empty())
    }

    /// What is known by one of these names, of claims or else of a key's metadata; and the user of a password as `user`.
    pub fn claims<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let text = |value: &'a Value| match value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            other => Cow::Owned(other.to_string()),
        };
        let known = [&self.jwt, &self.api_key];
        let claim = move |name: &'a String| {
            let value = known.iter().find_map(|known| known.as_deref()?.get(name.as_str()))?;
            Some((name.as_str(), text(value)))
        };
        let user = self.basic.as_deref().map(|user| ("user", Cow::Borrowed(user)));
        names.iter().filter_map(claim).chain(user)
    }

    /// Whom things are kept for between requests: the identity, or else the credentials that came along.
    pub fn caller(&self, headers: &Headers) -> Caller {
        self.identity.unwrap_or_else(|| Caller::of(headers))
    }
}

/// Kinds only: claims and metadata are not for logs.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("jwt", self.jwt.is_some()),
            ("api key", self.api_key.is_some()),
            ("basic", self.basic.is_some()),
            ("certificate", self.certificate.is_some()),
        ];
        f.debug_list().entries(kinds.iter().filter(|(_, is_there)| *is_there).map(|(kind, _)| kind)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_of_all_that_was_verified() {
        let user = |name: &str| Caller::verified("basic", &[name.as_bytes()]);
        let null = || Arc::new(Value::Null);
        let mut one = Principal::default();
        assert_eq!(one.identity(), None);
        one.set_jwt(null(), user("a"));
        assert_eq!(one.identity(), Some(user("a")));
        let mut both = one.clone();
        both.set_api_key(null(), user("b"));
        assert_ne!(both.identity(), one.identity());
        let mut other = one.clone();
        other.set_api_key(null(), user("c"));
        assert_ne!(both.identity(), other.identity());
    }

    #[test]
    fn claims_are_named() {
        let user = Caller::verified("basic", &[b"a"]);
        let mut principal = Principal::default();
        let names = ["sub", "level", "absent"].map(str::to_owned);
        let text = |principal: &Principal| -> Vec<String> {
            principal.claims(&names).map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(text(&principal), Vec::<String>::new());
        principal.set_jwt(Arc::new(serde_json::json!({"sub": "a", "aud": "b"})), user);
        principal.set_api_key(Arc::new(serde_json::json!({"sub": "c", "level": 3})), user);
        principal.set_basic("d".into(), user);
        assert_eq!(text(&principal), ["sub=a", "level=3", "user=d"]);
    }

    #[test]
    fn a_renewed_certificate_is_the_same_client() {
        let of = |subject: &str, byte| {
            let certificate =
                ClientIdentity { subject: subject.into(), alt_names: Vec::new(), fingerprint: [byte; 32] };
            Principal::of_certificate(Arc::new(certificate)).identity()
        };
        assert_eq!(of("CN=a", 1), of("CN=a", 2));
        assert_ne!(of("CN=a", 1), of("CN=b", 1));
        assert_ne!(of("", 1), of("", 2), "without a name the certificate is all there is");
    }
}
