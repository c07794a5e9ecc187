//! `culvert status`: the agent of a node in short. The exit code is the answer in one word: is anything the matter?

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;

use super::output::{self, Paint, Tone, harmless};
use super::times::span;
use super::{ask, code};
use crate::admin_socket::protocol::{
    Answer, CertificatesView, Command, ControlPlaneView, PastView, Request, StatusView,
};
use crate::cli::StatusArgs;

/// Prints it; ends well if nothing is the matter.
pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let answers = ask::ask(&args.asked.target, &Request::new(Command::Status, None))?;
    let status = answers.into_iter().find_map(|answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    });
    let Some(status) = status else { bail!("the agent's answer has no status in it") };
    output::show(args.asked.output, &status, text)?;
    Ok(code(status.is_well()))
}

// Writing to a String does not fail.
fn text(status: &StatusView, paint: Paint) -> String {
    let mut text = format!("culvert {}, process {}", status.version, status.process);
    if let Some(seconds) = status.uptime_seconds {
        let _ = write!(text, ", up {}", span(seconds));
    }
    let ready = match status.ready {
        true => paint.text("ready", Tone::Good),
        false => paint.text("not ready", Tone::Doubtful),
    };
    let waits = if status.ready { String::new() } else { format!(": {}", status.waits_for.join("; ")) };
    let _ = writeln!(text, ", {ready}{}", harmless(&waits));
    let count = |count: u32, state: &str, tone: Tone| {
        paint.text(&format!("{count} {state}"), if count == 0 { Tone::Plain } else { tone })
    };
    let _ = writeln!(
        text,
        "pods: {}, {}, {}",
        count(status.enrolled, "enrolled", Tone::Good),
        count(status.degraded, "degraded", Tone::Bad),
        count(status.pending, "pending", Tone::Doubtful)
    );
    if let Some(plane) = &status.control_plane {
        push_control_plane(&mut text, plane, paint);
    }
    if let Some(file) = &status.mesh_file {
        let rejected = format!("{} rejected", file.rejected);
        let tone = if file.rejected == 0 { Tone::Plain } else { Tone::Doubtful };
        let (path, rejected) = (harmless(&file.path), paint.text(&rejected, tone));
        let _ = writeln!(text, "mesh file {path}: {} versions taken, {rejected}", file.taken);
    }
    let known = &status.known;
    let _ = writeln!(
        text,
        "known: {} workloads, {} services, {} policies",
        known.workloads, known.services, known.policies
    );
    push_certificates(&mut text, &status.certificates, paint);
    text
}

fn push_control_plane(text: &mut String, plane: &ControlPlaneView, paint: Paint) {
    let address = harmless(&plane.address);
    let state = match (&plane.since, &plane.ended) {
        (Some(since), _) => {
            format!("{} for {}", paint.text("connected", Tone::Good), span(since.seconds_ago))
        }
        (None, ended) => {
            let ended = ended.as_ref().map(|past| format!(" for {}{}", span(past.seconds_ago), why(past)));
            format!("{}{}", paint.text("not connected", Tone::Bad), ended.unwrap_or_default())
        }
    };
    let _ = writeln!(text, "control plane {address}: {state}");
    for of in &plane.types {
        let accepted = of.accepted.as_ref().map(|past| format!("accepted {} ago", span(past.seconds_ago)));
        let accepted = accepted.unwrap_or_else(|| paint.text("never accepted", Tone::Doubtful));
        let refused = of.refused.as_ref().map(|past| {
            let refused = format!("refused {} ago{}", span(past.seconds_ago), why(past));
            format!(", {}", paint.text(&refused, Tone::Doubtful))
        });
        let (name, held) = (harmless(&of.name), of.held);
        let _ = writeln!(text, "  {name}: {held} held, {accepted}{}", refused.unwrap_or_default());
    }
}

/// The reason of something, if there is one.
fn why(past: &PastView) -> String {
    past.why.as_ref().map(|why| format!(" ({})", harmless(why))).unwrap_or_default()
}

