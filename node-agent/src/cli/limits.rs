//! The limits of the data path as options: how long each wait may take, how much one pod may have.
//!
//! What each means and why its default is what it is, is said once, in docs/limits.md. Invariant: without options the data
//! path runs with its own defaults.

use std::time::Duration;

use clap::Args;
use tunnel::{Config, Keepalive, Timeouts};

/// A limit that may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(Option<Duration>);

/// Limits of waiting and of amounts. Durations are such as `500ms`, `30s`, `5m`, `1h`; a number alone is seconds.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits (docs/limits.md)")]
pub(crate) struct LimitArgs {
    /// A TCP connection being accepted.
    #[arg(long, env = "CULVERT_CONNECT_TIMEOUT", default_value = "10s", value_parser = duration)]
    connect_timeout: Duration,
    /// An endpoint taking a connection while the service has another one.
    #[arg(long, env = "CULVERT_ENDPOINT_TIMEOUT", default_value = "3s", value_parser = duration)]
    endpoint_timeout: Duration,
    /// Other endpoints being tried for one connection.
    #[arg(long, env = "CULVERT_RETRY_TIMEOUT", default_value = "15s", value_parser = duration)]
    retry_timeout: Duration,
    /// The answer to a CONNECT.
    #[arg(long, env = "CULVERT_ANSWER_TIMEOUT", default_value = "20s", value_parser = duration)]
    answer_timeout: Duration,
    /// The client of a tunnel beginning to speak.
    #[arg(long, env = "CULVERT_FIRST_BYTES_TIMEOUT", default_value = "5s", value_parser = duration)]
    first_bytes_timeout: Duration,
    /// A TLS handshake.
    #[arg(long, env = "CULVERT_TLS_HANDSHAKE_TIMEOUT", default_value = "10s", value_parser = duration)]
    tls_handshake_timeout: Duration,
    /// The HTTP/2 preface.
    #[arg(long, env = "CULVERT_HTTP2_HANDSHAKE_TIMEOUT", default_value = "10s", value_parser = duration)]
    http2_handshake_timeout: Duration,
    /// A certificate being issued while a connection waits for it.
    #[arg(long, env = "CULVERT_CERTIFICATE_TIMEOUT", default_value = "10s", value_parser = duration)]
    certificate_timeout: Duration,
    /// The control plane making a pod's own workload known.
    #[arg(long, env = "CULVERT_OWN_WORKLOAD_TIMEOUT", default_value = "5s", value_parser = duration)]
    own_workload_timeout: Duration,
    /// A destination that has only a name being resolved.
    #[arg(long, env = "CULVERT_RESOLVE_TIMEOUT", default_value = "5s", value_parser = duration)]
    resolve_timeout: Duration,
    /// The first CONNECT on a tunnel that has arrived.
    #[arg(long, env = "CULVERT_FIRST_REQUEST_TIMEOUT", default_value = "60s", value_parser = duration)]
    first_request_timeout: Duration,
    /// A tunnel that has arrived being unused.
    #[arg(long, env = "CULVERT_UNUSED_TUNNEL_TIMEOUT", default_value = "10m", value_parser = duration)]
    unused_tunnel_timeout: Duration,
    /// Nothing moving in either direction of a connection; `off` for no limit.
    #[arg(long, env = "CULVERT_IDLE_TIMEOUT", default_value = "off", value_parser = limit)]
    idle_timeout: Limit,
    /// Nothing moving in one direction after the other has ended; `off` for no limit.
    #[arg(long, env = "CULVERT_HALF_CLOSE_TIMEOUT", default_value = "1h", value_parser = limit)]
    half_close_timeout: Limit,
    /// An end not reading what is sent to it; `off` for no limit.
    #[arg(long, env = "CULVERT_STALLED_TIMEOUT", default_value = "15m", value_parser = limit)]
    stalled_timeout: Limit,
    /// Whether idle connections are probed.
    #[arg(long, env = "KEEPALIVE_ENABLED", default_value_t = true, action = clap::ArgAction::Set)]
    keepalive_enabled: bool,
    /// Idle time before the first probe.
    #[arg(long, env = "KEEPALIVE_TIME", default_value = "180s", value_parser = duration)]
    keepalive_time: Duration,
    /// Time between probes.
    #[arg(long, env = "KEEPALIVE_INTERVAL", default_value = "180s", value_parser = duration)]
    keepalive_interval: Duration,
    /// Unanswered probes before a connection is dead.
    #[arg(long, env = "KEEPALIVE_RETRIES", default_value_t = 9)]
    keepalive_retries: u32,
    /// Sent bytes being acknowledged, and probes being answered; `off` for the kernel's own limits.
    #[arg(long, env = "CULVERT_UNACKNOWLEDGED_TIMEOUT", default_value = "15m", value_parser = limit)]
    unacknowledged_timeout: Limit,
    /// Connections and tunnelled streams that one pod may have.
    #[arg(long, env = "CULVERT_MAX_CONNECTIONS_PER_POD", default_value_t = 20_000)]
    max_connections_per_pod: usize,
    /// Tunnels that one pod may take.
    #[arg(long, env = "CULVERT_MAX_TUNNELS_PER_POD", default_value_t = 10_000)]
    max_tunnels_per_pod: usize,
    /// TLS handshakes under way at once.
    #[arg(long, env = "CULVERT_MAX_HANDSHAKES", default_value_t = 1024)]
    max_handshakes: usize,
    /// Label sets of the traffic metrics.
    #[arg(long, env = "CULVERT_MAX_LABEL_SETS", default_value_t = 10_000)]
    max_label_sets: usize,
    /// The label sets of a workload that is gone staying, after they were used last.
    #[arg(long, env = "CULVERT_LABEL_RELEASE", default_value = "10m", value_parser = duration)]
    label_release: Duration,
}

