//! The listen streams (2026-07-28) of a scripted server, in the test's hands.

use std::io::Read;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use serde_json::{Value, json};

use super::eventually;
use super::mcp_server::{Act, Seen, begin_events, event};

pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// All listens that a server has been asked for, in their order.
#[derive(Clone, Default)]
pub struct Listens(Arc<Mutex<Vec<Listen>>>);

/// One of them.
#[derive(Clone)]
pub struct Listen(Arc<State>);

struct State {
    id: Value,
    filter: Value,
    sender: Mutex<mpsc::Sender<Say>>,
    closed: AtomicBool,
}

enum Say {
    Message(Value),
    /// The last message.
    End(Value),
    Cut,
}

impl Listens {
    /// What a server does that grants changes of tools, and of every resource that is no secret.
    pub fn act(&self, seen: &Seen) -> Act {
        self.granting(seen, |_| true)
    }

    /// The same with the resources in the test's hands as well.
    pub fn granting(&self, seen: &Seen, grants: impl Fn(&str) -> bool) -> Act {
        if seen.method() != "subscriptions/listen" {
            return Act::Well;
        }
        let filter = seen.message["params"]["notifications"].clone();
        let mut granted = json!({});
        if filter["toolsListChanged"] == true {
            granted["toolsListChanged"] = true.into();
        }
        let uris = filter["resourceSubscriptions"].as_array().into_iter().flatten();
        let uris: Vec<&Value> =
            uris.filter(|uri| uri.as_str().is_some_and(|uri| !uri.ends_with("secret") && grants(uri))).collect();
        if !uris.is_empty() {
            granted["resourceSubscriptions"] = json!(uris);
        }
        let (sender, receiver) = mpsc::channel();
        let state = State { id: seen.id().clone(), filter, sender: Mutex::new(sender), closed: AtomicBool::new(false) };
        let listen = Listen(Arc::new(state));
        let opened = listen.clone();
        let all = self.clone();
        Act::Own(Box::new(move |peer| {
            let acknowledged = notification(
                &opened.0.id,
                "notifications/subscriptions/acknowledged",
                json!({ "notifications": granted }),
            );
            peer.send(begin_events() + &event(&acknowledged));
            all.0.lock().expect("no panic in between").push(opened.clone());
            let mut reader = peer.stream().try_clone().expect("a descriptor");
            let watched = opened.clone();
            std::thread::spawn(move || {
                let mut rest = Vec::new();
                let _ = reader.read_to_end(&mut rest);
                watched.0.closed.store(true, Ordering::SeqCst);
                let _ = watched.0.sender.lock().map(|sender| sender.send(Say::Cut));
            });
            while let Ok(say) = receiver.recv() {
                match say {
                    Say::Message(message) if peer.try_send(event(&message)).is_ok() => {}
                    Say::End(message) => {
                        let _ = peer.try_send(event(&message) + "0\r\n\r\n");
                        break;
                    }
                    Say::Message(_) | Say::Cut => break,
                }
            }
            let _ = peer.stream().shutdown(Shutdown::Both);
        }))
    }

    /// How many have been acknowledged.
    pub fn count(&self) -> usize {
        self.0.lock().expect("no panic in between").len()
    }

    /// Waits for one, from 0.
    #[track_caller]
    pub fn nth(&self, place: usize) -> Listen {
        eventually("a listen was opened", || self.count() > place);
        self.0.lock().expect("no panic in between")[place].clone()
    }
}

impl Listen {
    pub fn filter(&self) -> &Value {
        &self.0.filter
    }

    /// Tells a change.
    pub fn tell(&self, method: &str, uri: Option<&str>) {
        let params = uri.map_or_else(|| json!({}), |uri| json!({ "uri": uri }));
        self.say(Say::Message(notification(&self.0.id, method, params)));
    }

    /// Ends it in good order.
    pub fn end(&self) {
        let result = json!({ "resultType": "complete", "_meta": { SUBSCRIPTION_ID: self.0.id } });
        self.say(Say::End(json!({ "jsonrpc": "2.0", "id": self.0.id, "result": result })));
    }

