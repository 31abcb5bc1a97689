//! The process's own log: levels, form, and where it goes (standard error). Knows nothing of access records.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable whose filter is used instead of the configured one.
pub const LOG_VARIABLE: &str = "AGENTLANE_LOG";

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, PartialEq, Eq)]
pub enum LogFault {
    /// A level or filter that does not parse, and where it came from.
    Filter { filter: String, source: &'static str, detail: String },
    /// A log was set up before in this process.
    Already,
}

impl fmt::Display for LogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { filter, source, detail } => write!(f, "bad log filter {filter:?} in {source}: {detail}"),
            Self::Already => f.write_str("the log is set up already"),
        }
    }
}

impl std::error::Error for LogFault {}

/// Changes the filter of a running log.
pub struct LogHandle {
    replace: Box<dyn Fn(EnvFilter) + Send + Sync>,
    /// What it began with, and what is in use.
    first: String,
    current: Mutex<String>,
}

impl LogHandle {
    /// Uses another filter from now on, whatever configuration and environment say; `None`: the one that it began with.
    pub fn set(&self, filter: Option<&str>) -> Result<(), LogFault> {
        let filter = filter.unwrap_or(&self.first);
        (self.replace)(parse(filter, "the request")?);
        filter.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// The filter in use.
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("current", &self.current()).finish_non_exhaustive()
    }
}

/// Sends the process's log to standard error. `filter` is a level (`info`) or directives
/// (`info,agentlane::shard=debug`); the variable `AGENTLANE_LOG`, when set and not empty, goes before it.
pub fn init(filter: &str, format: LogFormat) -> Result<LogHandle, LogFault> {
    let environment = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let first = environment.as_deref().unwrap_or(filter).to_owned();
    let filter = match &environment {
        Some(text) => parse(text, LOG_VARIABLE)?,
        None => parse(filter, CONFIG)?,
    };
    let ansi = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr);
    let replace: Box<dyn Fn(EnvFilter) + Send + Sync> = match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(ansi).with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init().map_err(|_| LogFault::Already)?;
            // The one way this fails is that the subscriber is gone, and then nobody logs.
            Box::new(move |filter| drop(handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init().map_err(|_| LogFault::Already)?;
            Box::new(move |filter| drop(handle.reload(filter)))
        }
    };
    Ok(LogHandle { replace, current: Mutex::new(first.clone()), first })
}

/// Whether a configured level or filter would be accepted.
pub fn check(filter: &str) -> Result<(), LogFault> {
    parse(filter, CONFIG).map(drop)
}

const CONFIG: &str = "the configuration";

fn parse(filter: &str, source: &'static str) -> Result<EnvFilter, LogFault> {
    EnvFilter::builder().parse(filter).map_err(|error| LogFault::Filter {
        filter: filter.into(),
        source,
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in ["info", "WARN", "off", "info,agentlane::shard=debug", "agentlane[session]=trace"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["a=b=c", "agentlane=loud", "info,[x"] {
            let fault = check(bad).expect_err(bad).to_string();
            assert!(fault.contains(bad) && fault.contains("the configuration"), "{fault}");
        }
    }

    #[test]
    fn one_log_per_process() {
        let handle = init("error", LogFormat::Json).expect("the first one");
        assert_eq!(init("error", LogFormat::Text).expect_err("the second one"), LogFault::Already);
        handle.set(Some("warn")).expect("a good filter");
        handle.set(Some("a=b=c")).expect_err("a bad filter");
        assert_eq!(handle.current(), "warn");
        handle.set(None).expect("the first filter");
        assert_eq!(handle.current(), "error");
    }
}
