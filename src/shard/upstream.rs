//! One HTTP exchange with an upstream through the shard's pool: for messages that are whole in memory.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_link::client::{ClientConnection, ClientError, Cut, Progress};
use agentlane_runtime::Parts;
use agentlane_wire::h1::{Method, ResponseHead};
use bytes::Bytes;

use super::Shard;
use super::health::Trial;
use crate::backend::http::{Endpoint, Judged};
use crate::fault::{Fault, Kind};

/// No call takes longer.
const CALL_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// An answer whose head has come.
pub struct HttpAnswer {
    pub head: ResponseHead,
    connection: ClientConnection,
}

impl HttpAnswer {
    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        self.connection.chunk().await.map_err(fault)
    }

    /// The whole body, a fault beyond `max` bytes.
    pub async fn read_all(&mut self, max: usize) -> Result<Bytes, Fault> {
        self.connection.body_all(max as u64).await.map_err(fault)
    }

    /// The body may be silent until `deadline`; for ever without one.
    pub fn end_by(&mut self, deadline: Option<Instant>) {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(agentlane_runtime::now()));
        self.connection.set_body_idle(left.map(|left| left.max(Duration::from_millis(1))));
    }

    /// Reads the end of a body whose last message has come, if it is there already or comes at once, so that the
    /// connection can serve again. A stream that stays open is closed.
    pub async fn finish_soon(&mut self) {
        const GRACE: Duration = Duration::from_millis(50);
        self.connection.set_body_idle(Some(GRACE));
        while let Ok(Some(_)) = self.connection.chunk().await {}
    }

    /// For a task that may have to end a wait on it.
    pub fn cut(&self) -> Option<Cut> {
        self.connection.cut()
    }
}

impl Shard {
    /// Sends a request, and once more where that is safe and a kept connection was dead. `deadline`: when the answer's head
    /// must have come; `None`: as long as it takes.
    pub async fn upstream_exchange(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        method: Method,
        head: Bytes,
        body: Parts,
        repeatable: bool,
        deadline: Option<Instant>,
    ) -> Result<HttpAnswer, Fault> {
        self.upstream_exchange_on(endpoint, method, head, body, repeatable, deadline, None).await
    }

    /// The same. `socket`: where the connection's descriptor is noted as long as it is waited for, so that the wait can be
    /// ended by shutting it down; whoever does takes it out, and nothing is sent a second time then.
    #[allow(clippy::too_many_arguments, reason = "one exchange, all of it needed on the wire")]
    pub async fn upstream_exchange_on(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        method: Method,
        head: Bytes,
        body: Parts,
        repeatable: bool,
        deadline: Option<Instant>,
        socket: Option<&Cell<Option<Cut>>>,
    ) -> Result<HttpAnswer, Fault> {
        let address = self.address_of(endpoint, None)?;
        let Some(judged) = &endpoint.judged else {
            return self
                .exchange_at(endpoint, address, method, head, body, repeatable, deadline, socket)
                .await
                .map_err(fault_of);
        };
        Box::pin(async {
            let mut request = Judging { shard: self, endpoint, judged, address, repeatable, deadline, left: 0 };
            if let Some(retry) = &judged.retry {
                request.left = retry.attempts.saturating_sub(1);
                self.judgements.host(&self.metrics, judged).budget.request(retry);
            }
            loop {
                let trial = self.judgements.trial(&self.metrics, endpoint, request.address);
                let (head, body) = (head.clone(), body.clone());
                let outcome =
                    self.exchange_at(endpoint, request.address, method, head, body, repeatable, deadline, socket).await;
                match request.again(trial, &outcome) {
                    Some(pause) => agentlane_runtime::sleep(pause).await,
                    None => return outcome.map_err(fault_of),
                }
            }
        })
        .await
    }

    /// The address for the next message, rather not the one to `avoid`.
    pub fn address_of(&self, endpoint: &Endpoint, avoid: Option<SocketAddr>) -> Result<SocketAddr, Fault> {
        let now = agentlane_runtime::now();
        self.judgements.address(&self.metrics, endpoint, self.ticket(), avoid, now).map_err(|wait| match wait {
            Some(_) => Fault::new(Kind::UpstreamUnreachable, "target keeps failing"),
            None => Fault::new(Kind::UpstreamUnreachable, "host name does not resolve"),
        })
    }