impl LimitArgs {
    /// The same configuration, with these limits.
    pub(crate) fn apply(&self, config: Config) -> Config {
        let timeouts = Timeouts {
            connect: self.connect_timeout,
            endpoint: self.endpoint_timeout,
            retry: self.retry_timeout,
            answer: self.answer_timeout,
            first_bytes: self.first_bytes_timeout,
            tls_handshake: self.tls_handshake_timeout,
            http2_handshake: self.http2_handshake_timeout,
            certificate: self.certificate_timeout,
            own_workload: self.own_workload_timeout,
            resolve: self.resolve_timeout,
            first_request: self.first_request_timeout,
            unused_tunnel: self.unused_tunnel_timeout,
            idle: self.idle_timeout.0,
            half_close: self.half_close_timeout.0,
            stalled: self.stalled_timeout.0,
            ..config.timeouts
        };
        let keepalive = Keepalive {
            enabled: self.keepalive_enabled,
            time: self.keepalive_time,
            interval: self.keepalive_interval,
            retries: self.keepalive_retries,
            unacknowledged: self.unacknowledged_timeout.0,
        };
        Config {
            timeouts,
            keepalive,
            max_connections_per_pod: self.max_connections_per_pod,
            max_tunnels_per_pod: self.max_tunnels_per_pod,
            max_handshakes: self.max_handshakes,
            max_label_sets: self.max_label_sets,
            label_release: self.label_release,
            ..config
        }
    }
}

/// A duration that is not zero.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    };
    match parsed {
        Ok(duration) if duration.is_zero() => Err("this wait needs a limit".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it as 500ms, 30s, 5m or 1h")),
    }
}

/// A duration, or `off` or 0 for none.
fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "off" | "0" => Ok(Limit(None)),
        text => Ok(Limit(Some(duration(text)?))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn config(words: &[&str]) -> Config {
        let words = std::iter::once("test").chain(words.iter().copied());
        Only::try_parse_from(words).unwrap().limits.apply(Config::default())
    }

    #[test]
    fn without_options_the_defaults_are_the_data_paths_own() {
        assert_eq!(format!("{:?}", config(&[])), format!("{:?}", Config::default()));
    }

    #[test]
    fn limits_are_set_and_taken_off() {
        let config = config(&["--idle-timeout=90m", "--half-close-timeout=off", "--keepalive-time=30"]);
        assert_eq!(config.timeouts.idle, Some(Duration::from_secs(5400)));
        assert_eq!(config.timeouts.half_close, None);
        assert_eq!(config.keepalive.time, Duration::from_secs(30));
    }

    #[test]
    fn a_wait_without_a_limit_is_refused_and_nonsense_is_explained() {
        assert!(duration("0s").unwrap_err().contains("needs a limit"));
        assert!(duration("soon").unwrap_err().contains("write it as"));
        assert!(limit("-1s").is_err());
    }
}
