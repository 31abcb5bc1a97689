//! `basicAuth` (RFC 7617): who knows a user's password. A hash that is slow on purpose is computed by a thread of its own, so
//! that no shard stands still for it; what came of it is known by a keyed digest for a while.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use agentlane_config::PasswordHash;
use agentlane_runtime::channel::{self, Receiver, Sender};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::api_key::is_equal;
use super::cache::{self, Cache};
use super::{Found, Location, Mode, Outcome, unauthenticated};
use crate::fault::{Fault, Kind};
use crate::limits::{PASSWORD_CHECKS_MAX, PASSWORDS_KEPT_MAX};
use crate::policy::{Matched, Pending, Refusal, Verdict};
use crate::protocol::mcp::caller::Caller;
use crate::request::{Changes, RequestView};

/// How long a wrong password is known to be wrong, and a right one to be right.
const WRONG_FOR: Duration = Duration::from_secs(10);
const RIGHT_FOR: Duration = Duration::from_secs(600);
/// bcrypt reads no more; what is longer is no password.
const PASSWORD_BYTES_MAX: usize = 72;

/// The policy of a route.
#[derive(Clone, Debug)]
pub struct BasicAuth {
    pub mode: Mode,
    pub location: Location,
    /// `Basic realm="..."`.
    pub challenge: Bytes,
    pub users: Arc<Users>,
}

/// The users of one policy.
#[derive(Debug)]
pub struct Users {
    id: u64,
    hashes: HashMap<String, PasswordHash>,
    /// Stands for users that are not there, so that a guess at a name takes as long as one at a password.
    decoy: Option<String>,
}

#[derive(Clone, Copy)]
struct Known {
    is_right: bool,
    until: Instant,
}

thread_local! {
    /// Of one shard.
    static KNOWN: RefCell<Cache<Known>> = RefCell::new(Cache::new(PASSWORDS_KEPT_MAX / 2, usize::MAX));
}

/// What is known of a password without more work.
enum Checked {
    Right,
    Wrong,
    /// Ask again after that.
    Later(Pending),
    /// Too many are being checked.
    Busy,
}

impl Users {
    pub fn new(users: impl IntoIterator<Item = (String, PasswordHash)>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let hashes: HashMap<String, PasswordHash> = users.into_iter().collect();
        let decoy = hashes.values().find_map(|hash| match hash {
            PasswordHash::Bcrypt(text) => Some(text.clone()),
            PasswordHash::Sha1(_) => None,
        });
        Users { id: LAST.fetch_add(1, Relaxed), hashes, decoy }
    }

    fn check(&self, user: &str, password: &str) -> Checked {
        let known = self.hashes.get(user);
        let slow = match known {
            Some(PasswordHash::Sha1(hash)) => {
                let is_right = is_equal(digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()).as_ref(), hash);
                return if is_right { Checked::Right } else { Checked::Wrong };
            }
            Some(PasswordHash::Bcrypt(hash)) => Some(hash),
            None => self.decoy.as_ref(),
        };
        let Some(hash) = slow else { return Checked::Wrong };
        let name = cache::digest(self.id, &[secret(), user.as_bytes(), password.as_bytes()]);
        let now = Instant::now();
        match KNOWN.with_borrow_mut(|all| all.get(&name)) {
            Some(Known { is_right, until }) if now < until => {
                return if is_right && known.is_some() { Checked::Right } else { Checked::Wrong };
            }
            _ => {}
        }
        let (reply, answer) = channel::bounded(1);
        let check = Check { password: password.to_owned(), hash: hash.clone(), reply };
        if checker().try_send(check).is_err() {
            return Checked::Busy;
        }
        Checked::Later(Pending::new(async move {
            if let Some(is_right) = answer.recv().await {
                let until = Instant::now() + if is_right { RIGHT_FOR } else { WRONG_FOR };
                KNOWN.with_borrow_mut(|all| all.insert(name, Known { is_right, until }, 0));
            }
        }))
    }
}

impl BasicAuth {
    pub(in crate::policy) fn request(
        &self,
        request: &RequestView<'_>,
        _: &Matched<'_>,
        changes: &mut Changes,
    ) -> Verdict {
        let outcome = match self.location.take(&request.head.headers, changes) {
            Found::Nothing => Outcome::Missing,
            Found::Unclear => Outcome::Wrong("more than one credential"),
            Found::Credential(text) => match user_and_password(text) {
                None => Outcome::Wrong("not a user and a password"),
                Some((user, password)) => match self.users.check(&user, &password) {
                    Checked::Right => {
                        let identity = Caller::verified("basic", &[user.as_bytes()]);
                        changes.principal.set_basic(Arc::from(user), identity);
                        Outcome::Admitted
                    }
                    Checked::Wrong => Outcome::Wrong("wrong user or password"),
                    Checked::Later(pending) if request.may_wait => return Verdict::Wait(pending),
                    Checked::Later(_) | Checked::Busy => {
                        let fault = Fault::new(Kind::Overloaded, "too many passwords to check").by("basicAuth");
                        return Verdict::Refuse(Box::new(Refusal::new(fault)));
                    }
                },
            },
        };
        match (outcome, self.mode) {
            (Outcome::Admitted, _) | (_, Mode::Permissive) | (Outcome::Missing, Mode::Optional) => Verdict::Continue,
            (Outcome::Missing, _) => unauthenticated("basicAuth", "a password is missing", self.challenge.clone()),
            (Outcome::Wrong(why), _) => unauthenticated("basicAuth", why, self.challenge.clone()),
        }
    }
}

fn user_and_password(text: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let fits = password.len() <= PASSWORD_BYTES_MAX && !password.contains('\0');
    fits.then(|| (user.to_owned(), password.to_owned()))
}

/// Random, and another in each process: digests of passwords are worth nothing elsewhere.
fn secret() -> &'static [u8] {
    static SECRET: OnceLock<[u8; 32]> = OnceLock::new();
    SECRET.get_or_init(|| {
        let mut secret = [0; 32];
        // Without randomness the digest still tells passwords apart.
        let _ = SystemRandom::new().fill(&mut secret);
        secret
    })
}

struct Check {
    password: String,
    hash: String,
    reply: Sender<bool>,
}

/// The thread that computes slow hashes, begun with the first.
fn checker() -> &'static Sender<Check> {
    static CHECKER: OnceLock<Sender<Check>> = OnceLock::new();
    CHECKER.get_or_init(|| {
        let (checks, inbox) = channel::bounded(PASSWORD_CHECKS_MAX);
        let spawned = std::thread::Builder::new().name("agentlane-hash".to_owned()).spawn(move || check_all(&inbox));
        if let Err(error) = spawned {
            tracing::error!(%error, "passwords cannot be checked");
        }
        checks
    })
}

fn check_all(inbox: &Receiver<Check>) {
    while let Some(Check { password, hash, reply }) = inbox.recv_blocking() {
        let _ = reply.try_send(bcrypt::verify(password, &hash).unwrap_or(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_a_user_and_a_password() {
        let encoded = |text: &str| STANDARD.encode(text);
        assert_eq!(user_and_password(&encoded("a:b:c")), Some(("a".to_owned(), "b:c".to_owned())));
        assert_eq!(user_and_password(&encoded("a:")), Some(("a".to_owned(), String::new())));
        for wrong in [encoded("a"), "***".to_owned(), encoded(&format!("a:{}", "b".repeat(73))), encoded("a:b\0")] {
            assert_eq!(user_and_password(&wrong), None, "{wrong}");
        }
    }
}