fn push_certificates(text: &mut String, certificates: &CertificatesView, paint: Paint) {
    let valid = paint.text(
        &format!("{} valid", certificates.valid),
        if certificates.valid == 0 { Tone::Plain } else { Tone::Good },
    );
    let _ = write!(text, "certificates: {} of {} identities", valid, certificates.identities);
    if let Some(left) = certificates.seconds_left {
        let _ = write!(text, ", the next ends in {}", span(left.unsigned_abs()));
    }
    for (count, what, tone) in [
        (certificates.pending, "pending", Tone::Doubtful),
        (certificates.overdue, "not renewed in time", Tone::Doubtful),
        (certificates.failing, "failing", Tone::Bad),
    ] {
        if count > 0 {
            let _ = write!(text, ", {}", paint.text(&format!("{count} {what}"), tone));
        }
    }
    match &certificates.why {
        Some(why) => {
            let _ = writeln!(text, " ({})", harmless(why));
        }
        None => text.push('\n'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_socket::protocol::{KnownView, MeshFileView, TypeView};
    use crate::cli::Output;

    fn past(seconds_ago: u64, why: Option<&str>) -> Option<PastView> {
        Some(PastView { at: "2026-11-26T16:00:00Z".into(), seconds_ago, why: why.map(str::to_owned) })
    }

    fn well() -> StatusView {
        StatusView {
            version: "0.1.0".into(),
            process: 4711,
            uptime_seconds: Some(93_784),
            ready: true,
            enrolled: 2,
            control_plane: Some(ControlPlaneView {
                address: "istiod.istio-system.svc:15012".into(),
                connected: true,
                since: past(3_600, None),
                ended: past(3_605, Some("the control plane closed the stream")),
                types: vec![
                    TypeView {
                        name: "workloads and services".into(),
                        url: "type.googleapis.com/istio.workload.Address".into(),
                        held: 16,
                        accepted: past(4, None),
                        refused: None,
                    },
                    TypeView {
                        name: "policies".into(),
                        url: "type.googleapis.com/istio.security.Authorization".into(),
                        held: 2,
                        accepted: past(60, None),
                        refused: past(75, Some("demo/x: it has\x1b[2J no rules")),
                    },
                ],
            }),
            known: KnownView { workloads: 12, services: 4, policies: 2 },
            certificates: CertificatesView {
                identities: 3,
                valid: 3,
                next_expiry: Some("2026-11-27T16:00:00Z".into()),
                seconds_left: Some(86_399),
                ..CertificatesView::default()
            },
            ..StatusView::default()
        }
    }

    #[test]
    fn an_agent_that_is_well_is_shown_as_it_is() {
        let expected = "\
culvert 0.1.0, process 4711, up 1day 2h, ready
pods: 2 enrolled, 0 degraded, 0 pending
control plane istiod.istio-system.svc:15012: connected for 1h
  workloads and services: 16 held, accepted 4s ago
  policies: 2 held, accepted 1m ago, refused 1m 15s ago (demo/x: it has\\u{1b}[2J no rules)
known: 12 workloads, 4 services, 2 policies
certificates: 3 valid of 3 identities, the next ends in 23h 59m
";
        assert_eq!(text(&well(), Paint::default()), expected);
        let coloured = text(&well(), Paint::always());
        assert!(coloured.contains("\x1b[32mready\x1b[0m") && !coloured.contains("\x1b[2J"), "{coloured}");
    }

    #[test]
    fn an_agent_that_is_not_says_what_it_lacks() {
        let mut ill = well();
        (ill.ready, ill.degraded, ill.pending) = (false, 1, 3);
        ill.waits_for = vec!["policies of the control plane".into(), "the plugin".into()];
        let plane = ill.control_plane.as_mut().unwrap();
        (plane.connected, plane.since) = (false, None);
        plane.ended = past(9, Some("cannot connect to istiod: refused"));
        plane.types.truncate(1);
        plane.types[0].accepted = None;
        let gone = "spiffe://cluster.local/ns/demo/sa/gone: nobody signs";
        ill.certificates = CertificatesView {
            identities: 3,
            pending: 1,
            overdue: 1,
            failing: 2,
            why: Some(gone.into()),
            ..CertificatesView::default()
        };
        let expected = "\
culvert 0.1.0, process 4711, up 1day 2h, not ready: policies of the control plane; the plugin
pods: 2 enrolled, 1 degraded, 3 pending
control plane istiod.istio-system.svc:15012: not connected for 9s (cannot connect to istiod: refused)
  workloads and services: 16 held, never accepted
known: 12 workloads, 4 services, 2 policies
certificates: 0 valid of 3 identities, 1 pending, 1 not renewed in time, 2 failing (spiffe://cluster.local/ns/demo/sa/gone: nobody signs)
";
        assert_eq!(text(&ill, Paint::default()), expected);
        assert!(!ill.is_well());
    }

    #[test]
    fn a_mesh_file_takes_the_control_planes_place() {
        let file = MeshFileView { path: "/etc/culvert/mesh.yaml".into(), taken: 2, rejected: 1 };
        let status = StatusView { control_plane: None, mesh_file: Some(file), ..well() };
        let shown = text(&status, Paint::default());
        assert!(
            shown.contains("\nmesh file /etc/culvert/mesh.yaml: 2 versions taken, 1 rejected\nknown: 12"),
            "{shown}"
        );
        let small = StatusView { version: "0.1.0".into(), ready: true, ..StatusView::default() };
        let json = output::render(Output::Json, &small, |_, _| String::new(), Paint::always()).unwrap();
        let expected = r#"{
  "version": "0.1.0",
  "process": 0,
  "ready": true,
  "waitsFor": [],
  "enrolled": 0,
  "degraded": 0,
  "pending": 0,
  "known": {
    "workloads": 0,
    "services": 0,
    "policies": 0
  },
  "certificates": {
    "identities": 0,
    "valid": 0,
    "pending": 0,
    "failing": 0,
    "overdue": 0
  }
}
"#;
        assert_eq!(json, expected);
        let yaml = output::render(Output::Yaml, &status, |_, _| String::new(), Paint::always()).unwrap();
        assert!(yaml.contains("meshFile:\n  path: /etc/culvert/mesh.yaml\n"), "{yaml}");
    }
}
