//! Which revisions a target speaks: those with sessions, 2026-07-28, or both. Learned by asking, on each shard for itself;
//! forgotten after a while and corrected by what is met, because a wrong verdict would be silent for ever.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_runtime::local::oneshot;
use agentlane_wire::json;
use bytes::Bytes;
use smallvec::SmallVec;

use super::upstream::Answer;
use super::{SCAN_LIMITS, callers, leg, mcp_fault, modern_leg, upstream};
use crate::backend::mcp::{HttpTarget, Protocol, Target, TargetKind};
use crate::fault::{Fault, Kind};
use crate::limits::{PROBE_ALONE, PROBE_GRACE, SCHEMA_CALLERS_MAX};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::envelope::{self, Client, Wrapping};
use crate::protocol::mcp::modern::results::{self, Discovered};
use crate::protocol::mcp::modern::tools::Tools;
use crate::protocol::mcp::modern::{VERSION, is_modern_error};
use crate::session::{Offers, Session};
use crate::shard::{BackendState, Shard, Turn};

/// How long a target is taken for what it was seen to be.
const TRUSTED: Duration = Duration::from_secs(300);
/// How long it is not asked again for an era that it did not speak.
const REFUSED: Duration = Duration::from_secs(60);
/// An answer to `server/discover` is used for at least so long, whatever it says: each session needs it.
const DISCOVERED_MIN: Duration = Duration::from_secs(5);

/// The two ways to speak to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// With `initialize`, up to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}

impl Era {
    /// What a session tries first at a target that may speak both.
    pub fn first(session: &Session) -> Era {
        if session.prefers_modern.get() { Era::Modern } else { Era::Legacy }
    }
}

/// What this shard knows of a backend's targets. Clones share it.
#[derive(Clone, Default)]
pub struct Eras {
    targets: Rc<RefCell<HashMap<String, Rc<Known>>>>,
}

/// What is known of one target.
#[derive(Default)]
pub struct Known {
    /// It did not speak the era, until then.
    not_legacy: Cell<Option<Instant>>,
    not_modern: Cell<Option<Instant>>,
    discovered: RefCell<Option<Rc<ModernTarget>>>,
    tools: Rc<RefCell<Tools>>,
    /// The same as each caller was told, and when it was asked for.
    schemas: RefCell<HashMap<Caller, Told>>,
    /// One task asks, others wait for what it learns.
    turn: Turn,
    /// One task opens a session only to see how the target introduces itself.
    pub introduction: Turn,
}

/// How tools are called, and when that was asked for.
type Told = (Instant, Rc<RefCell<Tools>>);

/// A target that speaks 2026-07-28.
pub struct ModernTarget {
    pub discovered: Discovered,
    /// The `result` of `server/discover` as it was sent.
    pub raw: Bytes,
    pub offers: Offers,
    /// Everything of a POST's head that is the same each time, up to the mirrored headers; nothing for a child.
    pub post_head: Bytes,
    pub tools: Rc<RefCell<Tools>>,
    until: Instant,
}

impl Eras {
    pub fn of(&self, target: &Target) -> Rc<Known> {
        if let Some(known) = self.targets.borrow().get(&target.name) {
            return known.clone();
        }
        self.targets.borrow_mut().entry(target.name.clone()).or_default().clone()
    }
}

impl Known {
    /// In which eras a client tries the target, in order; `first`: what it would rather have.
    pub fn order(&self, protocol: Protocol, first: Era, now: Instant) -> SmallVec<[Era; 2]> {
        let holds = |until: &Cell<Option<Instant>>| until.get().is_some_and(|until| now < until);
        match protocol {
            Protocol::Legacy(_) => SmallVec::from_slice(&[Era::Legacy]),
            Protocol::Modern => SmallVec::from_slice(&[Era::Modern]),
            Protocol::Auto if holds(&self.not_legacy) => SmallVec::from_slice(&[Era::Modern, Era::Legacy]),
            Protocol::Auto if holds(&self.not_modern) => SmallVec::from_slice(&[Era::Legacy]),
            Protocol::Auto if first == Era::Modern => SmallVec::from_slice(&[Era::Modern, Era::Legacy]),
            Protocol::Auto => SmallVec::from_slice(&[Era::Legacy, Era::Modern]),
        }
    }