    /// Breaks its connection.
    pub fn cut(&self) {
        self.say(Say::Cut);
    }

    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    #[track_caller]
    pub fn await_closed(&self) {
        eventually("a listen was closed", || self.is_closed());
    }

    fn say(&self, say: Say) {
        self.0.sender.lock().expect("no panic in between").send(say).expect("an open listen");
    }
}

fn notification(id: &Value, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({ SUBSCRIPTION_ID: id });
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

/// What a server with sessions tells unasked, in the test's hands: its GET streams, and who is subscribed to what.
#[derive(Clone, Default)]
pub struct Pushes(Arc<Mutex<Vec<Push>>>);

/// One of its streams.
#[derive(Clone)]
pub struct Push {
    sender: mpsc::Sender<Say>,
    closed: Arc<AtomicBool>,
}

impl Pushes {
    /// What a server does that tells changes of its tools, and of every resource that is no secret.
    pub fn act(&self, seen: &Seen) -> Act {
        match (seen.verb.as_str(), seen.method()) {
            ("GET", _) => self.stream(),
            (_, "initialize") => {
                let answer = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": {
                    "protocolVersion": seen.message["params"]["protocolVersion"],
                    "capabilities": { "tools": { "listChanged": true }, "resources": { "subscribe": true } },
                    "serverInfo": { "name": "old", "version": "1" },
                } });
                let headers = [("content-type", "application/json"), ("mcp-session-id", "the-one")];
                Act::Bytes(super::upstream::reply(200, &headers, answer.to_string()))
            }
            (_, "resources/subscribe")
                if seen.message["params"]["uri"].as_str().is_some_and(|uri| uri.ends_with("secret")) =>
            {
                Act::Error(-32602, "no such resource")
            }
            (_, "resources/subscribe" | "resources/unsubscribe") => Act::Result(json!({})),
            _ => Act::Well,
        }
    }

    fn stream(&self) -> Act {
        let all = self.clone();
        Act::Own(Box::new(move |peer| {
            let (sender, receiver) = mpsc::channel();
            let push = Push { sender, closed: Arc::default() };
            peer.send(begin_events());
            all.0.lock().expect("no panic in between").push(push.clone());
            let mut reader = peer.stream().try_clone().expect("a descriptor");
            std::thread::spawn(move || {
                let mut rest = Vec::new();
                let _ = reader.read_to_end(&mut rest);
                push.closed.store(true, Ordering::SeqCst);
                let _ = push.sender.send(Say::Cut);
            });
            while let Ok(Say::Message(message)) = receiver.recv() {
                if peer.try_send(event(&message)).is_err() {
                    break;
                }
            }
            let _ = peer.stream().shutdown(Shutdown::Both);
        }))
    }

    /// Waits for a stream, from 0.
    #[track_caller]
    pub fn nth(&self, place: usize) -> Push {
        eventually("a stream was opened", || self.count() > place);
        self.0.lock().expect("no panic in between")[place].clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().expect("no panic in between").len()
    }

    /// Tells a change to every session that has a stream.
    pub fn tell(&self, method: &str, uri: Option<&str>) {
        let all = self.0.lock().expect("no panic in between").clone();
        all.iter().filter(|push| !push.closed.load(Ordering::SeqCst)).for_each(|push| push.tell(method, uri));
    }
}

impl Push {
    /// Sends a notification, or whatever else the server may say unasked.
    pub fn send(&self, message: Value) {
        self.sender.send(Say::Message(message)).expect("an open stream");
    }

    pub fn tell(&self, method: &str, uri: Option<&str>) {
        let params = uri.map_or_else(|| json!({}), |uri| json!({ "uri": uri }));
        self.send(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Breaks its connection.
    pub fn cut(&self) {
        self.sender.send(Say::Cut).expect("an open stream");
    }

    #[track_caller]
    pub fn await_closed(&self) {
        eventually("a stream was closed", || self.closed.load(Ordering::SeqCst));
    }
}
