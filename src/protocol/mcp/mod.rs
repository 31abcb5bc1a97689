//! The Model Context Protocol as a gateway sees it: revisions, names, merging, and the state of a session. Raw JSON stays
//! raw: only what must be read is read, and only what must change is spliced.

pub mod apps;
pub mod cache;
pub mod caller;
pub mod catalogue;
pub mod content;
pub mod error;
pub mod federate;
pub mod listing;
pub mod lock;
pub mod merge;
pub mod method;
pub mod modern;
pub mod names;
pub mod revision;
pub mod seal;
pub mod sse2024;
pub mod streams;
pub mod tasks;
pub mod vigil;