    /// It opened a session.
    pub fn found_legacy(&self) {
        self.not_legacy.set(None);
    }

    /// It refused a session, and speaks 2026-07-28.
    fn found_not_legacy(&self) {
        self.not_legacy.set(Some(runtime::now() + TRUSTED));
    }

    /// It speaks 2026-07-28; `refused`: after it had refused a session.
    pub fn found_modern(&self, refused: bool) {
        self.not_modern.set(None);
        if refused {
            self.found_not_legacy();
        }
    }

    /// It did not know 2026-07-28.
    pub fn found_not_modern(&self) {
        self.not_modern.set(Some(runtime::now() + REFUSED));
        self.discovered.take();
    }

    /// The same of a child: what it is changes with its program alone, and to ask costs a process.
    pub fn found_no_modern_child(&self) {
        self.not_modern.set(Some(runtime::now() + TRUSTED));
        self.discovered.take();
    }

    /// Whether it was found not to know 2026-07-28, and that still counts.
    pub fn is_known_legacy(&self) -> bool {
        self.not_modern.get().is_some_and(|until| runtime::now() < until)
    }

    /// Takes what `server/discover` said for what the target is; `None`: that was no such result.
    pub fn learn(&self, raw: Bytes, post_head: Bytes) -> Option<Rc<ModernTarget>> {
        let discovered = Discovered::read(&raw)?;
        self.not_modern.set(None);
        let modern = Rc::new(ModernTarget {
            offers: leg::offers_of(discovered.result()),
            until: runtime::now() + discovered.ttl().clamp(DISCOVERED_MIN, TRUSTED),
            discovered,
            raw,
            post_head,
            tools: self.tools(),
        });
        self.discovered.replace(Some(modern.clone()));
        Some(modern)
    }

    /// What it was taken for it is no more: the next use asks again.
    pub fn forget(&self) {
        self.not_legacy.set(None);
        self.not_modern.set(None);
        self.discovered.take();
    }

    pub fn tools(&self) -> Rc<RefCell<Tools>> {
        self.tools.clone()
    }

    /// How the target's tools are called as far as a caller has been told, by a list that was asked for at `since` or later.
    pub fn schemas(&self, caller: &Caller, since: Instant) -> Option<Rc<RefCell<Tools>>> {
        self.schemas.borrow().get(caller).filter(|(asked, _)| *asked >= since).map(|(_, tools)| tools.clone())
    }

    /// The same, to be told by a list that was asked for at `asked`. What an older list said counts no more at `since`.
    pub fn schemas_from(&self, caller: &Caller, asked: Instant, since: Instant) -> Rc<RefCell<Tools>> {
        if let Some(known) = self.schemas(caller, since) {
            return known;
        }
        let mut schemas = self.schemas.borrow_mut();
        if schemas.len() >= SCHEMA_CALLERS_MAX && !schemas.contains_key(caller) {
            let oldest = schemas.iter().min_by_key(|(_, (asked, _))| *asked).map(|(caller, _)| *caller);
            oldest.and_then(|oldest| schemas.remove(&oldest));
        }
        let tools = Rc::<RefCell<Tools>>::default();
        schemas.insert(*caller, (asked, tools.clone()));
        tools
    }

    pub fn fresh(&self) -> Option<Rc<ModernTarget>> {
        let now = runtime::now();
        self.discovered.borrow().as_ref().filter(|target| now < target.until).cloned()
    }
}

