//! Every bound that is not a config key, by name. It owns numbers only; whoever enforces one says what happens at it.

use std::time::Duration;

/// Waits of one request for what its policies need to know, and how long they may take in all; then they decide without.
pub const ADMISSION_WAITS_MAX: usize = 3;
/// See [`ADMISSION_WAITS_MAX`].
pub const ADMISSION_TIME: Duration = Duration::from_secs(5);
/// Requests that wait for one document of another server to be looked at again; one above it does not wait.
pub const REMOTE_ASKERS_MAX: usize = 256;
/// Bytes of such a document; a longer one is not taken.
pub const REMOTE_BYTES_MAX: usize = 1024 * 1024;
/// Verified tokens that one shard knows, and their bytes; those that were not used lately leave.
pub const TOKENS_KEPT_MAX: usize = 8_192;
/// See [`TOKENS_KEPT_MAX`].
pub const TOKENS_KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Checked passwords that one shard knows; those that were not used lately leave.
pub const PASSWORDS_KEPT_MAX: usize = 4_096;
/// Passwords that wait to be checked; for one more the answer is 503.
pub const PASSWORD_CHECKS_MAX: usize = 64;
/// Requests of one session that wait for an answer; one above it is answered with a JSON-RPC error.
pub const SESSION_IN_FLIGHT_MAX: usize = 512;
/// Requests from servers that wait for the client's answer, per session; one above it is refused upstream.
pub const SESSION_SERVER_REQUESTS_MAX: usize = 256;
/// Resources that a session is subscribed to; one above it is refused.
pub const SESSION_SUBSCRIPTIONS_MAX: usize = 1_024;
/// Events kept for `Last-Event-ID` per stream, and their bytes; the oldest leaves first.
pub const STREAM_EVENTS_MAX: usize = 256;
/// See [`STREAM_EVENTS_MAX`].
pub const STREAM_BYTES_MAX: usize = 256 * 1024;
/// Ended streams that one session remembers; the oldest leaves first.
pub const SESSION_STREAMS_MAX: usize = 32;
/// One message of a target: an SSE event, a JSON answer that must be read whole, or a line of a child.
pub const UPSTREAM_MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Pages that are followed in one list of one target.
pub const LIST_PAGES_MAX: usize = 1_000;
/// Bytes of one target's whole list.
pub const LIST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Lists of targets that one shard keeps, and their bytes; the oldest leave first, and one of more than half is not kept.
pub const LIST_CACHE_ENTRIES_MAX: usize = 8_192;
/// See [`LIST_CACHE_ENTRIES_MAX`].
pub const LIST_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Resources of targets that one shard keeps, and their bytes; the oldest leave first, and one of more than half is not kept.
pub const READ_CACHE_ENTRIES_MAX: usize = 8_192;
/// See [`READ_CACHE_ENTRIES_MAX`].
pub const READ_CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Resources of one target on their way to a shard that others may wait for; beyond it none waits.
pub const READ_FLIGHTS_MAX: usize = 1_024;
/// Resources of one target whose last change a shard remembers; beyond it all of them count as changed.
pub const READ_UPDATES_MAX: usize = 1_024;
/// First pages of merged lists that one shard keeps, and their bytes; the oldest leave first.
pub const PAGE_CACHE_ENTRIES_MAX: usize = 4_096;
/// See [`PAGE_CACHE_ENTRIES_MAX`].
pub const PAGE_CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Lists of one target that are on their way to one shard; for more the target counts as too slow.
pub const LIST_FLIGHTS_MAX: usize = 16_384;
/// Requests that one list on its way tells when it comes later than they waited; more are not told.
pub const LIST_LATECOMERS_MAX: usize = 4_096;
/// A list that is late is waited for this many deadlines, for those that were answered without it.
pub const LIST_LATE_DEADLINES: u32 = 4;
/// Elements of one JSON-RPC batch (2025-03-26).
pub const BATCH_MAX: usize = 100;
/// Messages waiting in one shard's inbox; a sender above it answers its request with 503.
pub const MESH_DEPTH: usize = 1_024;
/// Parts of a forwarded answer that wait for the shard that holds the connection.
pub const MESH_REPLY_DEPTH: usize = 16;
/// Messages waiting to be written to one child.
pub const CHILD_QUEUE: usize = 1_024;
/// Subscriptions that are remembered of one child, to know that it must not be ended for idling.
pub const CHILD_SUBSCRIPTIONS_MAX: usize = 1_024;
/// Requests that wait for one child before those that nobody waits for any more are looked for.
pub const CHILD_WAITING_TIDY: usize = 64;
/// Messages from one target that wait for the task that relays them.
pub const RELAY_QUEUE: usize = 256;
/// The URI in the `endpoint` event of a server of 2024-11-05.
pub const ENDPOINT_BYTES_MAX: usize = 4 * 1024;
/// How long a target whose transport is not known may take to name its endpoint.
pub const ENDPOINT_TIME: Duration = Duration::from_secs(3);
/// How long a target is taken for one of the transport of 2024-11-05 before it is asked again.
pub const OLD_TRANSPORT_TIME: Duration = Duration::from_secs(600);
/// Messages on their way to one server of 2024-11-05, each a POST; the next ones wait in the queue.
pub const SSE_POSTS_MAX: usize = 64;
/// How long such a POST may hold up the next one.
pub const SSE_POST_PATIENCE: Duration = Duration::from_millis(250);
/// How long such a POST may take.
pub const SSE_POST_TIME: Duration = Duration::from_secs(30);
/// Messages that wait for a client whose messages all go one way, and their bytes; whoever has more to say waits.
pub const OUTBOX_MESSAGES_MAX: usize = 256;
/// See [`OUTBOX_MESSAGES_MAX`].
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;
/// How long a client of 2024-11-05 may take from its stream to `initialize`.
pub const OLD_CLIENT_BEGIN_TIME: Duration = Duration::from_secs(60);
/// One message of a client on standard input; a longer one is answered with an error.
pub const STDIO_LINE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Messages between `connect`'s standard streams and its shard, each way.
pub const CONNECT_LINES: usize = 256;
/// How long what was asked may take after the end of `connect`'s standard input.
pub const CONNECT_END_GRACE: Duration = Duration::from_secs(1);
/// How long `connect` may take to end its session after a signal.
pub const CONNECT_STOP_TIME: Duration = Duration::from_secs(3);
/// How long a client may take from connecting to the end of its TLS handshake.
pub const TLS_HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a client's PROXY header may take from connecting to its last byte.
pub const PROXY_HEADER_TIME: Duration = Duration::from_secs(5);
/// TLS handshakes of clients and PROXY headers that a shard has begun and not finished; one above it ends the oldest.
pub const TLS_HANDSHAKES_MAX: usize = 1_024;
/// How long a forwarded or moved request may wait in an inbox.
pub const MESH_DEADLINE: Duration = Duration::from_secs(5);
/// How often a shard that waits on a forwarded request's behalf looks whether its client is still there.
pub const MESH_WATCH_EVERY: Duration = Duration::from_millis(100);
/// How long a plain HTTP backend may think about an answer, where no policy says.
pub const RESPONSE_TIME: Duration = Duration::from_secs(300);
/// SSE comments keep idle streams open through middleboxes.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// How long the pieces behind an ended session may take to end.
pub const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);
/// Retries of one route that a shard may make whatever the load: so many at once, and one each second; see `backend/retry.rs`.
pub const RETRY_RESERVE: u32 = 10;
/// Retries that the requests of a route may earn on one shard.
pub const RETRY_RESERVE_MAX: u32 = 100;
/// Attempts to resume one upstream stream that closed early.
pub const RESUME_ATTEMPTS_MAX: u32 = 8;
/// Tools of one target that need remembering (see `protocol/mcp/modern/tools.rs`); more are called as if they were plain.
pub const TARGET_TOOLS_MAX: usize = 10_000;
/// Callers of whom is known how a target's tools are called; the one known for longest leaves.
pub const SCHEMA_CALLERS_MAX: usize = 1_024;
/// Rounds of questions that a target of 2026-07-28 may ask the client within one request; then the request fails.
pub const INPUT_ROUNDS_MAX: u32 = 10;
/// How long a person may take to answer them; then forms count as dismissed, and whatever else was asked fails the request.
pub const INPUT_TIME: Duration = Duration::from_secs(600);
/// Questions of one round; more fail the request.
pub const INPUT_REQUESTS_MAX: usize = 32;
/// Sessions that one shard has with targets on behalf of clients without sessions; a request above it is answered 503.
pub const LEASES_MAX: usize = 4_096;
/// Those of one caller; all clients without credentials are one.
pub const LEASES_PER_CALLER_MAX: usize = 1_024;
/// Children of 2026-07-28 of callers that one shard starts or knows of; a request that needs one more is answered 503.
pub const CALLERS_CHILDREN_MAX: usize = 4_096;
/// How long a target may think about a first request of 2026-07-28 before it is asked for sessions as well.
pub const PROBE_ALONE: Duration = Duration::from_millis(500);
/// How long it may go on to when it has answered that.
pub const PROBE_GRACE: Duration = Duration::from_millis(500);
/// Processes of one caller at one target that are started without waiting for one that gets free.
pub const CREW_FEW: usize = 4;
/// Those in use at once; a call that needs one more waits, at most for the endpoint's `deadline`.
pub const CREW_MAX: usize = 64;
/// Those above [`CREW_FEW`] that are being started at the same time.
pub const CREW_STARTING: usize = 2;
/// How long a call waits for a process that gets free before another one is started.
pub const CREW_PATIENCE: Duration = Duration::from_millis(500);
/// Calls that wait for one; one more is answered 503.
pub const CREW_WAITING_MAX: usize = 1_024;
/// How long such a session stays open after its last request, if the endpoint's sessions may idle so long.
pub const LEASE_IDLE: Duration = Duration::from_secs(60);
/// How long the first question of a target waits for others, so that the client is asked for all at once.
pub const COLLECT_TIME: Duration = Duration::from_millis(40);
/// How long a request to a target of 2026-07-28 may take before it is watched whether its client is still there.
pub const WATCH_AFTER: Duration = Duration::from_millis(100);
/// Resources that one listen (2026-07-28) may name; one more is refused with invalid params.
pub const LISTEN_URIS_MAX: usize = 256;
/// Listens that one shard serves at once; one more is refused.
pub const LISTENS_MAX: usize = 8_192;
/// Callers that one shard listens for at once, each with conversations of their own; one more is refused.
pub const CIRCLES_MAX: usize = 4_096;
/// Listens of one caller on one shard, and of all callers without credentials together; one more is refused.
pub const LISTENS_PER_CALLER_MAX: usize = 1_024;
/// Resources subscribed to at one target for all listeners of one caller; one more is not granted.
pub const SOURCE_URIS_MAX: usize = 4_096;
/// Updated resources that one reader has yet to be told of; what comes above it is dropped and counted.
pub const UPDATES_PENDING_MAX: usize = 1_024;
/// Buckets that one rate limit with a `key` has; those that are full leave first, then those that were asked longest ago.
pub const RATE_KEYS_MAX: usize = 65_536;
/// Lists that wait to be judged by the tool lock; one more is not shown.
pub const JUDGE_QUEUE: usize = 256;
/// One item of a list that the tool lock looks at, in bytes; a longer one counts as unreadable.
pub const LOCK_ITEM_BYTES_MAX: usize = 256 * 1024;
/// What the tool lock looks at of one list, in bytes; what comes after it counts as unreadable.
pub const LOCK_LIST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Texts that the tool lock remembers to have scanned, and rows of its table per target; more begin anew.
pub const LOCK_TEXTS_MAX: usize = 16_384;
