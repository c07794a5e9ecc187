//! How long the connections of each workload take to come about, for a look that comes again and again.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tunnel::{ConnectTimes, Direction};

use super::protocol::Answer;
use super::{Subjects, Teller};

/// For longer than this nobody may have connections timed without asking again.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// The connections of a workload, by the time that they took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectTimesRow {
    /// Its namespace; `unknown`, as in metrics, where that is not known.
    pub(crate) namespace: String,
    /// Its name, likewise.
    pub(crate) workload: String,
    /// `outbound` if it is the client, else `inbound`.
    pub(crate) direction: String,
    /// Microseconds, and how many took less than that and no less than the ones before.
    pub(crate) counts: Vec<(u64, u32)>,
}

/// Tells what was counted since somebody asks, and has it counted for another while.
pub(super) fn tell(subjects: &Subjects, seconds: u64, send: &mut Teller<'_>) -> io::Result<()> {
    let another = Duration::from_secs(seconds).min(LONGEST);
    let times = subjects.tunnel.connect_times(another);
    times.iter().try_for_each(|times| send(Answer::ConnectTimes(row(times))))
}

fn row(times: &ConnectTimes) -> ConnectTimesRow {
    let name = |name: &str| if name.is_empty() { "unknown".to_owned() } else { name.to_owned() };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    ConnectTimesRow {
        namespace: name(&times.namespace),
        workload: name(&times.workload),
        direction: match times.direction {
            Direction::Outbound => "outbound".to_owned(),
            Direction::Inbound => "inbound".to_owned(),
        },
        counts: times.counts.iter().map(|(bound, count)| (micros(*bound), *count)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_called_as_metrics_call_it() {
        let times = ConnectTimes {
            namespace: "".into(),
            workload: "web".into(),
            direction: Direction::Inbound,
            counts: vec![(Duration::from_micros(40), 2)],
        };
        let expected = ConnectTimesRow {
            namespace: "unknown".into(),
            workload: "web".into(),
            direction: "inbound".into(),
            counts: vec![(40, 2)],
        };
        assert_eq!(row(&times), expected);
    }
}
