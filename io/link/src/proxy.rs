//! One HTTP/1 exchange through this hop: request and response bodies pumped both ways at once, with back-pressure. Knows
//! no route; the heads are written by its caller.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use agentlane_runtime::{Either, Parts, now, race, sleep};
use agentlane_wire::h1::{EncodeError, Framing, HeadWriter, Method, ResponseHead};
use bytes::{Bytes, BytesMut};

use crate::buffer;
use crate::client::{
    ClientConnection, ClientError, ClientErrorKind, Endpoint, Progress, RequestWriter, ResponseReader,
};
use crate::server::{ConnError, Connection, RequestReader, ResponseWriter};
use crate::source::Taken;

/// Body pieces that one write takes: head and frame share the vector with them.
const PIECES_PER_WRITE: usize = 4;
/// How long a client that still sends after its answer is heard out.
const LINGER: Duration = Duration::from_secs(1);
/// And how much of that is read.
const LINGER_BYTES: u64 = 256 * 1024;
/// How long the answer of an attempt that is followed by another may be silent to be read to its end, and how long it may be.
const READ_OFF: Duration = Duration::from_millis(20);
const READ_OFF_BYTES: u64 = 64 * 1024;
/// How long a streamed upload may take in all; silence ends it much earlier.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// How one request is forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// The method of the request as it goes upstream.
    pub method: Method,
    /// Whether it may be sent twice when a reused connection broke unanswered (RFC 9110 9.2.2).
    pub is_repeatable: bool,
    /// When the response head must have come; the endpoint's limit when none.
    pub response_due: Option<Instant>,
    /// How long the response body may be silent; the endpoint's limit when none.
    pub body_idle: Option<Duration>,
    /// When the whole response must have come, if at all.
    pub ends_by: Option<Instant>,
}

/// Who is told how each attempt to forward a request ended, and says whether there is another.
pub trait Attempts {
    /// An attempt ended with an answer's status, which the client has not seen, or with an error. `may_repeat`: nothing was
    /// sent, or the request may be sent twice. Where another attempt is made, if one is.
    fn ended(&mut self, outcome: Result<u16, &ClientError>, may_repeat: bool) -> Option<Again>;
}

/// One attempt alone.
impl Attempts for () {
    fn ended(&mut self, _: Result<u16, &ClientError>, _: bool) -> Option<Again> {
        None
    }
}

/// Another attempt.
pub struct Again {
    /// Where.
    pub endpoint: Endpoint,
    /// After which pause.
    pub pause: Duration,
    /// When the whole answer must have come, if at all.
    pub due: Option<Instant>,
}

/// What was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The status that went to the client.
    pub status: u16,
    /// Body bytes of the response.
    pub response_bytes: u64,
    /// Times the request was tried: 2 after a retry.
    pub attempts: u16,
}

/// Whose side of an exchange failed.
#[derive(Debug)]
pub enum ForwardError {
    /// The client's.
    Downstream(ConnError),
    /// The upstream's. If the client has no response yet, answer it with [`ClientError::status`]; otherwise close its
    /// connection: `Connection::has_responded` tells.
    Upstream(ClientError),
    /// The caller's request head cannot be written.
    Encode(EncodeError),
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardError::Downstream(error) => write!(f, "downstream: {error}"),
            ForwardError::Upstream(error) => write!(f, "upstream: {error}"),
            ForwardError::Encode(error) => write!(f, "request head: {error}"),
        }
    }
}

impl std::error::Error for ForwardError {}

impl From<ConnError> for ForwardError {
    fn from(error: ConnError) -> Self {
        ForwardError::Downstream(error)
    }
}

impl From<ClientError> for ForwardError {
    fn from(error: ClientError) -> Self {
        ForwardError::Upstream(error)
    }
}