    /// One exchange at one address, and once more where a kept connection was dead.
    #[allow(clippy::too_many_arguments, reason = "one exchange, all of it needed on the wire")]
    async fn exchange_at(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
        method: Method,
        head: Bytes,
        body: Parts,
        repeatable: bool,
        deadline: Option<Instant>,
        socket: Option<&Cell<Option<Cut>>>,
    ) -> Result<HttpAnswer, Failure> {
        let pool = endpoint.of(&self.pool, address);
        let connection = pool.connection().await.map_err(|error| (error, false))?;
        let reused = connection.is_reused();
        match attempt(connection, method, head.clone(), body.clone(), deadline, socket).await {
            Err((error, false)) if reused && error.may_retry(repeatable) => {}
            outcome => return outcome,
        }
        Box::pin(async {
            let connection = pool.new_connection().await.map_err(|error| (error, false))?;
            attempt(connection, method, head, body, deadline, socket).await
        })
        .await
    }
}

/// Why there is no answer, and whether the wait for it was ended from outside.
type Failure = (ClientError, bool);

fn fault_of((error, _): Failure) -> Fault {
    fault(error)
}

/// A message to a host that is judged, or that messages are sent to again.
struct Judging<'a> {
    shard: &'a Shard,
    endpoint: &'a Endpoint,
    judged: &'a Judged,
    address: SocketAddr,
    repeatable: bool,
    deadline: Option<Instant>,
    /// Attempts that may follow.
    left: u8,
}

impl Judging<'_> {
    /// Notes how an attempt ended. The pause before another one, whose address is then chosen, if there may be one: when
    /// nothing was sent, or when the message may be repeated.
    fn again(&mut self, trial: Option<Trial>, outcome: &Result<HttpAnswer, Failure>) -> Option<Duration> {
        let is_ended = matches!(outcome, Err((_, true)));
        let status = outcome.as_ref().map(|answer| answer.head.status).map_err(|(error, _)| error);
        if let Some(trial) = trial
            && !is_ended
        {
            trial.ended(status);
        }
        let retry = self.judged.retry.as_ref()?;
        let is_wanted = match status {
            Ok(status) => self.repeatable && retry.codes.contains(&status),
            Err(error) => self.repeatable || matches!(error.progress, Progress::NotSent),
        };
        let now = agentlane_runtime::now();
        let in_time = self.deadline.is_none_or(|deadline| now + retry.backoff < deadline);
        let host = self.shard.judgements.host(&self.shard.metrics, self.judged);
        if is_ended || !is_wanted || self.left == 0 || !in_time || !host.budget.take(now) {
            return None;
        }
        self.address = self.shard.address_of(self.endpoint, Some(self.address)).ok()?;
        self.left -= 1;
        Some(retry.backoff)
    }
}

/// An error comes with whether the wait was ended from outside.
async fn attempt(
    mut connection: ClientConnection,
    method: Method,
    head: Bytes,
    body: Parts,
    deadline: Option<Instant>,
    socket: Option<&Cell<Option<Cut>>>,
) -> Result<HttpAnswer, Failure> {
    // Without a deadline a call may take as long as its client waits; the pool's own limit is for plain HTTP.
    connection.set_response_deadline(Some(deadline.unwrap_or_else(|| agentlane_runtime::now() + CALL_TIME_MAX)));
    connection.set_body_idle(None);
    if let Some(socket) = socket {
        socket.set(connection.cut());
    }
    let outcome = match connection.send(method, head, body).await {
        Ok(()) => connection.response_head().await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(head) => Ok(HttpAnswer { head, connection }),
        // Taken out before the connection is closed.
        Err(error) => Err((error, socket.is_some_and(|socket| socket.take().is_none()))),
    }
}

/// A client error as a fault.
pub fn fault(error: ClientError) -> Fault {
    let (kind, message) = match error.status() {
        503 => (Kind::Overloaded, "too many requests to this target"),
        504 => (Kind::UpstreamTimeout, "target did not answer in time"),
        _ if matches!(error.progress, Progress::NotSent) => (Kind::UpstreamUnreachable, "target is unreachable"),
        _ => (Kind::UpstreamBroken, "connection to the target broke"),
    };
    Fault::new(kind, message).with(error)
}