/// The target at a place, if it speaks 2026-07-28. A fault when it cannot be told now. `caller`: whose child is asked,
/// where it is one.
pub async fn modern_target(
    shard: &Rc<Shard>,
    backend: &BackendState,
    index: usize,
    caller: Caller,
) -> Result<Option<Rc<ModernTarget>>, Fault> {
    let Some(target) = backend.config.targets.get(index) else { return Ok(None) };
    if matches!(target.protocol, Protocol::Legacy(_)) {
        return Ok(None);
    }
    match &target.kind {
        TargetKind::Http(_) => {}
        TargetKind::Stdio(stdio) => return callers::modern_target(shard, backend, target, stdio, caller).await,
        TargetKind::Sse(_) => return Ok(None),
    }
    let known = backend.eras.of(target);
    if let Some(modern) = known.fresh() {
        return Ok(Some(modern));
    }
    let deadline = runtime::now() + backend.config.deadline;
    match Box::pin(modern(shard, &known, target, false, deadline)).await? {
        None if target.protocol == Protocol::Modern => Err(not_modern()),
        modern => Ok(modern),
    }
}

/// Asks a target on the network for 2026-07-28, unless that was done lately. `None`: it does not speak it. `refused`: it has
/// just refused a session.
pub async fn modern(
    shard: &Rc<Shard>,
    known: &Known,
    target: &Arc<Target>,
    refused: bool,
    deadline: Instant,
) -> Result<Option<Rc<ModernTarget>>, Fault> {
    let left = deadline.saturating_duration_since(runtime::now());
    let _turn = runtime::timeout(left, known.turn.lock()).await.map_err(|_| mcp_fault::timeout())?;
    if let Some(modern) = known.fresh() {
        return Ok(Some(modern));
    }
    if known.is_known_legacy() {
        return Ok(None);
    }
    let ask = {
        let (shard, target) = (shard.clone(), target.clone());
        async move {
            let TargetKind::Http(http) = &target.kind else { return Ok(None) };
            let post_head = leg::post_head(http, None, Some(VERSION));
            let raw = discover(&shard, http, &post_head, deadline).await?;
            Ok(raw.map(|raw| (raw, post_head)))
        }
    };
    let found = match refused || target.protocol == Protocol::Modern {
        true => ask.await?,
        false => {
            let (shard, target) = (shard.clone(), target.clone());
            probe(ask, async move { leg::has_sessions(&shard, &target, deadline).await }, deadline).await?
        }
    };
    let modern = found.and_then(|(raw, post_head)| known.learn(raw, post_head));
    if modern.is_none() {
        known.found_not_modern();
    }
    Ok(modern)
}

/// Asks a target for 2026-07-28, and whether it has sessions if it does not answer that soon: some servers say nothing to a
/// request that they do not know. Both go on by themselves when they are not waited for any more.
pub async fn probe<T: 'static>(
    ask: impl Future<Output = Result<Option<T>, Fault>> + 'static,
    has_sessions: impl Future<Output = bool> + 'static,
    deadline: Instant,
) -> Result<Option<T>, Fault> {
    let mut ask = pin!(task(ask));
    let part = deadline.saturating_duration_since(runtime::now()) / 4;
    let silent = || Err(mcp_fault::timeout());
    match runtime::timeout(PROBE_ALONE.min(part), ask.as_mut()).await {
        Ok(Some(Err(fault))) if fault.kind != Kind::UpstreamUnreachable => {
            // It broke over it. That says something if it has sessions.
            return if has_sessions.await { Ok(None) } else { Err(fault) };
        }
        Ok(outcome) => return outcome.unwrap_or_else(silent),
        Err(_) => {}
    }
    let mut other = pin!(task(has_sessions));
    match runtime::race(ask.as_mut(), other.as_mut()).await {
        runtime::Either::Left(Some(Err(fault))) => {
            if other.await == Some(true) {
                Ok(None)
            } else {
                Err(fault)
            }
        }
        runtime::Either::Left(outcome) => outcome.unwrap_or_else(silent),
        runtime::Either::Right(Some(true)) => match runtime::timeout(PROBE_GRACE.min(part), ask).await {
            Ok(Some(Ok(found))) => Ok(found),
            _ => Ok(None),
        },
        runtime::Either::Right(_) => ask.await.unwrap_or_else(silent),
    }
}

