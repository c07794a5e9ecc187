//! What did not take part, and what was counted.

use std::time::Duration;

use anyhow::Result;
use harness::{Narrator, eventually, netfilter};

use super::super::world::World;

const LIMIT: Duration = Duration::from_secs(10);
const OPENED: &str = "istio_tcp_connections_opened_total{";
const SHOWN: [&str; 4] =
    [OPENED, "istio_tcp_connections_closed_total{", "istio_tcp_sent_bytes_total{", "istio_build"];

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    say.step("No iptables, no nftables, no connection tracking");
    for pod in world.pods() {
        let count = netfilter::conntrack_count(pod.netns())?;
        let rules = netfilter::rules(pod.netns())?;
        say.saw(&format!("pod {}: nf_conntrack_count {count}, rules {rules:?}", pod.name()));
        say.claim(count == 0 && rules.is_empty(), &format!("netfilter has no part in {}", pod.name()));
    }

    say.step("Metrics, by the names that dashboards read");
    for agent in &world.agents {
        say.ran("curl http://127.0.0.1:15020/metrics");
        let metrics = eventually("metrics of connections", LIMIT, || {
            agent.metrics().ok().filter(|text| text.contains(OPENED))
        });
        let text = metrics.as_deref().unwrap_or_default();
        for start in SHOWN {
            text.lines().filter(|line| line.starts_with(start)).take(1).for_each(|line| say.saw(line));
        }
        let mutual = text
            .lines()
            .any(|l| l.starts_with(OPENED) && l.contains("connection_security_policy=\"mutual_tls\""));
        say.claim(mutual, "connections are counted as mutual_tls");
    }
    Ok(())
}
