//! The rows of the recording, and those of them that are made at the same time.
//!
//! Invariant: the steps of a group have each of its rows once, and what the control plane has said never goes back.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use recordings::parity::Row;

/// The groups in which clients do not disturb each other: they differ in their workload, and so in their series.
const SIDE_BY_SIDE: [&str; 2] = ["policy", "peer authentication"];

/// Where a row connects to.
pub fn target(row: &Row) -> Result<SocketAddr> {
    let (ip, port) = row.to.rsplit_once(':').with_context(|| format!("{} has no port", row.to))?;
    let ip: IpAddr = ip.parse().with_context(|| format!("no address in {}", row.to))?;
    Ok(SocketAddr::new(ip, port.parse().with_context(|| format!("no port in {}", row.to))?))
}

/// What a row is called in the list of differences and in the report.
pub fn title(row: &Row) -> String {
    format!("{}: {}, {} to {}", row.group, row.about, row.from, row.to)
}

/// The indices of rows that are made at the same time, in the order of the recording.
pub fn steps(rows: &[Row]) -> Vec<Vec<usize>> {
    let mut steps: Vec<Vec<usize>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let joins = |step: &&mut Vec<usize>| {
            let mut others = step.iter().filter_map(|other| rows.get(*other));
            SIDE_BY_SIDE.contains(&row.group.as_str())
                && others.all(|other| {
                    (&other.about, &other.to, other.xds_before) == (&row.about, &row.to, row.xds_before)
                        && other.from != row.from
                })
        };
        // Those of the same policy on the other port lie between.
        match steps.iter_mut().rev().take(2).find(joins) {
            Some(step) => step.push(index),
            None => steps.push(vec![index]),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds or drops a row changes this number, too.
    const ROWS: [usize; 3] = [43, 170, 8];

    fn groups() -> [Vec<Row>; 3] {
        use recordings::parity::{live, policy, routing};
        [routing().unwrap(), policy().unwrap(), live().unwrap()]
    }

    #[test]
    fn every_row_is_made_once_and_the_control_plane_never_goes_back() {
        let groups = groups();
        assert_eq!(groups.each_ref().map(Vec::len), ROWS);
        for rows in &groups {
            let steps = steps(rows);
            let mut made: Vec<usize> = steps.iter().flatten().copied().collect();
            let told: Vec<usize> = made.iter().map(|index| rows[*index].xds_before).collect();
            assert!(told.is_sorted(), "{told:?}");
            made.sort_unstable();
            assert_eq!(made, (0..rows.len()).collect::<Vec<_>>());
        }
        // Five clients at once, on one port and then on the other.
        let policies = steps(&groups[1]);
        assert_eq!(policies.len(), ROWS[1] / 5);
        assert!(policies.iter().all(|step| step.len() == 5), "{policies:?}");
    }

    #[test]
    fn every_row_says_where_it_goes() {
        for row in groups().iter().flatten() {
            target(row).unwrap();
        }
        let row = groups()[0].iter().find(|row| row.to.starts_with("fd00:2::11:")).unwrap().clone();
        assert_eq!(target(&row).unwrap(), "[fd00:2::11]:9080".parse().unwrap());
    }
}
