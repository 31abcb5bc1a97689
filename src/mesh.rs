//! Every message that may cross a core: one enum per direction. Channels are bounded, messages that someone waits for
//! carry a deadline, and a shard that works for a peer never asks a third one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use agentlane_link::Detached;
use agentlane_runtime::channel::{Receiver, Sender};
use agentlane_wire::h1::RequestHead;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::backend::lock::TargetLock;
use crate::backend::mcp::{McpBackend, StdioTarget};
use crate::policy::rules::access::Access;
use crate::principal::Principal;
use crate::protocol::mcp::cache::{Audience, Viewer};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::listing::Listing;
use crate::protocol::mcp::lock::definition::{Hash, Kind};
use crate::protocol::mcp::method::ListKind;
use crate::protocol::mcp::modern::listen::List;
use crate::request::{HeaderEdits, TlsClient};
use crate::session::ChildPort;
use crate::session::board::Board;
use crate::snapshot::Snapshot;

/// What a shard is told by control or by another shard.
pub enum ToShard {
    /// Control: use this configuration from now on.
    Publish { snapshot: Arc<Snapshot>, done: Sender<Result<(), String>> },
    /// Control: accept nothing new, end what is idle, and say when nothing is left.
    Drain { done: Sender<()> },
    /// Control: end every session, and the shard.
    Stop,
    /// A connection whose session lives here, at a message boundary.
    Connection(Box<MovedConnection>),
    /// A request whose session lives here, on a connection that stays where it is.
    Request(Box<ForwardedRequest>),
    /// A client that the process itself brings.
    Client(Box<LocalClient>),
    /// The process itself asks what the targets of a backend, by its place, offer.
    Survey { backend: usize, reply: Sender<Vec<Surveyed>> },
    /// A list has changed for a caller that may listen here.
    Overheard(Overheard),
    /// A session of another shard wants the shared child that this shard owns.
    SharedChild { backend: String, target: String, reply: Sender<Result<SharedChild, &'static str>> },
    /// A shard wants a caller's child of 2026-07-28 that this shard owns; `None`: the target does not speak that.
    CallersChild {
        backend: String,
        target: String,
        caller: Caller,
        reply: Sender<Result<Option<SharedChild>, &'static str>>,
    },
    /// A shard is about to ask a target for a list that others may have: to its owner.
    ListWanted(Box<ListWanted>),
    /// What came of a list that a shard fetched: to its owner.
    ListFetched(Box<ListFetched>),
    /// A target has told a shard that lists have changed.
    ListsChanged(Box<ListsChanged>),
    /// A target has told a shard that resources have changed.
    ReadsChanged(Box<ReadsChanged>),
}

/// A target's list by a name that every shard understands.
#[derive(Clone)]
pub struct ListName {
    pub backend: Arc<McpBackend>,
    /// The target's place in it.
    pub place: usize,
    pub kind: ListKind,
    /// Who asks.
    pub viewer: Viewer,
    /// Whom the list is expected to be for.
    pub audience: Audience,
}

/// Asks for a list. No answer in time is as good as `None`.
pub struct ListWanted {
    pub list: ListName,
    /// One that was begun earlier will not do.
    pub after: Instant,
    /// `None`: fetch it yourself, and tell.
    pub reply: Sender<Option<SharedList>>,
}

/// Tells of a list; `None`: it did not come.
pub struct ListFetched {
    pub list: ListName,
    pub outcome: Option<SharedList>,
}

/// A list that came.
#[derive(Clone)]
pub struct SharedList {
    pub listing: Arc<Listing>,
    /// Whom it is really for.
    pub audience: Audience,
    /// When it was asked for.
    pub begun: Instant,
    pub fresh_until: Instant,
}

/// Lists of one target that changed, by their kinds.
pub struct ListsChanged {
    pub backend: Arc<McpBackend>,
    /// The target's place in it.
    pub place: usize,
    /// When the shard was told, for each kind.
    pub at: [Instant; 4],
}

/// Resources of one target that changed.
pub struct ReadsChanged {
    pub backend: Arc<McpBackend>,
    /// The target's place in it.
    pub place: usize,
    /// By the target's own names.
    pub uris: Arc<[Arc<str>]>,
    /// When the shard had been told of all.
    pub at: Instant,
}

/// A target's word to one of a caller's conversations, for those of its listeners that are elsewhere.
#[derive(Clone)]
pub struct Overheard {
    pub backend: Arc<str>,
    pub target: Arc<str>,
    pub caller: Caller,
    pub list: List,
}

/// A connection on its way to another shard.
pub struct MovedConnection {
    pub socket: Detached,
    /// What was read and not served yet, the head of the request included.
    pub read_ahead: Bytes,
    /// The bind that accepted it.
    pub bind: SocketAddr,
    pub peer: Option<SocketAddr>,
    pub tls: Option<Arc<TlsClient>>,
}

/// A request on its way to the shard of its session.
pub struct ForwardedRequest {
    pub head: RequestHead,
    pub body: Bytes,
    pub backend: Arc<McpBackend>,
    /// Who it is from, as its route's policies found on the shard of the connection.
    pub principal: Principal,
    /// What it may use.
    pub access: Access,
    /// What those policies change of its headers.
    pub edits: HeaderEdits,
    /// For the records: the client's address and certificate, and the place of the route in which version of the
    /// configuration.
    pub peer: Option<SocketAddr>,
    pub tls: Option<Arc<TlsClient>>,
    pub route: Option<usize>,
    pub version: u64,
    pub deadline: Instant,
    pub reply: Sender<ReplyPart>,
}

/// A client without a connection: its messages one by one, and the way for ours.
pub struct LocalClient {
    /// The key of the MCP backend that it is for.
    pub backend: String,
    /// Ends with the client.
    pub incoming: Receiver<Result<Bytes, TooLong>>,
    pub outgoing: Sender<Bytes>,
    /// Told to end it before it ends itself.
    pub stop: Receiver<()>,
    /// Told, and dropped, when all is over.
    pub ended: Sender<()>,
}

/// What a target offers, or why it is not known.
pub struct Surveyed {
    pub target: String,
    pub outcome: Result<Vec<SurveyedItem>, String>,
}

pub struct SurveyedItem {
    pub kind: Kind,
    /// JSON of a listed item; of instructions, the text itself.
    pub text: String,
    /// Another era shows it otherwise.
    pub variant: bool,
}

/// In the place of a message that is longer than may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// The answer to a forwarded request, in order.
pub enum ReplyPart {
    /// A whole answer.
    Whole {
        status: u16,
        headers: ReplyHeaders,
        body: Bytes,
    },
    /// The head of a streamed answer; `length` where it is known.
    Head {
        status: u16,
        headers: ReplyHeaders,
        length: Option<u64>,
    },
    Data(Bytes),
    End,
}

/// Headers of an answer made by the gateway. Names are lower case.
pub type ReplyHeaders = SmallVec<[(Bytes, Bytes); 6]>;

/// A running child, as the shard that owns it hands it to others.
#[derive(Clone)]
pub struct SharedChild {
    pub port: ChildPort,
    /// The `result` of its `initialize`, or of `server/discover` where it is spoken to in 2026-07-28.
    pub initialize_result: Bytes,
    pub modern: bool,
}

/// What shards ask of control: children, and verdicts. Everything else goes over channels of its own kind.
pub enum ToControl {
    Spawn(Box<SpawnRequest>),
    /// What a target shows, to be judged before a client sees it.
    Judge(Box<JudgeRequest>),
}

/// Asks for a child.
pub struct SpawnRequest {
    pub target: String,
    pub spec: StdioTarget,
    pub reply: Sender<Result<SpawnedChild, String>>,
}

/// Asks for verdicts. A request that cannot be served is dropped, with its reply.
pub struct JudgeRequest {
    pub lock: Arc<TargetLock>,
    pub subject: Subject,
    pub reply: Sender<Judged>,
}

/// What is judged.
pub enum Subject {
    List(Kind, Arc<Listing>),
    Instructions(String),
}

/// What came of it; the verdicts themselves are in the lock.
#[derive(Debug)]
pub struct Judged {
    /// Names that must not be shown.
    pub hidden: HashSet<Box<str>>,
    /// Says which list it was of.
    pub digest: Hash,
}

/// A child that runs.
pub struct SpawnedChild {
    pub target: String,
    pub pid: u32,
    /// Its stdin and stdout.
    pub io: OwnedFd,
    pub lease: Box<dyn Lease>,
    /// What its standard error is written beside.
    pub board: Arc<Board>,
}

/// Holds a child alive. Dropped, it ends the child and its process group, politely first.
pub trait Lease: Send {
    /// Ends it at once.
    fn kill(self: Box<Self>);
}

/// The senders to every shard, in order.
pub type Peers = Arc<[Sender<ToShard>]>;
/// A shard's inbox.
pub type Inbox = Receiver<ToShard>;
