//! `jwtAuth`: who brings a token of a known issuer. What was verified once is known by the token's digest until it expires or
//! its issuer's keys change.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cache::{self, Cache};
use super::keys::KeySet;
use super::remote::Remote;
use super::token::{self, Refused, Rules, Unverified, Verified};
use super::{Found, Location, Mode, Outcome, unauthenticated};
use crate::fault::{Fault, Kind};
use crate::limits::{TOKENS_KEPT_BYTES_MAX, TOKENS_KEPT_MAX};
use crate::policy::{Matched, Refusal, Verdict};
use crate::request::{Changes, RequestView};

/// The policy of a route.
#[derive(Clone, Debug)]
pub struct JwtAuth {
    pub mode: Mode,
    pub tokens: Arc<Tokens>,
}

/// Whose tokens are taken, and where they stand.
#[derive(Debug)]
pub struct Tokens {
    id: u64,
    location: Location,
    issuers: Vec<Issuer>,
}

/// One issuer.
#[derive(Debug)]
pub struct Issuer {
    pub rules: Rules,
    pub keys: Keys,
}

/// Where an issuer's keys come from.
#[derive(Debug)]
pub enum Keys {
    Here(Arc<KeySet>),
    Remote(Arc<Remote>),
}

impl Keys {
    fn now(&self) -> Arc<KeySet> {
        match self {
            Keys::Here(keys) => keys.clone(),
            Keys::Remote(remote) => remote.keys(),
        }
    }
}

#[derive(Clone)]
struct Kept {
    verified: Verified,
    /// The set that it was verified with, and whose.
    keys: u64,
    issuer: usize,
}

thread_local! {
    /// Of one shard.
    static KEPT: RefCell<Cache<Kept>> = RefCell::new(Cache::new(TOKENS_KEPT_MAX / 2, TOKENS_KEPT_BYTES_MAX / 2));
}

/// What a request's token came to.
pub enum Judged {
    Nobody,
    Verified(Verified),
    Refused(&'static str),
    /// The verdict is not about the token: wait, or the gateway cannot say.
    Not(Verdict),
}

impl Tokens {
    pub fn new(location: Location, issuers: Vec<Issuer>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Tokens { id: LAST.fetch_add(1, Relaxed), location, issuers }
    }

    /// Judges the token of a request, and takes it off.
    pub fn judge(&self, request: &RequestView<'_>, changes: &mut Changes) -> Judged {
        let found = self.location.find(&request.head.headers);
        let text = match found {
            Found::Nothing => return Judged::Nobody,
            Found::Unclear => {
                self.location.strip(changes);
                return Judged::Refused("more than one credential");
            }
            Found::Credential(text) => text,
        };
        self.location.strip(changes);
        let digest = cache::digest(self.id, &[text.as_bytes()]);
        if let Some(verified) = self.kept(&digest) {
            return Judged::Verified(verified);
        }
        self.verify(text, digest, request.may_wait)
    }

    fn kept(&self, digest: &cache::Digest) -> Option<Verified> {
        let kept = KEPT.with_borrow_mut(|kept| kept.get(digest))?;
        let keys = self.issuers.get(kept.issuer).map(|issuer| issuer.keys.now().id);
        let counts = keys == Some(kept.keys) && kept.verified.until.is_none_or(|until| now() < until);
        if !counts {
            KEPT.with_borrow_mut(|kept| kept.remove(digest));
        }
        counts.then_some(kept.verified)
    }

    fn verify(&self, text: &str, digest: cache::Digest, may_wait: bool) -> Judged {
        let token = match token::read(text) {
            Ok(token) => token,
            Err(refused) => return self.refused(None, refused, may_wait),
        };
        let Some(place) = self.issuer_of(&token) else { return Judged::Refused("token is of another issuer") };
        let issuer = &self.issuers[place];
        let keys = issuer.keys.now();
        match token::verify(&token, &issuer.rules, &keys) {
            Ok(verified) => {
                let kept = Kept { verified: verified.clone(), keys: keys.id, issuer: place };
                // The claims as a tree take a few times the token's text.
                KEPT.with_borrow_mut(|all| all.insert(digest, kept, 4 * text.len()));
                Judged::Verified(verified)
            }
            Err(refused) => self.refused(Some((issuer, &keys)), refused, may_wait),
        }
    }

    /// Tokens are sorted by the issuer that they name; that it is so is for its keys to say.
    fn issuer_of(&self, token: &Unverified<'_>) -> Option<usize> {
        self.issuers.iter().position(|issuer| issuer.rules.issuer == token.issuer)
    }

    fn refused(&self, issuer: Option<(&Issuer, &KeySet)>, refused: Refused, may_wait: bool) -> Judged {
        let message = match refused {
            Refused::Invalid(message) => return Judged::Refused(message),
            Refused::KeyUnknown => "token is signed with an unknown key",
        };
        let Some((Issuer { keys: Keys::Remote(remote), .. }, keys)) = issuer else { return Judged::Refused(message) };
        if may_wait && let Some(pending) = remote.ask() {
            return Judged::Not(Verdict::Wait(pending));
        }
        match keys.is_empty() {
            false => Judged::Refused(message),
            // Not the token's fault: a client that got a new one would fare no better.
            true => {
                let fault = Fault::new(Kind::Overloaded, "keys of the issuer are not there").by("jwtAuth");
                Judged::Not(Verdict::Refuse(Box::new(Refusal::new(fault))))
            }
        }
    }
}

impl JwtAuth {
    pub(in crate::policy) fn request(
        &self,
        request: &RequestView<'_>,
        _: &Matched<'_>,
        changes: &mut Changes,
    ) -> Verdict {
        let outcome = match self.tokens.judge(request, changes) {
            Judged::Nobody => Outcome::Missing,
            Judged::Refused(why) => Outcome::Wrong(why),
            Judged::Not(verdict) if self.mode != Mode::Permissive || matches!(verdict, Verdict::Wait(_)) => {
                return verdict;
            }
            Judged::Not(_) => Outcome::Missing,
            Judged::Verified(verified) => {
                changes.principal.set_jwt(verified.claims, verified.identity);
                Outcome::Admitted
            }
        };
        match (outcome, self.mode) {
            (Outcome::Admitted, _) | (_, Mode::Permissive) | (Outcome::Missing, Mode::Optional) => Verdict::Continue,
            (Outcome::Missing, _) => unauthenticated("jwtAuth", "a token is missing", "Bearer"),
            (Outcome::Wrong(why), _) => {
                let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{why}\"");
                unauthenticated("jwtAuth", why, challenge)
            }
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}
