//! `culvert cert`: whose certificates this node holds, and for how long they are good.

use std::process::ExitCode;

use super::output::{self, Paint, Tone};
use super::table::{Cell, Table};
use super::times::span;
use super::{ask, code};
use crate::admin_socket::protocol::{Answer, CertificateRow, Command, Request};
use crate::cli::Asked;

/// Below this a certificate should have been renewed long ago: the shortest that authorities issue are good for longer.
const SOON: i64 = 600;

/// Prints them; ends well if each of them is valid.
pub(crate) fn certificates(asked: &Asked) -> anyhow::Result<ExitCode> {
    let answers = ask::ask(&asked.target, &Request::new(Command::Certificates, None))?;
    let rows = answers.into_iter().filter_map(|answer| match answer {
        Answer::Certificate(row) => Some(row),
        _ => None,
    });
    let rows: Vec<CertificateRow> = rows.collect();
    output::show(asked.output, &rows, |rows, paint| table(rows, paint))?;
    Ok(code(rows.iter().all(|row| row.state == "valid")))
}

fn tone(row: &CertificateRow) -> Tone {
    match (row.state.as_str(), row.seconds_left) {
        ("valid", Some(left)) if left < SOON => Tone::Doubtful,
        ("valid", _) => Tone::Good,
        ("pending", _) => Tone::Doubtful,
        _ => Tone::Bad,
    }
}

fn left(seconds: i64) -> String {
    let short = span(seconds.unsigned_abs());
    if seconds < 0 { format!("{short} ago") } else { short }
}

fn table(rows: &[CertificateRow], paint: Paint) -> String {
    let mut table = Table::new(["IDENTITY", "STATE", "LEFT", "EXPIRES", "ISSUER", "SERIAL", "WHY"]);
    for row in rows {
        let word = |text: &Option<String>| Cell::from(text.as_deref().unwrap_or_default());
        table.push([
            Cell::from(&row.identity),
            Cell::toned(&row.state, tone(row)),
            Cell::from(row.seconds_left.map(left).unwrap_or_default()),
            word(&row.expires),
            word(&row.issuer),
            word(&row.serial),
            word(&row.why),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_socket::tests::World;

    #[tokio::test]
    async fn certificates_are_shown_with_what_is_left_of_them() {
        let rows = World::with_certificates().await.rows(Command::Certificates, |answer| match answer {
            Answer::Certificate(row) => Some(row),
            _ => None,
        });
        let states: Vec<&str> = rows.iter().map(|row| row.state.as_str()).collect();
        assert_eq!(states, ["unavailable", "pending", "valid"]);
        // What is new with every run is put in the place of what a run has made.
        let known = CertificateRow {
            serial: Some("4711".into()),
            expires: Some("2026-11-27T16:00:00Z".into()),
            seconds_left: Some(86_399),
            issuer: Some("O=cluster.local".into()),
            ..rows[2].clone()
        };
        let late = CertificateRow { state: "expired".into(), seconds_left: Some(-61), ..known.clone() };
        let why = rows[0].why.clone().unwrap();
        let shown = table(&[rows[0].clone(), rows[1].clone(), known, late], Paint::default());
        let expected = format!(
            "\
IDENTITY                                     STATE        LEFT       EXPIRES               ISSUER           SERIAL  WHY
spiffe://cluster.local/ns/bookinfo/sa/gone   unavailable  -          -                     -                -       {why}
spiffe://cluster.local/ns/bookinfo/sa/new    pending      -          -                     -                -       -
spiffe://cluster.local/ns/bookinfo/sa/sleep  valid        23h 59m    2026-11-27T16:00:00Z  O=cluster.local  4711    -
spiffe://cluster.local/ns/bookinfo/sa/sleep  expired      1m 1s ago  2026-11-27T16:00:00Z  O=cluster.local  4711    -
"
        );
        assert_eq!(shown, expected);
    }
}
