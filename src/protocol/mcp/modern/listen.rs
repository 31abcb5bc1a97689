//! `subscriptions/listen` of 2026-07-28 and what it rides on: what a listener asks for ([`filter`]), the messages of such
//! a stream ([`messages`]), what one reader has yet to be told ([`outbox`]), and one target's changes shared by everybody
//! who wants to hear of them ([`source`]). Pure: no sockets, no clocks.

pub mod filter;
pub mod messages;
pub mod outbox;
pub mod source;

pub use filter::{Change, Filter, List, Lists, Uri};
pub use outbox::{Next, Outbox};
pub use source::{Command, ListenerId, Source, Standing, StreamId, Unheard, Waits};
