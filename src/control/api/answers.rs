//! What the calls of the admin API answer.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Admin, Answer, Ask, effective};
use crate::control::admin::ReadyState;
use crate::telemetry::audit::Hex;

/// The numbers of a shard that are told, by their names in the metrics.
const NUMBERS: [(&str, &str); 9] = [
    ("connections", "agentlane_downstream_connections"),
    ("connectionsAccepted", "agentlane_downstream_connections_total"),
    ("sessions", "agentlane_mcp_sessions"),
    ("sessionsOpened", "agentlane_mcp_sessions_total"),
    ("sessionsExpired", "agentlane_mcp_sessions_expired_total"),
    ("leases", "agentlane_mcp_leases"),
    ("parked", "agentlane_mcp_parked"),
    ("listens", "agentlane_mcp_listens"),
    ("auditRecordsLost", "agentlane_audit_records_lost_total"),
];

pub fn config_dump(admin: &Admin, _: &Ask) -> Answer {
    let in_use = admin.in_use.load();
    Ok(json!({
        "version": in_use.snapshot.version,
        "files": in_use.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
        "written": in_use.written,
        "effective": effective::of(&in_use.snapshot),
    }))
}

pub fn status(admin: &Admin, _: &Ask) -> Answer {
    let in_use = admin.in_use.load();
    let state = match admin.readiness.state() {
        ReadyState::Starting(_) => "starting",
        ReadyState::Ready => "ready",
        ReadyState::Draining => "draining",
    };
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": state,
        "uptimeSeconds": admin.started.elapsed().as_secs(),
        "shards": admin.shards,
        "configVersion": in_use.snapshot.version,
        "listeners": in_use.snapshot.binds.iter().map(|bind| bind.address.to_string()).collect::<Vec<_>>(),
    }))
}

pub fn shards(admin: &Admin, _: &Ask) -> Answer {
    let of = |shard: usize| {
        let label = shard.to_string();
        let labels = [("shard", label.as_str())];
        let mut numbers = Map::from_iter([("shard".to_owned(), json!(shard))]);
        for (name, metric) in NUMBERS {
            if let Some(value) = admin.registry.value(metric, &labels) {
                numbers.insert(name.to_owned(), json!(value));
            }
        }
        Value::Object(numbers)
    };
    Ok((0..admin.shards).map(of).collect())
}

pub fn targets(admin: &Admin, _: &Ask) -> Answer {
    let in_use = admin.in_use.load();
    let targets = in_use.snapshot.mcp.iter().flat_map(|backend| {
        backend.targets.iter().map(|target| {
            let on = |shard: usize| {
                let labels = [("shard", &*shard.to_string()), ("target", &target.name)];
                admin.registry.value("agentlane_mcp_target_up", &labels)
            };
            let known: Vec<i64> = (0..admin.shards).filter_map(on).collect();
            let up = known.iter().filter(|up| **up > 0).count();
            json!({ "backend": backend.key, "target": target.name, "up": up, "down": known.len() - up })
        })
    });
    Ok(targets.collect())
}

pub fn audit(admin: &Admin, _: &Ask) -> Answer {
    let Some((run, heads)) = &admin.audit else {
        return Err((StatusCode::NOT_FOUND, "there is no audit log".to_owned()));
    };
    let heads = heads.iter().enumerate().filter_map(|(shard, head)| {
        let head = head.load();
        (head.seq > 0).then(|| json!({ "shard": shard, "seq": head.seq, "hash": Hex(&head.hash).to_string() }))
    });
    Ok(json!({ "run": run, "heads": heads.collect::<Vec<_>>() }))
}

pub fn lock(admin: &Admin, _: &Ask) -> Answer {
    Ok(admin.lock.snapshot())
}

pub fn logging(admin: &Admin, _: &Ask) -> Answer {
    Ok(json!({ "level": admin.log.current() }))
}

pub fn set_logging(admin: &Admin, ask: &Ask) -> Answer {
    let reset = ask.text("reset").is_some_and(|text| text != "false") || ask.body["reset"] == true;
    let level = match (ask.text("level"), reset) {
        (Some(level), false) => Some(level),
        (None, true) => None,
        _ => return Err((StatusCode::BAD_REQUEST, "either level or reset".to_owned())),
    };
    admin.log.set(level).map_err(|fault| (StatusCode::BAD_REQUEST, fault.to_string()))?;
    tracing::info!(level = admin.log.current(), "the levels of the log were set");
    logging(admin, ask)
}
