//! Both directions of one upstream socket, with what outlives a single exchange. Knows no pool.

use std::cell::Cell;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::{ClientLimits, RequestWriter, ResponseReader};
use crate::deadline::Deadlines;
use crate::h2::{StreamReader, StreamWriter};
use crate::sink::Sink;
use crate::source::Source;
use crate::transport::{Receiver, Sender, Transport};

pub(super) struct Link {
    pub(super) writer: RequestWriter,
    pub(super) reader: ResponseReader,
    /// An exchange on the socket was ended from outside: it is good for nothing more, whatever had been read by then.
    pub(super) ended: Rc<Cell<bool>>,
}

impl Link {
    pub(super) fn new(transport: Transport, limits: Rc<ClientLimits>) -> Self {
        let (read, write) = transport.into_split();
        let deadlines = Deadlines::new(Shutdown::Both);
        let writer = RequestWriter::new(Sink::new(write, deadlines.clone(), limits.write_time));
        let source = Source::new(read, deadlines, BytesMut::new());
        Link { writer, reader: ResponseReader::new(source, limits, false), ended: Rc::default() }
    }

    /// One exchange on a connection of HTTP/2. `reused`: the connection has served before.
    pub(super) fn of_stream(
        (read, write): (StreamReader, StreamWriter),
        reused: bool,
        limits: Rc<ClientLimits>,
    ) -> Self {
        let deadlines = Deadlines::separate();
        let writer = RequestWriter::new(Sink::new(Sender::Stream(write), deadlines.clone(), limits.write_time));
        let source = Source::new(Receiver::Stream(read), deadlines, BytesMut::new());
        Link { writer, reader: ResponseReader::new(source, limits, reused), ended: Rc::default() }
    }

    /// Readies the link for another exchange.
    pub(super) fn reset(&mut self) {
        self.writer.reset();
        self.reader.reset();
        self.reader.reused = true;
    }

    /// Holds no buffer while nobody uses the link.
    pub(super) fn rest(&mut self) {
        self.reader.source.rest();
    }

    pub(super) fn is_reusable(&self) -> bool {
        self.writer.is_done() && self.reader.is_reusable() && !self.ended.get()
    }

    pub(super) fn idle_hint(&self) -> Option<Duration> {
        self.reader.idle_hint
    }

    pub(super) fn socket(&self) -> &Receiver {
        &self.reader.source.half
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.writer.sink.half.leave();
    }
}
