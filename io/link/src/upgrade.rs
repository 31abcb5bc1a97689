//! A connection that turns into another protocol (RFC 9110, 7.8): the request goes up, 101 comes down, and from then on bytes
//! are pumped both ways, unseen, until either side ends or both are silent for too long.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use agentlane_runtime::{Either, Parts, now, race, sleep_until};
use agentlane_wire::h1::{HeadWriter, Method, ResponseHead};
use bytes::Bytes;

use crate::client::{ClientConnection, Endpoint};
use crate::proxy::{ForwardError, Forwarded, download};
use crate::server::Connection;
use crate::sink::Sink;
use crate::source::Source;

/// How long the one direction may go on when the other has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// What came of the request.
pub enum Opened {
    /// Both sides speak the other protocol now.
    Switched(Box<ClientConnection>),
    /// The upstream would not; its answer went to the client.
    Answered(Forwarded),
}

/// Sends a GET that asks for another protocol; `head` is all of it. `due`: when its answer must have come. `response` writes
/// the answer's headers; those of 101 must name the protocol.
///
/// # Errors
/// As with [`forward`](crate::proxy::forward).
pub async fn open(
    down: &mut Connection,
    endpoint: &Endpoint,
    due: Option<Instant>,
    head: Bytes,
    response: impl FnOnce(&ResponseHead, &mut HeadWriter<'_>),
) -> Result<Opened, ForwardError> {
    let mut up = endpoint.new_connection().await?;
    if due.is_some() {
        up.set_response_deadline(due);
    }
    up.expect_upgrade();
    up.send(Method::Get, head, Parts::new()).await?;
    let answer = up.response_head().await?;
    if answer.status == 101 {
        down.switch(|out| response(&answer, out)).await?;
        return Ok(Opened::Switched(Box::new(up)));
    }
    let (_, reader) = up.split()?;
    down.settle();
    let (client, writer) = down.halves();
    let response_bytes = download(reader, &answer, writer, response, pin!(client.closed())).await?;
    Ok(Opened::Answered(Forwarded { status: answer.status, response_bytes, attempts: 1 }))
}

/// Pumps what was opened to its end; gives the bytes from the client and to it. A drain waits for it.
pub async fn pump(mut down: Connection, mut up: Box<ClientConnection>, idle: Duration) -> (u64, u64) {
    let (to_up, to_down) = (Cell::new(0), Cell::new(0));
    let last = Cell::new(now());
    if let Some((up_source, up_sink)) = up.halves() {
        let (down_source, down_sink) = down.raw_halves();
        let mut upward = pin!(one_way(down_source, up_sink, &to_up, &last));
        let mut downward = pin!(one_way(up_source, down_sink, &to_down, &last));
        let both = async {
            // A side that has ended may still be told the rest; one that failed may not.
            match race(upward.as_mut(), downward.as_mut()).await {
                Either::Left(Ok(())) => drop(race(downward.as_mut(), sleep_until(now() + FAREWELL)).await),
                Either::Right(Ok(())) => drop(race(upward.as_mut(), sleep_until(now() + FAREWELL)).await),
                Either::Left(Err(_)) | Either::Right(Err(_)) => {}
            }
        };
        let _ = race(pin!(both), pin!(silence(&last, idle))).await;
    }
    (to_up.get(), to_down.get())
}

/// Ends when nothing has come for so long.
async fn silence(last: &Cell<Instant>, idle: Duration) {
    loop {
        let Some(until) = last.get().checked_add(idle) else { return pending().await };
        if now() >= until {
            return;
        }
        sleep_until(until).await;
    }
}

/// Everything from one side to the other, and the end as well.
async fn one_way(from: &mut Source, to: &mut Sink, count: &Cell<u64>, last: &Cell<Instant>) -> io::Result<()> {
    loop {
        let ready = from.buf.split().freeze();
        if !ready.is_empty() {
            count.set(count.get() + ready.len() as u64);
            to.write(Parts::from_iter([ready])).await?;
            last.set(now());
            continue;
        }
        // Silent for long, most of the time: no buffer is held meanwhile.
        from.readable(None).await?;
        if from.fill(None, 0).await? == 0 {
            to.end(true).await;
            return Ok(());
        }
        last.set(now());
    }
}
