//! What the facade promises, run on every driver: one table of promises per file, three tests per promise. A driver that
//! this host cannot run fails its tests; none is skipped.

mod channels;
mod deadlines;
mod fairness;
mod listeners;
mod selection;
mod streams;
mod support;
mod timers;
