//! What only the inside of a connection shows: the memory of an idle one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use agentlane_runtime::{Driver, Parts, ShardOptions, Stream, block_on, sleep, spawn};

use super::{Connection, ServerLimits};
use crate::drain::Drain;

#[test]
fn an_idle_connection_holds_no_buffer() {
    let shard = ShardOptions { ring_entries: 256, ..ShardOptions::default() };
    let ran = block_on(Driver::Epoll, &shard, || async {
        let (ours, theirs) = Stream::pair().unwrap();
        let drain = Drain::new();
        let mut connection = Connection::new(ours, Rc::new(ServerLimits::default()), &drain);
        let client = std::thread::spawn(move || {
            let mut client = UnixStream::from(theirs);
            // Quick at first, then slower than the grace: from the next wait on the buffer is given back.
            for pause_ms in [0, 0, 0, 200] {
                std::thread::sleep(Duration::from_millis(pause_ms));
                client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                assert!(client.read(&mut [0; 1024]).unwrap() > 0);
            }
            assert_eq!(client.read(&mut [0; 1024]).unwrap(), 0);
        });
        for _ in 0..4 {
            assert!(connection.head().await.unwrap().is_some());
            connection.respond(200, |_| (), Parts::new()).await.unwrap();
        }
        spawn(async move {
            sleep(Duration::from_millis(50)).await;
            drain.start();
        });
        assert!(connection.head().await.unwrap().is_none());
        assert_eq!(connection.reader.source.buf.capacity(), 0);
        connection.close().await;
        client.join().unwrap();
    });
    ran.unwrap();
}
