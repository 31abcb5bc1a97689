//! The tool lock: what a target's tools, prompts, templates and instructions looked like when a person approved them, how
//! they differ now, and what in them is suspicious. Pure: texts come in, verdicts go out. Nothing here is done on the way of
//! a call, which only looks a finished verdict up ([`verdict`]).

pub mod definition;
pub mod diff;
pub mod drift;
pub mod file;
pub mod json;
pub mod scan;
pub mod verdict;