/// Lets work go on that must not be dropped half way.
fn task<T: 'static>(work: impl Future<Output = T> + 'static) -> oneshot::Receiver<T> {
    let (sender, outcome) = oneshot::channel();
    runtime::spawn(async move { drop(sender.send(work.await)) });
    outcome
}

/// The result of `server/discover`; `None` from a server that does not know it, or not in this version.
async fn discover(
    shard: &Rc<Shard>,
    target: &HttpTarget,
    post_head: &Bytes,
    deadline: Instant,
) -> Result<Option<Bytes>, Fault> {
    match discover_once(shard, target, post_head, deadline).await? {
        Discovery::SupportedAfterAll => match discover_once(shard, target, post_head, deadline).await? {
            Discovery::Result(result) => Ok(Some(result)),
            Discovery::SupportedAfterAll | Discovery::Refused => Ok(None),
        },
        Discovery::Result(result) => Ok(Some(result)),
        Discovery::Refused => Ok(None),
    }
}

/// What came of one `server/discover`.
enum Discovery {
    Result(Bytes),
    /// The version was refused, and named as one to come back with (2026-07-28, "Version Negotiation").
    SupportedAfterAll,
    Refused,
}

async fn discover_once(
    shard: &Rc<Shard>,
    target: &HttpTarget,
    post_head: &Bytes,
    deadline: Instant,
) -> Result<Discovery, Fault> {
    let request = discover_request(shard, &Client::gateway())?;
    let sent = modern_leg::post(shard, target, post_head, request, &[], &[], true, Some(deadline), None);
    let mut answer = sent.await?;
    if let Answer::Refused { status, body } = &answer {
        return match status {
            401 | 403 | 407 | 408 | 429 | 500.. => Err(upstream::refusal(*status, body)),
            _ if names_our_version(body) => Ok(Discovery::SupportedAfterAll),
            _ => Ok(Discovery::Refused),
        };
    }
    while let Some(message) = answer.next().await? {
        let Some(data) = message.data else { continue };
        let Ok(envelope) = json::scan(&data, &SCAN_LIMITS) else { return Ok(Discovery::Refused) };
        if envelope.result.is_some() || envelope.error.is_some() {
            answer.finish().await;
            return Ok(match envelope.result {
                Some(range) => Discovery::Result(data.slice(range.usize())),
                None if names_our_version(&data) => Discovery::SupportedAfterAll,
                None => Discovery::Refused,
            });
        }
    }
    Ok(Discovery::Refused)
}

/// Whether an error says that the version is not supported, and lists it as supported.
fn names_our_version(body: &[u8]) -> bool {
    let supported = || {
        let envelope = json::scan(body, &SCAN_LIMITS).ok()?;
        let error = envelope.error.filter(|fault| results::code_of(body, *fault) == Some(-32022))?;
        let listed = json::get_path(body, error, &["data", "supported"]).ok()??;
        Some(json::elements(body, listed).map_while(Result::ok).any(|version| json::raw_eq(body, version, VERSION)))
    };
    supported().unwrap_or(false)
}

/// `server/discover` on behalf of a client.
pub fn discover_request(shard: &Shard, client: &Client) -> Result<Bytes, Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("own request").with(fault);
    let message = error::request(shard.call_id(), "server/discover", None);
    let envelope = json::scan(&message, &SCAN_LIMITS).map_err(failed)?;
    envelope::wrap(&message, &envelope, client, Wrapping::default()).map_err(failed)
}

/// Whether a refusal's body is an error that only servers of 2026-07-28 give.
pub fn is_modern_refusal(body: &[u8]) -> bool {
    let Ok(envelope) = json::scan(body, &SCAN_LIMITS) else { return false };
    envelope.error.and_then(|fault| results::code_of(body, fault)).is_some_and(is_modern_error)
}

pub fn not_modern() -> Fault {
    Fault::new(Kind::UpstreamBroken, "target does not speak 2026-07-28")
}
