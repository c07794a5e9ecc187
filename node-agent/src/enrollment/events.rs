//! Writes down what capture decides, as it decides: refusals for everybody, the rest for whoever asks (`capture=debug`).
//!
//! The programs tell at a bounded rate, so a flood of refusals fills no log; the counters tell how many there were.

use std::sync::Arc;
use std::time::Duration;

use redirect::{Decided, Decision, Events};
use tokio::time::MissedTickBehavior;

use super::Enroller;

/// How often the ring buffer is emptied; at the programs' rate it holds more than comes in that time.
const PERIOD: Duration = Duration::from_millis(250);

/// Follows the ring buffer until the process ends.
pub(crate) async fn follow(enroller: Arc<Enroller>, mut events: Events) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for decided in events.drain() {
            enroller.write_down(&decided);
        }
    }
}

impl Enroller {
    fn write_down(&self, decided: &Decided) {
        let Decided { cookie, process, destination, decision } = *decided;
        let pod = self
            .counted
            .pod_with_cookie(cookie)
            .map_or_else(|| format!("cookie {cookie}"), |pod| pod.to_string());
        let name = decision.name();
        match decision {
            Decision::RefusedWithoutAgent | Decision::RefusedLinkLocal | Decision::RefusedUnmarkable => {
                tracing::info!(target: "capture", pod, process, %destination, decision = name, "connection refused");
            }
            _ => {
                tracing::debug!(target: "capture", pod, process, %destination, decision = name, "connection judged")
            }
        }
    }
}