/// Forwards the request whose head was read last from `down`, and its response.
///
/// `framing` is that of the head. `request` writes the whole request head for the framing that it is given;
/// `response` writes the headers of the response, all but framing and Connection.
///
/// A request whose body has come with its head costs one write upstream and, when the response fits one read, one write
/// downstream; it is sent a second time, on a new connection, when the rules of [`ClientError::may_retry`] allow.
///
/// `attempts` is told of every one, and may ask for others, for each of which the head is written anew: of a request whose body has come with its head at any time
/// before its answer, of another one while no connection was made for it.
pub async fn forward(
    down: &mut Connection,
    endpoint: &Endpoint,
    options: Forward,
    framing: Framing,
    request: impl Fn(&mut BytesMut, Framing) -> Result<usize, EncodeError>,
    response: impl FnOnce(&ResponseHead, &mut HeadWriter<'_>),
    attempts: &mut impl Attempts,
) -> Result<Forwarded, ForwardError> {
    let encode = |framing| buffer::encode(|head| request(head, framing)).map_err(ForwardError::Encode);
    let Some(body) = down.body_buffered()? else {
        let head = || encode(framing);
        // Large, and not for the small requests that most are.
        return Box::pin(stream(down, endpoint, options, head, framing, response, attempts)).await;
    };
    let length = body.iter().map(|part| part.len() as u64).sum();
    let head = || encode(if framing == Framing::None { framing } else { Framing::Length(length) });
    let (mut up, answer, attempts) = send_buffered(endpoint, options, &head, body, attempts).await?;
    let (_, reader) = up.split()?;
    down.settle();
    let (client, writer) = down.halves();
    let response_bytes = download(reader, &answer, writer, response, pin!(client.closed())).await?;
    Ok(Forwarded { status: answer.status, response_bytes, attempts })
}

async fn connection(endpoint: &Endpoint, options: &Forward) -> Result<ClientConnection, ClientError> {
    prepare(endpoint.connection().await?, options)
}

fn prepare(mut up: ClientConnection, options: &Forward) -> Result<ClientConnection, ClientError> {
    if options.response_due.is_some() {
        up.set_response_deadline(options.response_due);
    }
    if options.body_idle.is_some() {
        up.set_body_idle(options.body_idle);
    }
    if options.ends_by.is_some() {
        up.set_end(options.ends_by);
    }
    Ok(up)
}

/// A request whose body is still on its way.
async fn stream(
    down: &mut Connection,
    endpoint: &Endpoint,
    mut options: Forward,
    head: impl Fn() -> Result<Bytes, ForwardError>,
    framing: Framing,
    response: impl FnOnce(&ResponseHead, &mut HeadWriter<'_>),
    attempts: &mut impl Attempts,
) -> Result<Forwarded, ForwardError> {
    let mut endpoint = endpoint.clone();
    let mut up = loop {
        match connection(&endpoint, &options).await {
            Ok(up) => break up,
            Err(error) => match attempts.ended(Err(&error), true) {
                Some(again) => endpoint = prepare_again(again, &mut options).await,
                None => return Err(error.into()),
            },
        }
    };
    up.start(options.method, head()?, framing)?;
    let result = stream_both(down, &mut up, &options, response).await;
    match &result {
        Ok(forwarded) => drop(attempts.ended(Ok(forwarded.status), false)),
        Err(ForwardError::Upstream(error)) => drop(attempts.ended(Err(error), false)),
        Err(_) => {}
    }
    result
}

/// Pauses before another attempt.
async fn prepare_again(again: Again, options: &mut Forward) -> Endpoint {
    sleep(again.pause).await;
    (options.response_due, options.ends_by) = (again.due, again.due);
    again.endpoint
}

/// Sends a request that is complete in memory and reads the response head, as often as `attempts` wants.
async fn send_buffered(
    endpoint: &Endpoint,
    mut options: Forward,
    head: &impl Fn() -> Result<Bytes, ForwardError>,
    body: Parts,
    attempts: &mut impl Attempts,
) -> Result<(ClientConnection, ResponseHead, u16), ForwardError> {
    let first = attempt(endpoint, &options, head()?, body.clone()).await;
    let Some(mut again) = next_of(&first, &options, attempts) else { return first.map_err(ForwardError::from) };
    Box::pin(async {
        let mut last = first;
        loop {
            let sent = match last {
                Ok((up, answer, sent)) => {
                    read_off(up, answer).await;
                    sent
                }
                Err(_) => 1,
            };
            let endpoint = prepare_again(again, &mut options).await;
            last = attempt(&endpoint, &options, head()?, body.clone())
                .await
                .map(|(up, answer, more)| (up, answer, sent.saturating_add(more)));
            match next_of(&last, &options, attempts) {
                Some(next) => again = next,
                None => return last.map_err(ForwardError::from),
            }
        }
    })
    .await
}

/// What comes after an attempt.
fn next_of(
    outcome: &Result<(ClientConnection, ResponseHead, u16), ClientError>,
    options: &Forward,
    attempts: &mut impl Attempts,
) -> Option<Again> {
    match outcome {
        Ok((_, answer, _)) => attempts.ended(Ok(answer.status), options.is_repeatable),
        Err(error) => {
            let safe = matches!(error.progress, Progress::NotSent) || options.is_repeatable;
            attempts.ended(Err(error), safe)
        }
    }
}

/// Reads an answer that nobody gets, if it is short and there, so that its connection can serve again.
async fn read_off(mut up: ClientConnection, _: ResponseHead) {
    up.set_body_idle(Some(READ_OFF));
    let _ = up.body_all(READ_OFF_BYTES).await;
}

/// Sends a request once, with the one retry on a connection that was dead.
async fn attempt(
    endpoint: &Endpoint,
    options: &Forward,
    head: Bytes,
    body: Parts,
) -> Result<(ClientConnection, ResponseHead, u16), ClientError> {
    let mut up = connection(endpoint, options).await?;
    match exchange_head(&mut up, options.method, head.clone(), body.clone()).await {
        Ok(answer) => return Ok((up, answer, 1)),
        Err(error) if up.is_reused() && error.may_retry(options.is_repeatable) => drop(up),
        Err(error) => return Err(error),
    }
    Box::pin(async {
        let mut up = prepare(endpoint.new_connection().await?, options)?;
        let answer = exchange_head(&mut up, options.method, head, body).await?;
        Ok((up, answer, 2))
    })
    .await
}

async fn exchange_head(
    up: &mut ClientConnection,
    method: Method,
    head: Bytes,
    body: Parts,
) -> Result<ResponseHead, ClientError> {
    up.send(method, head, body).await?;
    up.response_head().await
}

/// Pumps a request body up while the response, which may come early, is pumped down.
async fn stream_both(
    down: &mut Connection,
    up: &mut ClientConnection,
    options: &Forward,
    response: impl FnOnce(&ResponseHead, &mut HeadWriter<'_>),
) -> Result<Forwarded, ForwardError> {
    let (body, writer) = down.duplex().await?;
    let (request, reader) = up.split()?;
    let response_time = reader.response_time();
    if options.response_due.is_none() {
        // The time for the answer begins when the request is complete: `answer_in_time` below.
        reader.set_response_deadline(now().checked_add(UPLOAD_TIME_MAX));
    }
    let (uploaded, answered, has_head) = (Cell::new(false), Cell::new(false), Cell::new(false));
    let mut upload = pin!(async {
        upload(body, request, &answered).await?;
        uploaded.set(true);
        if answered.get() {
            return Ok(());
        }
        // From here on the client is only watched.
        body.closed().await;
        Err(client_left())
    });
    let mut download = pin!(async {
        let answer = reader.head().await?;
        has_head.set(true);
        // The other future watches the client.
        let response_bytes = download(reader, &answer, writer, response, pin!(std::future::pending())).await?;
        Ok::<_, ForwardError>(Forwarded { status: answer.status, response_bytes, attempts: 1 })
    });
    let mut answer_in_time: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
    let mut upload_error = None;
    let result = poll_fn(|cx| {
        // A client that ended its side after the request may still read a quick answer: watched from the head on.
        if upload_error.is_none() && (!uploaded.get() || has_head.get()) {
            match upload.as_mut().poll(cx) {
                // A client that broke off its body gets no answer that matters.
                Poll::Ready(Err(error @ ForwardError::Downstream(_))) => return Poll::Ready(Err(error)),
                // An upstream that stopped listening may have answered all the same.
                Poll::Ready(Err(error)) => upload_error = Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            let is_over = uploaded.get() || upload_error.is_some();
            if is_over && answer_in_time.is_none() && options.response_due.is_none() {
                answer_in_time = Some(Box::pin(sleep(response_time)));
            }
        }
        if let Poll::Ready(result) = download.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if let (Some(timer), false) = (&mut answer_in_time, has_head.get())
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(unanswered(ClientErrorKind::ResponseTimeout)));
        }
        Poll::Pending
    })
    .await;
    answered.set(true);
    if !uploaded.get() && upload_error.is_none() && result.is_ok() {
        // The client is still sending: hear it out, so that it can read its answer.
        let _ = race(upload, sleep(LINGER)).await;
    }
    match (result, upload_error) {
        // The failed write says more than the missing answer.
        (Err(ForwardError::Upstream(error)), Some(first)) if !error.is_answered() => Err(first),
        (result, _) => result,
    }
}

/// Pumps the request body. Once `answered` is set, what still comes is read for a while and thrown away.
async fn upload(from: &mut RequestReader, to: &mut RequestWriter, answered: &Cell<bool>) -> Result<(), ForwardError> {
    let mut thrown = 0;
    let mut parts = Parts::new();
    loop {
        let taken = from.take_buffered(&mut parts, PIECES_PER_WRITE)?;
        let ready = std::mem::take(&mut parts);
        if answered.get() {
            thrown += ready.iter().map(|part| part.len() as u64).sum::<u64>();
            if taken == Taken::Complete || thrown > LINGER_BYTES {
                return Ok(());
            }
            if taken == Taken::Starved {
                from.fill_body().await?;
            }
            continue;
        }
        match taken {
            Taken::Complete => return to.finish(ready).await.map_err(unanswered),
            Taken::Full => to.write(ready).await.map_err(unanswered)?,
            // The next read is in flight while this write is.
            Taken::Starved => {
                let write = async {
                    to.write(ready).await.map_err(unanswered)?;
                    to.flush().await.map_err(unanswered)
                };
                both(write, async { from.fill_body().await.map_err(ForwardError::from) }).await?;
            }
        }
    }
}

fn client_left() -> ForwardError {
    ForwardError::Downstream(ConnError::Closed(std::io::ErrorKind::ConnectionAborted))
}

fn unanswered(kind: ClientErrorKind) -> ForwardError {
    ForwardError::Upstream(ClientError { kind, progress: Progress::Unanswered { reused: false } })
}

/// Pumps the response whose head is `answer`; gives its body's bytes. While the upstream is silent, `gone` is watched: a
/// client that left would otherwise be noticed at the next byte, which may never come.
pub(crate) async fn download(
    from: &mut ResponseReader,
    answer: &ResponseHead,
    to: &mut ResponseWriter,
    response: impl FnOnce(&ResponseHead, &mut HeadWriter<'_>),
    mut gone: Pin<&mut impl Future<Output = ()>>,
) -> Result<u64, ForwardError> {
    // Where no body follows, the length that the upstream tells is passed on (HEAD, 304).
    let framing = match answer.declared_length() {
        Some(length) if answer.framing == Framing::None => Framing::Length(length),
        _ => answer.framing,
    };
    to.start(answer.status, framing, |head| response(answer, head))?;
    let mut parts = Parts::new();
    let mut bytes = 0;
    loop {
        let taken = from.take_buffered(&mut parts, PIECES_PER_WRITE)?;
        let ready = std::mem::take(&mut parts);
        bytes += ready.iter().map(|part| part.len() as u64).sum::<u64>();
        match taken {
            Taken::Complete => {
                to.finish(ready).await?;
                return Ok(bytes);
            }
            Taken::Full => to.write(ready).await?,
            Taken::Starved => {
                // A head without a byte of body goes out now: the first event may be long in coming.
                let write = async {
                    to.write(ready).await?;
                    to.flush().await.map_err(ForwardError::from)
                };
                let exchange = both(write, async { from.fill_body().await.map_err(ForwardError::from) });
                match race(exchange, gone.as_mut()).await {
                    Either::Left(result) => result?,
                    Either::Right(()) => return Err(client_left()),
                }
            }
        }
    }
}

/// Runs a write and a read to their ends, unless the write fails. A failed read waits for the write.
async fn both<E>(
    write: impl Future<Output = Result<(), E>>,
    read: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let mut write = pin!(write);
    let mut read = pin!(read);
    let (mut written, mut received) = (false, None);
    poll_fn(|cx| {
        if !written {
            match write.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => written = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if received.is_none()
            && let Poll::Ready(result) = read.as_mut().poll(cx)
        {
            received = Some(result);
        }
        match received.take() {
            Some(result) if written => Poll::Ready(result),
            result => {
                received = result;
                Poll::Pending
            }
        }
    })
    .await
}
